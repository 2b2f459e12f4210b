"""Registry by file name: named("attention", "tsm") is models/attention/tsm.py."""

import difflib
from collections.abc import Iterable
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

KINDS = {"attention": "models.attention", "backbone": "models.backbones"}


def named(kind: str, name: str) -> ModuleType:
    """Return the module of a kind ("attention" or "backbone") and name.

    Raises:
        ValueError: The kind or name is unknown; the message lists the known ones.
    """
    names = known(kind)
    if name not in names:
        raise unknown(kind, name, names)
    return import_module(f"{KINDS[kind]}.{name}")


def known(kind: str) -> list[str]:
    """List the files of a kind, sorted; ValueError for an unknown kind."""
    if kind not in KINDS:
        raise unknown("kind of model", kind, KINDS)
    return sorted(module.name for module in iter_modules(import_module(KINDS[kind]).__path__))


def unknown(what: str, name: str, names: Iterable[object]) -> ValueError:
    """Return the error for a name that is none of `names`."""
    return ValueError(f"no {what} {name!r}; {alternatives(name, names)}")


def alternatives(name: str, known: Iterable[object]) -> str:
    """Return an error's remedy: the nearest known name, then all in their order."""
    names = list(map(str, known))
    near = difflib.get_close_matches(name, names, n=1)
    guess = f"did you mean {near[0]!r}? " if near else ""
    return f"{guess}known: {', '.join(names) or 'none'}"
