"""The equations of TAM, TEA and Res2Net, one number at a time."""

import math

import pytest
import torch
from torch import nn

from models import costs
from models.attention import tam, tea
from models.backbones import res2net
from models.layers.shift import TemporalShiftConv
from tests.support.nets.comparators import made, normed, scrambled, sigmoid


@pytest.mark.parametrize(
    "attention,knobs,message",
    [
        ("non_local", {"mode": "cosine"}, "cosine.*embedded_gaussian"),
        ("non_local", {"blocks": 4}, "blocks is 4"),
        ("tam", {"kernel": 2}, "kernel is 2"),
        ("tam", {"beta": 0}, "beta is 0"),
    ],
)
def test_invalid_knobs_are_named(attention, knobs, message):
    with pytest.raises(ValueError, match=message):
        made("resnet", "18", attention, 4, 5, **knobs)


# V = sigmoid(Conv1d(ReLU(Conv1d(averages)))), Theta = softmax(W2 ReLU(W1 averages)), Y = Theta convolved with V*X;
# norms as the authors' code has them
@pytest.mark.parametrize("frames,kernel", [(4, 3), (3, 5), (1, 3)])
def test_tams_equations(frames, kernel):
    torch.manual_seed(0)
    n, c, h, w = 2, 4, 2, 3
    module = scrambled(tam.TemporalAdaptive(c, frames, kernel))
    x = torch.randn(n * frames, c, h, w, dtype=torch.double)
    with torch.no_grad():
        out = module(x)
    first, norm, _, second, _ = module.kernel
    squeeze, local_norm, _, expand, _ = module.importance
    half = kernel // 2
    for clip in range(n):
        mean = [[x[clip * frames + t, ch].mean().item() for t in range(frames)] for ch in range(c)]
        hidden = []
        for t in range(frames):
            total = sum(
                squeeze.weight[0, ch, k].item() * mean[ch][t + k - half]
                for ch in range(c)
                for k in range(kernel)
                if 0 <= t + k - half < frames
            )
            hidden.append(max(0.0, normed(local_norm, total, 0)))
        for ch in range(c):
            wide = []
            for row in range(2 * frames):
                total = sum(first.weight[row, t].item() * mean[ch][t] for t in range(frames))
                wide.append(max(0.0, normed(norm, total, row)))
            scores = [sum(second.weight[k, row].item() * wide[row] for row in range(2 * frames)) for k in range(kernel)]
            theta = [math.exp(score) / sum(map(math.exp, scores)) for score in scores]
            weight = [sigmoid(expand.weight[ch, 0, 0].item() * hidden[t]) for t in range(frames)]
            for t in range(frames):
                expected = torch.zeros(h, w, dtype=torch.double)
                for k in range(kernel):
                    if 0 <= t + k - half < frames:
                        at = t + k - half
                        expected += theta[k] * weight[at] * x[clip * frames + at, ch]
                torch.testing.assert_close(out[clip * frames + t, ch], expected)


def test_tam_keeps_the_names_of_the_weights_it_stands_before():
    plain, net = made("resnet", "50", "none", 8, 5), made("resnet", "50", "tam", 8, 5)
    brought = net.state_dict().keys() - plain.state_dict().keys()
    assert plain.state_dict().keys() < net.state_dict().keys()
    assert all(".conv2.tam." in name for name in brought)
    with pytest.raises(ValueError, match="T = 8, not 16"):
        net.retime(16)


# Its authors print 25.70 M parameters and 4.2 G at 224x224 for res2net50_26w_4s; 4.3 G are counted here.
def test_res2net_is_its_authors():
    net = made("res2net", "50", "none", 1, 1000)
    assert f"{costs.parameters(net) / 1e6:.2f}" == "25.70"
    assert f"{costs.macs(net, (1, 1, 3, 224, 224)) / 1e9:.1f}" == "4.3"
    names = net.backbone.state_dict().keys()
    assert {"layer1.0.convs.2.weight", "layer3.5.bns.0.bias", "layer1.0.downsample.1.bias", "bn1.weight"} <= names


