"""EAM's equations, one number at a time, and the placement of EAM and its alternatives."""

import math

import pytest
import torch
from torch import Tensor, nn

from models import video
from models.attention.eam import MODES, Eam
from models.registry import named


def kernel_of(module: Eam, axis: str) -> list[float]:
    return module.gates[axis].conv.weight.flatten().tolist()


def weights(v: Tensor, kernel: list[float]) -> list[float]:
    """Return a weight for each v[i]: a zero-padded kernel over average plus maximum, then a sigmoid."""
    sums = [float(part.sum() / part.numel() + part.max()) for part in v]
    half = len(kernel) // 2
    actual = []
    for at in range(len(sums)):
        near = [(kernel[i], at + i - half) for i in range(len(kernel))]
        total = sum(weight * sums[place] for weight, place in near if 0 <= place < len(sums))
        actual.append(1 / (1 + math.exp(-total)))
    return actual


def weighed(v: Tensor, axis: str, kernel: list[float]) -> Tensor:
    """Multiply the channels ("S") or frames ("T") of one clip (C, T, H, W) by their weights."""
    out = v.clone()
    rows = v if axis == "S" else v.transpose(0, 1)
    for at, weight in enumerate(weights(rows, kernel)):
        (out if axis == "S" else out.transpose(0, 1))[at] *= weight
    return out


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("k,frames", [(3, 4), (5, 1), (9, 3)])
def test_the_equations(mode, k, frames):
    torch.manual_seed(0)
    module = Eam(frames, mode, k).double()
    v = torch.randn(2, 6, frames, 3, 2, dtype=torch.double)
    for clip, out, published in zip(v, module(v), module.published(v), strict=True):
        if mode == "S//T":
            expected = clip + sum(weighed(clip, axis, kernel_of(module, axis)) for axis in "ST")
        else:
            expected = clip
            for axis in mode:
                expected = weighed(expected, axis, kernel_of(module, axis))
            expected = clip + expected
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(published, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_gradients_are_those_of_the_published_order(mode):
    torch.manual_seed(0)
    module = Eam(4, mode).double()
    v = torch.randn(2, 5, 4, 3, 3, dtype=torch.double, requires_grad=True)
    expected = [v, *module.parameters()]
    kept = torch.randn_like(v)
    ours, theirs = (torch.autograd.grad((form(v) * kept).sum(), expected) for form in (module, module.published))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_frames_are_unfolded_into_their_clips():
    torch.manual_seed(0)
    module = Eam(4)
    v = torch.randn(3, 5, 4, 2, 2)  # (N, C, T, H, W)
    frames = v.transpose(1, 2).flatten(0, 1)  # (N*T, C, H, W)
    torch.testing.assert_close(module(frames), module(v).transpose(1, 2).flatten(0, 1))
    torch.testing.assert_close(module.published(frames), module(frames))


def filled(backbone: str, variant: str, attention: str, **knobs) -> dict[str, list[str]]:
    """Return place -> names of the blocks with a module there."""
    with torch.device("meta"):
        net = named("attention", attention).attach(named("backbone", backbone).build(variant), 8, **knobs)
    return {
        place: [name for name, block in net.blocks() if not isinstance(getattr(block, place), nn.Identity)]
        for place in ("entry", "exit", "after")
    }


@pytest.mark.parametrize(
    "attention,knobs", [("eam", {}), *((name, {"placement": "stage"}) for name in ("se", "eca", "cbam"))]
)
@pytest.mark.parametrize(
    "backbone,variant,last", [("resnet3d", "50", (2, 3, 5, 2)), ("resnext3d", "101", (2, 3, 22, 2))]
)
def test_one_module_after_each_stage(attention, knobs, backbone, variant, last):
    ends = [f"layer{at}.{n}" for at, n in enumerate(last, 1)]
    assert filled(backbone, variant, attention, **knobs) == {"entry": [], "exit": [], "after": ends}


def test_stages_of_eam_and_every_block_of_the_others():
    assert filled("resnet3d", "50", "eam", stages=["res4", "res2"])["after"] == ["layer1.2", "layer3.5"]
    for attention in ("se", "eca", "cbam"):
        places = filled("resnet", "50", attention)
        assert len(places["exit"]) == 16 and places["after"] == places["entry"] == []


# 4 stages times one or two kernels of k
@pytest.mark.parametrize("mode,k,added", [("ST", 3, 24), ("S", 3, 12), ("S//T", 9, 72)])
def test_parameters_it_adds(mode, k, added):
    net = video.build("resnet3d", "tiny", "eam", frames=4, classes=5, knobs={"mode": mode, "k": k})
    parameters = dict(net.named_parameters())
    assert sum(parameters[name].numel() for name in net.attention_parameters) == added
