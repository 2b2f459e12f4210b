"""A project after a whole `dvc repro`: real graph, code and inputs, stand-ins for other stages."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

from dvc.repo import Repo

import pipeline.config.load
from pipeline.digest import code, inputs
from stages.repro.plan import FIRST
from tests.support.project import copy, stand_in


def build(folder: Path, settings: Mapping[str, Any]) -> Path:
    """Return `folder` with the project's sources and graph, these params, and all stages run."""
    stand_in(copy(folder, settings))
    dvc(folder, "repro", "-q")
    return folder


def dvc(folder: Path, *arguments: str) -> str:
    """Return DVC's output."""
    command = [Path(sys.executable).with_name("dvc"), *arguments]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, "PATH": path})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def stale(folder: Path) -> dict[str, list[Any]]:
    """Return DVC's status without stages code and inputs, which are run first."""
    with chdir(folder):
        for path, text in code.files(folder).items():
            (folder / "reports/code" / path).write_text(text)
        inputs.write(pipeline.config.load.load(), folder, Path("data"))
        with Repo() as repo:
            return {stage: entries for stage, entries in repo.status().items() if stage not in FIRST}


@contextmanager
def restored(*paths: Path) -> Iterator[None]:
    """Restore files with their times; remove those that did not exist."""
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
