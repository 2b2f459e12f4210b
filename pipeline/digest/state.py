"""Sealed state files: content, its key and checksum, written in one step."""

import hashlib
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path

from pipeline.digest import code
from pipeline.digest.files import leads_out
from pipeline.errors import UserError
from pipeline.storage.remote import Place, remove, write

MAGIC = b"actionbench state 1"
KEYED = re.compile(r"(^|-)[0-9a-f]{16}$")  # names of folders of state


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

    Others who use the storage may have a row of the same name. Only folders whose names end in a key are removed,
    which is how this project names those that it makes.

    Raises:
        UserError: The row's name leads out of the storage.
    """
    if leads_out(row) or "/" in row:
        raise UserError(f"{row!r} is no name of a row; nothing was removed for it")
    if isinstance(storage, Path) and storage.is_relative_to(Path.cwd()):
        above = storage / row
        folders = [] if above.is_symlink() or not above.is_dir() else sorted(above.iterdir())
    for folder in folders:
        if KEYED.search(folder.name) and not (isinstance(folder, Path) and folder.is_symlink()):
            remove(folder)
    if isinstance(storage, Path):
        with suppress(OSError):  # it holds other files, or isn't there
            (storage / row).rmdir()


@cache
def running(stage: str) -> str:
    """Return the digest of a stage's code as this process runs it."""
    return code.stage(stage)


def check(actual: str, expected: str, stage: str) -> None:
    """Raise UserError if the worker's key differs."""
    if actual != expected:
        raise UserError(
            f"code or inputs of stage {stage} changed while it ran; once nothing changes them, run it again"
        )


def _seal(content: bytes, key: str) -> bytes:
    digest = hashlib.sha256(key.encode())
    digest.update(content)
    return b" ".join((MAGIC, key.encode(), digest.hexdigest().encode()))
