"""Data sets, one file each, registered by file name.

`file: jhmdb` imports jhmdb.py here.

A file holds (see `Plugin`)
  LICENCE, CITATION, HOMEPAGE  facts a user must know before using the videos.
  LAYOUT    one paragraph: the folder as its makers distribute it. The error for an absent folder prints it.
  READS     patterns of the list files that splits() reads, below the folder of lists: their sha256s make results stale.
  COUNTS    {split: {part: rows}} as published, checked when the split tables are built; {} if none are published.
  videos(folder, options)        the videos present, for any lists. `path` is relative to `folder`, with "/". It is a
                                 video file, a folder of numbered JPEG frames, or a range of such a folder.
  splits(lists, options)         the lists' rows and the class names in official order, for any videos present. A
                                 listed video that is absent stays a row, because the split's denominator stays.
and, where it applies,
  FETCH     the files to fetch, their source and the form to sign. SIZE: their bytes, if the makers print them.
  CLASSES_LISTED  number of classes, if their names are in a list and not in the file.
  UNLABELLED      number of videos in a list that came without labels; they are no rows.
  MULTI_LABEL     True: a video has any number of labels, or none. Without it each video has at least one.
  STILL           True: a video is an image, which has no direction of time.
  MIRRORED        pairs of class names that a mirrored clip swaps; ONE_WAY: classes that mirroring destroys.
  FPS             of a set of folders of frames: published frames per second; without it their times are unknown.
Both functions raise UserError for an unknown option, and for files that are damaged or present twice.
A set that is drawn rather than downloaded also holds (see `Generated`)
  plan(options)       independent, picklable work items of some seconds each: a caller may run them anywhere.
  made(item, folder)  True if all of an item's videos exist.
  make(item, folder)  makes an item's videos; each is renamed into place, so an existing one is complete.
  drawn_from(options) the files it is drawn from, if any; they count by their sha256.
  only(items, ids)    for tiers: items of the videos with these ids only.

Ids are strings that do not depend on the videos' folder: the path without suffix in a set with one folder per class.
A multi-label set has one row per video, with all of its labels.
pipeline/download/sources.py and videos() handle nested or multiple archives and extra top folders; ids and splits never
see them. Files here never import each other; shared code is in this file.
"""

import csv
import hashlib
import importlib
import itertools
import json
import math
import os
import pkgutil
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, cast

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from pipeline.config.schema import STRICT, requirement
from pipeline.errors import UserError, alternatives

# Files that count as videos.
SUFFIXES = frozenset((".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts"))
SUFFIXES |= {".vob", ".webm", ".wmv"}

HIDDEN = (".", "__MACOSX")  # beginnings of the names of skipped folders

# Frames of a folder: any width, zeros before the number or none.
FRAME = re.compile(r"(\d+)\.jpe?g", re.ASCII | re.IGNORECASE)

# Facts that the sets of 20BN share: Jester and both versions of Something-Something.
TERMS_20BN = "the makers' own terms, for research only; to be accepted before the download"
FETCH_20BN = (
    "the .zip files of the videos and of the labels, from the home page, after signing in and accepting the research "
    "license; unzip them, then `cat 20bn-{}-?? | tar xz` unpacks the parts that were in them"
)
LAYOUT_20BN = (
    "the content of the archive 20bn-{0}: {1}. The lists are {2}, or older copies named {0}-train.{3} and so on, next "
    "to the clips' top folder or in the folder that `lists` names, with or without a folder labels"
)
FRAMES_20BN = "a folder a clip, named by its number, in it the frames 00001.jpg, 00002.jpg ...; {} folders"
LISTS_20BN = "train.csv and validation.csv (lines `<number>;<class>`) and, optionally, test.csv (lines `<number>`)"
SOMETHING_PAPER = (
    'Goyal, Ebrahimi Kahou, Michalski, et al.: The "something something" video database for learning and evaluating '
    "visual common sense. ICCV 2017"
)
SOMETHING_PAGE = "https://www.qualcomm.com/developer/software/something-something-v-2-dataset"
SOMETHING_MIRRORED = (
    ("Pulling something from left to right", "Pulling something from right to left"),
    ("Pushing something from left to right", "Pushing something from right to left"),
    ("Turning the camera left while filming something", "Turning the camera right while filming something"),
)

