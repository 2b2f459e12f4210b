"""Jester: 148,092 hand gesture clips in 27 classes (Materzynska et al. 2019).

A clip is a folder of JPEG frames. The official validation list is the part "test": papers report on it. The official
test list came without labels, so its clips are no rows. If it is present, its count is checked and that it shares no
clip with the others.
"""

from pathlib import Path

from pipeline import datasets
from pipeline.datasets import NoOptions, Options, Splits, Video, chosen

LICENCE = datasets.TERMS_20BN
CITATION = (
    "Materzynska, Berger, Bax, Memisevic: The Jester dataset: A large-scale video dataset of human gestures. "
    "ICCV workshops 2019"
)
HOMEPAGE = "https://www.qualcomm.com/developer/software/jester-dataset"
FETCH = datasets.FETCH_20BN.format("jester-v1")
SIZE = 22_800_000_000  # rounded by the makers
LAYOUT = datasets.LAYOUT_20BN.format("jester-v1", datasets.FRAMES_20BN.format(148_092), datasets.LISTS_20BN, "csv")
READS = datasets.names_of_lists("jester-v1-", ".csv")
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
    """List the clips present; an id is the number of the folder of frames."""
    chosen(NoOptions, options, "jester")
    return datasets.in_numbered_folders("jester", folder)


def splits(lists: Path, options: Options) -> Splits:
    """Read the official lists."""
    chosen(NoOptions, options, "jester")
    return datasets.numbered_splits("jester", lists, "jester-v1-", LAYOUT, CLASSES, UNLABELLED)
