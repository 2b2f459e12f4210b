"""Something-Something V2: 220,847 clips in 174 classes (Goyal et al. 2017).

A clip is a WebM file. The official validation list is the part "test": papers report on it. The official test list came
without labels, so its clips are no rows. If it is present, its count is checked and that it shares no clip with the
others. A clip's class is its template without the brackets.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.datasets import (
    VALIDATED,
    NoOptions,
    Options,
    Part,
    Row,
    Splits,
    Video,
    check_unlabelled,
    chosen,
    found,
    listed,
    names_of_lists,
    once,
    text,
)
from pipeline.errors import UserError

LICENCE = "the makers' own terms, for research only; to be accepted before the download"
CITATION = (
    'Goyal, Ebrahimi Kahou, Michalski, et al.: The "something something" video database for learning and evaluating '
    "visual common sense. ICCV 2017"
)
HOMEPAGE = "https://www.qualcomm.com/developer/software/something-something-v-2-dataset"
FETCH = (
    "the .zip files of the videos and of the labels, from the home page, after signing in and accepting the research "
    "license; unzip them, then `cat 20bn-something-something-v2-?? | tar xz` unpacks the parts that were in them"
)
SIZE = 19_400_000_000  # rounded by the makers
LAYOUT = (
    "the content of the archive 20bn-something-something-v2: <number>.webm, 220847 files. The lists are "
    "labels.json, train.json, validation.json and, where wanted, test.json, or older copies named "
    "something-something-v2-labels.json and so on, next to the clips' folder or in the folder that `lists` names, with "
    "or without a folder labels"
)
READS = names_of_lists("something-something-v2-", ".json")
COUNTS = {1: {"train": 168_913, "test": 24_777}}
UNLABELLED = 27_157  # of the official test list
CLASSES_LISTED = 174
# Classes that a mirrored clip swaps. All others keep their labels.
MIRRORED = (
    ("Pulling something from left to right", "Pulling something from right to left"),
    ("Pushing something from left to right", "Pushing something from right to left"),
    ("Turning the camera left while filming something", "Turning the camera right while filming something"),
)
BRACKETS = str.maketrans("", "", "[]")


def videos(folder: Path, options: Options) -> list[Video]:
    """List the clips present; an id is the number in the file's name.

    Raises:
        UserError: A clip is present twice.
    """
    chosen(NoOptions, options, "sthv2")
    clips = ((video.id.rpartition("/")[2], video.path) for video in found(folder))
    return once("sthv2", folder, ((clip, path) for clip, path in clips if clip.isdecimal()))


def splits(videos: Sequence[Video], lists: Path, options: Options) -> Splits:
    """Read the official lists.

    Raises:
        UserError: A list is absent or damaged, or an entry has no clip or class.
    """
    chosen(NoOptions, options, "sthv2")
    classes = _classes(_list(lists, "labels"))
    numbers = {name: number for number, name in enumerate(classes)}
    rows = [row for part in VALIDATED for row in _rows(lists, part, numbers)]
    if (test := _list(lists, "test")).is_file():
        check_unlabelled(test, (entry["id"] for _, entry in _entries(test)), UNLABELLED, rows)
    return Splits(classes, {1: rows})


def _list(lists: Path, name: str) -> Path:
    return listed(lists, f"something-something-v2-{name}.json", f"{name}.json")


def _classes(path: Path) -> tuple[str, ...]:
    """Return the names in the order of their numbers, which the list has as text."""
    labels = _read(path)
    if not isinstance(labels, dict) or sorted(map(str, labels.values())) != sorted(map(str, range(CLASSES_LISTED))):
        raise UserError(f"{path.resolve()}: expected {CLASSES_LISTED} classes, numbered from 0 to {CLASSES_LISTED - 1}")
    return tuple(sorted(labels, key=lambda name: int(labels[name])))


def _rows(lists: Path, part: Part, numbers: dict[str, int]) -> list[Row]:
    rows = []
    for where, entry in _entries(_list(lists, VALIDATED[part])):
        template = entry.get("template")
        if not isinstance(template, str):
            raise UserError(f"{where}: expected a text template, not {json.dumps(entry)[:80]}")
        name = template.translate(BRACKETS)
        if name not in numbers:
            raise UserError(f"{where}: {name!r} is no class of the labels' list")
        rows.append(Row(entry["id"], part, (numbers[name],)))
    return rows


def _entries(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """List (file and entry number, entry) of a list of clips; each has an id."""
    entries = _read(path)
    if not isinstance(entries, list):
        raise UserError(f"{path.resolve()} is no list of clips")
    for number, entry in enumerate(entries, 1):
        clip = entry.get("id") if isinstance(entry, dict) else None
        if not isinstance(clip, str) or not clip.isdecimal():
            raise UserError(f"{path}, entry {number}: expected an id, a number as text, not {json.dumps(entry)[:80]}")
    return [(f"{path}, entry {number}", entry) for number, entry in enumerate(entries, 1)]


def _read(path: Path) -> Any:
    try:
        return json.loads(text("sthv2", path, LAYOUT))
    except json.JSONDecodeError:
        raise UserError(f"sthv2: the list {path.resolve()} is no JSON") from None
