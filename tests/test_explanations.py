"""Explanations against loops over their equations, and nets whose only signal is in one place."""

import math
from typing import Any

import numpy as np
import pairs
import pytest
import torch
from torch import Tensor, nn

from models import explanations, video
from models.contract import Backbone
from models.pyramid import InteractionPyramid
from models.video import VideoNet

FRAMES = 3


class Tiny(Backbone):
    """Two convolutions, 3 -> 2 -> `features` channels, each a stage; the second halves the size."""

    mean, std, channels = (0.0,) * 3, (1.0,) * 3, "rgb"

    def __init__(self, layout: str, features: int = 3) -> None:
        super().__init__()
        self.layout = layout  # type: ignore[assignment]
        conv = nn.Conv2d if layout == "frames" else nn.Conv3d
        self.first, self.second = conv(3, 2, 3, padding=1), conv(2, features, 3, stride=2, padding=1)
        self.parts = {"res2": ("first",), "res3": ("second",)}
        self.stages = {"res2": 2, "res3": features}
        self.features = features

    def stage(self, name: str, x: Tensor) -> Tensor:
        return torch.relu(self.get_submodule(self.parts[name][0])(x))


def tiny(layout: str) -> VideoNet:
    torch.manual_seed(3)
    made = VideoNet(Tiny(layout), FRAMES, classes=4).double().eval()
    nn.init.normal_(made.head.weight)
    return made


def pooled(maps: Tensor, made: VideoNet, target: int) -> float:
    """The logit that the net's rest makes of its last maps."""
    rows = maps.flatten(2).mean(2)
    return float(made.head(rows)[:, target].mean())


def rest(made: VideoNet, stage: str, maps: Tensor, target: int) -> float:
    names = list(made.backbone.stages)
    for name in names[names.index(stage) + 1 :]:
        maps = made.backbone.stage(name, maps)
    return pooled(maps, made, target)


@pytest.mark.parametrize("stage", ["res2", "res3"])
@pytest.mark.parametrize("layout", ["frames", "volume"])
def test_grad_cam_is_equations_1_and_2(layout: str, stage: str) -> None:
    """Each slope by a finite difference, one value of the maps at a time."""
    made, target, step = tiny(layout), 2, 1e-6
    clip = torch.randn(FRAMES, 3, 4, 4, dtype=torch.double)
    with torch.no_grad():
        maps = clip if layout == "frames" else clip.transpose(0, 1)[None]
        for name in list(made.backbone.stages)[: list(made.backbone.stages).index(stage) + 1]:
            maps = made.backbone.stage(name, maps)
        before = rest(made, stage, maps, target)
        slopes = torch.empty_like(maps)
        for at in np.ndindex(*maps.shape):
            moved = maps.clone()
            moved[at] += step
            slopes[at] = (rest(made, stage, moved, target) - before) / step
    wanted = torch.zeros(len(maps), *maps.shape[2:], dtype=torch.double)
    for row in range(len(maps)):
        for channel in range(maps.shape[1]):
            alpha = sum(slopes[row, channel].flatten().tolist()) / slopes[row, channel].numel()
            wanted[row] += alpha * maps[row, channel]
    wanted = wanted.clamp_min(0)[0] if layout == "volume" else wanted.clamp_min(0)
    assert wanted.max() > 0
    found = explanations.grad_cam(made, clip, target, stage)
    torch.testing.assert_close(found, wanted / wanted.max(), rtol=0, atol=1e-5)


def test_grad_cam_takes_the_predicted_class_and_the_last_stage() -> None:
    made, clip = tiny("frames"), torch.randn(FRAMES, 3, 4, 4, dtype=torch.double)
    best = int(made(clip[None]).argmax())
    torch.testing.assert_close(explanations.grad_cam(made, clip), explanations.grad_cam(made, clip, best, "res3"))
    assert all(parameter.grad is None for parameter in made.parameters()) and made.backbone.neck is None


def test_what_grad_cam_cannot_show_is_named() -> None:
    made, clip = tiny("frames"), torch.zeros(FRAMES, 3, 4, 4, dtype=torch.double)
    with pytest.raises(ValueError, match=r"no stage 'res9'; did you mean 'res3'. known: res2, res3"):
        explanations.grad_cam(made, clip, stage="res9")
    with pytest.raises(ValueError, match="no class 4; the net tells apart 0 to 3"):
        explanations.grad_cam(made, clip, 4)


