"""Explanations of EAM and ISTPA against loops over their equations."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models import explanations, video
from models.layers.pyramid import InteractionPyramid
from tests.support.nets.explained import FRAMES, bright, tiny


def gate(v: Tensor, kernel: list[float]) -> list[float]:
    """Return EAM's weight of each v[i]: a zero-padded kernel over average plus maximum, then a sigmoid."""
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
    actual = explanations.eam_weights(made, clip)
    assert list(actual) == ["res2", "res3", "res4", "res5"]
    block = made.backbone.get_submodule("layer2.0")
    seen: list[Tensor] = []
    hook = block.after.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    with torch.no_grad():
        made(clip[None])
    hook.remove()
    v = seen[0][0] if backbone == "resnet3d" else seen[0].transpose(0, 1)  # (C, T, H, W)
    for axis, rows in (("S", v), ("T", v.transpose(0, 1))):
        kernel = block.after.gates[axis].conv.weight.flatten().tolist()
        assert actual["res3"][axis].tolist() == pytest.approx(gate(rows, kernel), abs=1e-5)
    assert not any(module._forward_hooks for module in made.modules())


def test_eam_without_a_gate_for_frames_and_nets_without_either() -> None:
    made = video.build("resnet", "tiny", "eam", 2, 3, knobs={"mode": "S", "stages": ["res4"]}).eval()
    actual = explanations.eam_weights(made, torch.zeros(2, 3, 32, 32))
    assert {stage: {axis: w.shape for axis, w in axes.items()} for stage, axes in actual.items()} == {
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
    actual = explanations.salient_fields(made, clip)
    frame, row, column = place
    assert actual.places.tolist() == [[frame, 4 * row + column]] * 16
    expected = torch.zeros(FRAMES, 4, 4)
    expected[place] = 1.0
    torch.testing.assert_close(actual.fields, expected)
    # softmax: e^5 against 47 times e^0, in the columns' every one
    dark = 16 / (math.exp(5) + 47)
    assert actual.shares.tolist() == pytest.approx(
        [1 - 2 * dark if n == frame else dark for n in range(FRAMES)], abs=1e-5
    )
    assert made.backbone.neck is neck and explanations.available(made) == ("gradcam", "receptive")


def test_salient_fields_are_added_up_over_the_merged_map() -> None:
    """The docstring's reading, one position at a time, with slopes by finite differences."""
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

    expected = torch.zeros(FRAMES, 2, 2, dtype=torch.double)
    with torch.no_grad():
        before = looked_at(clip)
        for frame, plane, y, x in np.ndindex(*clip.shape):
            moved = clip.clone()
            moved[frame, plane, y, x] += step
            expected[frame, y // 2, x // 2] += abs(looked_at(moved) - before) / step
    actual = explanations.salient_fields(made, clip)
    torch.testing.assert_close(actual.fields, expected / expected.max(), rtol=0, atol=1e-5)
    assert actual.places.tolist() == [[row // cells, row % cells] for row in chosen]
    assert float(actual.shares.sum()) == pytest.approx(1)


def test_equations_17_and_18() -> None:
    """With columns of length 1: above 0.5 in all frames for (1, 1), above 0.7 in frame 1 for each position."""
    made, clip = bright(0, 3, 1)
    made.backbone.neck = neck = InteractionPyramid(FRAMES, {"res2": 1}, (4, 4), start="normal").eval()
    nn.init.constant_(neck.scores["res2"].weight, 10.0)
    actual = explanations.salient_fields(made, clip)
    assert actual.first.shape == (FRAMES, 4, 4) and actual.start.shape == (16, 4, 4)
    assert actual.first.nonzero().tolist() == [[0, 3, 1]]
    assert actual.start.nonzero().tolist() == [[place, 3, 1] for place in range(16)]
    made, clip = bright(2, 3, 1)  # in a later frame, of which equation 18 knows nothing
    made.backbone.neck = neck
    actual = explanations.salient_fields(made, clip)
    assert actual.first.nonzero().tolist() == [[2, 3, 1]] and not actual.start.any()


@pytest.mark.parametrize("places, first, start", [(2, True, True), (3, True, False), (5, False, False)])
def test_the_limits_of_equations_17_and_18(places: int, first: bool, start: bool) -> None:
    """In a column of length 1, n equal weights are 1 / sqrt(n): 0.71, 0.58 and 0.45."""
    made, clip = bright(0, 3, 1)
    clip = torch.zeros_like(clip)
    clip[0, :, :2, : 2 * min(places, 4)] = 5.0
    clip[0, :, 2:4, : 2 * max(places - 4, 0)] = 5.0
    made.backbone.neck = neck = InteractionPyramid(FRAMES, {"res2": 1}, (4, 4), start="normal").eval()
    nn.init.constant_(neck.scores["res2"].weight, 10.0)
    actual = explanations.salient_fields(made, clip)
    assert int(actual.first.sum()) == places * first
    assert actual.start.sum((1, 2)).tolist() == [places * start] * 16
