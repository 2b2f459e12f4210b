"""Sources of videos: drawn, downloaded, unpacked, a folder; and the manifest."""

import csv
import functools
import hashlib
import io
import re
import shutil
import sys
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, cast

from rich.console import Console
from rich.progress import track

from pipeline import datasets
from pipeline.config.places import located, path_of, remote
from pipeline.config.schema import Dataset
from pipeline.digest import code
from pipeline.digest.files import SUMS, leads_out, sums, write_sums
from pipeline.digest.files import sha256 as digest_of
from pipeline.digest.key import key
from pipeline.download import archives
from pipeline.download.urls import download, named, shown
from pipeline.errors import UserError
from pipeline.storage import atomic, notes

MADE = ".made.json"  # the inputs of a folder of videos that was made here; without it, a folder is the user's
CHECKSUM = "# sha256 of the lines above: "  # the manifest's last line
Each = Callable[[Callable[[Any], None], Sequence[Any]], None]


class Entry(NamedTuple):
    """A line of the manifest."""

    video: str  # id
    path: str  # relative to the folder of videos, with "/"
    bytes: int
    sha256: str  # of a folder of frames: of its frames' names and sha256s
    first: int | None = None  # numbers of the first and last frame, if a video is a range of a folder's frames
    last: int | None = None
    fps: float = 0.0  # of a folder of frames, as published; 0 if unknown, or if the video's file has it


def in_turn(make: Callable[[Any], None], items: Sequence[Any]) -> None:
    """Make all items in this process, one after the other."""
    for item in _bar(items, "drawing"):
        make(item)


def fetch(
    name: str,
    dataset: Dataset,
    root: Path,
    videos: Path,
    each: Each = in_turn,
    chosen: Collection[str] | None = None,
) -> Path:
    """Fetch or draw the videos, unless that is done, and return their folder.

    Args:
        name: the data set's key in params.yaml.
        dataset: its settings.
        root: the project's root.
        videos: folder for videos that are not in a user's folder.
        each: calls its first argument for each of its second, anywhere and in any order.
        chosen: ids of the videos to make, if not all; only of a set that can be made in part.

    Raises:
        UserError: The source is absent, damaged or refused; the message says where to put which files.
    """
    if dataset.source == "generated":
        _generate(name, dataset, videos, each, chosen)
        return videos
    source, _, sha256 = dataset.source.partition("#sha256=")
    local = path_of(root, source)
    if remote(source):
        _fetch_url(name, source, sha256.lower(), videos)
    elif local.is_file():
        _fetch_archive(name, local, sha256.lower(), videos)
    elif not local.is_dir():
        plugin = datasets.loaded(dataset.file)
        what = f"To fetch: {plugin.FETCH}. " if hasattr(plugin, "FETCH") else ""
        raise UserError(
            f"{name}: there is no {local.resolve()}. Put the videos there, or set datasets.{name}.source to their "
            f"place. {what}Expected: {plugin.LAYOUT}"
        )
    return located(dataset, root, videos)


def manifest(name: str, dataset: Dataset, folder: Path, chosen: Collection[str] | None = None) -> list[Entry]:
    """Return a line for each of the folder's videos, or of the `chosen` ones, by id.

    Raises:
        UserError: The folder holds none.
    """
    plugin = datasets.loaded(dataset.file)
    videos = sorted(plugin.videos(folder, dataset.options))
    if chosen is not None:
        videos = [video for video in videos if video.id in chosen]
    if not videos:
        some = "" if chosen is None else f", or none of the {len(chosen)} that the tier takes"
        raise UserError(f"{name}: {folder.resolve()} holds no video of it{some}. Expected there: {plugin.LAYOUT}")
    entry = functools.partial(_entry, folder, getattr(plugin, "FPS", 0.0))
    with ThreadPoolExecutor() as pool:  # hashing and reading both let other threads run
        return list(_bar(pool.map(entry, videos), "hashing", len(videos)))


