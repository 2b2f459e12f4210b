"""The error class for users' mistakes, and the message for an unknown name."""

import csv
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

from models import registry

LIBRARIES = (csv.Error, zlib.error, zipfile.BadZipFile)
SHOWN = 8  # names that an error lists


class UserError(Exception):
    """A user's mistake: one line that names the thing and the alternatives.

    The stages and the command line print it without a traceback and exit with code 2.
    """


def alternatives(name: str, known: Iterable[object]) -> str:
    """Return an error's remedy: the nearest known name, then all, sorted.

    If there are more than SHOWN, only the nearest are listed, and the others counted.
    """
    names = sorted(map(str, known))
    if len(names) <= SHOWN:
        return registry.alternatives(name, names)
    nearest = get_close_matches(name, names, SHOWN, cutoff=0.0)
    return f"{registry.alternatives(name, nearest)} and {len(names) - SHOWN} more"


def unknown(what: str, name: str, names: Iterable[object]) -> UserError:
    """Return the error for a name that is none of `names`."""
    return UserError(f"no {what} {name!r}; {alternatives(name, names)}")


@contextmanager
def reading(path: Path, remedy: str) -> Iterator[None]:
    """Read a file that this project wrote; a reader's error becomes a UserError.

    `remedy` is the way to restore a damaged file.
    """
    try:
        yield
    except (UserError, FileNotFoundError):
        raise
    except (ValueError, LookupError, TypeError, AttributeError, EOFError, OSError, RuntimeError, *LIBRARIES):
        raise UserError(f"{path} is damaged; {remedy}") from None
