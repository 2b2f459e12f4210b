"""The small project that bench/chaos.py disturbs: made, put back to before a stage, and judged against the undisturbed.

Two rows on a few drawn videos. What a stage makes can be taken away, with its entry in dvc.lock, so that `dvc repro`
runs that stage, and after it what its outputs make stale: nothing where they are the very same bytes.
"""

import hashlib
import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet
import torch
from ruamel.yaml import YAML

from pipeline.decode import frame_store
from pipeline.download import sources

ROOT = Path(__file__).parents[1]
ROW, SUITE, EPOCHS = "tsm", "quick", 3
KEPT = ("data", "reports", "dvc.lock", "stages/dvc.lock", "params.yaml", ".dvc/cache", "mlflow.db")  # what runs change
# What each stage makes, of row ROW where it is a row's.
MADE = {
    "download": ("data/raw", "data/videos"),
    "decode": ("data/frames",),
    "splits": ("data/splits",),
    "train": (f"data/runs/{ROW}", f"data/tracking/{ROW}", f"data/work/{ROW}"),
    "evaluate": (f"data/predictions/{ROW}", f"data/work/{ROW}"),
    "aggregate": (
        *(f"reports/{name}/{SUITE}" for name in ("tables", "figures", "metrics", "plots")),
        "reports/index.html",
    ),
}
# Equal inputs give equal bytes here; data/tracking holds times.
EQUAL = ("data/raw", "data/frames", "data/splits", "data/runs", "data/predictions")
OUTS = (*EQUAL, "data/tracking", "reports")


