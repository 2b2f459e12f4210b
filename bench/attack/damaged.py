"""Every stored file of a project: flipped, cut or emptied, then read by its stage.

A small project (bench/victim.py) runs once. Each attack copies it, damages a file and calls the stage or command that
reads it. The tasks run in this process instead of on Ray. An outcome is right if all results have the bytes of the
undamaged project. `begun` is the same project with a row half trained, trained but not collected, or half evaluated.
"""

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import cluster.fit
import cluster.score
import stages.aggregate
import stages.decode
import stages.download
import stages.evaluate
import stages.splits
import stages.train
from bench import victim
from bench.attack.changes import Change, cut, empty, flip
from bench.attack.judge import Attack, judged
from bench.victim import ROW
from cluster.auto import resolved
from pipeline.aggregate import changes
from pipeline.config import load
from pipeline.errors import UserError
from pipeline.measure import results
from pipeline.train import loop
from stages import DATA, fresh
from stages.commands import report, ui
from stages.repro import driver, estimate
from stages.repro.plan import current, locked, project

SECONDS = 300.0  # the limit; a stage's work takes most of it
BEGUN = ("trained", "collected", "scored")


class Enough(Exception):
    """The project has reached the state to stop in."""


def aggregate() -> str:
    """Run the stage; return the text that replaces a number of refused predictions."""
    stages.aggregate.aggregate()
    predictions = results.read(load.load(), ROW, DATA).predictions
    return predictions if isinstance(predictions, str) else ""


def refresh() -> None:
    fresh.refresh()
    fresh.check()


def plan() -> None:
    params = load.load()
    speeds = estimate.measured(DATA, locked())
    for step in current(params, project()):
        estimate.seconds(step, params, DATA, speeds), estimate.size(step, DATA), estimate.kept(step, params, DATA)


def mend() -> None:
    driver.mend()
    plan()


READERS: dict[str, Callable[[], object]] = {
    "download": lambda: stages.download.download("shapes"),
    "decode": lambda: stages.decode.decode("shapes"),
    "splits": lambda: stages.splits.make_splits("shapes"),
    "train": lambda: stages.train.train(ROW),
    "evaluate": lambda: stages.evaluate.evaluate(ROW),
    "aggregate": aggregate,
    "mlflow_sync": ui.sync,
    "mirror": lambda: stages.evaluate.mirror(load.load(), ROW),
    "refresh": refresh,
    "plan": plan,
    "mend": mend,
    "diff": lambda: changes.read("workspace", Path()),
    "report": lambda: report.show(victim.SUITE),
    "report_json": lambda: report.rows(victim.SUITE),
}
SHOW = ("diff", "report", "report_json")  # they only show files
MAKING = ("download", "decode", "splits", "train", "refresh", "mend")  # they replace a damaged file
# (project: one of BEGUN or "" for the finished one, pattern of files, their reader, wanted outcome)
FILES = [
    ("", "data/videos/shapes/*/*.mp4", "download", "right"),
    ("", "data/videos/shapes/.made.json", "download", "right"),
    ("", "data/videos/shapes/SHA256SUMS", "download", "right"),
    ("", "data/raw/shapes/manifest.csv", "decode", "line"),
    ("", "data/raw/shapes/manifest.csv", "download", "right"),
    ("", "data/frames/shapes/shard-*.arrow", "decode", "right"),
    ("", "data/frames/shapes/shard-*.arrow", "train", "line"),
    ("", "data/frames/shapes/index.arrow", "decode", "right"),
    ("", "data/frames/shapes/index.arrow", "train", "line"),
    ("", "data/frames/shapes/SHA256SUMS", "decode", "right"),
    ("", "data/frames/shapes/SHA256SUMS", "train", "line"),
    ("", "data/work/.decode/shapes/*", "decode", "right"),
    ("", "data/splits/shapes/*.*", "splits", "right"),
    ("", "data/splits/shapes/split-1.parquet", "train", "line"),
    ("", "data/splits/shapes/classes.json", "train", "line"),
    ("", "data/splits/shapes/SHA256SUMS", "train", "line"),
    ("trained", f"data/work/{ROW}/*/state.pt", "train", "right"),
    ("trained", f"data/work/{ROW}/*/log.jsonl", "train", "right"),
    ("collected", f"data/work/{ROW}/*/weights.pt", "train", "right"),
    ("scored", f"data/work/{ROW}/*/block-*.parquet", "evaluate", "right"),
    ("", f"data/runs/{ROW}/*.pt", "evaluate", "line"),
    ("", f"data/runs/{ROW}/SHA256SUMS", "evaluate", "line"),
    ("", f"data/runs/{ROW}/*.jsonl", "aggregate", "line"),
    ("", f"data/predictions/{ROW}/predictions.parquet", "aggregate", "line"),
    ("", f"data/predictions/{ROW}/costs.json", "aggregate", "line"),
    ("", f"data/predictions/{ROW}/SHA256SUMS", "aggregate", "line"),
    ("", f"data/tracking/{ROW}/*.json", "aggregate", "right"),
    ("", f"data/tracking/{ROW}/*", "mlflow_sync", "right"),
    ("", f"data/tracking/{ROW}/*.jsonl", "plan", "right"),
    ("", "reports/inputs/*/*.json", "refresh", "right"),
    ("", "reports/inputs/*/*.json", "plan", "right"),
    ("", "reports/code/*/*", "refresh", "right"),
    ("", "dvc.lock", "mend", "right"),
    ("", "stages/dvc.lock", "mend", "right"),
    ("", "mlflow.db", "mirror", "right"),
    ("", "reports/metrics/*/*.json", "diff", "line"),
    ("", "reports/tables/*/ablation.md", "report", "either"),
    ("", "reports/tables/*/ablation.csv", "report_json", "either"),
]


