"""Every kind of file that a project keeps, flipped, cut and emptied, and what reads it then.

A small project (bench/victim.py) runs once. Each attack copies it, damages a file and calls the stage or command that
reads it, its tasks in one process instead of on Ray. Right is that all results are those of the undamaged project, to
the byte. `begun` is the same project with a row half trained, trained but not collected, or half evaluated.
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
from bench.attack.judge import Attack, judged
from bench.victim import ROW

ROOT = Path(__file__).parents[2]
SECONDS = 300.0  # the limit: most of it is a stage's own work
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
    for how in ("flipped", "cut", "empty"):
        for begun, pattern, act, wants in readers:
            source = base / (begun or "done")
            path = rng.choice(sorted(source.glob(pattern)))
            change = _change(how, rng.random(), rng.randrange(8))
            name = f"{path.relative_to(source)} {how}, read by {getattr(act, '__name__', 'its reader')}"
            # These only show what is there: a number that a flipped bit has changed, too.
            wanted = "either" if how == "flipped" and act in SHOW else wants
            attack = _attack(source, path, change, act, base / "done")
            yield Attack("damaged", name, wanted, attack, SECONDS)  # type: ignore[arg-type]


def project(folder: Path) -> Path:
    """The finished project, and those that have begun; each made once for a state of the code."""
    fresh = folder / "small"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    victim.make(fresh, clips=(16, 8))
    base = folder / f"small-{victim.code(fresh)}"
    base.mkdir(exist_ok=True)
    for name in (name for name in ("done", *BEGUN) if not (base / name).exists()):
        if name != "done":
            shutil.rmtree(fresh, ignore_errors=True)
            shutil.copytree(base / "done", fresh, symlinks=True)
        begin = Attack("damaged", name, "right", lambda _, name=name: _begin(fresh, name), 600.0)
        if (outcome := judged(begin)).outcome != "right":
            raise SystemExit(f"{name}: {outcome.said}")
        fresh.rename(base / name)
    return base


def _readers() -> Sequence[tuple[str, str, Act, str]]:
    """(which project, pattern of files, what reads them, what is wanted)."""
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


def _attack(source: Path, path: Path, change: Callable[[bytes], bytes], act: Act, done: Path) -> Callable[[Path], str]:
    def attack(folder: Path) -> str:
        copy = folder / "project"
        shutil.copytree(source, copy, symlinks=True)
        damaged = copy / path.relative_to(source)
        whole = damaged.read_bytes()
        damaged.write_bytes(change(whole))
        _enter(copy)
        said = act()
        if act in SHOW:
            return ""
        if isinstance(said, str) and said:
            from pipeline.errors import UserError

            raise UserError(said)  # a table's cell says why the row has no number
        if act not in MAKING and damaged.exists():  # it may have made all else from what is damaged still
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

    def trained(todo: Sequence[Any], watch: Callable[[], None]) -> None:
        for training in todo:
            cluster.fit.train_run(training)

    os.chdir(copy)
    os.environ["ACTIONBENCH_CACHE"] = str(copy / "cache")
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    for module in (stages.download, stages.decode, cluster.score):
        module.fan_out = each  # type: ignore[attr-defined]
    for module in (stages.download, stages.decode, stages.train, stages.evaluate):
        module.session = lambda *_, **__: nullcontext()  # type: ignore[attr-defined]
    cluster.fit._train = trained
    cluster.fit.lack = lambda *_: ""


class Enough(Exception):
    """The project has begun as far as it should."""


def _begin(folder: Path, how: str) -> str:
    """Run the project to its end, or take away what a row made, and run it until somewhere in the midst of it."""
    import cluster.fit
    import cluster.score
    from pipeline.train import loop

    _enter(folder)
    if how == "done":
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

    if how == "scored":
        shutil.rmtree(f"data/predictions/{ROW}")
        cluster.score.block = scored
        act: Act = evaluate
    else:
        shutil.rmtree(f"data/runs/{ROW}")
        act = train
        if how == "trained":
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
    return "it ended"


def _run() -> str:
    """Every stage in its order, and DVC's notes of it."""
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
    """The row's words in place of a number, if its predictions were refused."""
    from pipeline.config import load
    from pipeline.measure import results
    from stages import DATA
    from stages.aggregate import aggregate

    aggregate()
    found = results.read(load.load(), ROW, DATA).predictions
    return found if isinstance(found, str) else ""


def mlflow_sync() -> None:
    from stages.commands.mlflow_sync import sync

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

    given = load.load()
    found = current(given, project())
    speeds = estimate.measured(DATA, locked())
    for step in found:
        estimate.seconds(step, given, DATA, speeds), estimate.size(step, DATA), estimate.kept(step, given, DATA)


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


SHOW = (diff, report, report_json)  # which only show what is there
MAKING = (download, decode, splits, train, refresh, mend)  # which make again what is damaged


def _change(how: str, share: float, bit: int) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        at = int(share * max(0, len(content) - 1))
        if how == "empty":
            return b""
        if how == "cut" or not content:
            return content[:at]
        return content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]

    return change