def make(folder: Path, micro_batch: int = 4) -> None:
    """Code and settings, with DVC set up, and nothing run yet."""
    for name in ("models", "pipeline", "cluster", "stages", "reports/papers", "reports/templates"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".dvcignore", "constraints.txt", "reports/parity.csv", "reports/parity.json"):
        shutil.copy(ROOT / name, folder / name)
    params = _yaml(ROOT / "params.yaml")
    params["datasets"]["shapes"]["options"].update(train=64, test=16, splits=1)
    params["datasets"]["shapes"]["decode"].update(videos_per_shard=8)
    params["recipes"]["quick"].update(epochs=EPOCHS, batch=8, micro_batch=micro_batch, steps=[])
    params["experiments"] = {row: {**params["experiments"][row], "seeds": [0]} for row in ("tsn", ROW)}
    params["tables"] = {"ablation": {"title": "Shift", "base": "tsn", "rows": [ROW]}}
    _dump(folder / "params.yaml", params)
    (folder / ".dvc").mkdir()
    (folder / ".dvc" / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n")


def code(folder: Path) -> str:
    """A mark of all that a project just made runs."""
    files = [path for place in ("models", "pipeline", "cluster", "stages") for path in (folder / place).rglob("*.py")]
    told = [f"{path.relative_to(folder)} {path.read_text()}" for path in (*files, folder / "dvc.yaml")]
    return hashlib.sha256("".join(sorted(told)).encode()).hexdigest()[:12]


def set_workers(folder: Path, workers: int) -> None:
    params = _yaml(folder / "params.yaml")
    params["cluster"]["workers"] = workers
    _dump(folder / "params.yaml", params)


def empty_store(database: Path) -> None:
    """MLflow's database with nothing in it."""
    from mlflow import MlflowClient

    MlflowClient(f"sqlite:///{database}").search_experiments()


def keep(folder: Path, place: Path) -> None:
    """Copies what runs change."""
    shutil.rmtree(place, ignore_errors=True)
    for name in KEPT:
        if (folder / name).is_dir():
            shutil.copytree(folder / name, place / name)
        elif (folder / name).exists():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(folder / name, place / name)


def put_back(place: Path, folder: Path, stage: str) -> None:
    """The project as keep() found it, less what a stage made; the folder itself stays, nodes work in it.

    Nor may DVC know what that stage once made from the same: its cache of runs is left out.
    """
    for name in (*KEPT, ".dvc/tmp"):
        _remove(folder / name)
    for path in folder.glob("mlflow.db-*"):
        path.unlink()
    shutil.copytree(place, folder, dirs_exist_ok=True)
    _remove(folder / ".dvc/cache/runs")
    for name in MADE[stage]:
        _remove(folder / name)
    lock = _yaml(folder / "dvc.lock")
    gone = {f"{stage}@{ROW}", f"{stage}@shapes", stage}
    lock["stages"] = {name: entry for name, entry in lock["stages"].items() if name not in gone}
    _dump(folder / "dvc.lock", lock)


def results(folder: Path) -> dict[str, str]:
    """sha256 of every file that follows from the inputs alone."""
    found = [path for name in EQUAL for path in (folder / name).rglob("*") if path.is_file()]
    found += [path for path in (folder / "reports").rglob("*.csv") if path.stem != "speed"]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def faults(folder: Path, expected: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with a project that should be as `expected` by results(); nothing where all is well."""
    found = results(folder)
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            yield f"{name} {'differs' if name in found and name in expected else 'is missing or too much'}"
    for name in OUTS:
        for path in (folder / name).rglob(".*"):
            yield f"{path.relative_to(folder)} is left over"
    try:
        _read(folder)
    except Exception as error:  # whatever a reader says of a file that isn't whole
        yield f"not readable: {type(error).__name__}: {error}"


def logged(database: Path) -> tuple[list[str], int]:
    """What MLflow holds twice, and how many of row ROW's epochs it lacks."""
    with sqlite3.connect(database.as_uri() + "?mode=ro", uri=True) as store:
        metrics = store.execute("SELECT run_uuid, key, step FROM metrics").fetchall()
        parents = dict(store.execute("SELECT run_uuid, value FROM tags WHERE key = 'mlflow.parentRunId'").fetchall())
        names = dict(store.execute("SELECT run_uuid, name FROM runs").fetchall())
    twice = [f"metric {key} of step {step} logged {n} times" for (_, key, step), n in Counter(metrics).items() if n > 1]
    runs = Counter((names.get(parents.get(run, "")), name) for run, name in names.items())
    twice += [f"run {above}/{name} is there {n} times" for (above, name), n in runs.items() if n > 1]
    cells = [run for run, above in parents.items() if names.get(above) == ROW]
    there = {(run, step) for run, key, step in metrics if key == "loss" and run in cells}
    return twice, EPOCHS - len(there)


def _read(folder: Path) -> None:
    """Every output through what reads it in earnest, to its end."""
    data = folder / "data"
    listed = sources.read(data / "raw" / "shapes" / "manifest.csv")
    store = frame_store.FrameStore(data / "frames" / "shapes")
    assert set(store.videos) == {entry.video for entry in listed}, "frames of other videos than the listed ones"
    for video, entry in store.videos.items():
        for jpeg in store.jpegs(video, range(entry.frames)):
            frame_store.decode_jpeg(jpeg)
    for path in [*data.glob("splits/*/*.parquet"), *data.glob("predictions/*/*.parquet")]:
        pyarrow.parquet.read_table(path)
    for path in data.glob("runs/*/*.pt"):
        torch.load(path, weights_only=True)
    for path in data.glob("runs/*/*.jsonl"):
        kinds: list[Any] = [json.loads(line)["kind"] for line in path.read_text().splitlines()]
        assert kinds.count("epoch") == EPOCHS, f"{path.name} has {kinds.count('epoch')} epochs"
    for path in [
        *data.glob("predictions/*/*.json"),
        *data.glob("tracking/*/*.json"),
        *(folder / "reports").rglob("*.json"),
    ]:
        json.loads(path.read_text())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _yaml(path: Path) -> dict[str, Any]:
    return YAML(typ="safe").load(path.read_text())


def _dump(path: Path, content: Mapping[str, Any]) -> None:
    with path.open("w") as file:
        YAML(typ="safe").dump(dict(content), file)
