"""Scaling, up to a million videos, of all code that lists them.

    python -m bench.million [--sizes N ...] [--turns N]

The data set is synthetic. It has a manifest, lists of the `folder` kind, and shards of 64 videos whose frames are a few
bytes each. A video in 14 is a test video, as in Kinetics-400. Decoding's reports have the times of 300 frames per
video. Each step runs in a separate process. After its imports, the CPU time of all its threads is measured, and its
additional peak memory, with pages of mapped files.

- splits: all of stage 3: manifest, lists, checks, tables.
- plan shards, finish: all of stage 2 but decoding: the manifest into tasks; the shards' reports into one index.
- open frames, look up: reading the index; 8 frames each of 10,000 videos drawn at random from all shards.
- training list: the split's clips that have frames, and one epoch's order of them.
- score: stage 5 without pixels and net: all blocks of test videos, none of which has frames here, by one worker.

The exponent is the slope between the sizes on logarithmic scales: 1 is linear, 2 quadratic. n log n reads as 1.05 to
1.1. A cost that does not depend on the size has no meaningful exponent.
"""

import argparse
import hashlib
import json
import math
import tempfile
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from bench import report
from bench.decoding import sources_of
from bench.running import ROOT, child, machine, parser
from cluster import score
from pipeline import splits
from pipeline.clips import loading
from pipeline.config.load import load
from pipeline.config.schema import Cluster, Dataset, Decode
from pipeline.decode import frame_store, packing, shards
from pipeline.digest import checked, state
from pipeline.download import sources
from pipeline.train import rows
from pipeline.train.run import Run
from stages.commands.trial import resident

NAME, CLASSES, FRAMES, STORED, TEST, LOOKED_UP = "invented", 400, 300, 8, 14, 10_000
DECODE = Decode(short_side=256, quality=90, decoder="ffmpeg", videos_per_shard=64, max_failed=0.1)
SET = Dataset("folder", "videos", None, {}, DECODE)


def main() -> None:
    command = parser(__doc__, sizes=[10_000, 100_000, 1_000_000], turns=1)
    command.add_argument("--step", nargs=2, help=argparse.SUPPRESS)  # a step, and its folder
    args = command.parse_args()
    if args.step:
        return print(json.dumps(measured(STEPS[args.step[0]], Path(args.step[1]))))
    rows = []
    for size in args.sizes:
        with tempfile.TemporaryDirectory() as folder:
            invented(Path(folder), size)
            for turn in range(args.turns):
                for step in STEPS:
                    cells = {"videos": size, "turn": turn, "step": step}
                    rows.append({**cells, **child("million", "--step", step, folder)})
    save(rows, args.sizes)


def invented(root: Path, size: int) -> None:
    """Write the output of the download stage, and of decoding the training videos."""
    names = [f"class_{n % CLASSES:03d}/video_{n:07d}" for n in range(size)]
    entries = [
        sources.Entry(name, f"{name}.mp4", 10**6, hashlib.sha256(name.encode()).hexdigest()) for name in sorted(names)
    ]
    sources.write(root / "manifest.csv", entries)
    lists: dict[str, list[str]] = {"train": [], "test": []}
    for n, name in enumerate(names):
        lists["train" if n % TEST else "test"].append(f"{name}.mp4\n")
    for part, lines in lists.items():
        (root / f"{part}.txt").write_text("".join(lines))
    tests = {line.removesuffix(".mp4\n") for line in lists["test"]}
    for task in planned(root):
        reported(task, tests)
    shards.finish(root / "frames" / NAME, planned(root))
    make_splits(root)
    run = run_of(root)
    run.weights.parent.mkdir(parents=True)
    torch.save(run.net().state_dict(), run.weights)


def reported(task: shards.Task, failed: Collection[str]) -> None:
    """Write a shard and its report as decoding would, without real frames."""
    whole = [source.video not in failed for source in task.sources]
    decoded = sum(whole)
    packing.write_shard(task.path, ({"jpeg": [b"jpeg"] * STORED} for _ in range(decoded)))
    ends = pa.array(np.append(0, np.cumsum(whole)) * FRAMES, pa.int32())
    times = pa.ListArray.from_arrays(ends, pa.array(np.tile(np.arange(FRAMES) / 30, decoded)))
    facts = {"shard": task.shard, "width": 340, "height": 256, "fps": 30.0, "frames": FRAMES}
    facts |= {"sha256": "0" * 64, "decoder": "ffmpeg", "decoder_version": "0", "warning": ""}
    columns = {name: [value if known else None for known in whole] for name, value in facts.items()}
    columns |= {"video": [source.video for source in task.sources], "path": [source.path for source in task.sources]}
    columns["reason"] = [None if known else "invented without" for known in whole]
    columns["batch"] = [n if known else None for n, known in zip(np.cumsum(whole) - 1, whole, strict=True)]
    metadata = {shards.SHA256: checked.sha256(task.path), shards.DECODER_VERSION: "0", shards.FRAME_BYTES: "0"}
    schema = shards.REPORT.with_metadata(metadata)
    arrays = [times if field.name == "timestamps" else pa.array(columns[field.name], field.type) for field in schema]
    state.put(task.report, packing.packed(pa.Table.from_arrays(arrays, schema=schema)), task.key)