Part = Literal["train", "val", "test"]
Options = Mapping[str, Any]
T = TypeVar("T")


class Video(NamedTuple):
    """A video that is present."""

    id: str
    path: str  # relative to the folder of videos, with "/"
    first: int | None = None  # of a folder of frames: the numbers in its first and last frames' names; None for all
    last: int | None = None


class Row(NamedTuple):
    """A line of a split's lists."""

    video: str
    part: Part
    labels: tuple[int, ...]


class Splits(NamedTuple):
    """The content of the lists."""

    classes: tuple[str, ...]  # a label is an index into it
    rows: dict[int, list[Row]]  # by split, counted from 1


class Plugin(Protocol):
    """The interface of a file in this folder."""

    LICENCE: str
    CITATION: str
    HOMEPAGE: str
    LAYOUT: str
    READS: tuple[str, ...]
    COUNTS: dict[int, dict[str, int]]

    def videos(self, folder: Path, options: Options) -> list[Video]: ...

    def splits(self, lists: Path, options: Options) -> Splits: ...


class Generated(Plugin, Protocol):
    """The interface of a file whose videos are drawn."""

    __file__: str

    def plan(self, options: Options) -> Sequence[Any]: ...

    def made(self, item: Any, folder: Path) -> bool: ...

    def make(self, item: Any, folder: Path) -> None: ...


@dataclass(frozen=True, config=STRICT)
class NoOptions:
    """Options of a set that has none: any key is an unknown one."""


def loaded(name: str) -> Plugin:
    """Import the named data set file; UserError lists the known ones."""
    known = [module.name for module in pkgutil.iter_modules(__path__)]
    if name not in known:
        raise UserError(f"no data set file pipeline/datasets/{name}.py; {alternatives(name, known)}")
    return cast(Plugin, importlib.import_module(f"{__name__}.{name}"))


def chosen(kind: type[T], options: Options, where: str) -> T:
    """Return the options of params.yaml as a dataclass; UserError for a wrong key."""
    try:
        return TypeAdapter(kind).validate_json(json.dumps(dict(options)))  # JSON mode: strict, but lists become tuples
    except ValidationError as error:
        first = error.errors()[0]
    key = ".".join(map(str, first["loc"]))
    known = list(getattr(kind, "__dataclass_fields__", {}))
    if first["type"] == "unexpected_keyword_argument":
        raise UserError(f"{where}: unknown option {key!r}; {alternatives(key, known)}")
    if first["type"] in ("missing", "missing_argument"):
        raise UserError(f"{where}: option {key!r} is missing; the options are: {', '.join(known)}")
    raise UserError(f"{where}: option {key} is {json.dumps(first.get('input'))[:60]}; it {requirement(first)}")


def walk(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield (relative path, names of files) for a folder and each below.

    Hidden folders are skipped. Links are followed, because a set may be on several disks, except one to a folder that
    contains the link. UserError for a folder that can't be read; its videos would count as absent.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename} can't be read: {error.strerror}")

    for place, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(HIDDEN) and not _leads_back(Path(place, name))]
        yield Path(place).relative_to(folder), files


def found(folder: Path) -> list[Video]:
    """List every video file below a folder, sorted by id: its path without suffix.

    Accents in ids are as in lists (see text()). Hidden files and folders are skipped. UserError for two files of an id.
    """
    videos: dict[str, str] = {}
    for place, files in walk(folder):
        for name in files:
            suffix = Path(name).suffix
            if name.startswith(".") or suffix.lower() not in SUFFIXES:
                continue
            path = (place / name).as_posix()
            video = unicodedata.normalize("NFC", path.removesuffix(suffix))
            if video in videos:
                raise UserError(
                    f"{folder}: {videos[video]} and {path} differ in suffix, or in how accents are encoded, alone; "
                    "keep one of them"
                )
            videos[video] = path
    return [Video(video, videos[video]) for video in sorted(videos)]


def once(name: str, folder: Path, clips: Iterable[tuple[str, str]]) -> list[Video]:
    """Return videos of (id, path), sorted by id; UserError for an id of two paths."""
    paths: dict[str, str] = {}
    for clip, path in clips:
        first = paths.setdefault(clip, path)
        if first != path:
            raise UserError(f"{name}: {folder} holds {first} and {path}, the same clip; keep one of them")
    return [Video(clip, paths[clip]) for clip in sorted(paths)]


