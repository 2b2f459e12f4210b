"""A small project for bench/chaos.py and bench/attack: creation, reset, checks.

It has two rows on a few drawn videos. A stage's outputs can be removed, with its entry in dvc.lock. `dvc repro` then
runs that stage, and those that its outputs make stale: none if the bytes are equal.
"""

import hashlib
import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow.parquet
import torch
from ruamel.yaml import YAML

from pipeline.decode import frame_store
from pipeline.download import sources
from pipeline.tracking import run_log
from tests.support import project

ROW, SUITE, EPOCHS = "tsm", "quick", 3
KEPT = ("data", "reports", "dvc.lock", "stages/dvc.lock", "params.yaml", ".dvc/cache", "mlflow.db")  # changed by runs
# Outputs of each stage, of row ROW for stages by row.
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


def make(folder: Path, micro_batch: int = 4, clips: tuple[int, int] = (64, 16)) -> None:
    """Write code and settings, with DVC set up and nothing run.

    `clips` are the numbers of training and test videos.
    """
    params = project.load()
    params["datasets"]["shapes"]["options"].update(train=clips[0], test=clips[1], splits=1)
    params["datasets"]["shapes"]["decode"].update(videos_per_shard=8)
    params["recipes"]["quick"].update(epochs=EPOCHS, batch=8, micro_batch=micro_batch, steps=[])
    params["experiments"] = {row: {**params["experiments"][row], "seeds": [0]} for row in ("tsn", ROW)}
    params["tables"] = {"ablation": {"title": "Shift", "base": "tsn", "rows": [ROW]}}
    project.copy(folder, params)


def prepared(folder: Path, name: str, clips: tuple[int, int] = (64, 16)) -> tuple[Path, Path]:
    """Return a fresh project, and the folder that keeps runs of its present code."""
    fresh = folder / name
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    make(fresh, clips=clips)
    kept = folder / f"{name}-{code(fresh)}"
    kept.mkdir(exist_ok=True)
    return fresh, kept


def code(folder: Path) -> str:
    """Return a digest of all code in a project just made."""
    files = [path for place in ("models", "pipeline", "cluster", "stages") for path in (folder / place).rglob("*.py")]
    texts = [f"{path.relative_to(folder)} {path.read_text()}" for path in (*files, folder / "dvc.yaml")]
    return hashlib.sha256("".join(sorted(texts)).encode()).hexdigest()[:12]


def set_workers(folder: Path, workers: int) -> None:
    params = project.load(folder)
    params["cluster"]["workers"] = workers
    project.save(folder, params)


def empty_store(database: Path) -> None:
    """Create an empty MLflow database."""
    from mlflow import MlflowClient

    MlflowClient(f"sqlite:///{database}").search_experiments()


def keep(folder: Path, place: Path) -> None:
    """Copy everything that runs change."""
    shutil.rmtree(place, ignore_errors=True)
    for name in KEPT:
        if (folder / name).is_dir():
            shutil.copytree(folder / name, place / name)
        elif (folder / name).exists():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(folder / name, place / name)


def put_back(place: Path, folder: Path, stage: str) -> None:
    """Reset the project to keep()'s copy, minus a stage's outputs.

    The folder stays, because nodes work in it. DVC's run cache is left out, so that DVC does not know the stage's
    earlier outputs.
    """
    for name in (*KEPT, ".dvc/tmp"):
        _remove(folder / name)
    for path in folder.glob("mlflow.db-*"):
        path.unlink()
    shutil.copytree(place, folder, dirs_exist_ok=True)
    forget(folder, stage)


def forget(folder: Path, stage: str) -> None:
    """Remove a stage's outputs, its entry in dvc.lock, and DVC's cache of runs."""
    _remove(folder / ".dvc/cache/runs")
    for name in MADE[stage]:
        _remove(folder / name)
    yaml, path = YAML(typ="safe"), folder / "dvc.lock"
    lock = yaml.load(path)
    gone = {f"{stage}@{ROW}", f"{stage}@shapes", stage}
    lock["stages"] = {name: entry for name, entry in lock["stages"].items() if name not in gone}
    yaml.dump(lock, path)


def results(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file that depends on the inputs alone."""
    files = [path for name in EQUAL for path in (folder / name).rglob("*") if path.is_file()]
    files += [path for path in (folder / "reports").rglob("*.csv") if path.stem != "speed"]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def faults(folder: Path, expected: Mapping[str, str]) -> Iterator[str]:
    """Yield the faults of a project whose results() should be `expected`."""
    digests = results(folder)
    for name in sorted(digests.keys() | expected.keys()):
        if digests.get(name) != expected.get(name):
            yield f"{name} {'differs' if name in digests and name in expected else 'is missing or too much'}"
    for name in OUTS:
        for path in (folder / name).rglob(".*"):
            yield f"{path.relative_to(folder)} is left over"
    try:
        _read(folder)
    except Exception as error:  # any error of a reader of an incomplete file
        yield f"not readable: {type(error).__name__}: {error}"


def logged(database: Path) -> tuple[list[str], int]:
    """Return MLflow's duplicates, and the number of row ROW's epochs that it lacks."""
    with sqlite3.connect(database.as_uri() + "?mode=ro", uri=True) as store:
        metrics = store.execute("SELECT run_uuid, key, step FROM metrics").fetchall()
        parents = dict(store.execute("SELECT run_uuid, value FROM tags WHERE key = 'mlflow.parentRunId'").fetchall())
        names = dict(store.execute("SELECT run_uuid, name FROM runs").fetchall())
    twice = [f"metric {key} of step {step} logged {n} times" for (_, key, step), n in Counter(metrics).items() if n > 1]
    runs = Counter((names.get(parents.get(run, "")), name) for run, name in names.items())
    twice += [f"run {above}/{name} exists {n} times" for (above, name), n in runs.items() if n > 1]
    cells = [run for run, above in parents.items() if names.get(above) == ROW]
    epochs = {(run, step) for run, key, step in metrics if key == "loss" and run in cells}
    return twice, EPOCHS - len(epochs)


def _read(folder: Path) -> None:
    """Read every output in full with its reader."""
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
        epochs = run_log.epochs(path)
        assert len(epochs) == EPOCHS, f"{path.name} has {len(epochs)} epochs"
    for place in (data / "predictions", data / "tracking", folder / "reports"):
        for path in place.rglob("*.json"):
            json.loads(path.read_text())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
