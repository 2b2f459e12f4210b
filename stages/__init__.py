"""The six DVC stages and the command line: argv -> params -> call -> write."""

import errno
import gc
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
    """Run a stage with the command line's arguments.

    A user's error is one line and exit code 2.
    """
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
                "the disk is full; make room (`actionbench doctor` shows the free space) and repeat the same command"
            )
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        place = error.filename or "a file"
        _leave(
            f"{place} can't be read or written ({error.strerror}); `actionbench doctor` checks this user's permissions"
        )
    except MemoryError:
        _leave("out of memory; close other programs, or use a machine with more memory")
    finally:
        gc.freeze()  # else Python looks through all of torch and MLflow for garbage at exit, which takes 2 s


def chosen(params: "Params", name: str) -> "Dataset":
    """Return a data set by name; a UserError for an unknown one lists the known names."""
    if name not in params.datasets:
        raise unknown("data set", name, params.datasets)
    return params.datasets[name]


def _end_with(parent: int) -> None:
    """Kill this process when its parent has ended.

    A killed DVC leaves its stage running, next to the one of the following call.
    """
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)


def _leave(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
