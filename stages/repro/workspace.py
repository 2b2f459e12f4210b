"""One driver at a time in a workspace: who holds it is named to whoever comes second."""

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

FOLDER = Path(".dvc/tmp")  # git-ignored by DVC, and on the project's file system: drivers on other machines see it too


@contextmanager
def held(wait: bool) -> Iterator[None]:
    """This workspace for this process, until the block ends or the process is gone, however that ends.

    Where another driver has it: waits for its end and says so once, or raises UserError, which names its process,
    machine, command and since when.
    """
    if not FOLDER.parent.is_dir():
        yield  # no DVC project: DVC says so
        return
    FOLDER.mkdir(exist_ok=True)
    lock, holder = FileLock(FOLDER / "actionbench.lock"), FOLDER / "actionbench.json"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        busy = f"{_named(holder)} is at work in this workspace"
        if not wait:
            raise UserError(
                f"{busy}; wait for its end with --wait, or stop it: the next repro goes on from there"
            ) from None
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
        found = json.loads(holder.read_text())
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(found["since"]))
        command = " ".join(["actionbench", *found["command"]])
        return f"process {found['pid']} on {found['host']} (`{command}`, since {since})"
    except (OSError, ValueError, LookupError, TypeError):
        return "another process"  # it has just come, or is just going
