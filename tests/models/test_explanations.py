"""Explanations against loops over their equations, and on networks with one known signal."""

import numpy as np
import pytest
import torch
from torch import Tensor

from models import explanations
from models.video import VideoNet
from tests.support.nets import pairs
from tests.support.nets.explained import FRAMES, bright, tiny


def pooled(maps: Tensor, made: VideoNet, target: int) -> float:
    """Return the logit that the network computes from its last maps."""
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
    """Each slope is a finite difference, one value of the maps at a time."""
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
    expected = torch.zeros(len(maps), *maps.shape[2:], dtype=torch.double)
    for row in range(len(maps)):
        for channel in range(maps.shape[1]):
            alpha = sum(slopes[row, channel].flatten().tolist()) / slopes[row, channel].numel()
            expected[row] += alpha * maps[row, channel]
    expected = expected.clamp_min(0)[0] if layout == "volume" else expected.clamp_min(0)
    assert expected.max() > 0
    actual = explanations.grad_cam(made, clip, target, stage)
    torch.testing.assert_close(actual, expected / expected.max(), rtol=0, atol=1e-5)


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


@pytest.mark.parametrize("place", [(0, 0, 0), (2, 3, 1)])
def test_grad_cam_lights_the_only_signal(place: tuple[int, int, int]) -> None:
    made, clip = bright(*place)
    expected = torch.zeros(FRAMES, 4, 4)
    expected[place] = 1.0
    torch.testing.assert_close(explanations.grad_cam(made, clip), expected)
    assert not explanations.grad_cam(made, clip, target=0).any(), "nothing speaks for class 0"
    heat = explanations.upsampled(expected, FRAMES, 8, 8)
    assert heat.shape == (FRAMES, 8, 8)
    assert not heat[torch.arange(FRAMES) != place[0]].any()


def test_a_volume_of_fewer_frames_is_spread_over_them_all() -> None:
    maps = torch.tensor([0.0, 1.0]).reshape(2, 1, 1)
    assert explanations.upsampled(maps, 4, 1, 1).flatten().tolist() == [0.0, 0.25, 0.75, 1.0]
