"""Your own videos: one folder per class, with train and test lists."""

import re
from pathlib import Path

from pipeline.datasets import SUFFIXES, NoOptions, Options, Part, Row, Splits, Video, chosen, found, lines
from pipeline.errors import UserError, alternatives

LICENCE = "the user's"
CITATION = ""
HOMEPAGE = ""
LAYOUT = (
    "<class>/<videos>, and the lists train.txt, test.txt and, optionally, val.txt: next to the classes, or in a "
    "folder a split (split-1/train.txt ...), or in the folder that `lists` names. A line is `<class>/<file>`, followed "
    "by a label where the class is not the folder's name. classes.txt, one name a line, sets the order of the classes; "
    f"a label may then be a number, counted from 0. Video files end in {', '.join(sorted(SUFFIXES))}"
)
COUNTS: dict[int, dict[str, int]] = {}
PARTS: tuple[Part, ...] = ("train", "val", "test")
READS = ("classes.txt", *(f"{place}{part}.txt" for place in ("", "split-*/") for part in PARTS))
# Both paths and labels may contain spaces, so the path ends at its suffix.
LINE = re.compile(rf"(?P<path>.+?(?:{'|'.join(map(re.escape, sorted(SUFFIXES)))}))(?:[\s,]+(?P<label>.+))?", re.I)


def videos(folder: Path, options: Options) -> list[Video]:
    """List every video below the folder; an id is its path without suffix."""
    chosen(NoOptions, options, "folder")
    return found(folder)


def splits(lists: Path, options: Options) -> Splits:
    """Read the user's lists; UserError for a line without a video or a known label."""
    chosen(NoOptions, options, "folder")
    written = {split: _written(place) for split, place in _places(lists).items()}
    classes = _classes(lists, {label for of_split in written.values() for *_, label in of_split})
    numbers = {name: number for number, name in enumerate(classes)}
    if (lists / "classes.txt").is_file():
        numbers = {str(number): number for number in range(len(classes))} | numbers
    rows: dict[int, list[Row]] = {}
    for split, of_split in written.items():
        for where, *_, label in of_split:
            if re.fullmatch(r"-\d+", label):
                raise UserError(f"{where}: the label {label} is negative; labels that are numbers count from 0")
            if label not in numbers:
                raise UserError(f"{where}: {label!r} is not in classes.txt; {alternatives(label, classes)}")
        rows[split] = [Row(video, part, (numbers[label],)) for _, video, part, label in of_split]
    return Splits(classes, rows)


def _places(lists: Path) -> dict[int, Path]:
    """Return the folder of each split's lists."""
    places = {
        int(place.name.removeprefix("split-")): place
        for place in sorted(lists.glob("split-*"))
        if place.is_dir() and place.name.removeprefix("split-").isdecimal()
    }
    return dict(sorted(places.items())) or {1: lists}


def _written(place: Path) -> list[tuple[str, str, Part, str]]:
    """List (file and line number, video id, part, label) of a split's lists."""
    written: list[tuple[str, str, Part, str]] = []
    for part in PARTS:
        path = place / f"{part}.txt"
        if part == "val" and not path.is_file():
            continue
        before = len(written)
        for where, line in lines("folder", path, LAYOUT):
            match = LINE.fullmatch(line)
            if not match:
                raise UserError(f"{where}: {line!r} names no video file; known suffixes: {', '.join(sorted(SUFFIXES))}")
            video = Path(match["path"]).with_suffix("").as_posix()
            if not match["label"] and "/" not in video:
                raise UserError(f"{where}: {line!r} has neither a class folder nor a label")
            written.append((where, video, part, match["label"] or video.split("/")[0]))
        if len(written) == before:
            raise UserError(f"the list {path.resolve()} names no video")
    return written


def _classes(lists: Path, seen: set[str]) -> tuple[str, ...]:
    """Return the names of classes.txt, or those seen, sorted, numbers by their value."""
    path = lists / "classes.txt"
    if path.is_file():
        names = [name for _, name in lines("folder", path, LAYOUT)]
        if len(set(names)) != len(names):
            raise UserError(f"{path}: it lists a class twice; keep one of them")
        return tuple(names)
    return tuple(sorted(seen, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name)))