def attacks(folder: Path, rng: random.Random) -> Iterator[Attack]:
    base = projects(folder)
    if absent := [pattern for begun, pattern, *_ in FILES if not any((base / (begun or "done")).glob(pattern))]:
        raise SystemExit(f"the project has no {absent[0]}")
    for damage in ("flipped", "cut", "empty"):
        for begun, pattern, reader, wants in FILES:
            source = base / (begun or "done")
            path = rng.choice(sorted(source.glob(pattern)))
            share, bit = rng.random(), rng.randrange(8)
            change = {"flipped": flip(share, bit), "cut": cut(share), "empty": empty}[damage]
            if damage == "flipped" and reader in SHOW:
                wants = "either"  # a number that a flipped bit changed is shown
            name = f"{path.relative_to(source)} {damage}, read by {reader}"
            yield Attack("damaged", name, wants, _attack(source, path, change, reader, base / "done"), SECONDS)


def projects(folder: Path) -> Path:
    """Return the folder of the finished and the begun projects, made once per code."""
    fresh, base = victim.prepared(folder, "small", clips=(16, 8))
    for name in (name for name in ("done", *BEGUN) if not (base / name).exists()):
        if name != "done":
            shutil.rmtree(fresh, ignore_errors=True)
            shutil.copytree(base / "done", fresh, symlinks=True)
        begin = Attack("damaged", name, "right", lambda _, name=name: _begin(fresh, name), 600.0)
        if (outcome := judged(begin)).outcome != "right":
            raise SystemExit(f"{name}: {outcome.message}")
        fresh.rename(base / name)
    return base


def _attack(source: Path, path: Path, change: Change, reader: str, done: Path) -> Callable[[Path], str]:
    def attack(folder: Path) -> str:
        copy = folder / "project"
        shutil.copytree(source, copy, symlinks=True)
        damaged = copy / path.relative_to(source)
        whole = damaged.read_bytes()
        damaged.write_bytes(change(whole))
        _enter(copy)
        reason = READERS[reader]()
        if reader in SHOW:
            return ""
        if isinstance(reason, str) and reason:
            raise UserError(reason)  # a table's cell has the reason for a missing number
        if reader not in MAKING and damaged.exists():  # the others do not replace a damaged file
            damaged.write_bytes(whole)
        wrong = list(victim.faults(copy, victim.results(done)))
        return "; ".join(wrong[:3])

    return attack


def _enter(copy: Path) -> None:
    """Work in a copy of the project, tasks in this process."""

    def each(function: Callable[..., Any], items: Sequence[tuple], *_: Any, **__: Any) -> Iterator[Any]:
        return ((at, function(*item)) for at, item in enumerate(items))

    def train_all(todo: Sequence[Any], watch: Callable[[], None]) -> None:
        for training in todo:
            cluster.fit.train_run(training)

    os.chdir(copy)
    os.environ["ACTIONBENCH_CACHE"] = str(copy / "cache")
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    for module in (stages.download, stages.decode, cluster.score):
        module.fan_out = each  # type: ignore[attr-defined]
    for module in (stages.download, stages.decode, stages.train, stages.evaluate):
        module.session = lambda *_, **__: nullcontext()  # type: ignore[attr-defined]
    for module in (cluster.fit, cluster.score):
        module.placed = lambda settings, *_: resolved(settings, [])  # type: ignore[attr-defined]
    cluster.fit.train_all = train_all


def _begin(folder: Path, state: str) -> str:
    """Run the project to its end or, for a state of BEGUN, to the middle of a stage."""
    _enter(folder)
    if state == "done":
        return _run()
    epochs, block = loop.epochs, cluster.score.block

    def two(*arguments: Any) -> Iterator[Any]:
        for number, epoch in enumerate(epochs(*arguments)):
            if number == 2:
                raise Enough
            yield epoch

    def stop(_: object) -> bool:
        raise Enough

    def scored(*item: Any) -> None:
        block(*item)
        if item[3].name.endswith("00000.parquet"):
            raise Enough

    if state == "scored":
        shutil.rmtree(f"data/predictions/{ROW}")
        cluster.score.block = scored
        reader = "evaluate"
    else:
        shutil.rmtree(f"data/runs/{ROW}")
        reader = "train"
        if state == "trained":
            loop.epochs = two
        else:
            collect, calls = cluster.fit._collect, list[int]()

            def second(training: Any) -> bool:
                calls.append(1)
                return collect(training) if len(calls) == 1 else stop(training)

            cluster.fit._collect = second
    try:
        READERS[reader]()
    except Enough:
        return ""
    return "it was not interrupted"


def _run() -> str:
    """Run every stage in order, and record them in dvc.lock."""
    fresh.refresh()
    for stage in ("download", "decode", "splits"):
        READERS[stage]()
    for row in ("tsn", ROW):
        stages.train.train(row)
        stages.evaluate.evaluate(row)
    stages.aggregate.aggregate()
    command = [str(Path(sys.executable).with_name("dvc")), "commit", "--force", "--quiet"]
    subprocess.run(command, check=True, env={**os.environ, "DVC_NO_ANALYTICS": "1"})
    return ""
