"""Something-Something V1: 108,499 clips in 174 classes (Goyal et al., ICCV 2017).

A clip is a folder of JPEG frames. The official validation list is the part "test": papers report on it. The official
test list came without labels, so its clips are no rows. If it is present, its count is checked and that it shares no
clip with the others.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.datasets import (
    FRAME,
    NoOptions,
    Options,
    Part,
    Row,
    Splits,
    Video,
    chosen,
    lines,
    listed,
    names_of_lists,
    walk,
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
LISTS: dict[Part, str] = {"train": "train", "test": "validation"}
FPS = 12.0  # of the makers' frame extraction


def videos(folder: Path, options: Options) -> list[Video]:
    """List the clips present; an id is the number of the folder of frames.

    Raises:
        UserError: A clip is present twice.
    """
    chosen(NoOptions, options, "sthv1")
    paths: dict[str, str] = {}
    for path, files in walk(folder):
        if not path.name.isdecimal() or not any(map(FRAME.fullmatch, files)):
            continue
        first = paths.setdefault(path.name, path.as_posix())
        if first != path.as_posix():
            raise UserError(f"sthv1: {folder} holds {first} and {path.as_posix()}, the same clip; keep one of them")
    return [Video(clip, paths[clip]) for clip in sorted(paths)]


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
    rows = [row for part in LISTS for row in _rows(lists, part, numbers)]
    _check_unlabelled(_list(lists, "test"), rows)
    return Splits(tuple(numbers), {1: rows})


def _list(lists: Path, name: str) -> Path:
    return listed(lists, f"something-something-v1-{name}.csv", f"{name}.csv")


def _rows(lists: Path, part: Part, numbers: dict[str, int]) -> Iterator[Row]:
    for where, line in lines("sthv1", _list(lists, LISTS[part]), LAYOUT):
        clip, _, name = line.partition(";")
        if not clip.isdecimal() or not name:
            raise UserError(f"{where}: expected `<number>;<class>`, not {line!r}")
        if name not in numbers:
            raise UserError(f"{where}: {name!r} is no class of the labels' list")
        yield Row(clip, part, (numbers[name],))


def _check_unlabelled(path: Path, rows: Sequence[Row]) -> None:
    if not path.is_file():
        return
    clips = {line for _, line in lines("sthv1", path, LAYOUT)}
    if len(clips) != UNLABELLED:
        raise UserError(f"{path.resolve()} has {len(clips)} clips; published are {UNLABELLED}")
    if both := next((row for row in rows if row.video in clips), None):
        raise UserError(f"{path.resolve()}: clip {both.video} is in the {LISTS[both.part]} list too")
