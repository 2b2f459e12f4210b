"""ACTION-Net's equations, one number at a time, from the paper's text alone."""

import math
from itertools import product

import pytest
import torch
from torch import Tensor

from models import video
from models.attention import action
from models.attention.action import (
    Action,
    ChannelExcitation,
    MotionExcitation,
    SpatioTemporalExcitation,
)
from models.layers.shift import TemporalShift, TemporalShiftConv

C, R, H, W = 6, 2, 3, 4  # channels, squeezed channels, and places of one clip's maps


@pytest.fixture(params=[1, 2, 4])
def frames(request: pytest.FixtureRequest) -> int:
    torch.manual_seed(request.param)
    return request.param


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def clip(frames: int) -> Tensor:
    return torch.randn(frames, C, H, W, dtype=torch.double)


def inside(t: int, frames: int) -> bool:
    return 0 <= t < frames


def matrix(layer: torch.nn.Module) -> list[list[float]]:
    """Return the weights [out][in] of a 1x1 convolution."""
    return layer.weight.flatten(1).tolist()


def pooled(maps: list) -> list[list[float]]:
    """Equation 4: [t][c][h][w] -> the mean over positions, [t][c]."""
    return [[sum(map(sum, plane)) / (H * W) for plane in frame] for frame in maps]


def expanded(weights: list[list[float]], squeezed: list[float]) -> list[float]:
    """Apply the mask's 1x1 convolution from R back to C channels and the sigmoid to one frame."""
    return [sigmoid(sum(w * value for w, value in zip(row, squeezed, strict=True))) for row in weights]


def test_equations_1_to_3_spatio_temporal_excitation(frames):
    module = SpatioTemporalExcitation(C, R, frames).double()
    x = clip(frames)
    kernel = module.conv.weight[0, 0].tolist()
    mean = torch.empty(frames, H, W, dtype=torch.double)
    for t, h, w in product(range(frames), range(H), range(W)):
        mean[t, h, w] = sum(x[t, c, h, w].item() for c in range(C)) / C
    mask = torch.empty(frames, 1, H, W, dtype=torch.double)
    for t, h, w in product(range(frames), range(H), range(W)):
        total = 0.0  # equation 1: F* = K * F, 3x3x3
        for i, j, k in product(range(3), repeat=3):
            if inside(t + i - 1, frames) and inside(h + j - 1, H) and inside(w + k - 1, W):
                total += kernel[i][j][k] * mean[t + i - 1, h + j - 1, w + k - 1].item()
        mask[t, 0, h, w] = sigmoid(total)  # equation 2
    torch.testing.assert_close(module(x), mask, rtol=0, atol=1e-12)


def test_equations_4_to_8_channel_excitation(frames):
    module = ChannelExcitation(C, R, frames).double()
    x = clip(frames)
    squeeze, expand, kernel = matrix(module.squeeze), matrix(module.expand), module.conv.weight.tolist()
    squeezed = [[sum(a * b for a, b in zip(row, f, strict=True)) for row in squeeze] for f in pooled(x.tolist())]  # 5
    mask = torch.empty(frames, C, 1, 1, dtype=torch.double)
    for t in range(frames):
        mixed = []  # equation 6: F_temp = K * F_r over time, 3 wide, and the code's ReLU
        for out in range(R):
            near = [(i, t + i - 1) for i in range(3) if inside(t + i - 1, frames)]
            mixed.append(max(0.0, sum(kernel[out][c][i] * squeezed[at][c] for i, at in near for c in range(R))))
        mask[t, :, 0, 0] = torch.tensor(expanded(expand, mixed), dtype=torch.double)  # equation 7
    torch.testing.assert_close(module(x), mask, rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", ["forward", "published"])
def test_equation_9_motion_excitation(frames, form):
    module = MotionExcitation(C, R, frames).double().eval()
    norm = module.norm
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 1.5)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = clip(frames)
    squeeze, expand, kernel = matrix(module.squeeze), matrix(module.expand), module.conv.weight.tolist()
    f = torch.empty(frames, R, H, W, dtype=torch.double)
    for t, r, h, w in product(range(frames), range(R), range(H), range(W)):
        value = sum(squeeze[r][c] * x[t, c, h, w].item() for c in range(C))  # the squeeze, and the code's batch norm
        scale = norm.weight[r].item() / math.sqrt(norm.running_var[r].item() + norm.eps)
        f[t, r, h, w] = (value - norm.running_mean[r].item()) * scale + norm.bias[r].item()
    motion = torch.zeros(frames, R, H, W, dtype=torch.double)  # the last frame's is 0
    for t, r, h, w in product(range(frames - 1), range(R), range(H), range(W)):
        total = 0.0
        for i, j in product(range(3), repeat=2):
            if inside(h + i - 1, H) and inside(w + j - 1, W):
                total += kernel[r][0][i][j] * f[t + 1, r, h + i - 1, w + j - 1].item()
        motion[t, r, h, w] = total - f[t, r, h, w].item()  # equation 9: K * F[t + 1] - F[t]
    mask = torch.tensor([expanded(expand, frame) for frame in pooled(motion.tolist())], dtype=torch.double)
    torch.testing.assert_close(getattr(module, form)(x)[:, :, 0, 0], mask, rtol=0, atol=1e-12)