@pytest.mark.parametrize(
    "pair", [p for p in pairs.pairs() if p[1] == "none" or p[0] in ("resnet", "resnet3d")], ids=pairs.name
)
def test_every_net_can_be_looked_at_and_stays_as_it_was(pair: pairs.Pair) -> None:
    made = pairs.build(pair, 4).eval()
    clip = pairs.clips(1, 4)[0]
    before, neck = made(clip[None]).detach(), made.backbone.neck
    maps = explanations.grad_cam(made, clip)
    assert maps.ndim == 3 and 1 <= len(maps) <= 4 and maps.min() >= 0 and maps.max() in (0, 1)
    has = explanations.available(made)
    assert ("eam" in has, "receptive" in has) == (pair[1] == "eam", pair[1] == "istpa")
    if "eam" in has:
        explanations.eam_weights(made, clip)
    if "receptive" in has:
        assert len(explanations.salient_fields(made, clip).fields) == 4
    assert made.backbone.neck is neck
    torch.testing.assert_close(made(clip[None]).detach(), before, rtol=0, atol=0)


class Bright(Backbone):
    """The maps are the pixels' first plane, in cells of 2x2."""

    layout, mean, std, channels = "frames", (0.0,) * 3, (1.0,) * 3, "rgb"

    def __init__(self) -> None:
        super().__init__()
        self.parts, self.stages, self.features = {"res2": ()}, {"res2": 1}, 1

    def stage(self, name: str, x: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(x[:, :1], 2)


def bright(frame: int, row: int, column: int) -> tuple[VideoNet, Tensor]:
    """A net whose class 1 is brightness, and a clip with one bright cell."""
    made = VideoNet(Bright(), FRAMES, classes=2).eval()
    made.head.weight.data.copy_(torch.tensor([[0.0], [1.0]]))
    clip = torch.zeros(FRAMES, 3, 8, 8)
    clip[frame, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = 5.0
    return made, clip


@pytest.mark.parametrize("place", [(0, 0, 0), (2, 3, 1)])
def test_grad_cam_lights_the_only_signal(place: tuple[int, int, int]) -> None:
    made, clip = bright(*place)
    wanted = torch.zeros(FRAMES, 4, 4)
    wanted[place] = 1.0
    torch.testing.assert_close(explanations.grad_cam(made, clip), wanted)
    assert not explanations.grad_cam(made, clip, target=0).any(), "nothing speaks for class 0"
    heat = explanations.upsampled(wanted, FRAMES, 8, 8)
    assert heat.shape == (FRAMES, 8, 8)
    assert not heat[torch.arange(FRAMES) != place[0]].any()


def test_a_volume_of_fewer_frames_is_spread_over_them_all() -> None:
    maps = torch.tensor([0.0, 1.0]).reshape(2, 1, 1)
    assert explanations.upsampled(maps, 4, 1, 1).flatten().tolist() == [0.0, 0.25, 0.75, 1.0]


def gate(v: Tensor, kernel: list[float]) -> list[float]:
    """EAM's weight of each v[i]: a kernel over average plus maximum, zeros beyond the ends, and a sigmoid."""
    sums, half = [float(part.mean() + part.max()) for part in v], len(kernel) // 2
    inner = [
        sum(kernel[i] * sums[at + i - half] for i in range(len(kernel)) if 0 <= at + i - half < len(sums))
        for at in range(len(sums))
    ]
    return [1 / (1 + math.exp(-x)) for x in inner]


@pytest.mark.parametrize("backbone", ["resnet", "resnet3d"])
def test_eam_weights_are_the_gates_of_each_stage(backbone: str) -> None:
    torch.manual_seed(0)
    frames = 4
    made = video.build(backbone, "tiny", "eam", frames, classes=3, knobs={"mode": "S//T"}).eval()
    clip = torch.randn(frames, 3, 32, 32)
    found = explanations.eam_weights(made, clip)
    assert list(found) == ["res2", "res3", "res4", "res5"]
    block = made.backbone.get_submodule("layer2.0")
    seen: list[Tensor] = []
    hook = block.after.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    with torch.no_grad():
        made(clip[None])
    hook.remove()
    v = seen[0][0] if backbone == "resnet3d" else seen[0].transpose(0, 1)  # (C, T, H, W)
    for axis, rows in (("S", v), ("T", v.transpose(0, 1))):
        kernel = block.after.gates[axis].conv.weight.flatten().tolist()
        assert found["res3"][axis].tolist() == pytest.approx(gate(rows, kernel), abs=1e-5)
    assert not any(module._forward_hooks for module in made.modules())


def test_eam_without_a_gate_for_frames_and_nets_without_either() -> None:
    made = video.build("resnet", "tiny", "eam", 2, 3, knobs={"mode": "S", "stages": ["res4"]}).eval()
    found = explanations.eam_weights(made, torch.zeros(2, 3, 32, 32))
    assert {stage: {axis: w.shape for axis, w in axes.items()} for stage, axes in found.items()} == {
        "res4": {"S": (64,)}
    }
    assert explanations.available(made) == ("gradcam", "eam")
    plain = video.build("resnet", "tiny", "none", 2, 3).eval()
    assert explanations.available(plain) == ("gradcam",)
    for explain, name in ((explanations.eam_weights, "EAM"), (explanations.salient_fields, "ISTPA")):
        with pytest.raises(ValueError, match=f"this net has no {name}"):
            explain(plain, torch.zeros(2, 3, 32, 32))


@pytest.mark.parametrize("place", [(0, 0, 0), (2, 3, 1)])
def test_istpa_looks_where_its_scores_are(place: tuple[int, int, int]) -> None:
    made, clip = bright(*place)
    made.backbone.neck = neck = InteractionPyramid(FRAMES, {"res2": 1}, (4, 4)).eval()
    nn.init.ones_(neck.scores["res2"].weight)
    found = explanations.salient_fields(made, clip)
    frame, row, column = place
    assert found.places.tolist() == [[frame, 4 * row + column]] * 16
    wanted = torch.zeros(FRAMES, 4, 4)
    wanted[place] = 1.0
    torch.testing.assert_close(found.fields, wanted)
    # softmax: e^5 against 47 times e^0, in the columns' every one
    dark = 16 / (math.exp(5) + 47)
    assert found.shares.tolist() == pytest.approx(
        [1 - 2 * dark if n == frame else dark for n in range(FRAMES)], abs=1e-5
    )
    assert made.backbone.neck is neck and explanations.available(made) == ("gradcam", "receptive")


def test_salient_fields_are_added_up_over_the_merged_map() -> None:
    """The reading that the docstring gives, one position at a time, with slopes by finite differences."""
    torch.manual_seed(1)
    made, step = tiny("frames"), 1e-6
    made.backbone.neck = neck = InteractionPyramid(FRAMES, {"res2": 2, "res3": 3}, (2, 2)).double().eval()
    for score in neck.scores.values():
        nn.init.normal_(score.weight)
    clip = torch.randn(FRAMES, 3, 4, 4, dtype=torch.double)
    kept: dict[str, Any] = {}
    hook = neck.attention.register_forward_hook(lambda module, given, out: kept.update(attention=out[0].tolist()))
    with torch.no_grad():
        made(clip[None])
    hook.remove()
    attention, cells = kept["attention"], 4
    chosen = [max(range(FRAMES * cells), key=lambda row: attention[row][m]) for m in range(cells)]

    def looked_at(pixels: Tensor) -> float:
        maps = made.backbone.stage("res3", made.backbone.stage("res2", pixels))  # (T, 3, 2, 2)
        return sum(
            attention[row][m] * float(maps[row // cells, :, row % cells // 2, row % 2].sum())
            for m, row in enumerate(chosen)
        )

    wanted = torch.zeros(FRAMES, 2, 2, dtype=torch.double)
    with torch.no_grad():
        before = looked_at(clip)
        for frame, plane, y, x in np.ndindex(*clip.shape):
            moved = clip.clone()
            moved[frame, plane, y, x] += step
            wanted[frame, y // 2, x // 2] += abs(looked_at(moved) - before) / step
    found = explanations.salient_fields(made, clip)
    torch.testing.assert_close(found.fields, wanted / wanted.max(), rtol=0, atol=1e-5)
    assert found.places.tolist() == [[row // cells, row % cells] for row in chosen]
    assert float(found.shares.sum()) == pytest.approx(1)
