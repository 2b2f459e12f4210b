"""Probes separate networks that use time (TSM) from networks that don't (TSN)."""

import pytest
import torch

from models import video
from pipeline.clips.views import ordered


@pytest.mark.parametrize(("attention", "blind"), [("none", True), ("se", True), ("tsm", False), ("action", False)])
def test_tsn_is_blind_to_the_order_of_frames_and_tsm_is_not(attention: str, blind: bool) -> None:
    torch.manual_seed(0)
    net = video.build("resnet", "tiny", attention, 8, 5).eval()
    clip = torch.randn(1, 8, 3, 64, 64)
    frames = tuple(range(8))
    with torch.inference_mode():
        forward, shuffled, backward, static = (
            net(clip[:, list(ordered(frames, order, "v", 0))])
            for order in ("forward", "shuffled", "reversed", "static")
        )
    # Sums of eight frames in another order differ by rounding alone.
    assert torch.allclose(forward, shuffled, rtol=1e-3, atol=1e-5) == blind
    assert torch.allclose(forward, backward, rtol=1e-3, atol=1e-5) == blind
    assert not torch.allclose(forward, static, rtol=1e-3, atol=1e-5)  # seven frames less
