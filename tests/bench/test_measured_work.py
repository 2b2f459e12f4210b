"""The work that benches measure runs at a tiny size against the present code."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench import aggregate, decoding, flow, loading, million, peers, repro, training
from cluster import fit
from pipeline.clips.loading import TrainClips
from pipeline.decode import frame_store
from pipeline.tracking import run_log


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    return decoding.pans(tmp_path / "videos", 1, "mp4", "96x64", 1 / 3, ["-c:v", "libx264"])


def test_a_clip_is_decoded_in_every_way(clips: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("decord", reason="decord has wheels for Linux x86-64 only")
    ways = ["ffmpeg to files", "store, ffmpeg", "store, decord"]
    ways += [] if peers.lack("torchcodec") else ["torchcodec to files"]
    rows = decoding.race("tiny", clips, tmp_path / "out", 1)
    assert [(row["turn"], row["frames"]) for row in rows] == [(1, 10)] * len(ways)
    assert [line[1] for line in decoding.lines(rows)] == ways
    errors = {row["way"]: row["error"] for row in rows}
    assert max(errors.values()) < 3 * errors["store, ffmpeg"], "the same frames at the same size"


def test_every_loader_gives_the_same_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("decord", reason="decord has wheels for Linux x86-64 only")
    monkeypatch.setattr(loading, "VIDEOS", 1)
    monkeypatch.setattr(loading, "LENGTH", 40)
    loading.prepare(tmp_path)
    store = frame_store.FrameStore(tmp_path / "store")
    plan = TrainClips(store, [("0.mp4", [0])], replace(loading.RECIPE, size=224), 0, mirrored=[0])
    mean, std = torch.tensor(loading.MEAN), torch.tensor(loading.STD)
    keys = [[(1, 0)] * loading.RECIPE.micro_batch]
    # Copies: loaders reuse one another's memory.
    batches = {name: next(iter(read(keys))).clone() for name, read in loading.loaders(tmp_path, plan).items()}
    expected = batches.pop("store, uint8").float()
    assert {"store", "decord", "mmaction2, key frame in 12", "Pillow"} <= batches.keys()
    for name, batch in batches.items():
        pixels = batch.movedim(2, -1) * std + mean
        assert pixels.shape == expected.shape, name
        # The noisy clips lose more where key frames take more of the same quality; the next frame is 17 off.
        assert (pixels - expected).abs().mean() < 6, name


def test_a_package_that_cannot_be_imported_is_named() -> None:
    assert peers.lacks("json") == []
    assert peers.lacks("no_such") == ["Not measured: no_such: No module named 'no_such'.\n"]


def test_flow_is_computed_in_every_way(clips: list[Path], tmp_path: Path) -> None:
    rows = flow.race(0, "dis", clips, tmp_path / "out")
    assert [line[1] for line in flow.lines(rows)] == ["OpenCV in a loop", "store", "store, compensated"]


def test_every_step_over_a_million_videos_runs_over_a_few(tmp_path: Path) -> None:
    million.invented(tmp_path, 500)
    for step in million.STEPS.values():
        step(tmp_path)()
    assert len(frame_store.FrameStore(tmp_path / "frames" / million.NAME).videos) == 500 - -(-500 // million.TEST)


def test_pandas_and_the_stage_agree_over_a_few_rows(tmp_path: Path) -> None:
    turns = aggregate.sampled(aggregate.synthetic(tmp_path / "project", 3, 60, 7))  # raises if numbers differ
    assert [turn["row"] for turn in turns] == aggregate.named(3)[1:]


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


def test_runs_side_by_side_count_once_in_the_seconds_of_a_repro(tmp_path: Path) -> None:
    for run in range(3):
        log = tmp_path / "tsm" / f"split1-seed{run}.timings.jsonl"
        log.parent.mkdir(exist_ok=True)
        steps = [{"kind": "steps", "step": 5 * n, "seconds": 0.5} for n in (1, 2)]
        lines = [*steps, {"kind": "epoch", "seconds": 12.0}, {"kind": "epoch", "seconds": 6.0}]
        log.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert repro.trained(tmp_path, cores=2) == (pytest.approx(18.0), pytest.approx(0.1)), "three share two cores"
    assert repro.together([15.0, 15.0, 15.0, 10.0, 10.0], cores=2) == 25.0, "three, then two"
    assert repro.trained(tmp_path, cores=1) == (pytest.approx(54.0), pytest.approx(0.1)), "one after the other"