def planned(root: Path) -> list[shards.Task]:
    listed = sources_of(sources.read(root / "manifest.csv"))
    return shards.plan(root / "frames" / NAME, root, listed, DECODE)


def run_of(root: Path) -> Run:
    """Return the run of row tsn of suite quick, on the synthetic set."""
    params = load(ROOT / "params.yaml")
    row = replace(params.experiments["tsn"], dataset=NAME, splits=(1,), seeds=(0,))
    return rows.runs(replace(params, experiments={"tsn": row}), "tsn", root)[0]


def make_splits(root: Path) -> None:
    splits.write(splits.build(NAME, SET, sources.read(root / "manifest.csv"), root), root / "splits" / NAME)


def look_up(root: Path) -> Callable[[], object]:
    store = frame_store.FrameStore(root / "frames" / NAME)
    names = list(store.videos)
    drawn = np.random.default_rng(0).integers(len(names), size=LOOKED_UP)
    return lambda: [store.jpegs(names[n], range(STORED)) for n in drawn]


def training_list(root: Path) -> Callable[[], object]:
    run = run_of(root)
    store = frame_store.FrameStore(run.frames)

    def make() -> object:
        items = [(name, labels) for name, labels in run.part("train") if name in store.videos]
        loading.TrainClips(store, items, run.recipe, run.seed, run.mirrored())
        return loading.steps(len(items), run.recipe.batch, run.recipe.micro_batch, run.seed, 0)

    return make


def scored(root: Path) -> Callable[[], object]:
    run, cluster = run_of(root), Cluster(storage=str(root / "work"))
    return lambda: [score.block(*item) for item in score.blocks([run], cluster)]  # type: ignore[func-returns-value]


# name -> from the folder to the work; preparation is done before the work is returned.
STEPS: dict[str, Callable[[Path], Callable[[], object]]] = {
    "splits": lambda root: lambda: make_splits(root),
    "plan shards": lambda root: lambda: planned(root),
    "finish": lambda root: (lambda tasks: lambda: shards.finish(root / "frames" / NAME, tasks))(planned(root)),
    "open frames": lambda root: lambda: frame_store.FrameStore(root / "frames" / NAME),
    "look up": look_up,
    "training list": training_list,
    "score": scored,
}


def measured(step: Callable[[Path], Callable[[], object]], root: Path) -> dict[str, float]:
    """Return CPU seconds of the step's work, and the MiB that it held in addition."""
    work = step(root)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak memory; Linux only
    before, began = resident(), time.process_time()
    kept = work()
    seconds, held = time.process_time() - began, resident("VmHWM") - before
    del kept
    return {"cpu_s": seconds, "mib": held / 2**20}


def save(rows: list[dict[str, Any]], sizes: list[int]) -> None:
    lines = []
    for step in STEPS:
        line = [step]
        for key, form in (("cpu_s", ".2f"), ("mib", ",.0f")):
            medians = [float(np.median(report.column(rows, key, step=step, videos=size))) for size in sizes]
            line += [*(f"{value:{form}}" for value in medians), exponent(sizes[-2:], medians[-2:])]
        lines.append(line)
    head = ["step", *(f"CPU s, {size:,}" for size in sizes), "exponent"]
    head += [*(f"MiB, {size:,}" for size in sizes), "exponent"]
    text = f"{machine()}; exponents of the last two sizes."
    report.save("million", "A million videos through all code that lists them", text, head, lines, rows)


def exponent(sizes: list[int], values: list[float]) -> str:
    """Return the slope between two sizes on logarithmic scales."""
    if len(sizes) < 2 or min(values) <= 0:
        return "–"
    return f"{math.log(values[1] / values[0]) / math.log(sizes[1] / sizes[0]):.2f}"


if __name__ == "__main__":
    main()