def write(path: Path, entries: Sequence[Entry]) -> None:
    """Write the manifest as CSV: Entry's fields, the last three often empty.

    The last line is a comment with the sha256 of the lines above.
    """
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(Entry._fields)
    lines.writerows((*entry[:-1], entry.fps or "") for entry in entries)
    try:
        content = text.getvalue().encode()
        atomic.write(path, content + f"{CHECKSUM}{hashlib.sha256(content).hexdigest()}\n".encode())
    except UnicodeEncodeError as error:
        bad = error.object[max(error.start - 60, 0) : error.end + 60]
        raise UserError(f"a video's name is not in UTF-8, rename it: {bad!r}") from None


def read(path: Path) -> list[Entry]:
    """Read the manifest; UserError if it is absent or damaged."""
    try:
        content, mark, digest = path.read_bytes().rpartition(CHECKSUM.encode())
        if not mark or digest.strip().decode() != hashlib.sha256(content).hexdigest():
            raise ValueError
        lines = csv.DictReader(io.StringIO(content.decode(), newline=""))
        return [_read(line) for line in lines]
    except FileNotFoundError:
        raise UserError(f"{path} is absent; the download stage writes it") from None
    except (KeyError, TypeError, ValueError, csv.Error):
        remedy = f"`dvc repro -f download@{path.parent.name}` writes it again"
        raise UserError(f"{path} is damaged; {remedy}") from None


def _generate(name: str, dataset: Dataset, videos: Path, each: Each, chosen: Collection[str] | None) -> None:
    plugin = datasets.loaded(dataset.file)
    if not hasattr(plugin, "make"):
        raise UserError(
            f"{name}: {dataset.file} can't be generated; set datasets.{name}.source to a URL, folder or archive"
        )
    generated = cast(datasets.Generated, plugin)
    items = generated.plan(dataset.options)  # first, because it refuses wrong options
    if chosen is not None and hasattr(plugin, "only"):
        items = plugin.only(items, chosen)
    drawn_from = getattr(plugin, "drawn_from", None)
    files = {
        path.name: digest_of(path) for path in (drawn_from(dataset.options) if drawn_from else []) if path.is_file()
    }
    made_under = key([code.plugin("dataset", dataset.file)], {"options": dataset.options}, files)
    if _to_make(name, videos, made_under):
        notes.write(videos / MADE, {"key": made_under})
    lost = _lost(videos)
    for path in lost:
        if path.exists():
            print(f"{path} is damaged; it is drawn again", file=sys.stderr, flush=True)
            path.unlink()
    if missing := [item for item in items if not generated.made(item, videos)]:
        each(functools.partial(generated.make, folder=videos.absolute()), missing)
    if missing or lost or not (videos / SUMS).exists():
        write_sums(videos)


def _fetch_url(name: str, url: str, sha256: str, videos: Path) -> None:
    file = named(url)
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise UserError(f"datasets.{name}.source: {shown(url)} needs its checksum: <URL>#sha256=<64 hex digits>")
    if not file.lower().endswith(archives.KNOWN):
        raise UserError(
            f"datasets.{name}.source: {shown(url)} is no archive of a known kind ({', '.join(archives.KNOWN)})"
        )
    if _to_make(name, videos, made_under := key(_unpacking(), {}, {"archive": sha256}), whole=True):
        folder = videos.with_name(f".{videos.name}.download")
        notes.write(folder / MADE, {"key": made_under})
        _unpack(download(url, sha256, folder / file), videos, made_under)
        _remove(folder)


def _fetch_archive(name: str, archive: Path, sha256: str, videos: Path) -> None:
    facts = archive.stat()
    listing = {"bytes": facts.st_size, "changed": facts.st_mtime_ns}  # in place of a large file's bytes
    made_under = key(_unpacking(), listing, {"archive": sha256})
    if _to_make(name, videos, made_under, whole=True):
        content = digest_of(archive)
        if sha256 and content != sha256:
            raise UserError(f"{name}: {archive.resolve()} does not have the sha256 {sha256}")
        _unpack(archive, videos, made_under, content)


