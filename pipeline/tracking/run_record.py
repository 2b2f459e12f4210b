"""A row's record in data/tracking/<row>/: settings, tags, numbers, no secrets."""

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from pipeline.storage import notes

T = TypeVar("T")
RUN, NUMBERS = "run.json", "numbers.json"
SUBMITTED = ".submitted.json"  # a submitted job's files, and their commit
COMMIT = "mlflow.source.git.commit"
SECRET = re.compile(r"token|passw|pwd|jwt|secret|credential|api_?key|private_?key", re.IGNORECASE)
# user:password@, with any characters in the password; and user:password of an address without a host.
USER = re.compile(r"(\w://)(?:[^/\s]*@|[^/\s:]*:[^\s]*@)")
PORT = re.compile(r"(\w://[^/\s:@\[\]]*:)(?!\d*(?:[/?#\s,;)'\"]|$))[^/\s]+")
QUERY = re.compile(
    r"([?&#;][^=&#;\s]*(?:token|passw|pwd|secret|credential|sig|key|auth|jwt|code|session)[^=&#;\s]*=)[^&#\s]+", re.I
)


@dataclass(frozen=True)
class Record:
    """Settings and tags of a row, without secrets.

    `params`: dotted names and values as text; `tags`: their source.
    """

    suite: str
    row: str
    params: dict[str, str]
    tags: dict[str, str]

    @property
    def training(self) -> str:
        """The training's id: changes with settings and tags, not with the commit."""
        identity = [self.params, {name: value for name, value in self.tags.items() if name != COMMIT}]
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Numbers:
    """The evaluation of a training: numbers of each run, and of the row."""

    training: str
    runs: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    row: Mapping[str, float] = field(default_factory=dict)


def record(suite: str, row: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> Record:
    """Build a record from `params`, which may be nested.

    Names that look like secrets are left out, and URIs lose their credentials.
    """
    return Record(
        suite,
        row,
        {name: clean(str(value)) for name, value in _flat(params) if not SECRET.search(name)},
        {name: clean(value) for name, value in tags.items() if not SECRET.search(name)},
    )


def tags(folder: Path, *, stage: str, data: str, protocol: str, place: str) -> dict[str, str]:
    """Return the tags of a row's runs.

    Args:
        folder: in the repository of the commit, if there is one.
        stage: DVC's hash of the stage.
        data: digest of the data.
        protocol: its signature.
        place: table and row of the numbers.
    """
    facts = {"dvc.stage": stage, "data": data, "protocol": protocol, "place": place}
    return {**facts, COMMIT: name} if (name := commit(folder)) else facts


def commit(folder: Path) -> str:
    """Return the commit of a folder's files, with "-dirty" if they differ, or "".

    A submitted job's folder has no history; its list of submitted files holds the commit.
    """
    submitted = folder / SUBMITTED
    if submitted.is_file() and not (folder / ".git").exists():
        return str((notes.read(submitted) or {}).get("commit", ""))
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def save(part: Record | Numbers, folder: Path) -> None:
    """Write a record or numbers into a row's folder of data/tracking."""
    notes.write(folder / (RUN if isinstance(part, Record) else NUMBERS), asdict(part))


def load(folder: Path) -> Record | None:
    """Return the record of a row's folder of data/tracking, or None."""
    return _read(folder / RUN, Record)


def numbers(folder: Path) -> Numbers | None:
    """Return the numbers of a row's folder of data/tracking, or None."""
    return _read(folder / NUMBERS, Numbers)


def clean(text: str) -> str:
    """Remove the credentials of all URIs in a text."""
    return QUERY.sub(r"\1***", PORT.sub(r"\1***", USER.sub(r"\1***@", text)))


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, value) of nested values; lists of plain values stay whole."""
    if isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
        value = dict(enumerate(value))
    if not isinstance(value, Mapping):
        yield name, value
        return
    for key, inner in value.items():
        yield from _flat(inner, f"{name}.{key}" if name else str(key))


def _read(path: Path, kind: type[T]) -> T | None:
    if (content := notes.read(path)) is None:
        return None
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError:
        print(f"{path} is damaged and counts as absent", file=sys.stderr, flush=True)
        return None
