"""The error class for users' mistakes, and the message for an unknown name."""

import csv
import difflib
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


class UserError(Exception):
    """A user's mistake: one line that names the thing and the alternatives.

    The stages and the command line print it without a traceback and exit with code 2.
    """


def alternatives(name: str, known: Iterable[object]) -> str:
    """Return the end of an error message: the nearest known name, then all of them."""
    names = sorted(map(str, known))
    near = difflib.get_close_matches(name, names, n=1)
    guess = f"did you mean {near[0]!r}? " if near else ""
    return f"{guess}known: {', '.join(names) or 'none'}"


@contextmanager
def reading(path: Path, remedy: str) -> Iterator[None]:
    """Read a file that this project wrote; whatever its reader says of a damaged one becomes a UserError.

    Args:
        path: The file.
        remedy: Words for how it is made again.
    """
    try:
        yield
    except (UserError, FileNotFoundError):
        raise
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        EOFError,
        csv.Error,
        OSError,
        zlib.error,
        zipfile.BadZipFile,
        RuntimeError,
    ):
        raise UserError(f"{path} is damaged; {remedy}") from None