@pytest.mark.parametrize("paths", [["ste"], ["ce"], ["me"], ["me", "ste"], ["ste", "ce", "me"]])
def test_the_paths_excite_and_add_up(paths):
    """Each path gives x + x * mask, and figure 3 their sum; x is shifted, although no equation states it."""
    torch.manual_seed(0)
    module = Action(16, 4, paths, reduction=8).eval()
    x = torch.randn(8, 16, H, W)
    shifted = TemporalShift(4, 8)(x)
    expected = torch.zeros_like(x)
    for path in paths:
        mask = module.paths[path](shifted)
        expected += shifted + shifted * mask
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize("form", [TemporalShiftConv.forward, TemporalShiftConv.summed])
def test_the_convolution_over_time(frames, form):
    """Both forms compute [t] = w0 [t - 1] + w1 [t] + w2 [t + 1] for each channel separately."""
    module = TemporalShiftConv(C, frames).double()
    module.weight.data.normal_()
    x = torch.stack([clip(frames), clip(frames)])
    expected = torch.zeros_like(x)
    for n, t, c, i in product(range(2), range(frames), range(C), range(3)):
        if inside(t + i - 1, frames):
            expected[n, t, c] += module.weight[c, 0, i].item() * x[n, t + i - 1, c]
    torch.testing.assert_close(form(module, x.flatten(0, 1)), expected.flatten(0, 1), rtol=0, atol=1e-12)


def test_the_convolution_starts_as_the_shift():
    x = torch.randn(8, 19, 3, 5)
    torch.testing.assert_close(TemporalShiftConv(19, 4)(x), TemporalShift(4, 8)(x))


def test_the_gate_keeps_its_values_under_lower_precision():
    """In bf16, 3 plus three masks has steps of 1/32: ten values between 4.3 and 4.6."""
    torch.manual_seed(0)
    module = Action(32, 4, paths=["ce", "me"]).eval()
    for path in module.paths.values():
        torch.nn.init.normal_(path.expand.weight, std=0.2)
    x = 1 + torch.rand(8, 32, 32, 32)
    with torch.no_grad():
        expected = (module(x) / module.shift(x).clamp_min(1e-6)).mean((2, 3))  # the gate of a frame's channel
        with torch.autocast("cpu", torch.bfloat16):
            out, shifted = module(x), module.shift(x)
    assert out.dtype == shifted.dtype == torch.bfloat16
    actual = (out.float() / shifted.float().clamp_min(1e-6)).mean((2, 3))
    away = (actual - expected)[expected > 0].abs()
    assert away.max() < 0.006  # two masks of bf16, in steps of a 256th; their sum would be in steps of a 64th


def test_stages_without_action_are_plain_or_shifted():
    plain, shifted = torch.nn.Identity, TemporalShift
    for rest, kind in (({}, plain), ({"rest": "plain"}, plain), ({"rest": "shifted"}, shifted)):
        net = video.build("resnet", "tiny", "action", 4, 5, knobs={"stages": ["res2", "res3"], **rest})
        kinds = [type(block.entry) for _, block in net.backbone.blocks()]
        assert kinds == [Action, Action, kind, kind]
    with pytest.raises(ValueError, match="rest is 'none'; known: plain, shifted"):
        video.build("resnet", "tiny", "action", 4, 5, knobs={"rest": "none"})


def test_the_docstring_counts_the_papers_equations():
    words = " ".join(action.__doc__.split())
    assert "STE (3.1, equations 1 to 3), CE (3.2, equations 4 to 8) and ME (3.3, equation 9)" in words
    assert "Equation 10 is the efficiency" in words and "the recipe is section 4.2" in words
