"""HMDB51: 6,766 clips in 51 classes, three official splits (Kuehne et al. 2011).

A split has 70 training and 30 test clips per class.
"""

from pathlib import Path

from pipeline.datasets import NoOptions, Options, Part, Splits, Video, chosen, in_classes, splits_by_class, within

LICENCE = "CC BY 4.0; the clips are from films and YouTube"
CITATION = (
    "Kuehne, Jhuang, Garrote, Poggio, Serre: HMDB: A large video database for human motion recognition. ICCV 2011"
)
HOMEPAGE = "https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database/"
FETCH = "hmdb51_org.rar and test_train_splits.rar, which the home page links to; no form to sign"
SIZE = 2_000_000_000  # rounded by the makers
LAYOUT = (
    "the content of hmdb51_org.rar, a rar of a rar a class: <class>/<file>.avi (with or without a folder around the "
    "classes), 51 classes, 6766 clips. The lists are the content of test_train_splits.rar: "
    "<class>_test_split<1, 2 or 3>.txt, 153 files, next to the classes (with or without their folder "
    "testTrainMulti_7030_splits) or in the folder that `lists` names"
)
READS = ("*_test_split?.txt", "testTrainMulti_7030_splits/*_test_split?.txt")
COUNTS = {split: {"train": 3570, "test": 1530} for split in (1, 2, 3)}
CLASSES = (
    *("brush_hair", "cartwheel", "catch", "chew", "clap", "climb", "climb_stairs", "dive", "draw_sword", "dribble"),
    *("drink", "eat", "fall_floor", "fencing", "flic_flac", "golf", "handstand", "hit", "hug", "jump", "kick"),
    *("kick_ball", "kiss", "laugh", "pick", "pour", "pullup", "punch", "push", "pushup", "ride_bike", "ride_horse"),
    *("run", "shake_hands", "shoot_ball", "shoot_bow", "shoot_gun", "sit", "situp", "smile", "smoke", "somersault"),
    *("stand", "swing_baseball", "sword", "sword_exercise", "talk", "throw", "turn", "walk", "wave"),
)
PARTS: dict[str, Part | None] = {"0": None, "1": "train", "2": "test"}  # 0: not used in this split


def videos(folder: Path, options: Options) -> list[Video]:
    """List the clips present, id <class>/<file without suffix>."""
    chosen(NoOptions, options, "hmdb51")
    return in_classes("hmdb51", folder, CLASSES)


def splits(lists: Path, options: Options) -> Splits:
    """Read the official lists."""
    chosen(NoOptions, options, "hmdb51")
    return splits_by_class("hmdb51", within(lists, "testTrainMulti_7030_splits"), LAYOUT, CLASSES, COUNTS, PARTS)
