"""A project after a whole `dvc repro`: the real graph, code and inputs, with stand-ins for what other stages do."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

from dvc.repo import Repo
from ruamel.yaml import YAML

from pipeline.config import load as params
from pipeline.digest import code, inputs
from stages.repro.plan import FIRST

ROOT = Path(__file__).parents[2]
STAND_IN = """
import sys
from pathlib import Path
for out in map(Path, sys.argv[1:]):
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(f"{out}")
"""


def build(folder: Path, settings: Mapping[str, Any]) -> Path:
    """Return `folder` with the project's sources and graph, those params, and all stages run."""
    for name in ("models", "pipeline", "cluster", "stages", "reports/papers", "reports/templates"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "dvc.lock"))
    for name in (".dvcignore", "constraints.txt", "reports/parity.csv", "reports/parity.json"):
        shutil.copy(ROOT / name, folder / name)
    save(folder, settings)
    graph = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())
    for stage in graph["stages"].values():
        body = stage.get("do", stage)
        body["cmd"] = f"python stand_in.py {' '.join(_files(body))}"
    with (folder / "dvc.yaml").open("w") as file:
        YAML(typ="safe").dump(graph, file)
    (folder / "stand_in.py").write_text(STAND_IN)
    dvc(folder, "init", "--no-scm", "-q")
    dvc(folder, "repro", "-q")
    return folder


def dvc(folder: Path, *arguments: str) -> str:
    """Return what DVC prints."""
    command = [Path(sys.executable).with_name("dvc"), *arguments]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, "PATH": path})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def stale(folder: Path) -> dict[str, list[Any]]:
    """Return DVC's status after code and inputs are taken anew, without these."""
    with chdir(folder):
        for path, text in code.files(folder).items():
            (folder / "reports/code" / path).write_text(text)
        inputs.write(params.load(), folder, Path("data"))
        with Repo() as repo:
            return {stage: entries for stage, entries in repo.status().items() if stage not in FIRST}


def load(folder: Path) -> dict[str, Any]:
    return YAML(typ="safe").load((folder / "params.yaml").read_text())


def save(folder: Path, settings: Mapping[str, Any]) -> None:
    with (folder / "params.yaml").open("w") as file:
        YAML(typ="safe").dump(json.loads(json.dumps(settings)), file)  # without aliases


@contextmanager
def restored(*paths: Path) -> Iterator[None]:
    """Put files back as they were, with their times; those that weren't there are removed."""
    before = {path: (path.read_bytes(), path.stat()) if path.exists() else None for path in paths}
    try:
        yield
    finally:
        for path, state in before.items():
            if state is None:
                path.unlink(missing_ok=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(state[0])
                os.utime(path, ns=(state[1].st_atime_ns, state[1].st_mtime_ns))


def _files(stage: Mapping[str, Any]) -> list[str]:
    """A file for each of a stage's outs, inside of it where it is a folder."""
    outs = [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]
    paths = [out if isinstance(out, str) else next(iter(out)) for out in outs]
    return [path if "." in Path(path).name else f"{path}/x" for path in paths]
