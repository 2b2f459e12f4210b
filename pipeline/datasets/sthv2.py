"""Something-Something V2: 220,847 clips in 174 classes (Goyal et al. 2017).

A clip is a WebM file. The official validation list is the part "test": papers report on it. The official test list came
without labels, so its clips are no rows. If it is present, its count is checked and that it shares no clip with the
others. A clip's class is its template without the brackets.
"""

import json
from pathlib import Path
from typing import Any

from pipeline import datasets
from pipeline.datasets import VALIDATED, NoOptions, Options, Row, Splits, Video, check_unlabelled, chosen, listed
from pipeline.errors import UserError

LICENCE, CITATION, HOMEPAGE = datasets.TERMS_20BN, datasets.SOMETHING_PAPER, datasets.SOMETHING_PAGE
FETCH = datasets.FETCH_20BN.format("something-something-v2")
SIZE = 19_400_000_000  # rounded by the makers
PREFIX = "something-something-v2-"
LISTS = "labels.json, train.json, validation.json and, optionally, test.json"
LAYOUT = datasets.LAYOUT_20BN.format(PREFIX[:-1], "<number>.webm, 220847 files", LISTS, "json")
READS = datasets.names_of_lists(PREFIX, ".json")
COUNTS = {1: {"train": 168_913, "test": 24_777}}
UNLABELLED = 27_157  # of the official test list
CLASSES_LISTED = 174
MIRRORED = datasets.SOMETHING_MIRRORED  # all other classes keep their labels
BRACKETS = str.maketrans("", "", "[]")


def videos(folder: Path, options: Options) -> list[Video]:
    """List the clips present; an id is the number in the file's name."""
    chosen(NoOptions, options, "sthv2")
    return datasets.by_name("sthv2", folder, str.isdecimal)


def splits(lists: Path, options: Options) -> Splits:
    """Read the official lists."""
    chosen(NoOptions, options, "sthv2")
    classes, rows = _classes(listed(lists, PREFIX, "labels.json")), []
    numbers = {name: number for number, name in enumerate(classes)}
    for part, kind in VALIDATED.items():
        for where, entry in _clips(listed(lists, PREFIX, f"{kind}.json")):
            template = entry.get("template")
            if not isinstance(template, str):
                raise UserError(f"{where}: expected a text template, not {json.dumps(entry)[:80]}")
            name = template.translate(BRACKETS)
            if name not in numbers:
                raise UserError(f"{where}: {name!r} is no class of the labels' list")
            rows.append(Row(entry["id"], part, (numbers[name],)))
    if (test := listed(lists, PREFIX, "test.json")).is_file():
        check_unlabelled(test, (entry["id"] for _, entry in _clips(test)), UNLABELLED, rows)
    return Splits(classes, {1: rows})


def _classes(path: Path) -> tuple[str, ...]:
    """Return the names in the order of their numbers, which the list has as text."""
    labels = datasets.parsed("sthv2", path, LAYOUT)
    if not isinstance(labels, dict) or sorted(map(str, labels.values())) != sorted(map(str, range(CLASSES_LISTED))):
        raise UserError(f"{path.resolve()}: expected {CLASSES_LISTED} classes, numbered from 0 to {CLASSES_LISTED - 1}")
    return tuple(sorted(labels, key=lambda name: int(labels[name])))


def _clips(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """List (file and entry number, entry) of a list of clips; each has an id."""
    clips = datasets.entries("sthv2", path, LAYOUT)
    for where, entry in clips:
        clip = entry.get("id") if isinstance(entry, dict) else None
        if not isinstance(clip, str) or not clip.isdecimal():
            raise UserError(f"{where}: expected an id, a number as text, not {json.dumps(entry)[:80]}")
    return clips
