"""The six DVC stages and the command line: argv -> params -> call -> write."""

import errno
import sys
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import UserError

DATA = Path("data")


def run(stage: Callable[..., None]) -> None:
    """Runs a stage with the command line's arguments; a user's mistake is one line and exit code 2."""
    try:
        stage(*sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(
            "error: the disk is full; make room (`actionbench doctor` shows how much is left), then go on",
            file=sys.stderr,
        )
        sys.exit(2)