def _unpack(archive: Path, videos: Path, made_under: str, content: str = "") -> None:
    partial = videos.with_name(f".{videos.name}.unpacking")
    _remove(partial)  # of a run that was killed
    try:
        notes.write(partial / MADE, {})
        archives.unpack(archive, partial)
        notes.write(partial / MADE, {"key": made_under, **({"content": content} if content else {})})
        write_sums(partial)
        partial.rename(videos)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _to_make(name: str, videos: Path, made_under: str, whole: bool = False) -> bool:
    """Return true if videos are to be made; remove those made under another key.

    `whole`: they can only be made together, so a damaged or missing file counts too.
    """
    if not videos.exists():
        return True
    if not any(videos.iterdir()):
        videos.rmdir()
        return True
    if not (videos / MADE).is_file():
        raise UserError(
            f"{name}: {videos.resolve()} holds files that were not put there by this project; move them away, "
            f"or set datasets.{name}.source to that folder"
        )
    same = (notes.read(videos / MADE) or {}).get("key") == made_under
    if same and not (whole and (lost := _lost(videos))):
        return False
    if same:
        print(f"{lost[0]} is damaged or gone; {videos} is made again", file=sys.stderr, flush=True)
    old = videos.with_name(f".{videos.name}.old")
    _remove(old)
    videos.rename(old)  # first, so that a removal that is killed leaves no folder that looks complete
    _remove(old)
    return True


def _unpacking() -> list[str]:
    """Return digests of the code that unpacks, on which archives alone depend."""
    return [module.meaning for module in code.modules(["pipeline.download.archives"]).values()]


def _lost(videos: Path) -> list[Path]:
    """Return the files that are gone or changed, or all if their list is damaged."""
    if not (videos / SUMS).exists():
        return []
    try:
        expected = {videos / path: sha256 for path, sha256 in sums(videos).items()}
    except UserError:
        print(f"{videos / SUMS} is damaged and counts as absent", file=sys.stderr, flush=True)
        return [path for path in videos.rglob("*") if path.is_file() and path.name != MADE]

    def same(path: Path) -> bool:
        return path.is_file() and digest_of(path) == expected[path]

    with ThreadPoolExecutor() as pool:
        return [path for path, whole in zip(expected, pool.map(same, expected), strict=True) if not whole]


def _remove(folder: Path) -> None:
    """Remove a folder that this project made, if it exists.

    Its mark is removed last, so that a killed removal can be resumed.

    Raises:
        UserError: The folder holds other files, which are the user's.
    """
    if not folder.exists():
        return
    if any(folder.iterdir()) and not (folder / MADE).is_file():
        raise UserError(f"{folder.resolve()} holds files that were not put there by this project; move them away")
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != MADE:
            path.unlink()
    shutil.rmtree(folder)


def _read(line: dict[str, str]) -> Entry:
    if leads_out(line["path"]) or not re.fullmatch("[0-9a-f]{64}", line["sha256"]):
        raise ValueError
    first, last = (int(line[name]) if line[name] else None for name in ("first", "last"))
    fps = float(line["fps"] or 0)
    return Entry(line["video"], line["path"], int(line["bytes"]), line["sha256"], first, last, fps)


def _entry(folder: Path, fps: float, video: datasets.Video) -> Entry:
    path = folder / video.path
    try:
        if path.is_dir():
            files = [file for _, file in datasets.frames(path, video.first, video.last)]
            size = sum(file.stat().st_size for file in files)
            digest = datasets.digest((file.name, file.read_bytes()) for file in files)
        elif not path.is_file() and path.exists():  # hashing a pipe or a device may never end
            fps, size, digest = 0.0, 0, hashlib.sha256().hexdigest()
        else:
            fps, size, digest = 0.0, path.stat().st_size, digest_of(path)
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from None
    return Entry(video.id, video.path, size, digest, video.first, video.last, fps)


def _bar(items: Any, what: str, total: int | None = None) -> Any:
    """Return the items, with a progress bar on a terminal."""
    console = Console(stderr=True)
    return track(items, what, total=total, console=console, disable=not console.is_terminal, transient=True)
