"""The six DVC stages and the command line: argv -> params -> call -> write."""

import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import UserError, unknown

if TYPE_CHECKING:
    from pipeline.config.schema import Dataset, Params

DATA = Path("data")


def run(stage: Callable[..., None]) -> None:
    """Runs a stage with the command line's arguments; a user's mistake is one line and exit code 2."""
    if "DVC_STAGE" in os.environ:
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    try:
        if "DVC_STAGE" in os.environ and "stages/dvc.yaml:" not in os.environ["DVC_STAGE"]:
            from stages import fresh

            fresh.check()
        stage(*sys.argv[1:])
    except UserError as error:
        _leave(str(error))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            _leave(
                "the disk is full; make room (`actionbench doctor` shows how much is left) and go on with the same "
                "command"
            )
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        place = error.filename or "a file"
        _leave(f"{place} can't be read or written ({error.strerror}); `actionbench doctor` shows what this user lacks")
    except MemoryError:
        _leave("there is too little memory; close other programs, or take a machine with more")


def chosen(params: "Params", name: str) -> "Dataset":
    """The data set of a name; UserError names those there are."""
    if name not in params.datasets:
        raise unknown("data set", name, params.datasets)
    return params.datasets[name]


def _end_with(parent: int) -> None:
    """Kills this process once its parent is gone: killed itself, DVC leaves its stage running beside the next one."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)


def _leave(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
