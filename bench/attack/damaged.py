"""Every stored file of a project: flipped, cut or emptied, then read by its stage.

A small project (bench/victim.py) runs once. Each attack copies it, damages a file and calls the stage or command that
reads it. The tasks run in this process instead of on Ray. An outcome is right if all results have the bytes of the
undamaged project. `begun` is the same project with a row half trained, trained but not collected, or half evaluated.
"""

import importlib
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from bench import victim
from bench.attack.changes import Change, cut, empty, flip
from bench.attack.judge import Attack, judged
from bench.victim import ROW

SECONDS = 300.0  # the limit; a stage's work takes most of it
HEAVY = ("cluster.fit", "cluster.score", "dvc.repo", "mlflow", "stages.commands.report", "stages.repro.driver")
HEAVY += tuple(f"stages.{name}" for name in ("aggregate", "decode", "download", "evaluate", "splits", "train"))
BEGUN = ("trained", "collected", "scored")
Act = Callable[[], object]


def attacks(folder: Path, rng: random.Random) -> Iterator[Attack]:
    base = project(folder)
    for module in HEAVY:  # once, for every process that is forked from this one
        importlib.import_module(module)
    readers = _readers()
    if absent := [pattern for begun, pattern, *_ in readers if not any((base / (begun or "done")).glob(pattern))]:
        raise SystemExit(f"the project has no {absent[0]}")
    for damage in ("flipped", "cut", "empty"):
        for begun, pattern, act, wants in readers:
            source = base / (begun or "done")
            path = rng.choice(sorted(source.glob(pattern)))
            share, bit = rng.random(), rng.randrange(8)
            change = {"flipped": flip(share, bit), "cut": cut(share), "empty": empty}[damage]
            name = f"{path.relative_to(source)} {damage}, read by {getattr(act, '__name__', 'its reader')}"
            if damage == "flipped" and act in SHOW:
                wants = "either"  # a number that a flipped bit changed is shown
            yield Attack("damaged", name, wants, _attack(source, path, change, act, base / "done"), SECONDS)


def project(folder: Path) -> Path:
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


def _readers() -> Sequence[tuple[str, str, Act, str]]:
    """Return (project, pattern of files, their reader, wanted outcome)."""
    runs, predictions = f"data/runs/{ROW}/", f"data/predictions/{ROW}/"
    return [
        ("", "data/videos/shapes/*/*.mp4", download, "right"),
        ("", "data/videos/shapes/.made.json", download, "right"),
        ("", "data/videos/shapes/SHA256SUMS", download, "right"),
        ("", "data/raw/shapes/manifest.csv", decode, "line"),
        ("", "data/raw/shapes/manifest.csv", download, "right"),
        ("", "data/frames/shapes/shard-*.arrow", decode, "right"),
        ("", "data/frames/shapes/shard-*.arrow", train, "line"),
        ("", "data/frames/shapes/index.arrow", decode, "right"),
        ("", "data/frames/shapes/index.arrow", train, "line"),
        ("", "data/frames/shapes/SHA256SUMS", decode, "right"),
        ("", "data/frames/shapes/SHA256SUMS", train, "line"),
        ("", "data/work/.decode/shapes/*", decode, "right"),
        ("", "data/splits/shapes/*.*", splits, "right"),
        ("", "data/splits/shapes/split-1.parquet", train, "line"),
        ("", "data/splits/shapes/classes.json", train, "line"),
        ("", "data/splits/shapes/SHA256SUMS", train, "line"),
        ("trained", f"data/work/{ROW}/*/state.pt", train, "right"),
        ("trained", f"data/work/{ROW}/*/log.jsonl", train, "right"),
        ("collected", f"data/work/{ROW}/*/weights.pt", train, "right"),
        ("scored", f"data/work/{ROW}/*/block-*.parquet", evaluate, "right"),
        ("", runs + "*.pt", evaluate, "line"),
        ("", runs + "SHA256SUMS", evaluate, "line"),
        ("", runs + "*.jsonl", aggregate, "line"),
        ("", predictions + "predictions.parquet", aggregate, "line"),
        ("", predictions + "costs.json", aggregate, "line"),
        ("", predictions + "SHA256SUMS", aggregate, "line"),
        ("", f"data/tracking/{ROW}/*.json", aggregate, "right"),
        ("", f"data/tracking/{ROW}/*", mlflow_sync, "right"),
        ("", f"data/tracking/{ROW}/*.jsonl", plan, "right"),
        ("", "data/inputs/*/*.json", refresh, "right"),
        ("", "data/inputs/*/*.json", plan, "right"),
        ("", "reports/code/*/*", refresh, "right"),
        ("", "dvc.lock", mend, "right"),
        ("", "stages/dvc.lock", mend, "right"),
        ("", "mlflow.db", mirror, "right"),
        ("", "reports/metrics/*/*.json", diff, "line"),
        ("", "reports/tables/*/ablation.md", report, "either"),
        ("", "reports/tables/*/ablation.csv", report_json, "either"),
    ]


