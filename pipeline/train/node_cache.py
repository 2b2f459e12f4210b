"""Content-addressed files in a store, and each node's copies of them.

A node fetches a file once. A store keeps `.data/objects/<sha256>`, the bytes, and `.data/lists/<key>.json`, a list of
files: name -> sha256, bytes. A node keeps the same objects in cache(), and for each list a folder of links to them,
laid out as data/.
"""

import errno
import hashlib
import json
import mmap
import os
import re
import socket
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from filelock import FileLock

from pipeline.config.schema import Cluster
from pipeline.decode.frame_store import FrameStore
from pipeline.decode.layout import shard_path
from pipeline.digest.checked import cache, remember
from pipeline.digest.files import SUMS, leads_out
from pipeline.digest.files import sha256 as digest_of
from pipeline.errors import UserError
from pipeline.storage.atomic import writing
from pipeline.storage.remote import Remote, place
from pipeline.train.run import Run

THREADS = 8  # files in transfer at once
CHUNK = 8 << 20  # bytes
CHECKED = 0  # ns: the time of change of a file whose sha256 was checked; any change to the file moves it
Facts = tuple[str, int]  # sha256, bytes


def publish(store: Remote, files: Mapping[str, Path], key: str) -> None:
    """Put named files and their list, as `key`, into the store.

    Only missing bytes are sent, and the list comes last. An existing list of that key with all of its objects is kept:
    the key depends on the content.
    """
    listed, objects = _list(store, key), store / ".data" / "objects"
    stored = objects.sizes()
    try:
        if all(stored.get(sha256) == size for sha256, size in read_list(listed).values()):
            return
    except FileNotFoundError:
        pass
    except UserError as error:
        print(f"{error}; it is written again", file=sys.stderr, flush=True)

    def send(path: Path) -> Facts:
        size = path.stat().st_size
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
            sha256 = hashlib.sha256(mapped).hexdigest()
            if stored.get(sha256) != size:
                (objects / sha256).write_bytes(mapped)
        return sha256, size

    with ThreadPoolExecutor(THREADS) as pool:
        facts = dict(zip(files, pool.map(send, files.values()), strict=True))
    listed.write_bytes(json.dumps(facts, sort_keys=True).encode())


@dataclass(frozen=True)
class Copy:
    """A list of the store, and this node's folder for its files."""

    store: Remote
    files: Mapping[str, Facts]
    folder: Path

    def fetch(self, read: Callable[[str], bool]) -> None:
        """Fetch the files whose names are `read`, unless this node has them.

        One process of a node fetches an object while others wait. The file gets its name only once its sha256 is
        checked.

        Raises:
            UserError: An object is damaged or gone, or the disk is full.
        """
        chosen = {name: self.files[name] for name in self.files if read(name)}
        missing = {facts for facts in chosen.values() if not _whole(*facts)}
        with ThreadPoolExecutor(THREADS) as pool:
            for _ in pool.map(lambda facts: _bring(self.store, *facts), sorted(missing)):
                pass
        for name, (sha256, _) in chosen.items():
            link = self.folder / name
            link.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                link.symlink_to(_object(sha256))


@lru_cache(maxsize=64)
def opened(store: Remote, key: str) -> Copy:
    """Return the list of a key; FileNotFoundError if absent, UserError if damaged."""
    files = read_list(_list(store, key))
    # By content: a rewritten list may name other objects.
    name = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    return Copy(store, files, cache() / "lists" / name[:32])


def sent(row: Sequence[Run], cluster: Cluster, others: Iterable[Path] = ()) -> list[Run]:
    """Return a row's runs for its tasks, after uploading their files to a store.

    The files are the data set's frames and splits, and the `others`: trained weights, or a file to initialize from. If
    cluster.storage is a folder, nothing is uploaded.
    """
    store, run = place(cluster.storage), row[0]
    if isinstance(store, Path):
        return list(row)
    frames = [run.frames / name for name in ("index.arrow", "failed.csv", SUMS)]
    files = sorted((*frames, *run.split_table.parent.iterdir(), *others))
    named = {_name(run, path): path for path in files if path.is_file()}
    marks = [(name, digest_of(path)) for name, path in named.items()]
    key = hashlib.sha256(json.dumps(marks).encode()).hexdigest()  # the index determines the shards
    shards = sorted({entry.shard for entry in FrameStore(run.frames).videos.values()})
    publish(store, named | {_shard(run, shard): shard_path(run.frames, shard) for shard in shards}, key)
    return [replace(run, copy=key) for run in row]


