"""Start of a submitted job: its code goes to the shared folder and repro runs."""

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

# Results of `actionbench repro`, which are kept in the shared folder.
RESULTS = (
    "dvc.lock",
    "reports/index.html",
    *(f"reports/{name}/" for name in ("tables", "figures", "metrics", "plots")),
)
ENVIRONMENT = (".dvc", ".venv")  # allowed in a folder before the first submission


def arrive(into: str, commit: str, targets: Sequence[str], jobs: int, keep_going: bool, wait: bool) -> int:
    """Update the code in the shared folder from the job's folder, and run repro there.

    Ray makes a job's folder the folder of its tasks, and deletes it with the job. Neither must happen to data/, so that
    setting is not passed on.

    Args:
        into: The shared folder; default: the one in which Ray was started.
        commit: The submitted commit.
        targets: Stages or rows.
        jobs: Number of rows to run in parallel.
        keep_going: Continue after a failure.
        wait: Wait for another driver.

    Returns:
        The exit code of repro().

    Raises:
        UserError: Another driver runs in the shared folder, or it holds files of another origin.
    """
    from cluster import submit

    source = Path.cwd()
    os.environ.pop(submit.HANDED_ON, None)
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path and Path(path).resolve() != source)
    folder = Path(into or submit.home())
    if not folder.is_absolute():
        raise UserError(f"--into is {into!r}; give the absolute path of a folder that all nodes share")
    if not is_ours(folder):
        raise UserError(
            f"{folder} holds files that are not from a submission; commit the changes there if it is a clone, "
            "or name another folder by --into"
        )
    (folder / ".dvc").mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    with held(wait):
        unpack(source, folder, commit)
        print(f"the project is at {folder}, on {os.uname().nodename}", flush=True)
        code = repro(targets, jobs, keep_going)
    print(f"results are in {folder / 'reports'}, their inputs' digests in {folder / 'dvc.lock'}", flush=True)
    return code


def is_ours(folder: Path) -> bool:
    """Return True if code may replace a folder's files.

    The folder is empty, of an earlier submission, or a clone without changes.
    """
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
    """Copy every file atomically; remove those that only an earlier submission had.

    An interrupted copy is repeated by the next job: nothing runs before its end.
    """
    files = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    files = {name for name in files if "__pycache__" not in name}
    listed = folder / SUBMITTED
    noted = (notes.read(listed) or {}).get("files", [])
    # A name that leads out of the folder, or through a link, removes nothing.
    before = {
        name for name in noted if isinstance(name, str) and not leads_out(name) and _within(folder / name, folder)
    }
    _list(listed, commit, files | before)
    for name in before - files:
        if not name.startswith(RESULTS):
            (folder / name).unlink(missing_ok=True)
    for name in sorted(files):
        target, content = folder / name, (source / name).read_bytes()
        present = target.is_file()
        if present and (name.startswith(RESULTS) or target.read_bytes() == content):
            continue
        write(target, content)
    _list(listed, commit, files)
    if not (folder / ".git").exists():  # otherwise DVC requires a git repository
        plan.dvc("config", "--local", "core.no_scm", "true")


def _within(path: Path, folder: Path) -> bool:
    return path.parent.resolve() == folder.resolve() / path.parent.relative_to(folder)


def _list(listed: Path, commit: str, files: set[str]) -> None:
    notes.write(listed, {"commit": commit, "files": sorted(files)})
