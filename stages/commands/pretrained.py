"""Registered weights with their local state, and their download."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.config.load import load
from pipeline.config.pretrained import located, registry
from pipeline.download.urls import matches
from pipeline.download.weights import fetch
from pipeline.errors import unknown


@dataclass(frozen=True)
class Weights:
    """A registered file of weights, and its local state."""

    name: str
    about: str
    state: str  # "ready", "damaged", "missing", or "by hand": missing, without a download
    path: str
    rows: int  # of params.yaml that start from it
    sha256: str | None  # as published: whole, or its first digits
    license: str
    url: str  # of the file, or of the page that links to it


def listing(root: Path = Path()) -> list[Weights]:
    """Return every registered file of weights, in alphabetical order."""
    used = [row.weights for row in load(root / "params.yaml").experiments.values()]
    return [
        Weights(
            name=name,
            about=entry.about,
            state=_state(name, root),
            path=located(name, root).as_posix(),
            rows=used.count(name),
            sha256=entry.sha256,
            license=entry.license,
            url=entry.url or entry.page,
        )
        for name, entry in sorted(registry().items())
    ]


def fetch_all(names: list[str], root: Path = Path()) -> list[Path]:
    """Fetch registered weights by name, and return their paths.

    Raises:
        UserError: A name is unknown, or a download fails.
    """
    for name in names:
        if name not in registry():
            raise unknown("weights", name, registry())
    return [fetch(name, root) for name in names]


def _state(name: str, root: Path) -> str:
    entry, path = registry()[name], located(name, root)
    if path.is_file():
        return "ready" if path.name != entry.file or matches(path, entry.sha256) else "damaged"
    return "missing" if entry.url else "by hand"
