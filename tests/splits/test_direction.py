"""Direction of time as two classes: tables, clips, a net that ignores order, statistics and refusals."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import simplejpeg
import torch

from pipeline import direction, splits
from pipeline.clips import loading, sampling, views
from pipeline.config.load import parse
from pipeline.config.schema import Augment, Dataset, Decode, Order, Protocol
from pipeline.datasets import Row, Splits, folder
from pipeline.decode.frame_store import FrameStore
from pipeline.decode.packing import INDEX, write_index, write_shard
from pipeline.digest import inputs
from pipeline.digest.files import sha256, write_sums
from pipeline.download.sources import Entry
from pipeline.errors import UserError
from pipeline.evaluate import inference
from pipeline.evaluate.predictions import read
from pipeline.measure import results
from pipeline.measure.units import units
from pipeline.train import rows, validation
from stages.commands.catalogue import class_count
from stages.repro import estimate
from tests.support import invented
from tests.support.recipes import recipe
from tests.support.trainings import params, tiny_run, train

DECODE = Decode(short_side=64, quality=90, decoder="ffmpeg", videos_per_shard=8, max_failed=0.1)
MINE = Dataset(file="folder", source="unused", lists=None, options={}, decode=DECODE, direction=True)
ROWS = [Row("a/1", "train", (0,)), Row("b/1", "train", (1, 0)), Row("a/2", "test", (0,)), Row("b/2", "test", (1,))]
FRAMES = 23  # of the numbered video


@pytest.fixture
def numbered(tmp_path: Path) -> FrameStore:
    """Return a store of a video whose frames' gray is ten times their number."""
    jpegs = [simplejpeg.encode_jpeg(np.full((36, 40, 3), 10 * n, np.uint8), 95) for n in range(FRAMES)]
    write_shard(tmp_path / "shard-00000.arrow", [{"jpeg": jpegs}])
    row = {"video": "a/1", "shard": 0, "batch": 0, "width": 40, "height": 36, "fps": 12.0, "frames": FRAMES}
    row |= {"timestamps": [n / 12 for n in range(FRAMES)], "sha256": "", "decoder": "", "decoder_version": ""}
    write_index(tmp_path, pa.Table.from_pylist([row], INDEX), [sha256(tmp_path / "shard-00000.arrow")])
    return FrameStore(tmp_path)


@pytest.fixture
def both_ways(data: Path) -> Path:
    """Return the data folder with each video of its split in both directions."""
    path = data / "splits/tiny/split-1.parquet"
    lines = [
        (name, part, [label])
        for video, part in pl.read_parquet(path).select("video", "part").iter_rows()
        for label, name in enumerate(direction.names(video))
    ]
    pl.DataFrame(lines, splits.SCHEMA, orient="row").write_parquet(path)
    (path.parent / "classes.json").write_text(json.dumps(direction.CLASSES))
    (path.parent / "mirrored.json").write_text("[0, 1]")
    write_sums(path.parent)
    return data


def test_each_video_of_each_part_stands_in_both_classes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(folder, "splits", lambda *_: Splits(("a", "b"), {1: ROWS}))
    monkeypatch.setattr(folder, "MIRRORED", (("a", "b"),), raising=False)
    entries = [Entry(row.video, f"{row.video}.mp4", 1, f"sha of {row.video}") for row in ROWS[:3]]
    built = splits.build("mine", MINE, [*entries, Entry("c", "c.mp4", 1, "c")], Path())
    assert built.tables[1].rows() == [
        line for video, part, _ in ROWS for line in ((video, part, [0]), (f"{video}//backward", part, [1]))
    ]
    assert (built.classes, built.mirrored) == (("forward", "backward"), (0, 1))
    assert built.notes == ("mine, split 1: 1 of 2 test videos are absent: b/2", "mine: 1 of 4 videos are in no list: c")
    assert built.absent.rows() == [(1, "test", "b/2")]
    alike = splits.build("mine", replace(MINE, direction=False), entries, Path())
    assert (alike.classes, [tuple(row) for row in alike.tables[1]["labels"]]) == (
        ("a", "b"),
        [(0,), (1, 0), (0,), (1,)],
    )


def test_images_have_no_direction() -> None:
    with pytest.raises(
        UserError, match=r"^datasets\.mine\.direction is true, but cifar100 holds images.*set it to false$"
    ):
        splits.build("mine", replace(MINE, file="cifar100"), [], Path())


