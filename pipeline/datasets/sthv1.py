"""Something-Something V1: 108,499 clips in 174 classes (Goyal et al., ICCV 2017).

A clip is a folder of JPEG frames. The official validation list is the part "test": papers report on it. The official
test list came without labels, so its clips are no rows. If it is present, its count is checked and that it shares no
clip with the others.
"""

from pathlib import Path

from pipeline import datasets
from pipeline.datasets import NoOptions, Options, Splits, Video, chosen
from pipeline.errors import UserError

LICENCE, CITATION, HOMEPAGE = datasets.TERMS_20BN, datasets.SOMETHING_PAPER, datasets.SOMETHING_PAGE
FETCH = (
    "the parts of 20bn-something-something-v1 and the lists, under the makers' research license; the home page speaks "
    "of version 2 alone, so ask them for version 1; `cat 20bn-something-something-v1-?? | tar xz` unpacks them"
)
SIZE = 25_200_000_000  # rounded by the makers
PREFIX = "something-something-v1-"
LISTS = f"labels.csv (174 classes, one a line), {datasets.LISTS_20BN}"
LAYOUT = datasets.LAYOUT_20BN.format(PREFIX[:-1], datasets.FRAMES_20BN.format(108_499), LISTS, "csv")
READS = datasets.names_of_lists(PREFIX, ".csv")
COUNTS = {1: {"train": 86_017, "test": 11_522}}
UNLABELLED = 10_960  # of the official test list
CLASSES_LISTED = 174
MIRRORED = datasets.SOMETHING_MIRRORED  # all other classes keep their labels
FPS = 12.0  # at which the makers took the frames out of their videos


def videos(folder: Path, options: Options) -> list[Video]:
    """List the clips present; an id is the number of the folder of frames."""
    chosen(NoOptions, options, "sthv1")
    return datasets.in_numbered_folders("sthv1", folder)


def splits(lists: Path, options: Options) -> Splits:
    """Read the official lists."""
    chosen(NoOptions, options, "sthv1")
    labels = datasets.listed(lists, PREFIX, "labels.csv")
    classes = tuple(dict.fromkeys(name for _, name in datasets.lines("sthv1", labels, LAYOUT)))
    if len(classes) != CLASSES_LISTED:
        raise UserError(f"{labels.resolve()} has {len(classes)} classes; published are {CLASSES_LISTED}")
    return datasets.numbered_splits("sthv1", lists, PREFIX, LAYOUT, classes, UNLABELLED)
