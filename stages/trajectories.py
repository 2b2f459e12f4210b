"""Improved dense trajectories of one row, in place of stages 4 and 5."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from cluster.fanout import fan_out
from cluster.session import session
from pipeline.config import load
from pipeline.digest import state
from pipeline.digest.files import verify, write_sums
from pipeline.errors import unknown
from pipeline.evaluate import predictions
from pipeline.storage.remote import place
from pipeline.train import keys
from pipeline.trajectories import encoding
from pipeline.trajectories.dense import SIZES
from stages import DATA, run


def trajectories(name: str) -> None:
    params = load.load()
    if name not in params.trajectories:
        raise unknown("trajectories", name, params.trajectories)
    settings, above = params.trajectories[name], place(params.cluster.storage)
    # Its tasks read data/ and exchange files, which stay on the same file system instead of a store.
    storage = above if isinstance(above, Path) else (DATA / "work").absolute()
    splits = DATA / "splits" / settings.dataset
    for path in (splits / "classes.json", *(splits / f"split-{at}.parquet" for at in settings.splits)):
        verify(path)
    classes, parts = predictions.class_names(splits), {at: predictions.parts(splits, at) for at in settings.splits}
    frames = (DATA / "frames" / settings.dataset).absolute()
    work = encoding.work(settings, frames, storage / name, keys.trajectories(settings, frames, splits))
    train = {at: frozenset(video for video, _ in part.get("train", [])) for at, part in parts.items()}
    shards = range(work.shards)
    with session(params.cluster, data=True):
        each = partial(_each, retries=params.cluster.max_failures)
        begun = time.monotonic()
        each(encoding.describe, [(work, at) for at in shards], f"trajectories of {settings.dataset}, shards")
        seconds = (time.monotonic() - begun) / max(1, len(work.videos))
        each(encoding.learn, [(work, at, kind, train[at]) for at in parts for kind in SIZES], "codebooks")
        each(encoding.encode, [(work, at, number) for at in parts for number in shards], "Fisher vectors, shards")
    rows: list[tuple[int, str, list[int], list[float] | None]] = []
    for at, part in parts.items():
        test = part.get("test", [])
        scores = encoding.scores(work, at, part.get("train", []), test, len(classes))
        rows += [(at, video, labels, values) for (video, labels), values in zip(test, scores, strict=True)]
    folder = DATA / "predictions" / name
    predictions.write_outside(folder / "predictions.parquet", name, rows, classes)
    write_sums(folder)
    right = sum(1 for *_, labels, values in rows if values and values.index(max(values)) in labels)
    print(f"{name}: {right} of {len(rows)} test videos right; {seconds:.2f} s a video for trajectories, on all cores")
    state.clear(storage, name, [work.folder])


def _each(function: Callable[..., Any], items: list[tuple], what: str, retries: int) -> None:
    for _ in fan_out(function, items, what, retries):
        pass


if __name__ == "__main__":
    run(trajectories)
