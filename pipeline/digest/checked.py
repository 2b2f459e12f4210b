"""Files checked against their sha256 once per node, for all of its processes."""

import os
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from pipeline.digest import files


def cache() -> Path:
    """Return a node's cache, private to its user, which may be removed at any time."""
    above = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("ACTIONBENCH_CACHE") or above / "actionbench").absolute()


def holds(path: Path, sha256: str) -> bool:
    """Return true if a file's bytes have this sha256.

    A file that this node has hashed, and that has not changed since, is not read again.

    Raises:
        FileNotFoundError: The file is absent.
    """
    mark = _mark(path, sha256)
    if mark.exists():
        return True
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(mark.parent / f"{sha256}.lock")
        lock.acquire()  # one process reads, the others wait for its result
    except OSError:  # a node without a cache
        return files.sha256(path) == sha256
    try:
        if mark.exists():
            return True
        same = files.sha256(path) == sha256
        if same:
            mark.touch()
        return same
    finally:
        lock.release()


def sha256(path: Path) -> str:
    """Return a file's sha256, and remember it for holds()."""
    digest = files.sha256(path)
    remember(path, digest)
    return digest


def remember(path: Path, sha256: str) -> None:
    """Record that a file's bytes have this sha256, until the file changes."""
    mark = _mark(path, sha256)
    with suppress(OSError):
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()


def _mark(path: Path, sha256: str) -> Path:
    facts = path.stat()
    identity = (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
    return cache() / "checked" / f"{sha256}-{'-'.join(map(str, identity))}"
