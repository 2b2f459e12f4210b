"""Jester: 148,092 hand gesture clips in 27 classes (Materzynska et al. 2019).

A clip is a folder of JPEG frames. The official validation list is the part "test": papers report on it. The official
test list came without labels, so its clips are no rows. If it is present, its count is checked and that it shares no
clip with the others.
"""

from collections.abc import Sequence
from pathlib import Path

from pipeline.datasets import (
    VALIDATED,
    NoOptions,
    Options,
    Splits,
    Video,
    check_unlabelled,
    chosen,
    in_numbered_folders,
    lines,
    listed,
    names_of_lists,
    numbered_rows,
)

LICENCE = "the makers' own terms, for research only; to be accepted before the download"
CITATION = (
    "Materzynska, Berger, Bax, Memisevic: The Jester dataset: A large-scale video dataset of human gestures. "
    "ICCV workshops 2019"
)
HOMEPAGE = "https://www.qualcomm.com/developer/software/jester-dataset"
FETCH = (
    "the .zip files of the videos and of the labels, from the home page, after signing in and accepting the research "
    "license; unzip them, then `cat 20bn-jester-v1-?? | tar xz` unpacks the parts that were in them"
)
SIZE = 22_800_000_000  # rounded by the makers
LAYOUT = (
    "the content of the archive 20bn-jester-v1: a folder a clip, named by its number, in it the frames 00001.jpg, "
    "00002.jpg ...; 148092 folders. The lists are train.csv and validation.csv (lines `<number>;<class>`) "
    "and, where wanted, test.csv (lines `<number>`), or older copies named jester-v1-train.csv and so on, next to the "
    "clips' top folder or in the folder that `lists` names, with or without a folder labels"
)
READS = names_of_lists("jester-v1-", ".csv")
COUNTS = {1: {"train": 118_562, "test": 14_787}}
UNLABELLED = 14_743  # of the official test list
CLASSES = (
    *("Swiping Left", "Swiping Right", "Swiping Down", "Swiping Up", "Pushing Hand Away", "Pulling Hand In"),
    *("Sliding Two Fingers Left", "Sliding Two Fingers Right", "Sliding Two Fingers Down", "Sliding Two Fingers Up"),
    *("Pushing Two Fingers Away", "Pulling Two Fingers In", "Rolling Hand Forward", "Rolling Hand Backward"),
    *("Turning Hand Clockwise", "Turning Hand Counterclockwise", "Zooming In With Full Hand"),
    *("Zooming Out With Full Hand", "Zooming In With Two Fingers", "Zooming Out With Two Fingers", "Thumb Up"),
    *("Thumb Down", "Shaking Hand", "Stop Sign", "Drumming Fingers", "No gesture", "Doing other things"),
)
# Classes that a mirrored clip swaps. All others keep their labels.
MIRRORED = (
    ("Swiping Left", "Swiping Right"),
    ("Sliding Two Fingers Left", "Sliding Two Fingers Right"),
    ("Turning Hand Clockwise", "Turning Hand Counterclockwise"),
)
FPS = 12.0  # at which the makers took the frames out of their videos


def videos(folder: Path, options: Options) -> list[Video]:
    """List the clips present; an id is the number of the folder of frames.

    Raises:
        UserError: A clip is present twice.
    """
    chosen(NoOptions, options, "jester")
    return in_numbered_folders("jester", folder)


def splits(videos: Sequence[Video], lists: Path, options: Options) -> Splits:
    """Read the official lists.

    Raises:
        UserError: A list is absent, a line is unreadable, or a class is unknown.
    """
    chosen(NoOptions, options, "jester")
    numbers = {name: number for number, name in enumerate(CLASSES)}
    rows = [
        row
        for part, kind in VALIDATED.items()
        for row in numbered_rows("jester", _list(lists, kind), part, LAYOUT, numbers)
    ]
    if (test := _list(lists, "test")).is_file():
        check_unlabelled(test, (clip for _, clip in lines("jester", test, LAYOUT)), UNLABELLED, rows)
    return Splits(CLASSES, {1: rows})


def _list(lists: Path, name: str) -> Path:
    return listed(lists, f"jester-v1-{name}.csv", f"{name}.csv")
