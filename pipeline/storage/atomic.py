"""Atomic writes: after a crash a file is complete, or absent."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yield a temporary path, renamed to `path` if the block succeeds.

    It is in the same folder. On an error it is removed. The file is synced before it is renamed, and its folder after:
    a crash never leaves a name without its bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        _sync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    with suppress(OSError):  # some network file systems sync no folder
        _sync(path.parent)


def write(path: Path, content: bytes | str) -> None:
    """Write bytes, or text as UTF-8, to `path` in one step."""
    with writing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
