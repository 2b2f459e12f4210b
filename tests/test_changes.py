"""What moved between two revisions, and what is named as the cause."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline import changes
from pipeline.changes import Side
from pipeline.errors import UserError
from stages.cli import app

HERE = {"top1": 50.0, "top1_low": 45.0, "top1_high": 55.0, "n": 100}


def stage(deps: dict[str, str], params: dict[str, Any]) -> dict[str, Any]:
    listed = [{"path": path, "md5": md5} for path, md5 in deps.items()]
    return {"deps": listed, "params": {"params.yaml": params}}


def lock(tsm: str = "1", frames: str = "1", lr: float = 0.1, seeds: tuple[int, ...] = (0, 1)) -> dict[str, Any]:
    trained = {"models/attention/tsm.py": tsm, "data/frames/shapes": frames}
    return {
        "decode@shapes": stage({"data/raw/shapes/manifest.csv": frames}, {"datasets.shapes.decode": {"quality": 90}}),
        "train@tsm": stage(trained, {"recipes.quick": {"lr": lr}, "experiments.tsm.seeds": list(seeds)}),
        "evaluate@tsm": stage({"data/runs/tsm": tsm + frames}, {}),
        "train@other": stage({"models/attention/tsm.py": tsm}, {}),
    }


@pytest.mark.parametrize(
    ("second", "causes"),
    [
        (lock(), []),
        (lock(tsm="2"), ["code models/attention/tsm.py"]),
        (lock(frames="2"), ["data data/frames/shapes", "data data/raw/shapes/manifest.csv"]),
        (lock(lr=0.2), ["param recipes.quick.lr: 0.1 -> 0.2"]),
        (lock(seeds=(0,)), ["seeds experiments.tsm.seeds: [0, 1] -> [0]"]),
    ],
)
def test_each_kind_of_cause_is_told(second: dict[str, Any], causes: list[str]) -> None:
    assert changes.changes("tsm", lock(), second) == causes


def test_a_stage_that_one_side_lacks_is_told() -> None:
    second = {name: body for name, body in lock().items() if name != "evaluate@tsm"}
    assert changes.changes("tsm", lock(), second) == ["evaluate@tsm was not run on the second side"]


@pytest.mark.parametrize(("value", "beyond"), [(50.0, False), (54.9, False), (55.1, True), (44.0, True)])
def test_a_cell_moves_when_it_leaves_the_interval(value: float, beyond: bool) -> None:
    wide = {"top1": value, "top1_low": 0.0, "top1_high": 100.0}
    (move,) = changes.moves(Side({"tsm": HERE}, lock()), Side({"tsm": wide}, lock()))
    assert (move.row, move.metric, move.before, move.after, move.beyond) == ("tsm", "top1", 50.0, value, beyond)


def test_a_row_on_one_side_alone_is_a_move() -> None:
    found = changes.moves(Side({"old": HERE}, {}), Side({"new": HERE}, {}))
    assert {(move.row, move.before, move.after, move.beyond) for move in found} == {
        ("new", None, 50.0, True),
        ("old", 50.0, None, True),
    }


def test_revisions_experiments_and_the_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> str:
        name = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        return subprocess.run(["git", *name, *words], cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    def write(top1: float, lr: float) -> None:
        (tmp_path / "reports/metrics").mkdir(parents=True, exist_ok=True)
        (tmp_path / "reports/metrics/tsm.json").write_text(json.dumps(HERE | {"top1": top1}))
        (tmp_path / "dvc.lock").write_text(json.dumps({"stages": lock(lr=lr)}))  # JSON is YAML

    git("init", "-q", "-b", "main")
    write(50.0, 0.1)
    git("add", "-A")
    git("commit", "-qm", "one")
    git("update-ref", "refs/exps/ab/cdef/tried-it", "HEAD")
    write(70.0, 0.2)
    monkeypatch.chdir(tmp_path)
    for name in ("main", "HEAD", "tried-it"):
        (move,) = changes.moves(changes.read(name, tmp_path), changes.read("workspace", tmp_path))
        assert (move.before, move.after, move.beyond) == (50.0, 70.0, True)
    said = CliRunner().invoke(app, ["diff", "HEAD"]).output
    assert "1 of 1 cells moved" in said and "param recipes.quick.lr: 0.1 -> 0.2" in said
    with pytest.raises(UserError, match=r"no revision or experiment 'tried'; did you mean 'tried-it'"):
        changes.read("tried", tmp_path)
    with pytest.raises(UserError, match="no revision"):
        changes.read("--help", tmp_path)
