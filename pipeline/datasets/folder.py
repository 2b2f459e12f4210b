"""Bring your own: a folder of videos, one folder a class, with train and test lists."""

import re
from collections.abc import Sequence
from pathlib import Path

from pipeline.datasets import SUFFIXES, NoOptions, Options, Part, Row, Splits, Video, chosen, found
from pipeline.errors import UserError
from pipeline.params import alternatives

LICENCE = "the user's"
CITATION = ""
HOMEPAGE = ""
LAYOUT = (
    "<class>/<videos>, and the lists train.txt, test.txt and, where wanted, val.txt: beside the classes, or in a "
    "folder a split (split-1/train.txt ...), or in the folder that `lists` names. A line is `<class>/<file>`, followed "
    "by a label where the class is not the folder's name. classes.txt, one name a line, gives the classes an order of "
    f"their own; a label may then be a number, counted from 0. Video files end in {', '.join(sorted(SUFFIXES))}"
)
COUNTS: dict[int, dict[str, int]] = {}
PARTS: tuple[Part, ...] = ("train", "val", "test")
# Both paths and labels may have spaces in them, so the path ends where its suffix does.
LINE = re.compile(rf"(?P<path>.+?(?:{'|'.join(map(re.escape, sorted(SUFFIXES)))}))(?:[\s,]+(?P<label>.+))?", re.I)


def videos(folder: Path, options: Options) -> list[Video]:
    """Every video below the folder, id its path without suffix."""
    chosen(NoOptions, options, "folder")
    return found(folder)


def splits(videos: Sequence[Video], lists: Path, options: Options) -> Splits:
    """The user's lists; UserError names a list that is absent, a line that names no video, a label that is no class."""
    chosen(NoOptions, options, "folder")
    written = {split: _lines(place) for split, place in _places(lists).items()}
    classes = _classes(lists, {label for lines in written.values() for *_, label in lines})
    numbers = {name: number for number, name in enumerate(classes)}
    if (lists / "classes.txt").is_file():
        numbers = {str(number): number for number in range(len(classes))} | numbers
    rows: dict[int, list[Row]] = {}
    for split, lines in written.items():
        for where, *_, label in lines:
            if label not in numbers:
                raise UserError(f"{where}: {label!r} is not in classes.txt; {alternatives(label, classes)}")
        rows[split] = [Row(video, part, (numbers[label],)) for _, video, part, label in lines]
    return Splits(classes, rows)


def _places(lists: Path) -> dict[int, Path]:
    """Where each split's lists lie."""
    places = {
        int(place.name.removeprefix("split-")): place
        for place in sorted(lists.glob("split-*"))
        if place.is_dir() and place.name.removeprefix("split-").isdecimal()
    }
    return dict(sorted(places.items())) or {1: lists}


def _lines(place: Path) -> list[tuple[str, str, Part, str]]:
    """(where it stands, video id, part, label) of each line of a split's lists."""
    lines: list[tuple[str, str, Part, str]] = []
    for part in PARTS:
        path = place / f"{part}.txt"
        if not path.is_file():
            if part == "val":
                continue
            raise UserError(f"the list {path.resolve()} is absent. Expected: {LAYOUT}")
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            raise UserError(f"the list {path.resolve()} is no text in UTF-8") from None
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            match = LINE.fullmatch(line.strip())
            if not match:
                raise UserError(
                    f"{where}: {line.strip()!r} names no video file; known suffixes: {', '.join(sorted(SUFFIXES))}"
                )
            video = Path(match["path"]).with_suffix("").as_posix()
            if not match["label"] and "/" not in video:
                raise UserError(f"{where}: {line.strip()!r} has neither a class folder nor a label")
            lines.append((where, video, part, match["label"] or video.split("/")[0]))
    return lines


def _classes(lists: Path, seen: set[str]) -> tuple[str, ...]:
    """The names of classes.txt; else those seen, in order, numbers by their value."""
    path = lists / "classes.txt"
    if path.is_file():
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        if len(set(names)) != len(names):
            raise UserError(f"{path}: a class stands there twice")
        return tuple(names)
    return tuple(sorted(seen, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name)))
