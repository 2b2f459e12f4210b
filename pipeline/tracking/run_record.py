"""A row's record in data/tracking/<row>/: settings, tags, numbers, no secrets."""

import getpass
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from pipeline.storage import notes

T = TypeVar("T")
RUN, NUMBERS = "run.json", "numbers.json"
SUBMITTED = ".submitted.json"  # a submitted job's files, and their commit
ARTIFACTS = "artifacts"  # folder of the files that MLflow shows with the row
COMMIT = "mlflow.source.git.commit"
# The files of a commit that decide what code runs; results and settings of the project change without it.
CODE = ("*.py", "*dvc.yaml", "constraints.txt", ":!tests", ":!bench", ":!docs")
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

    `params`: dotted names and values as text; `tags`: their source; `inputs`: data digest by split, as in "split1".
    """

    suite: str
    row: str
    params: dict[str, str]
    tags: dict[str, str]
    inputs: dict[str, str] = field(default_factory=dict)

    @property
    def training(self) -> str:
        """The training's id: changes with settings and tags, not with commit or user."""
        identity = [self.params, {name: value for name, value in self.tags.items() if not name.startswith("mlflow.")}]
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Numbers:
    """The evaluation of a training: numbers of each run, and of the row."""

    training: str
    runs: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    row: Mapping[str, float] = field(default_factory=dict)


def record(
    suite: str,
    row: str,
    params: Mapping[str, Any],
    tags: Mapping[str, str],
    inputs: Mapping[str, str] | None = None,
) -> Record:
    """Build a record from `params`, which may be nested.

    Names that look like secrets are left out, and URIs lose their credentials.
    """
    return Record(
        suite,
        row,
        {name: clean(str(value)) for name, value in _flat(params) if not SECRET.search(name)},
        {name: clean(value) for name, value in tags.items() if not SECRET.search(name)},
        dict(inputs or {}),
    )


def public(value: Any) -> Any:
    """Return nested settings without names that look like secrets, and URIs' credentials."""
    if isinstance(value, Mapping):
        return {name: public(inner) for name, inner in value.items() if not SECRET.search(str(name))}
    if isinstance(value, list | tuple):
        return [public(inner) for inner in value]
    return clean(value) if isinstance(value, str) else value


def tags(folder: Path, *, stage: str, data: str, protocol: str, place: str, source: str = "") -> dict[str, str]:
    """Return the tags of a row's runs.

    Args:
        folder: in the repository of the commit, if there is one.
        stage: DVC's hash of the stage.
        data: digest of the data.
        protocol: its signature.
        place: table and row of the numbers.
        source: the command that repeats the training.
    """
    facts = {"dvc.stage": stage, "data": data, "protocol": protocol, "place": place}
    facts |= {"mlflow.source.name": source, "mlflow.source.type": "LOCAL"} if source else {}
    with suppress(KeyError, OSError):  # a user without a name, as in some containers
        facts["mlflow.user"] = getpass.getuser()
    return {**facts, COMMIT: name} if (name := commit(folder)) else facts


def commit(folder: Path) -> str:
    """Return the commit of a folder's files, with "-dirty" if its CODE differs, or "".

    A submitted job's folder has no history; its list of submitted files holds the commit.
    """
    submitted = folder / SUBMITTED
    if submitted.is_file() and not (folder / ".git").exists():
        return str((notes.read(submitted) or {}).get("commit", ""))
    git = ["git", "-C", str(folder)]
    try:
        head, changed = (
            subprocess.run([*git, *command], capture_output=True, text=True, timeout=10, check=True).stdout.strip()
            for command in (("rev-parse", "HEAD"), ("status", "--porcelain", "--", *CODE))
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return f"{head}-dirty" if changed else head


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
