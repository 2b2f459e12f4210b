"""The contract of every attention on every backbone that accepts it."""

import copy

import pytest
import torch
from torch import Tensor, nn

from models import video
from tests.support.nets import pairs
from tests.support.nets.pairs import build, clips, cross_entropy, loss_of, smallest

PAIRS = pairs.pairs()
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
LEAST_FRAMES = {"maagn": 2}  # its SDM halves the clip; with axis C it doesn't


@pytest.fixture(params=PAIRS, ids=pairs.name)
def pair(request: pytest.FixtureRequest) -> pairs.Pair:
    return request.param


def least(pair: pairs.Pair) -> int:
    """Return the fewest frames that a network of this pair accepts."""
    halved = pair[2].get("axis", "T") == "T" and pair[2].get("arrangement") != "mtam"
    return LEAST_FRAMES.get(pair[1], 1) if halved else 1


@pytest.mark.parametrize("t,h,w", [(4, 32, 32), (1, 32, 32), (2, 33, 40), (3, 45, 37)])
def test_a_clip_becomes_one_row_of_logits(pair, t, h, w):
    if t < least(pair):
        with pytest.raises(ValueError, match=rf"{pair[1]}.*layout|{pair[1]}.*frames.* {t}"):
            video.build(pair[0], smallest(pair[0]), pair[1], t, classes=5, knobs=pair[2])
        return
    net = build(pair, t)
    logits = net(clips(2, t, h, w))
    assert logits.shape == (2, 5)
    assert logits.isfinite().all()


def test_gradient_reaches_every_parameter(pair):
    silent = []
    frames = 32 if pair[1] == "st_manet" else 4  # attention over the one frame that res5 would have has no gradient
    for seed in range(4):  # a bottleneck of one channel, as 16 reduced 16 times is, may start behind a closed ReLU
        net = build(pair, frames, seed)
        loss_of(net, net, clips(3, frames)).backward()
        silent.append({name for name, value in net.named_parameters() if value.grad is None or not value.grad.any()})
        if not silent[-1]:
            break
    assert set.intersection(*silent) == set()


def test_penalties_are_asked_for_once(pair):
    net = build(pair, 4)
    net(clips(2, 4))
    copy.deepcopy(net.eval())
    net.train()(clips(2, 4))
    assert net.penalty(cross_entropy).isfinite()
    assert net.penalty(cross_entropy) == 0
    copy.deepcopy(net)
    net.eval()(clips(2, 4))
    assert net.penalty(cross_entropy) == 0


def test_clips_of_a_batch_do_not_see_each_other(pair):
    net = build(pair, 4).eval()
    one, other = clips(2, 4), clips(2, 4)
    other[1] = clips(1, 4, seed=2)[0]
    before, after = net(one), net(other)
    torch.testing.assert_close(after[0], before[0], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(after[1], before[1], rtol=1e-5, atol=1e-5)


def test_a_clip_scores_alike_alone_and_in_a_batch(pair):
    net = build(pair, 4).eval().double()  # in single precision some CPUs sum a batch's maps in another order
    batch = clips(3, 4).double()
    torch.testing.assert_close(net(batch[1:2])[0], net(batch)[1], rtol=1e-8, atol=1e-8)


def test_memory_order_changes_no_score(pair):
    net = build(pair, 4).eval().double()
    batch = clips(2, 4).double()
    torch.testing.assert_close(net(batch.contiguous()), net(batch), rtol=1e-8, atol=1e-8)


def test_a_state_dict_is_the_whole_net(pair):
    net, other = build(pair, 4), build(pair, 4, seed=1)
    net(clips(2, 4))  # moves the running statistics
    batch = clips(2, 4, seed=3)
    assert not torch.equal(net.eval()(batch), other.eval()(batch))
    other.load_state_dict(net.state_dict())
    assert torch.equal(net(batch), other(batch))


def test_evaluation_has_no_chance_in_it(pair):
    net = build(pair, 4).eval()
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    state = {name: value.clone() for name, value in net.state_dict().items()}
    assert torch.equal(net(clips(2, 4)), net(clips(2, 4)))
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


def test_a_net_takes_another_t_or_says_that_it_can_not(pair):
    net = build(pair, 4).eval()
    try:
        net.retime(3)
    except ValueError as error:
        assert "T = 4, not 3" in str(error)
        assert net(clips(2, 4)).shape == (2, 5)  # no change
        return
    made = build(pair, 3, seed=1).eval()
    made.load_state_dict(net.state_dict())
    assert torch.equal(net(clips(2, 3)), made(clips(2, 3)))


@pytest.mark.parametrize("device", DEVICES)
def test_bf16_is_near_fp32(pair, device):
    net = build(pair, 4).to(device)
    with torch.autocast(device, torch.bfloat16):
        loss_of(net, net, clips(3, 4).to(device)).backward()
    # bf16 gradients of kernels over time are not to be had on a CPU: pipeline/train/loop.py refuses them.
    over_time = any(isinstance(m, nn.Conv3d) and m.in_channels > 1 and m.kernel_size[0] > 1 for m in net.modules())
    if device == "cuda" or not over_time:
        assert all(value.grad is None or value.grad.isfinite().all() for value in net.parameters())
    net.eval()
    batch = clips(2, 4).to(device)
    with torch.no_grad():
        exact = net(batch)
        with torch.autocast(device, torch.bfloat16):
            rounded = net(batch).float()
    assert (rounded - exact).abs().max() < 0.1 * exact.abs().max()


def test_the_attentions_parameters_are_known_by_name(pair):
    net = build(pair, 4)
    plain = video.build(pair[0], smallest(pair[0]), "none", 4, classes=5)
    assert not plain.attention_parameters
    brought = {name for name, _ in net.named_parameters()} - {name for name, _ in plain.named_parameters()}
    assert net.attention_parameters == brought
    without = pair[1] in ("none", "tsm") or pair[2].get("scales") == 0 or pair[2].get("parts") in (["mf"], ["sda"])
    assert bool(brought) != without


def test_what_was_published_is_what_runs(pair):
    net = build(pair, 4).double().eval()  # in fp32 a softmax may make much of the order of additions
    published = [module for module in net.modules() if hasattr(module, "published")]
    checked = []

    def compare(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        torch.testing.assert_close(module.published(*inputs), output, rtol=1e-4, atol=1e-5)
        checked.append(module)

    for module in published:
        module.register_forward_hook(compare)
    with torch.no_grad():
        net(clips(2, 4).double())
    assert set(published) == set(checked)
    assert net in checked