def test_flow_and_trajectories_are_refused() -> None:
    raw = json.loads(json.dumps(invented_params()))
    parse(raw)
    flow = copy.deepcopy(raw)
    flow["recipes"]["r"]["input"] = "rgb+flow"
    with pytest.raises(UserError, match=r"recipes\.r\.input is 'rgb\+flow', but datasets\.d\.direction is true"):
        parse(flow)
    raw["trajectories"] = {"idt": {"dataset": "d", "splits": [1]}}
    with pytest.raises(UserError, match=r"trajectories\.idt: datasets\.d\.direction is true, but trajectories follow"):
        parse(raw)


def invented_params() -> dict[str, Any]:
    decode = {"short_side": 36, "quality": 90, "decoder": "ffmpeg", "videos_per_shard": 64, "max_failed": 0.1}
    dataset = {"file": "jhmdb", "source": "x", "lists": None, "options": {}, "decode": decode, "direction": True}
    clip = {"sampling": "segments", "size": 32}
    return {
        "suite": "test",
        "datasets": {"d": dataset},
        "recipes": {
            "r": {"epochs": 1, "batch": 2, "micro_batch": 2, "frames": 2, "lr": 0.1, "momentum": 0.9, **clip}
            | {"weight_decay": 0.0, "augment": {"crop": "random"}}
        },
        "protocols": {"p": {"clips": 1, "crops": "center", "average": "softmax", "batch": 2, **clip}},
        "experiments": {
            "row": {"dataset": "d", "backbone": "resnet", "variant": "tiny", "attention": "none"}
            | {"recipe": "r", "protocol": "p"}
        },
        "tables": {},
    }


def numbers(pixels: np.ndarray) -> list[int]:
    """Return the frames of a clip (T, S, S, 3) by their gray."""
    return [round(value / 10) for value in pixels.mean(axis=(1, 2, 3))]


@pytest.mark.parametrize("order", ["forward", "reversed", "shuffled", "static"])
@pytest.mark.parametrize("sampling_name", sampling.SAMPLERS)
def test_a_backward_view_is_the_forward_one_in_reverse(numbered: FrameStore, sampling_name: Any, order: Order) -> None:
    protocol = Protocol(3, "ten", sampling_name, 32, "softmax", 4, stride=2, order=order)
    forward, backward = (views.views(protocol, name, numbered.entry(name), 4) for name in direction.names("a/1"))
    assert len(forward) == len(backward)
    for ahead, back in zip(forward, backward, strict=True):
        assert back == replace(ahead, indices=ahead.indices[::-1])
    pairs = [(name, view) for name, (view, *_) in zip(direction.names("a/1"), (forward, backward), strict=True)]
    ahead, back = map(numbers, loading.load_views(numbered, pairs, 32))
    assert ahead == list(forward[0].indices) and back == ahead[::-1]
    if (sampling_name, order) == ("uniform_clips", "forward"):
        assert ahead == sorted(ahead) != back


@pytest.mark.parametrize("sampling_name", ["segments", "dense", "multirate"])
def test_a_backward_training_clip_is_the_forward_one_in_reverse(numbered: FrameStore, sampling_name: Any) -> None:
    augment = Augment("corner", scales=(1.0, 0.8), flip=True, color="space")
    items = [(name, [label]) for label, name in enumerate(direction.names("a/1"))]
    clips = loading.TrainClips(numbered, items, recipe(augment, frames=4, sampling=sampling_name), 5, (0, 1))
    flips = set()
    for epoch in range(8):
        pixels, labels = clips[[(epoch, 0), (epoch, 1)]]
        assert labels.tolist() == [0, 1]  # mirrored or not
        assert np.array_equal(pixels[0], pixels[1][::-1])
        flips |= {clips.view(epoch, 0).flip}
    assert flips == {False, True}


def test_the_store_has_both_names_of_a_video(numbered: FrameStore) -> None:
    assert "a/1//backward" in numbered and "a/2//backward" not in numbered
    assert numbered.entry("a/1//backward") == numbered.entry("a/1") and list(numbered.videos) == ["a/1"]
    assert numbered.timestamps("a/1//backward") == numbered.timestamps("a/1")
    with pytest.raises(UserError, match="no frames of 'a/2//backward'"):
        numbered.entry("a/2//backward")