def by_name(name: str, folder: Path, clip: Callable[[str], object] = bool) -> list[Video]:
    """List the clips, at any depth, by their files' names without suffix.

    `clip` tells the name of a clip from others.
    """
    clips = ((video.id.rpartition("/")[2], video.path) for video in found(folder))
    return once(name, folder, (pair for pair in clips if clip(pair[0])))


def in_classes(name: str, folder: Path, classes: Sequence[str]) -> list[Video]:
    """List the clips in folders of classes, at any depth, by <class>/<file's name>."""
    clips = ((video.id.split("/")[-2:], video.path) for video in found(folder))
    return once(name, folder, (("/".join(clip), path) for clip, path in clips if len(clip) == 2 and clip[0] in classes))


def in_numbered_folders(name: str, folder: Path) -> list[Video]:
    """List the clips that are folders of frames, named by a number, which is the id."""
    clips = (path for path, files in walk(folder) if path.name.isdecimal() and any(map(FRAME.fullmatch, files)))
    return once(name, folder, ((path.name, path.as_posix()) for path in clips))


def frames(folder: Path, first: int | None = None, last: int | None = None) -> list[tuple[int, Path]]:
    """List (number, file) of a folder's JPEG frames, `first` to `last` included.

    Other names, and anything but a file, such as a pipe, are skipped. Two files of one number are both returned.
    OSError for a folder that can't be read.
    """
    with os.scandir(folder) as entries:  # it may be read for each of its ranges: names first, paths after
        matches = [(FRAME.fullmatch(entry.name), entry) for entry in entries]
        names = [(int(match[1]), entry.name) for match, entry in matches if match and entry.is_file()]
    begin, end = (0 if first is None else first), (math.inf if last is None else last)
    return [(number, folder / name) for number, name in sorted(names) if begin <= number <= end]


def listed(lists: Path, prefix: str, name: str) -> Path:
    """Return the path of a list of 20BN, whose older copies have a prefix."""
    places = [lists / folder / name for name in (prefix + name, name) for folder in ("", "labels")]
    return next((place for place in places if place.is_file()), places[0])


def names_of_lists(prefix: str, suffix: str) -> tuple[str, ...]:
    """Return the names of lists that listed() tries."""
    kinds = ("labels", "test", "train", "validation")
    return tuple(f"{folder}{old}{kind}{suffix}" for folder in ("", "labels/") for old in ("", prefix) for kind in kinds)


def lines(name: str, path: Path, layout: str) -> list[tuple[str, str]]:
    """List (file and line number, stripped text) of a list's lines that aren't blank.

    Line ends of any system work, and a byte order mark is skipped. UserError as text()'s.
    """
    numbered = enumerate(text(name, path, layout).split("\n"), 1)  # splitlines() would also split at U+2028 and others
    return [(f"{path}, line {number}", line.strip()) for number, line in numbered if line.strip()]


def text(name: str, path: Path, layout: str) -> str:
    """Read a data set's list, in UTF-8 with or without a byte order mark.

    Accents are composed (NFC): typed lists have them so, while names of files from a Mac often don't. UserError for a
    list that is absent or no such text.
    """
    try:
        if path.exists() and not path.is_file():  # reading a pipe or a device may never end
            raise UserError(f"{name}: the list {path.resolve()} is no file")
        return unicodedata.normalize("NFC", path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"{name}: the list {path.resolve()} is absent. Expected: {layout}") from None
    except UnicodeDecodeError:
        raise UserError(f"{name}: the list {path.resolve()} is no text in UTF-8") from None


def entries(name: str, path: Path, layout: str) -> list[tuple[str, Any]]:
    """List (file and entry number, entry) of a list in JSON."""
    content = parsed(name, path, layout)
    if not isinstance(content, list):
        raise UserError(f"{name}: the list {path.resolve()} is no list of clips")
    return [(f"{path}, entry {number}", entry) for number, entry in enumerate(content, 1)]


