"""A Ray that the stages of one `dvc` command share.

DVC starts stages one after another and passes nothing between them. The first stage that needs Ray starts a process
that holds one; the following stages join it. It ends with the `dvc` command, or when no stage has used it for a while.
Its address and token are in a file below .dvc/tmp/ that only this user can read. Each stage holds a lock on that file.
"""

import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

import psutil

from pipeline.config.schema import Cluster
from pipeline.errors import UserError

FOLDER = Path(".dvc/tmp")  # git and DVC ignore it
TOKEN = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")
SHELLS = {"sh", "bash", "dash", "zsh", "ksh", "fish"}  # between DVC and its stage, if no environment can be read
IDLE = 600.0  # seconds without a stage after which it ends, e.g. under a notebook, which lives on
POLL = 0.5  # seconds


@contextmanager
def joined() -> Iterator[Mapping[str, str]]:
    """Yield address and token of the Ray of this stage's `dvc` command; start it first if needed.

    Empty outside of a DVC stage.

    Raises:
        UserError: Ray can't start.
    """
    dvc = _dvc() if "DVC_STAGE" in os.environ and FOLDER.parent.is_dir() else None
    if dvc is None:
        yield {}
        return
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"ray-{socket.gethostname()}-{dvc.pid}-{dvc.create_time():.0f}"
    with opened(path) as file:
        about = read(file)
        if about:
            yield about
            return
    try:
        _start(path, dvc)
    except UserError:
        path.unlink(missing_ok=True)
        raise
    with opened(path) as file:
        yield read(file)


def read(file: TextIO) -> dict[str, str]:
    """Return the content if that Ray answers; else empty the file."""
    from cluster.session import knock

    fcntl.flock(file, fcntl.LOCK_SH)  # until the file is closed
    try:
        about: dict[str, str] = json.loads(file.read() or "{}")
        if about:
            knock(about["address"])
        return about
    except (ValueError, LookupError, ConnectionError):  # its process was killed
        file.truncate(0)
        return {}


def opened(path: Path) -> TextIO:
    """Open the file of address and token, readable by this user only; create it if needed."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="utf-8")


def _start(path: Path, dvc: psutil.Process) -> None:
    """Start the process that holds Ray, and wait until Ray is up."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "cluster.background", str(path.absolute()), str(dvc.pid)],
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # whoever reads DVC's output doesn't wait for this process
        text=True,
        start_new_session=True,  # Ctrl-C ends DVC, which ends it
    )
    assert process.stdout
    with process.stdout as answer:
        error = answer.readline().rstrip()
    if error != "ready":
        raise UserError(error or "Ray can't start; `actionbench doctor` checks this machine")


def _dvc() -> psutil.Process | None:
    """Return the process that runs this stage: the first one above that is not of the stage itself."""
    for parent in psutil.Process().parents():
        try:
            inside = "DVC_STAGE" in parent.environ()
        except psutil.Error:
            inside = parent.name() in SHELLS
        if not inside:
            return parent
    return None


def hold(path: Path, dvc: psutil.Process) -> None:
    """Hold a Ray until the `dvc` process ends, or no stage locks the file for IDLE."""
    from cluster.shared import shared

    with shared(Cluster()) as variables, opened(path) as file:
        about = {"address": variables["RAY_ADDRESS"], **{name: os.environ[name] for name in TOKEN}}
        file.write(json.dumps(about))
        file.flush()
        print("ready", flush=True)
        used = time.monotonic()
        while dvc.is_running() and dvc.status() != psutil.STATUS_ZOMBIE:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                used = time.monotonic()
            else:
                if time.monotonic() - used > IDLE:
                    break  # with the lock: a stage that waits for it reads an empty file
                fcntl.flock(file, fcntl.LOCK_UN)
            time.sleep(POLL)
        path.unlink(missing_ok=True)
        file.truncate(0)


if __name__ == "__main__":
    try:
        with suppress(psutil.NoSuchProcess):
            hold(Path(sys.argv[1]), psutil.Process(int(sys.argv[2])))
    except UserError as error:
        print(error, flush=True)