@pytest.mark.parametrize(("attention", "blind"), [("none", True), ("tsm", False)])
def test_a_trained_net_that_ignores_order_answers_both_directions_alike(
    both_ways: Path, attention: str, blind: bool
) -> None:
    """From training to the table's number: half of the decoded videos are right."""
    given = params(attention, frames=4, epochs=1)
    dataset = replace(given.datasets["tiny"], direction=True)
    given = replace(given, datasets={"tiny": dataset})
    (run,) = rows.runs(given, "row", both_ways)
    state = train(run)[-1].state["model"]
    run.weights.parent.mkdir(parents=True)
    torch.save(state, run.weights)
    path = both_ways / "predictions/row/predictions.parquet"
    scorer = inference.Scorer(run, torch.device("cpu"))
    inference.gather([run], [scorer.score(block) for block in inference.blocks(run)], path)
    write_sums(path.parent)
    frame = read(path, "row", given, both_ways / "splits/tiny").frame.filter(pl.col("logits").is_not_null())
    logits = np.stack(frame.sort("video", "view")["logits"].to_list()).reshape(4, 2, -1, 2)  # videos, directions, views
    assert np.allclose(logits[:, 0], logits[:, 1], rtol=1e-3, atol=1e-5) == blind
    result = results.measure(results.read(given, "row", both_ways))
    assert not isinstance(result.accuracy, str)
    assert result.dataset == "tiny, forward or backward" and result.protocol.endswith(", forward or backward")
    assert (result.accuracy.top1.videos, result.accuracy.top1.units, result.accuracy.decoded) == (10, 5, 8)
    assert not blind or result.accuracy.top1.value == pytest.approx(0.4)  # the fifth video was not decoded


def test_both_directions_of_a_video_are_one_unit() -> None:
    videos = [*direction.names("sit/Rocky_sit_u_nm_np1_fr_goo_3"), *direction.names("run/Rocky_run_f_cm_np1_ba_med_0")]
    for file, expected in (("jhmdb", [0, 0, 0, 0]), ("shapes", [1, 1, 0, 0])):
        numbers = units(file, pl.Series(videos), several_splits=False)
        assert numbers is not None and numbers.tolist() == expected


def test_a_second_direction_with_the_same_answers_is_no_more_evidence(tmp_path: Path) -> None:
    given = invented.params(["row", "base"], seeds=(0, 1, 2))
    once, twice = invented.splits(tmp_path / "once"), invented.splits(tmp_path / "twice")
    doubled(twice / "split-1.parquet").write_parquet(twice / "split-1.parquet")
    gains = []
    for place in (once, twice):
        pair = []
        for seed, name in enumerate(("row", "base")):
            invented.result(given, name, once, 0.6 + 0.2 * seed, seed)
            frame = pl.read_parquet(once / f"{name}.parquet")
            frame = frame if place is once else doubled(once / f"{name}.parquet")
            path = invented.write(frame, place / f"{name}-read.parquet", given, name)
            pair.append(invented.measured(given, name, read(path, name, given, place)))
        gains.append(results.difference(*pair))
    single, double = gains
    assert not isinstance(single, str) and not isinstance(double, str)
    assert (single.videos, double.videos) == (60, 120)
    assert single.less.units == double.less.units == 60
    for of in (lambda gain: gain.nets, lambda gain: gain.less.value, lambda gain: gain.less.p):
        assert of(double) == pytest.approx(of(single))
    assert single.nets < 1


def doubled(path: Path) -> pl.DataFrame:
    """Return a table in which each row stands for both directions."""
    table = pl.read_parquet(path)
    return pl.concat([table, table.with_columns(pl.col("video") + direction.SUFFIX)])


def test_a_validation_share_holds_both_directions_of_its_videos(both_ways: Path) -> None:
    kept, held = validation.parts(tiny_run(both_ways, validate=0.25))
    assert (len(kept), len(held)) == (18, 6)
    for part in (kept, held):
        assert sorted(name for name, _ in part) == sorted(
            name for video in {direction.source(name) for name, _ in part} for name in direction.names(video)
        )


def test_counts_before_the_tables_exist_are_of_two_classes_and_twice_the_videos(tmp_path: Path) -> None:
    given = parse(invented_params())
    assert estimate.expected_videos("d", given)[1] == {"train": 1320, "test": 536}
    assert class_count(given.datasets["d"], tmp_path) == 2


def test_a_data_set_without_the_option_counts_as_if_it_said_so(tmp_path: Path) -> None:
    def listed(**changes: bool) -> dict[str, Any]:
        raw = invented_params()
        del raw["datasets"]["d"]["direction"]
        raw["datasets"]["d"] |= changes
        (tmp_path / "params.yaml").write_text(json.dumps(raw))
        return inputs.settings(parse(raw), tmp_path)["datasets/d.json"]["datasets"]["d"]

    assert listed() == listed(direction=False) != listed(direction=True)
