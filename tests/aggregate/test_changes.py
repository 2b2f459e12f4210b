"""Changed cells between two revisions, with their causes."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.aggregate import changes
from pipeline.aggregate.changes import Side
from pipeline.errors import UserError
from stages.cli import app
from stages.repro import plan

HERE = {"top1": 50.0, "top1_low": 45.0, "top1_high": 55.0, "n": 100}


def stage(deps: dict[str, str], params: dict[str, Any]) -> dict[str, Any]:
    listed = [{"path": path, "md5": md5} for path, md5 in deps.items()]
    return {"deps": listed, "params": {"reports/inputs/rows/tsm.json": params, "params.yaml": {}}}


def lock(tsm: str = "1", frames: str = "1", lr: float = 0.1, seeds: tuple[int, ...] = (0, 1)) -> dict[str, Any]:
    trained = {"reports/code/attention/tsm": tsm, "data/frames/shapes": frames}
    return {
        "decode@shapes": stage({"data/raw/shapes/manifest.csv": frames}, {"datasets.shapes.decode": {"quality": 90}}),
        "train@tsm": stage(trained, {"recipes.quick": {"lr": lr}, "experiments.tsm.seeds": list(seeds)}),
        "evaluate@tsm": stage({"data/runs/tsm": tsm + frames}, {}),
        "train@other": stage({"reports/code/attention/tsm": tsm}, {}),
    }


@pytest.mark.parametrize(
    ("second", "causes"),
    [
        (lock(), []),
        (lock(tsm="2"), ["code of attention tsm: models/attention/tsm.py, torch==3"]),
        (lock(frames="2"), ["data data/frames/shapes", "data data/raw/shapes/manifest.csv"]),
        (lock(lr=0.2), ["param recipes.quick.lr: 0.1 -> 0.2"]),
        (lock(seeds=(0,)), ["seeds experiments.tsm.seeds: [0, 1] -> [0]"]),
    ],
)
def test_each_kind_of_cause_is_named(second: dict[str, Any], causes: list[str]) -> None:
    listed = "0a  models/attention/tsm.py\n0b  models/layers/shift.py\n"
    code = [{"attention/tsm": listed}, {"attention/tsm": listed.replace("0a", "1a") + "torch==3\n"}]
    assert changes.changes("tsm", Side({}, lock(), code[0]), Side({}, second, code[1])) == causes


def test_code_is_named_by_its_stage_where_a_sides_digests_are_gone() -> None:
    causes = changes.changes("tsm", Side({}, lock()), Side({}, lock(tsm="2")))
    assert causes == ["code of attention tsm"]


def test_a_stage_that_one_side_lacks_is_named() -> None:
    second = {name: body for name, body in lock().items() if name != "evaluate@tsm"}
    assert changes.changes("tsm", Side({}, lock()), Side({}, second)) == ["evaluate@tsm was not run on the second side"]


@pytest.mark.parametrize(("value", "beyond"), [(50.0, False), (54.9, False), (55.1, True), (44.0, True)])
def test_a_cell_moves_when_it_leaves_the_interval(value: float, beyond: bool) -> None:
    wide = {"top1": value, "top1_low": 0.0, "top1_high": 100.0}
    (move,) = changes.moves(Side({"tsm": HERE}, lock()), Side({"tsm": wide}, lock()))
    assert (move.row, move.metric, move.before, move.after, move.beyond) == ("tsm", "top1", 50.0, value, beyond)


def test_a_row_on_one_side_alone_is_a_move() -> None:
    moves = changes.moves(Side({"old": HERE}, {}), Side({"new": HERE}, {}))
    assert {(move.row, move.before, move.after, move.beyond) for move in moves} == {
        ("new", None, 50.0, True),
        ("old", 50.0, None, True),
    }


def test_revisions_experiments_and_the_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> str:
        name = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        return subprocess.run(["git", *name, *words], cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    def write(top1: float, lr: float) -> None:
        folder, text = "reports/metrics/quick", json.dumps(HERE | {"top1": top1})
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "tsm.json").write_text(text)
        listing = json.dumps([{"md5": cached(text), "relpath": "tsm.json"}])
        outs = [{"path": "reports/tables/quick"}, {"path": folder, "md5": cached(listing, ".dir")}]
        (tmp_path / "dvc.lock").write_text(json.dumps({"stages": {**lock(lr=lr), "aggregate": {"outs": outs}}}))

    def cached(text: str, suffix: str = "") -> str:
        """Write a file to DVC's cache; return its md5."""
        md5 = hashlib.md5(text.encode()).hexdigest() + suffix
        path = tmp_path / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return md5

    git("init", "-q", "-b", "main")
    (tmp_path / ".gitignore").write_text("/reports/metrics/\n/.dvc/\n")
    write(50.0, 0.1)
    git("add", "-A")
    git("commit", "-qm", "one")
    git("update-ref", "refs/exps/ab/cdef/tried-it", "HEAD")
    write(70.0, 0.2)
    monkeypatch.chdir(tmp_path)
    for name in ("main", "HEAD", "tried-it"):
        (move,) = changes.moves(changes.read(name, tmp_path), changes.read("workspace", tmp_path))
        assert (move.before, move.after, move.beyond) == (50.0, 70.0, True)
    monkeypatch.setattr(plan, "dvc", lambda *words: f"{tmp_path / '.dvc/cache'}\n")
    output = CliRunner().invoke(app, ["diff", "HEAD"]).output
    assert "1 of 1 cells moved" in output and "param recipes.quick.lr: 0.1 -> 0.2" in output
    with pytest.raises(UserError, match=r"no revision or experiment 'tried'; did you mean 'tried-it'"):
        changes.read("tried", tmp_path)
    with pytest.raises(UserError, match="no revision"):
        changes.read("--help", tmp_path)
    shutil.rmtree(tmp_path / ".dvc/cache")
    with pytest.raises(UserError, match=r"DVC's cache has no reports/metrics/quick of main .*diff reference"):
        changes.read("main", tmp_path)
