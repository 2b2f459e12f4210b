"""Each of the ten data sets, in small and in its real layout, through the stages download, decode and splits."""

import csv
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from stand_ins import STAND_INS, StandIn

from pipeline import datasets, params
from pipeline.frames import FrameStore, decode_jpeg
from stages import decode, download
from stages import splits as splitting

BARE = {"suite": "quick", "recipes": {}, "protocols": {}, "experiments": {}, "tables": {}}


@pytest.fixture
def staged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs the three stages, with tasks here in turn, in a folder of its own; fields of `decode` may be given."""
    monkeypatch.chdir(tmp_path)
    for stage in (download, decode):
        monkeypatch.setattr(stage, "session", lambda cluster: nullcontext())
        monkeypatch.setattr(
            stage, "fan_out", lambda work, items, *_: ((n, work(*item)) for n, item in enumerate(items))
        )

    def run(name: str, made: StandIn, **more: object) -> None:
        for constant, value in made.patches.items():
            monkeypatch.setattr(datasets.loaded(name), constant, value)
        frame = next(iter(made.pixels.values()))
        own = {"short_side": frame.shape[1], "quality": 95, "decoder": "ffmpeg", "videos_per_shard": 2}
        where = {"source": str(made.source), "lists": str(made.lists) if made.lists else None}
        given = {"file": name, **where, "options": made.options, "decode": {**own, "max_failed": 0.0, **more}}
        monkeypatch.setattr(params, "load", lambda: params.parse({**BARE, "datasets": {name: given}}))
        download.download(name)
        decode.decode(name)
        splitting.make_splits(name)

    return run


def stored(name: str, video: str) -> np.ndarray:
    store = FrameStore(Path("data/frames") / name)
    return np.stack([decode_jpeg(view) for view in store.jpegs(video, range(store.videos[video].frames))])


@pytest.mark.parametrize("name", STAND_INS)
def test_a_set_as_it_is_distributed_comes_through(name, tmp_path, staged, capsys):
    made = STAND_INS[name](tmp_path)
    staged(name, made)
    table = pl.read_parquet(f"data/splits/{name}/split-1.parquet")
    assert {video: (part, labels) for video, part, labels in table.iter_rows()} == made.rows
    assert len(datasets.json.loads(Path(f"data/splits/{name}/classes.json").read_text())) == made.classes
    store = FrameStore(Path("data/frames") / name)
    assert store.videos.keys() == made.pixels.keys()
    for video, pixels in made.pixels.items():
        seen = stored(name, video).astype(int)
        assert seen.shape == pixels.shape and np.abs(seen - pixels).mean() < 5
        # No other video and no other order would pass for it.
        others = [other for key, other in made.pixels.items() if key != video and other.shape == pixels.shape]
        assert all(np.abs(seen - other).mean() > 15 for other in others)
        if len(pixels) > 1:
            assert all(np.abs(seen[::-1] - pixels).mean(axis=(1, 2, 3))[[0, -1]] > 5)
        np.testing.assert_allclose(np.diff(store.timestamps(video)), 1 / made.fps, rtol=0.01)
    listed = csv.DictReader(Path(f"data/splits/{name}/absent.csv").read_text().splitlines())
    gone = [(row["part"], row["video"]) for row in listed]
    expected = [(part, video) for video, (part, _) in made.rows.items() if video not in made.pixels]
    assert sorted({*gone}) == sorted(expected)
    said = capsys.readouterr().err
    for part in {part for part, _ in expected}:
        absent = sum(each == part for each, _ in expected)
        whole = sum(each == part for each, _ in made.rows.values())
        assert f"note: {name}, split 1: {absent} of {whole} {part} videos are absent: " in said
    assert ("are absent" in said) == bool(expected)
