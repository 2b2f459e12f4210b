"""Files in the authors' format, made here, load strictly and give the authors' logits."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models import video
from tests.support.nets import full_nets
from tests.support.nets.golden import ACTION_NAMES, GOLDEN
from tests.support.nets.released import (
    RELEASES,
    WHOLE,
    net,
    released,
)


@pytest.mark.parametrize("release", RELEASES)
def test_a_release_loads_with_its_head(release: str, tmp_path: Path) -> None:
    source, path = net(release, seed=1), tmp_path / "release.pth"
    released(release, source, path)
    loaded = net(release, path=path)
    for name, value in source.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    again = net(release, seed=2)
    video.load_weights(again, path)
    assert torch.equal(again.head.weight, source.head.weight)
    other = net(release, classes=5, path=path)  # other classes: the backbone alone
    assert torch.equal(next(other.backbone.parameters()), next(source.backbone.parameters()))


GONE = [("tsm", "layer1.0.conv1.net"), ("tpn", "level_fusion_op2.ops"), ("hara", "bn2")]


@pytest.mark.parametrize(("release", "gone"), GONE)
def test_a_release_that_does_not_fit_is_named_on_either_side(release: str, gone: str, tmp_path: Path) -> None:
    path = tmp_path / "release.pth"
    state = released(release, net(release, seed=1), path)
    fewer = {name.replace(gone, "lost.and.gone"): value for name, value in state.items()}
    torch.save({"state_dict": fewer}, path)
    with pytest.raises(ValueError, match=r"it lacks .+; it has the unknown .+") as raised:
        net(release, path=path)
    assert "\n" not in str(raised.value) and str(path) in str(raised.value)


def test_a_tsm_release_starts_action_and_a_plain_net(tmp_path: Path) -> None:
    source, path = net("tsm", seed=1), tmp_path / "tsm.pth"
    released("tsm", source, path)
    for attention in ("none", "action", "istpa"):
        knobs = {"positions": 2} if attention == "istpa" else {}
        started = video.build("resnet", "tiny", attention, 8, 7, weights=path, knobs=knobs)
        assert torch.equal(started.backbone.layer3[0].conv1.weight, source.backbone.layer3[0].conv1.weight)


@pytest.mark.parametrize(("stem", "rename"), WHOLE)
def test_the_logits_of_a_release_are_the_authors(stem: str, rename: Any, tmp_path: Path) -> None:
    """Golden weights in a file with the release's names give the golden logits."""
    path = GOLDEN / f"{stem}.npz"
    if not path.exists():
        pytest.skip(f"no {path}")
    file = tmp_path / "release.pth"
    data = np.load(path)
    backbone, variant, attention, _ = full_nets.parsed(stem)
    classes = data["logits"].shape[1]
    clip = full_nets.clip_of(data)
    filled = video.build(backbone, variant, attention, clip.shape[1], classes).eval()
    with torch.no_grad():
        full_nets.fill(filled, full_nets.manifest(data), ACTION_NAMES)
    torch.save({"state_dict": {rename(name): value for name, value in filled.state_dict().items()}}, file)
    loaded = video.build(backbone, variant, attention, filled.frames, classes, weights=file).eval()
    with torch.no_grad():
        logits = loaded(clip).numpy()
    np.testing.assert_allclose(logits, data["logits"], rtol=0, atol=1e-3 * data["logits"].std())
