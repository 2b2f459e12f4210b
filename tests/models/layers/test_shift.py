"""TSM: equations, the shift and its gradient, pooling over time, and the shifted blocks."""

import weakref

import pytest
import torch
from torch import Tensor, nn

from models import video
from models.layers import shift as shifts
from tests.support.nets.pairs import build, clips


def test_equations_1_and_2_a_convolution_is_a_shift_and_a_multiplication():
    """Y = w1 X[-1] + w2 X[0] + w3 X[+1]: shift X by -1, 0 and +1, multiply by the weights, add (section 3.1)."""
    frames = 5
    signal = torch.arange(1.0, 1 + frames)
    x = signal[:, None, None, None].repeat(1, 3, 1, 1)  # a channel for each move: from t + 1, from t - 1, none
    ahead, behind, still = shifts.TemporalShift(frames, 3)(x)[:, :, 0, 0].T.tolist()
    assert ahead == [2, 3, 4, 5, 0]
    assert behind == [0, 1, 2, 3, 4]
    assert still == signal.tolist()
    weights = [0.5, -2.0, 3.0]
    moved = [sum(w * part[t] for w, part in zip(weights, (behind, still, ahead), strict=True)) for t in range(frames)]
    padded = [0.0, *signal.tolist(), 0.0]
    assert moved == [sum(weights[i] * padded[t + i] for i in range(3)) for t in range(frames)]


def shifted(x: Tensor, frames: int, width: int) -> Tensor:
    """Apply TSM's shift one frame at a time: x (N*T, C, ...)."""
    rows = []
    for row in range(len(x)):
        t, out = row % frames, x[row].clone()
        out[:width] = x[row + 1, :width] if t + 1 < frames else 0
        out[width : 2 * width] = x[row - 1, width : 2 * width] if t > 0 else 0
        rows.append(out)
    return torch.stack(rows)


@pytest.mark.parametrize("frames,channels,fold", [(4, 16, 8), (8, 9, 3), (1, 8, 2), (2, 4, 8)])
def test_the_shift_and_its_gradients(frames, channels, fold):
    x = torch.randn(8, channels, 2, 3, dtype=torch.double, requires_grad=True)
    shift = shifts.TemporalShift(frames, fold)
    assert torch.equal(shift(x), shifted(x, frames, channels // fold))
    assert torch.autograd.gradcheck(shift, x)
    assert torch.autograd.gradgradcheck(shift, x)


@pytest.mark.parametrize("frames", [1, 2, 5, 8])
def test_the_maximum_over_time(frames):
    x = torch.randn(2, frames, 3, 2, 4)  # (N, T, C, H, W)
    pooled = shifts.TemporalMaxPool(frames, "res2")("res2", x.flatten(0, 1), {})
    assert pooled.shape == (2 * -(-frames // 2), 3, 2, 4)
    for n, clip in enumerate(pooled.unflatten(0, (2, -1))):
        for at, frame in enumerate(clip):
            near = [x[n, t] for t in (2 * at - 1, 2 * at, 2 * at + 1) if 0 <= t < frames]
            assert torch.equal(frame, torch.stack(near).amax(0))


def test_a_pooled_net_has_half_the_frames_behind_res2():
    net = build(("resnet", "tsm", {"pool": True}), 6)
    rows = []
    for _, block in net.backbone.blocks():
        block.register_forward_hook(lambda module, inputs, out: rows.append((module.entry.frames, len(out))))
    assert net(clips(2, 6)).shape == (2, 5)
    assert sorted(set(rows)) == [(3, 6), (6, 12)]
    with pytest.raises(ValueError, match="T = 6, not 8"):
        net.retime(8)
    with pytest.raises(ValueError, match=r"'tsm': pool needs a res2.*stem, res3"):
        video.build("bn_inception", "tiny", "tsm", 4, 5, knobs={"pool": True})


def test_pooled_frames_keep_their_memory_order():
    x = torch.randn(8, 5, 4, 3).contiguous(memory_format=torch.channels_last)
    assert shifts.TemporalMaxPool(4, "res2")("res2", x, {}).is_contiguous(memory_format=torch.channels_last)


def test_deep_nets_are_shifted_at_every_second_block():
    with torch.device("meta"):
        deep = [video.build("resnet", "101", name, 8, classes=5) for name in ("tsm", "action")]
        all_blocks = video.build("resnet", "50", "tsm", 8, classes=5)
    filled = [[not isinstance(block.entry, nn.Identity) for _, block in net.backbone.blocks()] for net in deep]
    assert filled[0] == filled[1]
    assert filled[0] == [at % 2 == 0 for depth in (3, 4, 23, 3) for at in range(depth)]
    assert all(not isinstance(block.entry, nn.Identity) for _, block in all_blocks.backbone.blocks())


@pytest.mark.parametrize("attention", ["tsm", "tpn"])
def test_training_keeps_no_shifted_copy_and_has_the_same_gradients(attention):
    """The backward pass shifts the ReLU's output again instead of storing a copy."""
    actual = []
    for unhooked in (False, True):
        net = build(("resnet", attention, {}), frames=4).train()
        made: list[weakref.ref[Tensor]] = []
        for module in net.modules():
            if unhooked:
                for number, hook in list(module._forward_hooks.items()):
                    if hook is shifts.keep_unshifted:
                        del module._forward_hooks[number]
            if isinstance(module, shifts.TemporalShift):
                module.register_forward_hook(lambda module, seen, out, made=made: made.append(weakref.ref(out)))
        loss = net(clips(2, 4)).square().sum()
        kept = sum(one() is not None for one in made)
        loss.backward()
        actual.append((len(made), kept, [value.grad for value in net.parameters()]))
    (count, kept, hooked), (_, all_kept, plain) = actual
    assert all_kept == count > kept == 0
    assert all(torch.equal(a, b) for a, b in zip(hooked, plain, strict=True) if a is not None)
    assert any(a is not None and a.any() for a in hooked)
