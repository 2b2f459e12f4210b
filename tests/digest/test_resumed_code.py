"""In every stage, a changed meaning restarts killed work; a changed docstring resumes it."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from pipeline.digest.files import write_sums
from tests.support.trainings import tiny_run

ROOT = Path(__file__).parents[2]
LEFT = {"decode": "frames", "train": "runs", "evaluate": "predictions", "trajectories": "scores.json"}
# stage -> a file that it computes with, and an edit of it that changes its result
EDITS = {
    "decode": ("pipeline/decode/packing.py", "for video in videos:", "for video in list(videos)[::-1]:"),
    "train": ("pipeline/train/optimizer.py", "recipe.lr * recipe.factor", "2 * recipe.lr * recipe.factor"),
    "evaluate": ("pipeline/evaluate/inference.py", "net(x).float()", "(2 * net(x)).float()"),
    "trajectories": (
        "pipeline/trajectories/fisher.py",
        "def vector(",
        "def vector(*given):\n    return abs(_vector(*given))\n\n\ndef _vector(",
    ),
    "shapes": ("pipeline/datasets/shapes.py", "else frames", "else frames[:, ::-1]"),
}


@dataclass
class Project:
    """A copy of the sources with the data that stages read."""

    root: Path

    def run(self, stage: str, name: str, *stop: str) -> list:
        """Run the stage in the workspace of that name; return what was computed."""
        paths = os.pathsep.join([str(self.root), str(ROOT)])
        command = [sys.executable, str(ROOT / "tests/support/resumed.py"), stage, str(self.root / "work" / name), *stop]
        done = subprocess.run(
            command, cwd=self.root, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def left(self, stage: str, name: str) -> dict[str, str]:
        """Return the sha256 of the stage's results."""
        out = self.root / "work" / name / LEFT.get(stage, "manifest.csv")
        files = [path for path in (out, *out.rglob("*")) if path.is_file()]
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.root / file
        source = path.read_text(encoding="utf-8")
        assert source.count(old) >= 1, (file, old)
        path.write_text(source.replace(old, new, 1), encoding="utf-8")


@pytest.fixture
def project(data: Path, videos: Path, tmp_path: Path) -> Project:
    root = tmp_path / "project"
    for package in ("models", "pipeline", "cluster"):
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "constraints.txt", root)
    (root / "work").mkdir()
    (root / "work/videos").symlink_to(videos)
    (root / "work/data").symlink_to(data)
    weights = root / "work/runs/row/split1-seed3.pt"
    weights.parent.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(tiny_run(data).net().state_dict(), weights)
    write_sums(weights.parent)
    return Project(root)


# Each takes a minute: one of them stands for all in `make test`.
@pytest.mark.parametrize(
    "stage", [pytest.param(stage, marks=() if stage == "decode" else pytest.mark.slow) for stage in EDITS]
)
def test_a_changed_meaning_starts_over_and_a_docstring_continues(project: Project, stage: str) -> None:
    whole = project.run(stage, "undisturbed")
    undisturbed = project.left(stage, "undisturbed")
    assert len(whole) > 1 and undisturbed
    for name in ("commented", "changed"):
        assert project.run(stage, name, "stop") == whole[:1]
    file, old, new = EDITS[stage]
    text = (project.root / file).read_text(encoding="utf-8")
    docstring = next(line for line in text.splitlines() if line.startswith('"""'))
    project.edit(file, docstring, f'"""Rewritten. {docstring[3:]}')
    assert project.run(stage, "commented") == whole[1:]
    assert project.left(stage, "commented") == undisturbed
    assert project.run(stage, "commented") == []
    project.edit(file, old, new)
    assert project.run(stage, "changed") == whole == project.run(stage, "fresh")
    fresh = project.left(stage, "fresh")
    assert project.left(stage, "changed") == fresh != undisturbed
    # Finished, but the stage that reads it did not run yet: that is not collected either.
    assert project.run(stage, "undisturbed") == whole
    assert project.left(stage, "undisturbed") == fresh