# y_i = conv_i(x_i + y_(i-1)), and the last part as it is; in the first block of a stage without y_(i-1)
@pytest.mark.parametrize("first", [False, True])
def test_res2nets_parts(first):
    torch.manual_seed(0)
    block = scrambled(res2net.Bottle2neck(32, 8, 1, first, res2net.Member((1, 1, 1, 1), share=16)))
    x = torch.randn(2, 32, 4, 5, dtype=torch.double)
    with torch.no_grad():
        inner = torch.relu(block.bn1(block.conv1(x)))
        made_before, outs = torch.zeros(2, 2, 4, 5), []
        for at in range(3):
            seen = inner[:, 2 * at : 2 * at + 2] + (0 if first else made_before)
            made_before = torch.relu(block.bns[at](block.convs[at](seen)))
            outs.append(made_before)
        last = inner[:, 6:]
        outs.append(nn.functional.avg_pool2d(last, 3, 1, 1) if first else last)
        shortcut = block.downsample(x) if first else x
        expected = torch.relu(block.bn3(block.conv3(torch.cat(outs, 1))) + shortcut)
        torch.testing.assert_close(block(x), expected)


# M(t) = conv(X(t+1)) - X(t) of the reduced features, zero for the last frame; its average, expanded, is x's mask
def test_teas_motion_excitation():
    torch.manual_seed(0)
    n, frames, c, h, w = 2, 3, 4, 2, 3
    module = scrambled(tea.MotionExcitation(c, frames, 2))
    x = torch.randn(n * frames, c, h, w, dtype=torch.double)
    with torch.no_grad():
        out = module(x)
    squeeze = module.squeeze.weight[..., 0, 0]
    for clip in range(n):
        reduced = torch.empty(frames, 2, h, w, dtype=torch.double)
        for t, r, i, j in ((t, r, i, j) for t in range(frames) for r in range(2) for i in range(h) for j in range(w)):
            total = sum(squeeze[r, ch].item() * x[clip * frames + t, ch, i, j].item() for ch in range(c))
            reduced[t, r, i, j] = normed(module.squeeze_norm, total, r)
        for t in range(frames):
            motion = [0.0, 0.0]
            for r in range(2) if t + 1 < frames else ():
                for i, j in ((i, j) for i in range(h) for j in range(w)):
                    next_one = sum(
                        module.conv.weight[r, 0, k + 1, m + 1].item() * reduced[t + 1, r, i + k, j + m].item()
                        for k in (-1, 0, 1)
                        for m in (-1, 0, 1)
                        if 0 <= i + k < h and 0 <= j + m < w
                    )
                    motion[r] += (next_one - reduced[t, r, i, j].item()) / (h * w)
            for ch in range(c):
                wide = sum(module.expand.weight[ch, r].item() * motion[r] for r in range(2))
                mask = sigmoid(normed(module.expand_norm, wide, ch)) - 0.5
                torch.testing.assert_close(out[clip * frames + t, ch], x[clip * frames + t, ch] * (1 + mask))


# y_1 = conv(time(x_1)), y_i = conv(time(x_i + y_(i-1))), y_4 = time(x_4), each time() its own weights of three frames
def test_teas_temporal_aggregation():
    torch.manual_seed(0)
    net = res2net.build("tiny")
    plain = net.state_dict().keys()
    tea.attach(net, 3, parts=["mta"])
    assert plain < net.state_dict().keys()
    block = scrambled(net.layer4[1])
    x = torch.randn(6, 512, 2, 2, dtype=torch.double)

    def timed(conv: TemporalShiftConv, maps: torch.Tensor) -> torch.Tensor:
        out = torch.zeros_like(maps)
        for row in range(6):
            for k in range(3):
                if 0 <= row % 3 + k - 1 < 3:
                    out[row] += conv.weight[:, 0, k, None, None] * maps[row + k - 1]
        return out

    with torch.no_grad():
        inner = torch.relu(block.bn1(block.conv1(x)))
        parts, outs = inner.chunk(4, 1), []
        for at in range(3):
            seen = timed(block.convs[at].time, parts[at] + (outs[-1] if outs else 0))
            spatial = nn.functional.conv2d(seen, block.convs[at].weight, padding=1)
            outs.append(torch.relu(block.bns[at](spatial)))
        outs.append(timed(block.rest, parts[3]))
        expected = torch.relu(block.bn3(block.conv3(torch.cat(outs, 1))) + x)
        torch.testing.assert_close(block(x), expected)


def test_teas_convolutions_over_time_start_as_identity_and_shift():
    x = torch.randn(8, 6, 2, 3)
    assert torch.equal(TemporalShiftConv(6, 4, fold=None)(x), x)
    shifted = TemporalShiftConv(6, 4, fold=2)(x).unflatten(0, (2, 4))
    clips = x.unflatten(0, (2, 4))
    assert torch.equal(shifted[:, :-1, :3], clips[:, 1:, :3]) and not shifted[:, -1, :3].any()
    assert torch.equal(shifted[:, 1:, 3:], clips[:, :-1, 3:]) and not shifted[:, 0, 3:].any()
