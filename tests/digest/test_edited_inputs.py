"""After an edit of an input file, `dvc repro` gives the results of a fresh workspace."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow.parquet
import pytest
import torch

from tests.support.project import copy, load

pytestmark = pytest.mark.slow
OUTS = ("raw", "frames", "splits", "runs", "predictions")
ROW = {"dataset": "own", "backbone": "resnet", "variant": "tiny", "attention": "none", "knobs": {}, "weights": None}
ROW |= {"recipe": "quick", "protocol": "center", "splits": [1], "seeds": [0]}


def project(folder: Path, inputs: Path) -> Path:
    """Return a project on a folder of videos: rows from scratch and from weights, and an outside fusion."""
    settings = load()
    own = {**settings["datasets"]["shapes"], "file": "folder", "source": "own", "options": {}}
    own["decode"] = {**own["decode"], "short_side": 40, "videos_per_shard": 2, "max_failed": 0.5}
    settings["datasets"] = {"own": own}
    settings["recipes"]["quick"].update(epochs=1, batch=2, micro_batch=2, size=32, frames=2, steps=[])
    settings["protocols"]["center"].update(size=32)
    settings["experiments"] = {"plain": ROW, "loaded": {**ROW, "weights": "inputs/x.pt"}}
    settings["fusions"] = {"both": {"rows": {"plain": 1.0}, "outside": {"inputs/scores.parquet": 1.0}}}
    settings["tables"] = {"comparison": {"title": "t", "rows": ["plain", "loaded", "both"]}}
    copy(folder, settings)
    for name in ("own", "inputs"):
        shutil.copytree(inputs / name, folder / name)
    return folder


def repro(folder: Path) -> set[str]:
    """Run `dvc repro`; return the stages that ran."""
    paths = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": paths, "PYTHONPATH": str(folder), "DVC_NO_ANALYTICS": "1"}
    command, log = [Path(sys.executable).with_name("dvc"), "repro"], folder.with_suffix(".log")
    with log.open("w") as file:  # no pipe: what Ray leaves behind for a while would hold it open
        code = subprocess.run(command, cwd=folder, env=environment, stdout=file, stderr=file).returncode
    assert code == 0, log.read_text()[-3000:]
    lines = [line for line in log.read_text().splitlines() if line.startswith("Running stage '")]
    return {line.split("'")[1] for line in lines} - {"stages/dvc.yaml:code", "stages/dvc.yaml:inputs"}


def results(folder: Path) -> dict[str, str]:
    """Return path -> sha256 of all files that depend on the inputs."""
    files = [path for out in OUTS for path in (folder / "data" / out).rglob("*") if path.is_file()]
    tables = [path for path in (folder / "reports/tables").rglob("*") if path.is_file() and path.stem != "speed"]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in (*files, *tables)}


@pytest.fixture(scope="module")
def inputs(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a folder of videos with lists, a file of weights, and another system's scores."""
    folder = tmp_path_factory.mktemp("inputs")
    shutil.copytree(videos, folder / "own")
    listed = sorted(path.relative_to(folder / "own").as_posix() for path in (folder / "own").rglob("?.mp4"))
    (folder / "own/train.txt").write_text("\n".join(listed[:5]) + "\n")
    (folder / "own/test.txt").write_text("\n".join(listed[5:7]) + "\n")
    (folder / "inputs").mkdir()
    weights(folder, 1)
    scores(folder, 1.0)
    return folder


def weights(folder: Path, seed: int) -> None:
    from models.video import build

    torch.manual_seed(seed)
    net = build("resnet", "tiny", "none", frames=2, classes=2)
    torch.save(net.state_dict(), folder / "inputs/x.pt")


def scores(folder: Path, value: float) -> None:
    names = [line.removesuffix(".mp4") for line in (folder / "own/test.txt").read_text().split()]
    labels = [[int(name.startswith("sit"))] for name in names]
    rows = {"experiment": ["x"] * len(names), "split": [1] * len(names), "seed": [0] * len(names), "video": names}
    rows |= {"view": [0] * len(names), "labels": labels, "logits": [[value, 0.0]] * len(names)}
    schema = {"split": pl.Int32, "seed": pl.Int32, "view": pl.Int32, "labels": pl.List(pl.Int32)}
    frame = pl.DataFrame(rows, schema_overrides={**schema, "logits": pl.List(pl.Float32)})
    pyarrow.parquet.write_table(frame.to_arrow(compat_level=pl.CompatLevel.oldest()), folder / "inputs/scores.parquet")


def moved(folder: Path) -> None:
    """Move a training video to the test list, and add it to the other system's scores."""
    train = (folder / "own/train.txt").read_text().splitlines()
    with (folder / "own/test.txt").open("a") as file:
        file.write(train.pop() + "\n")
    (folder / "own/train.txt").write_text("\n".join(train) + "\n")
    scores(folder, 1.0)


def added(folder: Path) -> None:
    """Add a video that no list names to the folder."""
    shutil.copy(folder / "own/run/0.mp4", folder / "own/run/9.mp4")


TRAINED = {"train@plain", "train@loaded", "evaluate@plain", "evaluate@loaded", "aggregate"}
EDITS: dict[str, tuple[Callable[[Path], None], set[str]]] = {
    "lists": (moved, {"splits@own", *TRAINED}),
    "folder": (added, {"download@own", "decode@own", "splits@own", *TRAINED}),
    "weights": (lambda folder: weights(folder, 2), {"train@loaded", "evaluate@loaded", "aggregate"}),
    "outside": (lambda folder: scores(folder, -1.0), {"aggregate"}),
}


def test_each_edited_input_runs_what_reads_it_and_ends_as_a_fresh_workspace(inputs: Path, tmp_path: Path) -> None:
    folder = project(tmp_path / "used", inputs)
    assert {"download@own", "decode@own", "splits@own", *TRAINED} == repro(folder)
    assert repro(folder) == set()
    for number, (name, (edit, expected)) in enumerate(EDITS.items()):
        edit(folder)
        ran = repro(folder)
        # A stage whose inputs turn out to be the same bytes need not run.
        assert ran <= expected and ran, (name, ran)
        fresh = project(tmp_path / f"fresh{number}", folder)
        repro(fresh)
        assert results(folder) == results(fresh), name
