"""J-HMDB: 928 clips of HMDB51 in 21 classes (Jhuang et al., ICCV 2013).

There are three official splits.
"""

from collections.abc import Sequence
from pathlib import Path

from pipeline.datasets import NoOptions, Options, Part, Row, Splits, Video, chosen, found, lines
from pipeline.errors import UserError

LICENCE = "the makers state none; HMDB51, where the clips come from, is CC BY 4.0"
CITATION = "Jhuang, Gall, Zuffi, Schmid, Black: Towards understanding action recognition. ICCV 2013, pages 3192-3199"
HOMEPAGE = "http://jhmdb.is.tue.mpg.de"
FETCH = "JHMDB_video.zip and splits.zip, which the home page links to; no form to sign"
LAYOUT = (
    "the content of JHMDB_video.zip: one folder a class (brush_hair ... wave, 21 of them; with or without "
    "ReCompress_Videos/ around them), in each the .avi files, 928 in all. The lists are the content of splits.zip: "
    "<class>_test_split<1, 2 or 3>.txt, 63 files"
)
READS = ("*_test_split?.txt",)
COUNTS = {1: {"train": 660, "test": 268}, 2: {"train": 658, "test": 270}, 3: {"train": 663, "test": 265}}
CLASSES = (
    *("brush_hair", "catch", "clap", "climb_stairs", "golf", "jump", "kick_ball", "pick", "pour", "pullup", "push"),
    *("run", "shoot_ball", "shoot_bow", "shoot_gun", "sit", "stand", "swing_baseball", "throw", "walk", "wave"),
)
PARTS: dict[str, Part] = {"1": "train", "2": "test"}


def videos(folder: Path, options: Options) -> list[Video]:
    """List the clips present, id <class>/<file without suffix>."""
    chosen(NoOptions, options, "jhmdb")
    return [
        Video(video.id.removeprefix("ReCompress_Videos/"), video.path)
        for video in found(folder)
        if video.id.removeprefix("ReCompress_Videos/").split("/")[0] in CLASSES
    ]


def splits(videos: Sequence[Video], lists: Path, options: Options) -> Splits:
    """Read the official lists.

    Raises:
        UserError: A list is absent, or a line is not `<file> <1 or 2>`.
    """
    chosen(NoOptions, options, "jhmdb")
    return Splits(CLASSES, {split: [row for name in CLASSES for row in _rows(lists, name, split)] for split in COUNTS})


def _rows(lists: Path, name: str, split: int) -> list[Row]:
    path = lists / f"{name}_test_split{split}.txt"
    rows = []
    for where, line in lines("jhmdb", path, LAYOUT):
        *file, part = line.rsplit(maxsplit=1)
        if not file or part not in PARTS:
            raise UserError(f"{where}: expected `<file> 1` (train) or `<file> 2` (test), not {line!r}")
        rows.append(Row(f"{name}/{Path(file[0]).stem}", PARTS[part], (CLASSES.index(name),)))
    return rows
