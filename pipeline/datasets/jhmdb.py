"""J-HMDB: 928 clips of HMDB51 in 21 classes (Jhuang et al., ICCV 2013).

There are three official splits.
"""

from pathlib import Path

from pipeline.datasets import NoOptions, Options, Part, Splits, Video, chosen, in_classes, splits_by_class, within

LICENCE = "the makers state none; HMDB51, where the clips come from, is CC BY 4.0"
CITATION = "Jhuang, Gall, Zuffi, Schmid, Black: Towards understanding action recognition. ICCV 2013, pages 3192-3199"
HOMEPAGE = "http://jhmdb.is.tue.mpg.de"
FETCH = (
    "JHMDB_video.zip (md5 0aca5af988892c8c2afe652a30544b8c) and splits.zip (sha256 "
    "e1de931cbf9cfac3674f50fb73f1c4753e231204434546da9821337298455d16) from http://files.is.tue.mpg.de/jhmdb/; "
    "no form to sign"
)
SIZE = 185_645_838  # of both archives
LAYOUT = (
    "the content of JHMDB_video.zip: <class>/<file>.avi (with or without ReCompress_Videos/ around the classes), "
    "21 classes, 928 clips. The lists are the content of splits.zip: <class>_test_split<1, 2 or 3>.txt, 63 files, "
    "next to the classes (with or without their folder splits) or in the folder that `lists` names"
)
READS = ("*_test_split?.txt", "splits/*_test_split?.txt")
COUNTS = {1: {"train": 660, "test": 268}, 2: {"train": 658, "test": 270}, 3: {"train": 663, "test": 265}}
CLASSES = (
    *("brush_hair", "catch", "clap", "climb_stairs", "golf", "jump", "kick_ball", "pick", "pour", "pullup", "push"),
    *("run", "shoot_ball", "shoot_bow", "shoot_gun", "sit", "stand", "swing_baseball", "throw", "walk", "wave"),
)
PARTS: dict[str, Part] = {"1": "train", "2": "test"}


def videos(folder: Path, options: Options) -> list[Video]:
    """List the clips present, id <class>/<file without suffix>."""
    chosen(NoOptions, options, "jhmdb")
    return in_classes("jhmdb", folder, CLASSES)


def splits(lists: Path, options: Options) -> Splits:
    """Read the official lists."""
    chosen(NoOptions, options, "jhmdb")
    return splits_by_class("jhmdb", within(lists, "splits"), LAYOUT, CLASSES, COUNTS, PARTS)
