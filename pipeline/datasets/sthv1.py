"""Something-Something V1: 108,499 clips in 174 classes (Goyal et al., ICCV 2017).

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
from pipeline.errors import UserError

LICENCE = "the makers' own terms, for research only; to be accepted before the download"
CITATION = (
    'Goyal, Ebrahimi Kahou, Michalski, et al.: The "something something" video database for learning and evaluating '
    "visual common sense. ICCV 2017"
)
HOMEPAGE = "https://www.qualcomm.com/developer/software/something-something-v-2-dataset"
FETCH = (
    "the parts of 20bn-something-something-v1 and the lists, under the makers' research license; the home page speaks "
    "of version 2 alone, so ask them for version 1; `cat 20bn-something-something-v1-?? | tar xz` unpacks them"
)
SIZE = 25_200_000_000  # rounded by the makers
LAYOUT = (
    "the content of the archive 20bn-something-something-v1: a folder a clip, named by its number, in it the frames "
    "00001.jpg, 00002.jpg ...; 108499 folders. The lists are something-something-v1-labels.csv (174 classes, one a "
    "line), -train.csv and -validation.csv (lines `<number>;<class>`) and, where wanted, -test.csv (lines `<number>`), "
    "or the same without something-something-v1-, next to the clips' top folder or in the folder that `lists` names, "
    "with or without a folder labels"
)
READS = names_of_lists("something-something-v1-", ".csv")
COUNTS = {1: {"train": 86_017, "test": 11_522}}
UNLABELLED = 10_960  # of the official test list
CLASSES_LISTED = 174
# Classes that a mirrored clip swaps. All others keep their labels.
MIRRORED = (
    ("Pulling something from left to right", "Pulling something from right to left"),
    ("Pushing something from left to right", "Pushing something from right to left"),
    ("Turning the camera left while filming something", "Turning the camera right while filming something"),
)
FPS = 12.0  # at which the makers took the frames out of their videos


def videos(folder: Path, options: Options) -> list[Video]:
    """List the clips present; an id is the number of the folder of frames.

    Raises:
        UserError: A clip is present twice.
    """
    chosen(NoOptions, options, "sthv1")
    return in_numbered_folders("sthv1", folder)


def splits(videos: Sequence[Video], lists: Path, options: Options) -> Splits:
    """Read the official lists.

    Raises:
        UserError: A list is absent, a line is unreadable, or a class is unknown.
    """
    chosen(NoOptions, options, "sthv1")
    labels = _list(lists, "labels")
    numbers = {name: number for number, (_, name) in enumerate(lines("sthv1", labels, LAYOUT))}
    if len(numbers) != CLASSES_LISTED:
        raise UserError(f"{labels.resolve()} has {len(numbers)} classes; published are {CLASSES_LISTED}")
    rows = [
        row
        for part, kind in VALIDATED.items()
        for row in numbered_rows("sthv1", _list(lists, kind), part, LAYOUT, numbers)
    ]
    if (test := _list(lists, "test")).is_file():
        check_unlabelled(test, (clip for _, clip in lines("sthv1", test, LAYOUT)), UNLABELLED, rows)
    return Splits(tuple(numbers), {1: rows})


def _list(lists: Path, name: str) -> Path:
    return listed(lists, f"something-something-v1-{name}.csv", f"{name}.csv")
