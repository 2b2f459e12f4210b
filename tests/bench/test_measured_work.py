"""The work that benches measure runs at a tiny size against the present code."""

from pathlib import Path

import pytest

from bench import decoding, flow, training
from cluster import fit
from pipeline.tracking import run_log


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    return decoding.pans(tmp_path / "videos", 1, "mp4", "96x64", 1 / 3, ["-c:v", "libx264"])


def test_a_clip_is_decoded_in_every_way(clips: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("decord", reason="decord has wheels for Linux x86-64 only")
    rows = decoding.race("tiny", clips, tmp_path / "out", 1)
    assert [(row["turn"], row["frames"]) for row in rows] == [(1, 10)] * 3
    assert [line[1] for line in decoding.lines(rows)] == ["ffmpeg to files", "store, ffmpeg", "store, decord"]


def test_flow_is_computed_in_every_way(clips: list[Path], tmp_path: Path) -> None:
    rows = flow.race(0, "dis", clips, tmp_path / "out")
    assert [line[1] for line in flow.lines(rows)] == ["OpenCV in a loop", "store", "store, compensated"]


@pytest.mark.slow
def test_the_shortest_loop_trains_as_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "STEPS", 2)
    run, losses = training.prepare(tmp_path, epochs=2), []
    for train in (training.plain, training.same_loop):
        folder = tmp_path / train.__name__
        folder.mkdir()
        train(run, folder)
        assert training.seconds_per_step(run_log.epochs(folder / fit.LOG)) > 0
        losses.append([line["loss"] for line in run_log.lines(folder / fit.LOG) if line["kind"] == "steps"])
    assert len(losses[0]) == 4 and losses[0] == pytest.approx(losses[1], rel=1e-4)
