"""Lock of a workspace: one driver at a time, which is named to others."""

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.errors import UserError
from pipeline.storage.atomic import write

FOLDER = Path(".dvc/tmp")  # git ignores it; drivers on other machines see it too


@contextmanager
def held(wait: bool) -> Iterator[None]:
    """Hold this workspace until the block or the process ends.

    If another driver holds it, wait for its end and print so once.

    Raises:
        UserError: Another driver holds it and `wait` is False; the error has its process, machine, command and start.
    """
    if not FOLDER.parent.is_dir():
        yield  # no DVC project: DVC reports that
        return
    FOLDER.mkdir(exist_ok=True)
    lock, holder = FileLock(FOLDER / "actionbench.lock"), FOLDER / "actionbench.json"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        busy = f"{_named(holder)} is running in this workspace"
        if not wait:
            raise UserError(f"{busy}; wait for its end with --wait, or stop it: the next repro resumes") from None
        print(f"{busy}; waiting for its end", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        mine = {"pid": os.getpid(), "host": socket.gethostname(), "command": sys.argv[1:], "since": time.time()}
        write(holder, json.dumps(mine))
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _named(holder: Path) -> str:
    try:
        driver = json.loads(holder.read_text())
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(driver["since"]))
        command = " ".join(["actionbench", *driver["command"]])
        return f"process {driver['pid']} on {driver['host']} (`{command}`, since {since})"
    except (OSError, ValueError, LookupError, TypeError):
        return "another process"  # it is starting or ending
