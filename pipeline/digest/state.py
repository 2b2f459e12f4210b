"""Sealed state files: content, its key and checksum, written in one step."""

import hashlib
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from pipeline.digest import code
from pipeline.errors import UserError
from pipeline.storage.remote import Place, remove, write

MAGIC = b"actionbench state 1"


def put(place: Place, content: bytes, key: str) -> None:
    """Write content that was computed under `key` (digest/key.py)."""
    write(place, _seal(content, key) + b"\n" + content)


def get(place: Place, key: str) -> bytes | None:
    """Return the content that put() wrote under this key, or None.

    A damaged or half-written file counts as absent; a line on stderr names it.
    """
    try:
        sealed = place.read_bytes()
    except FileNotFoundError:
        return None
    end = sealed.find(b"\n")
    head, content = sealed[: max(end, 0)], sealed[end + 1 :]
    made_under = head.decode("ascii", "replace").rpartition(" ")[0].rpartition(" ")[2]
    if head != _seal(content, made_under):
        print(f"{place} is damaged and counts as absent", file=sys.stderr, flush=True)
        return None
    return content if made_under == key else None


def clear(storage: Place, row: str, folders: Iterable[Place]) -> None:
    """Remove a row's state once its outputs are safe.

    In the project's folder all of it goes, elsewhere only these folders: other users of the storage may have a row of
    the same name.
    """
    if isinstance(storage, Path) and storage.is_relative_to(Path.cwd()):
        folders = [storage / row]
    for folder in folders:
        remove(folder)


@cache
def running(stage: str) -> str:
    """Return the digest of a stage's code as this process runs it.

    Later edits don't count.
    """
    return code.stage(stage)


def check(actual: str, expected: str, stage: str) -> None:
    """Refuse work if the worker's key differs.

    Raises:
        UserError: The keys differ.
    """
    if actual != expected:
        raise UserError(
            f"code or inputs of stage {stage} are not those that it began with; once nothing changes them, run it again"
        )


def _seal(content: bytes, key: str) -> bytes:
    digest = hashlib.sha256(key.encode())
    digest.update(content)
    return b" ".join((MAGIC, key.encode(), digest.hexdigest().encode()))
