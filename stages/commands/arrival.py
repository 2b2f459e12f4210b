"""A submitted job's first step, on the head: its code into the shared folder, and `actionbench repro` runs there."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pipeline.digest.files import leads_out
from pipeline.errors import UserError
from pipeline.storage import notes
from pipeline.storage.atomic import write
from pipeline.tracking.run_record import SUBMITTED
from stages.repro import plan
from stages.repro.driver import repro
from stages.repro.workspace import held

# What `actionbench repro` makes stays as it is in the shared folder, where there is any.
RESULTS = (
    "dvc.lock",
    "reports/index.html",
    *(f"reports/{name}/" for name in ("tables", "figures", "metrics", "plots")),
)
ENVIRONMENT = (".dvc", ".venv")  # what may lie in a folder before the first code comes


def arrive(into: str, commit: str, targets: Sequence[str], jobs: int, keep_going: bool, wait: bool) -> int:
    """Brings the code in the current folder, a job's own, up to date in the shared one, and runs it there.

    `into`: the shared folder, by default the one that Ray was started in. Ray makes a job's own folder that of all its
    tasks too, and removes it with the job: what keeps data/ is that neither is handed on. exit code of repro().

    UserError where another driver is at work in the shared folder, or it holds what no submission brought.
    """
    from cluster import submit

    source = Path.cwd()
    os.environ.pop(submit.HANDED_ON, None)
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path and Path(path).resolve() != source)
    folder = Path(into or submit.home())
    if not folder.is_absolute():
        raise UserError(f"--into is a folder that all nodes see, by its whole path, and not {into!r}")
    if not is_ours(folder):
        raise UserError(
            f"{folder} holds what no submission brought: commit what was changed there, if it is a clone, "
            "or name another folder by --into"
        )
    (folder / ".dvc").mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    with held(wait):
        unpack(source, folder, commit)
        print(f"the project is at {folder}, on {os.uname().nodename}", flush=True)
        code = repro(targets, jobs, keep_going)
    print(f"results are in {folder / 'reports'}, what they were made from in {folder / 'dvc.lock'}", flush=True)
    return code


def is_ours(folder: Path) -> bool:
    """May code be written over what lies in a folder? Nothing does, or a submission's, or a clone without changes."""
    if not folder.is_dir() or all(path.name in ENVIRONMENT for path in folder.iterdir()):
        return True
    if (folder / SUBMITTED).is_file():
        return True
    command = ["git", "-C", str(folder), "status", "--porcelain", "--untracked-files=no"]
    try:
        return not subprocess.run(command, capture_output=True, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return False


def unpack(source: Path, folder: Path, commit: str) -> None:
    """Every file of `source` into `folder`, each as one step, and what an earlier submission brought and is gone, away.

    Killed midway, it is done again by the next one: nothing runs in the folder before it is through.
    """
    files = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    files = {name for name in files if "__pycache__" not in name}
    listed = folder / SUBMITTED
    noted = (notes.read(listed) or {}).get("files", [])
    # Nothing is removed by a name that no submission brings: one that leads out, or through a link.
    before = {
        name for name in noted if isinstance(name, str) and not leads_out(name) and _within(folder / name, folder)
    }
    _list(listed, commit, files | before)
    for name in before - files:
        if not name.startswith(RESULTS):
            (folder / name).unlink(missing_ok=True)
    for name in sorted(files):
        target, content = folder / name, (source / name).read_bytes()
        there = target.is_file()
        if there and (name.startswith(RESULTS) or target.read_bytes() == content):
            continue
        write(target, content)
    _list(listed, commit, files)
    if not (folder / ".git").exists():  # DVC looks for git's history, unless told that there is none
        plan.dvc("config", "--local", "core.no_scm", "true")


def _within(path: Path, folder: Path) -> bool:
    return path.parent.resolve() == folder.resolve() / path.parent.relative_to(folder)


def _list(listed: Path, commit: str, files: set[str]) -> None:
    notes.write(listed, {"commit": commit, "files": sorted(files)})