def parsed(name: str, path: Path, layout: str) -> Any:
    """Read a data set's list in JSON."""
    try:
        return json.loads(text(name, path, layout))
    except json.JSONDecodeError:
        raise UserError(f"{name}: the list {path.resolve()} is no JSON") from None


def table(name: str, path: Path, columns: Sequence[str], layout: str) -> Iterator[tuple[str, dict[str, str | None]]]:
    """Yield (file and line number, line) of a list in CSV that has these columns."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if lacking := [column for column in columns if column not in (rows.fieldnames or ())]:
                raise UserError(f"{path.resolve()}: no column {lacking[0]}; expected are {', '.join(columns)}")
            for row in rows:
                yield f"{path}, line {rows.line_num}", row
    except FileNotFoundError:
        raise UserError(f"{name}: the list {path.resolve()} is absent. Expected: {layout}") from None
    except (UnicodeDecodeError, csv.Error):
        raise UserError(f"{name}: the list {path.resolve()} is no CSV in UTF-8") from None


def within(lists: Path, folder: str) -> Path:
    """Return the folder that a set's lists are published in, or `lists`."""
    return lists / folder if (lists / folder).is_dir() else lists


def splits_by_class(
    name: str, lists: Path, layout: str, classes: Sequence[str], splits: Iterable[int], parts: Mapping[str, Part | None]
) -> Splits:
    """Read lists <class>_test_split<split>.txt of lines `<file>.avi <key of parts>`."""
    rows: dict[int, list[Row]] = {split: [] for split in splits}
    for split, (label, each) in itertools.product(rows, enumerate(classes)):
        for where, line in lines(name, lists / f"{each}_test_split{split}.txt", layout):
            *before, key = line.rsplit(maxsplit=1)
            file = "".join(before)
            clip = file.removesuffix(".avi")
            if clip in ("", file) or key not in parts:
                keys = ", ".join(f"{key} ({part or 'not used'})" for key, part in parts.items())
                raise UserError(f"{where}: expected `<file>.avi` and {keys}, not {line!r}")
            if part := parts[key]:
                rows[split].append(Row(f"{each}/{clip}", part, (label,)))
    return Splits(tuple(classes), rows)


# Sets whose official validation list is the part "test", since papers report on it: part -> name of the list.
VALIDATED: dict[Part, str] = {"train": "train", "test": "validation"}


def numbered_splits(
    name: str, lists: Path, prefix: str, layout: str, classes: Sequence[str], unlabelled: int
) -> Splits:
    """Read 20BN's lists of lines `<number>;<class>`, and check the test list."""
    numbers, rows = {label: number for number, label in enumerate(classes)}, []
    for part, kind in VALIDATED.items():
        for where, line in lines(name, listed(lists, prefix, f"{kind}.csv"), layout):
            clip, _, label = line.partition(";")
            if not clip.isdecimal() or not label:
                raise UserError(f"{where}: expected `<number>;<class>`, not {line!r}")
            if label not in numbers:
                raise UserError(f"{where}: {label!r} is no class of {name}; {alternatives(label, numbers)}")
            rows.append(Row(clip, part, (numbers[label],)))
    if (test := listed(lists, prefix, "test.csv")).is_file():
        check_unlabelled(test, (clip for _, clip in lines(name, test, layout)), unlabelled, rows)
    return Splits(tuple(classes), {1: rows})


def check_unlabelled(path: Path, clips: Iterable[str], published: int, rows: Iterable[Row]) -> None:
    """Check an unlabelled test list: its number of clips, and that no other has them."""
    distinct = set(clips)
    if len(distinct) != published:
        raise UserError(f"{path.resolve()} has {len(distinct)} clips; published are {published}")
    if both := next((row for row in rows if row.video in distinct), None):
        raise UserError(f"{path.resolve()}: clip {both.video} is in the {VALIDATED[both.part]} list too")


def digest(files: Iterable[tuple[str, bytes]]) -> str:
    """Return the sha256 of sha256sum's listing of files, given as (name, content)."""
    listing = hashlib.sha256()
    for name, content in files:
        listing.update(f"{hashlib.sha256(content).hexdigest()}  {name}\n".encode())
    return listing.hexdigest()


def _leads_back(path: Path) -> bool:
    return path.is_symlink() and path.parent.resolve().is_relative_to(path.resolve())
