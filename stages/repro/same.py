"""Comparison of the bytes of this code's results with those of a commit.

Equal bytes prove that a refactoring changes no number. The sample is part of the work of params.yaml's rows: drawn
videos, decoded frames, optical flow, splits, two training steps of each row, its predictions of a few videos, dense
trajectories. Each tree computes it with its own code in a separate process, and lists a sha256 by name. Names do not
depend on the layout of files and modules.
"""

import dataclasses
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.config.schema import Dataset, Params
    from pipeline.train.run import Run

STEPS = 2
TEST = 16  # videos
FLOW: dict[str, Any] = {"algorithm": "dis", "compensated": True}
DESCRIBED = 12  # videos with trajectories


def differences(base: str) -> tuple[list[str], int]:
    """Return the names with different bytes at `base` and here, and their total.

    Raises:
        UserError: The commit does not exist, or a tree can't compute the sample.
    """
    with tempfile.TemporaryDirectory() as place:
        tree = Path(place) / "before"
        _git("worktree", "add", "--quiet", "--detach", str(tree), base)
        try:
            before, after = _listed(tree, Path(place)), _listed(Path.cwd(), Path(place))
        finally:
            _git("worktree", "remove", "--force", str(tree))
    names = sorted({*before, *after})
    return [name for name in names if before.get(name) != after.get(name)], len(names)


def sample(folder: Path) -> dict[str, str]:
    """Return name -> sha256 of this tree's sample, computed in an empty folder."""
    import torch

    from pipeline.config import load
    from pipeline.train import rows

    torch.set_num_threads(1)
    params = load.load()
    drawn = {name: _small(params, name) for name, dataset in params.datasets.items() if dataset.source == "generated"}
    recipes = {name: dataclasses.replace(recipe, epochs=1, steps=()) for name, recipe in params.recipes.items()}
    params = dataclasses.replace(params, datasets={**params.datasets, **drawn}, recipes=recipes)
    digests: dict[str, str] = {}
    for name, dataset in drawn.items():
        digests |= {f"{name}: {what}": digest for what, digest in _data(name, dataset, folder).items()}
    for row, experiment in params.experiments.items():
        if experiment.dataset in drawn:
            run = rows.runs(params, row, folder)[0]
            digests |= {f"{row}: {what}": digest for what, digest in _row(run).items()}
            print(f"{row} is done", file=sys.stderr, flush=True)
    return digests


def _small(params: "Params", name: str) -> "Dataset":
    """Return a drawn data set with the videos of STEPS steps of its rows' recipes."""
    from pipeline.config.schema import Flow

    batches = [params.recipe(row).batch for row in params.experiments.values() if row.dataset == name]
    dataset = params.datasets[name]
    options = {**dataset.options, "train": STEPS * max(batches, default=16), "test": TEST}
    decode = dataclasses.replace(dataset.decode, videos_per_shard=TEST, flow=Flow(**FLOW))
    return dataclasses.replace(dataset, options=options, decode=decode)


def _data(name: str, dataset: "Dataset", folder: Path) -> dict[str, str]:
    import numpy as np
    import simplejpeg

    from pipeline import splits
    from pipeline.decode import shards
    from pipeline.decode.frame_store import FrameStore
    from pipeline.download import sources
    from pipeline.trajectories import dense, fisher

    videos = sources.fetch(name, dataset, Path.cwd(), folder / "videos" / name)
    entries = sources.manifest(name, dataset, videos)
    digests = {f"video {entry.video}": entry.sha256 for entry in entries}
    listed = [shards.Source(e.video, e.path, e.sha256, e.first, e.last, e.fps) for e in entries]
    frames, state = folder / "frames" / name, folder / "work"
    tasks = shards.plan(frames, videos, listed, dataset.decode, state)
    for task in tasks:
        shards.decode_shard(task)
    shards.finish(frames, tasks)
    store = FrameStore(frames)
    for column in ("jpeg", "x", "y", "warped_x", "warped_y"):
        for video, entry in store.videos.items():
            digests[f"{column} {video}"] = _digest(store.jpegs(video, range(entry.frames), column))
    tables = splits.build(name, dataset, entries, videos, None)
    splits.write(tables, folder / "splits" / name)
    digests |= {f"split {number}": _digest([repr(table.rows()).encode()]) for number, table in tables.tables.items()}
    described = []
    for video in list(store.videos)[:DESCRIBED]:
        jpegs = store.jpegs(video, range(store.videos[video].frames))
        grays = [simplejpeg.decode_jpeg(jpeg, "GRAY")[..., 0] for jpeg in jpegs]
        described.append(dense.describe(grays, "dis", 4))
    descriptors = np.concatenate(described).astype(np.float32)
    book = fisher.learn(descriptors, 4, 0)
    digests["trajectories"] = _digest([descriptors.tobytes(), fisher.vector(descriptors, book).tobytes()])
    return digests


def _row(run: "Run") -> dict[str, str]:
    """Return digests of a row's first run: weights, losses, logits, costs."""
    import io

    import pyarrow.parquet
    import torch

    from pipeline.evaluate import inference
    from pipeline.train import loop

    cpu = torch.device("cpu")
    last = list(loop.epochs(run, None, None, cpu))[-1]
    tensors = {name: value.cpu().contiguous() for name, value in last.state["model"].items()}
    run.weights.parent.mkdir(parents=True, exist_ok=True)
    torch.save(tensors, run.weights)
    block = inference.Scorer(run, cpu).score(inference.blocks(run)[0])
    logits = pyarrow.parquet.read_table(io.BytesIO(block))["logits"].to_pylist()
    return {
        "weights": _digest(bytes(tensors[name].numpy().data) for name in sorted(tensors)),
        "losses": _digest([repr([line["loss"] for line in last.lines]).encode()]),
        "logits": _digest([repr(logits).encode()]),
        "costs": _digest([json.dumps(inference.costs(run), sort_keys=True).encode()]),
    }


def _digest(parts: Iterable[Any]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _listed(tree: Path, place: Path) -> dict[str, str]:
    """Return a tree's sample from a process that imports no other tree."""
    listing = place / "sample.json"
    # The tree's own packages come before those that are installed.
    program = "import sys; sys.path.insert(0, ''); from stages.cli import main; main()"
    command = [sys.executable, "-c", program, "same", "--write", str(listing)]
    if code := subprocess.run(command, cwd=tree).returncode:
        raise UserError(f"{tree.name}: the sample can't be computed (exit code {code}); see the lines above")
    return json.loads(listing.read_text(encoding="utf-8"))


def _git(*arguments: str) -> None:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"git {arguments[0]}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
