"""One stage's work without Ray, in a copy of the sources: `resumed.py STAGE FOLDER [stop]`.

Run it from the copy's root. It prints as JSON what was computed rather than resumed; "stop" ends it in the middle.
"""

import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

computed: list[Any] = []


class Stopped(Exception):
    pass


def counted(module: Any, name: str, what: Callable[..., Any], stop: bool) -> None:
    """Record the calls of a module's function; with `stop`, the second call ends the process."""
    function = getattr(module, name)

    def noting(*arguments: Any, **named: Any) -> Any:
        if stop and computed:
            raise Stopped
        result = function(*arguments, **named)
        computed.append(what(*arguments))
        return result

    setattr(module, name, noting)


def decode(folder: Path, stop: bool) -> list[Path]:
    from pipeline.config.schema import Decode
    from pipeline.decode import shards
    from tests.support.videos.stores import sources

    videos = folder.parent / "videos"
    counted(shards, "write_shard", lambda path, *_: path.name, stop)
    tasks = shards.plan(folder / "frames", videos, sources(videos), Decode(32, 90, "ffmpeg", 2, 0.5))
    for task in tasks:
        shards.decode_shard(task)
    shards.finish(folder / "frames", tasks)
    return [folder / "frames"]


def cells(folder: Path) -> tuple[Any, Any]:
    from pipeline.config.schema import Cluster
    from tests.support.trainings import tiny_run

    for part in ("frames", "splits"):
        if not (folder / part).exists():
            (folder / part).symlink_to(folder.parent / "data" / part)
    return tiny_run(folder), Cluster(storage=str(folder / "work"))


def train(folder: Path, stop: bool) -> list[Path]:
    from pytest import MonkeyPatch

    from cluster import fit
    from pipeline.train import loop
    from tests.support.machines.local import local

    local(MonkeyPatch())
    epochs = loop.epochs

    def some(*arguments: Any) -> Any:
        for epoch in epochs(*arguments):
            if stop and computed:
                raise Stopped
            computed.append(epoch.number)
            yield epoch

    loop.epochs = some
    one, cluster = cells(folder)
    fit.fit([one], None, cluster, lambda: None)
    return [folder / "runs"]


def evaluate(folder: Path, stop: bool) -> list[Path]:
    import shutil

    from pytest import MonkeyPatch

    from cluster import score
    from pipeline.evaluate import inference
    from tests.support.machines.local import local

    local(MonkeyPatch())
    inference.BLOCK = 2
    one, cluster = cells(folder)
    shutil.copytree(folder.parent / "runs", folder / "runs", dirs_exist_ok=True)
    counted(inference.Scorer, "score", lambda _, block: block[0][0], stop)
    (folder / "predictions").mkdir(exist_ok=True)
    inference.gather([one], score.score([one], cluster), folder / "predictions/predictions.parquet")
    return [folder / "predictions"]


def trajectories(folder: Path, stop: bool) -> list[Path]:
    import numpy as np

    from pipeline.config.schema import Trajectories
    from pipeline.train import keys
    from pipeline.trajectories import dense, encoding

    encoding.SHARD = 6
    frames, splits = folder.parent / "data/frames/tiny", folder.parent / "data/splits/tiny"
    settings = Trajectories("tiny", (1,), flow="dis", scales=1, gaussians=2, samples=400)
    draws = np.random.default_rng(0)

    def describe(frames: Any, *_: Any) -> Any:  # the clips are too short for one trajectory
        return draws.random((40, sum(dense.SIZES.values()))) + float(len(frames))

    dense.describe = describe
    counted(encoding, "_put", lambda work, path, _: path.name, stop)
    work = encoding.work(settings, frames, folder / "work", keys.trajectories(settings, frames, splits))
    for number in range(work.shards):
        draws = np.random.default_rng(number)
        encoding.describe(work, number)
    for kind in dense.SIZES:
        encoding.learn(work, 1, kind, frozenset(work.videos))
    for number in range(work.shards):
        encoding.encode(work, 1, number)
    labels = [(video, [at % 2]) for at, video in enumerate(work.videos)]
    (folder / "scores.json").write_text(json.dumps(encoding.scores(work, 1, labels[:10], labels[10:], 2)))
    return [folder / "scores.json"]


def shapes(folder: Path, stop: bool) -> list[Path]:
    from pipeline.config.schema import Dataset, Decode
    from pipeline.datasets import shapes
    from pipeline.download import sources

    counted(shapes, "encode", lambda _, path, *__: path.name, stop)
    options = {"train": 8, "test": 8, "frames": [2, 3], "side": 32}
    dataset = Dataset("shapes", "generated", None, options, Decode(32, 90, "ffmpeg", 4, 0.0))
    sources.fetch("shapes", dataset, folder, folder / "videos")
    sources.write(folder / "manifest.csv", sources.manifest("shapes", dataset, folder / "videos"))
    return [folder / "manifest.csv"]


if __name__ == "__main__":
    place = Path(sys.argv[2])
    place.mkdir(exist_ok=True)
    outs: list[Path] = []
    with contextlib.suppress(Stopped):
        outs = globals()[sys.argv[1]](place, len(sys.argv) > 3)
    print(json.dumps(computed))