def brought(
    run: Run, cluster: Cluster, weights: Path | None = None, frames_of: str | None = None
) -> tuple[Run, Path | None]:
    """Return the run with this node's paths, and its file to initialize from.

    All files that it reads are fetched first, but only the frames of the split's part `frames_of`, if one is named.
    """
    if run.copy is None:
        return run, weights
    copy = _opened(run, cluster)
    apart = {_name(run, run.weights)}
    copy.fetch(lambda name: name in apart or not name.startswith(("runs/", _shards(run))))
    here = replace(run, data=copy.folder)
    if frames_of:
        bring_frames(here, cluster, FrameStore(here.frames), [video for video, _ in here.part(frames_of)])
    return here, weights and copy.folder / _name(run, weights)


def bring_frames(run: Run, cluster: Cluster, store: FrameStore, videos: Iterable[str]) -> None:
    """Fetch the shards of these videos before they are read from brought()'s store."""
    if run.copy is not None:
        shards = {_shard(run, store.entry(video).shard) for video in videos if video in store}
        _opened(run, cluster).fetch(shards.__contains__)


def _opened(run: Run, cluster: Cluster) -> Copy:
    store = place(cluster.storage)
    assert isinstance(store, Remote) and run.copy is not None
    return opened(store, run.copy)


def _name(run: Run, path: Path) -> str:
    """Return a file's name in a list."""
    return path.relative_to(run.data).as_posix() if path.is_relative_to(run.data) else f"weights/{path.name}"


def _shards(run: Run) -> str:
    return f"{_name(run, run.frames)}/shard-"


def _shard(run: Run, shard: int) -> str:
    return _name(run, shard_path(run.frames, shard))


def _list(store: Remote, key: str) -> Remote:
    return store / ".data" / "lists" / f"{key}.json"


def read_list(listed: Remote) -> dict[str, Facts]:
    try:
        files = {name: (sha256, size) for name, (sha256, size) in json.loads(listed.read_bytes()).items()}
    except (ValueError, TypeError, AttributeError):
        raise UserError(f"the list {listed} is damaged") from None
    for name, (sha256, size) in files.items():
        if leads_out(name) or not (isinstance(sha256, str) and re.fullmatch("[0-9a-f]{64}", sha256)):
            raise UserError(f"the list {listed} is refused: {name!r} is no file of a data folder with its sha256")
        if not isinstance(size, int):
            raise UserError(f"the list {listed} is damaged")
    return files


def _object(sha256: str) -> Path:
    return cache() / "objects" / sha256


def _whole(sha256: str, size: int) -> bool:
    try:
        facts = _object(sha256).stat()
    except FileNotFoundError:
        return False
    return (facts.st_size, facts.st_mtime_ns) == (size, CHECKED)


def _bring(store: Remote, sha256: str, size: int) -> None:
    target, locks = _object(sha256), cache() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / sha256):
        if _whole(sha256, size):
            return
        for leftover in target.parent.glob(f".{sha256}.*"):  # of a killed process
            leftover.unlink()
        save(store, sha256, target)


def save(store: Remote, sha256: str, target: Path) -> None:
    """Save an object of the store as a file, atomically and checked.

    Raises:
        UserError: The object is damaged or gone, or the disk is full.
    """
    origin, digest = store / ".data" / "objects" / sha256, hashlib.sha256()
    try:
        with origin.open() as source, writing(target) as temporary, temporary.open("wb") as file:
            while chunk := source.read(CHUNK):
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
            if digest.hexdigest() != sha256:
                raise UserError(f"{origin} is damaged; remove it, and the next run stores it again")
            os.utime(file.fileno(), ns=(CHECKED, CHECKED))
        remember(target, sha256)
    except FileNotFoundError:
        raise UserError(f"{origin} is gone; the next run stores it again") from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"{socket.gethostname()} has no space for copies of the data in {cache()}; free some, or set "
            "ACTIONBENCH_CACHE in its environment to a larger folder"
        ) from None