def _attack(source: Path, path: Path, change: Change, act: Act, done: Path) -> Callable[[Path], str]:
    def attack(folder: Path) -> str:
        copy = folder / "project"
        shutil.copytree(source, copy, symlinks=True)
        damaged = copy / path.relative_to(source)
        whole = damaged.read_bytes()
        damaged.write_bytes(change(whole))
        _enter(copy)
        reason = act()
        if act in SHOW:
            return ""
        if isinstance(reason, str) and reason:
            from pipeline.errors import UserError

            raise UserError(reason)  # a table's cell has the reason for a missing number
        if act not in MAKING and damaged.exists():  # the others do not replace a damaged file
            damaged.write_bytes(whole)
        wrong = list(victim.faults(copy, victim.results(done)))
        return "; ".join(wrong[:3])

    return attack


def _enter(copy: Path) -> None:
    """Work in a copy of the project, tasks in this process."""
    import cluster.fit
    import cluster.score
    import stages.decode
    import stages.download
    import stages.evaluate
    import stages.train

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
    cluster.fit.train_all = train_all


class Enough(Exception):
    """The project has reached the state to stop in."""


def _begin(folder: Path, state: str) -> str:
    """Run the project to its end or, for a state of BEGUN, to the middle of a stage."""
    import cluster.fit
    import cluster.score
    from pipeline.train import loop

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
        act: Act = evaluate
    else:
        shutil.rmtree(f"data/runs/{ROW}")
        act = train
        if state == "trained":
            loop.epochs = two
        else:
            collect, calls = cluster.fit._collect, list[int]()

            def second(training: Any) -> bool:
                calls.append(1)
                return collect(training) if len(calls) == 1 else stop(training)

            cluster.fit._collect = second
    try:
        act()
    except Enough:
        return ""
    return "it was not interrupted"


def _run() -> str:
    """Run every stage in order, and record them in dvc.lock."""
    from stages import fresh
    from stages.evaluate import evaluate
    from stages.train import train

    for stage in (fresh.refresh, download, decode, splits):
        stage()
    for row in ("tsn", ROW):
        train(row)
        evaluate(row)
    aggregate()
    command = [str(Path(sys.executable).with_name("dvc")), "commit", "--force", "--quiet"]
    subprocess.run(command, check=True, env={**os.environ, "DVC_NO_ANALYTICS": "1"})
    return ""


def download() -> None:
    from stages.download import download

    download("shapes")


def decode() -> None:
    from stages.decode import decode

    decode("shapes")


def splits() -> None:
    from stages.splits import make_splits

    make_splits("shapes")


def train() -> None:
    from stages.train import train

    train(ROW)


def evaluate() -> None:
    from stages.evaluate import evaluate

    evaluate(ROW)


def aggregate() -> str:
    """Run the stage; return the text that replaces a number of refused predictions."""
    from pipeline.config import load
    from pipeline.measure import results
    from stages import DATA
    from stages.aggregate import aggregate

    aggregate()
    predictions = results.read(load.load(), ROW, DATA).predictions
    return predictions if isinstance(predictions, str) else ""


def mlflow_sync() -> None:
    from stages.commands.ui import sync

    sync()


def mirror() -> None:
    from stages.evaluate import load, mirror

    mirror(load.load(), ROW)


def refresh() -> None:
    from stages import fresh

    fresh.refresh()
    fresh.check()


def plan() -> None:
    from pipeline.config import load
    from stages import DATA
    from stages.repro import estimate
    from stages.repro.plan import current, locked, project

    params = load.load()
    speeds = estimate.measured(DATA, locked())
    for step in current(params, project()):
        estimate.seconds(step, params, DATA, speeds), estimate.size(step, DATA), estimate.kept(step, params, DATA)


def mend() -> None:
    from stages.repro.driver import mend

    mend()
    plan()


def diff() -> None:
    from pipeline.aggregate import changes

    changes.read("workspace", Path())


def report() -> None:
    from stages.commands import report as reports

    reports.show(victim.SUITE)


def report_json() -> None:
    from stages.commands import report as reports

    reports.rows(victim.SUITE)


SHOW = (diff, report, report_json)  # they only show files
MAKING = (download, decode, splits, train, refresh, mend)  # they replace a damaged file
