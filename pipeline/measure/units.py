"""Test units: the sources of a data set's videos, read from their names.

Videos of one source share people, place and camera, so they are not independent. If a data set's lists name the
source, it is the unit of every interval and test; otherwise each video is a unit. A video that is tested forward and
backward is one, too.

- UCF101: the group, g01 to g25 of a class. HMDB51, J-HMDB: the film or clip that the name begins with.
- Kinetics, Diving48: the YouTube video or recording. EgoGesture: the subject.
- Something-Something, Jester: the lists name no subject. Charades: a video is one recording already.
"""

import numpy as np
import polars as pl

from pipeline.direction import SUFFIX

# Patterns of a video's name; the first group is its source.
_FILM = r"^[^/]+/(.+?)_[fhul]_(?:cm|nm)_np\d+_(?:fr|ba|le|ri)_(?:goo|med|bad)_\d+$"
SOURCES = {
    "ucf101": r"^(.+)_c\d+$",
    "hmdb51": _FILM,
    "jhmdb": _FILM,
    "kinetics400": r"^(.+)_\d{6}_\d{6}$",
    "diving48": r"^(.+)_\d{5}$",
    "egogesture": r"^([^/]+)/",
}


def units(file: str, videos: pl.Series, several_splits: bool) -> np.ndarray | None:
    """Return the number of each row's unit, or None if each row is a unit.

    Args:
        file: The data set's file in pipeline/datasets.
        videos: The video of each row; one in several splits is one unit.
        several_splits: Whether the rows are of more than one split.
    """
    pattern = SOURCES.get(file)
    if pattern is None and not several_splits and not videos.str.ends_with(SUFFIX).any():
        return None
    videos = sources(videos)
    names = videos if pattern is None else videos.str.extract(pattern).fill_null(videos)
    # A film's name ends with the class, which differs between clips of one film.
    if pattern is _FILM:
        actions = videos.str.split("/").list.first()
        names = pl.select(pl.lit(names).str.strip_suffix("_" + pl.lit(actions))).to_series()
    numbers = names.rank("dense").to_numpy().astype(np.int64) - 1
    return numbers if numbers.max(initial=-1) + 1 < len(numbers) else None


def sources(names: pl.Series) -> pl.Series:
    """Return the videos that names of the split tables show."""
    return names.str.strip_suffix(SUFFIX)
