"""The exception for what a user can mend, and the one for a name that is not known."""

from collections.abc import Iterable

from models import registry


class UserError(Exception):
    """A mistake in what the user gave: one line that names the thing and the alternatives.

    The stages and the command line print it without a traceback and leave with exit code 2.
    """


def alternatives(name: str, known: Iterable[object]) -> str:
    """Return the tail of an error message: the nearest known name, then all of them by the alphabet."""
    return registry.alternatives(name, sorted(map(str, known)))


def unknown(what: str, name: str, names: Iterable[object]) -> UserError:
    """Return the error for a name that is none of `names`: the nearest one, then all of them."""
    return UserError(f"no {what} {name!r}; {alternatives(name, names)}")
