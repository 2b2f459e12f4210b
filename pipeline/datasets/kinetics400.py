"""Kinetics-400: ten-second clips of YouTube in 400 classes (Kay et al. 2017).

The validation list is the part "test": papers report on it. The official test list is not read: it came without labels,
and the later copies with labels have another number of rows (39,805, not 38,685).
Clips vanish from YouTube, so every copy lacks some. They stay rows of the split, and count as wrong in the test part.
For a copy with 19,796 of the 19,906 clips, accuracy is 0.6 % lower here than without the absent ones.
"""

import re
from pathlib import Path

from pipeline.datasets import NoOptions, Options, Part, Row, Splits, Video, chosen, found, once, table
from pipeline.errors import UserError

LICENCE = "the lists: CC BY 4.0; each video: its uploader's, under YouTube's terms"
CITATION = "Kay, Carreira, Simonyan, Zhang, et al.: The Kinetics human action video dataset. arXiv:1705.06950, 2017"
HOMEPAGE = "https://github.com/cvdfoundation/kinetics-dataset"
FETCH = (
    "the copy that the Common Visual Data Foundation keeps, by its k400_downloader.sh from "
    "https://github.com/cvdfoundation/kinetics-dataset; no form to sign"
)
LAYOUT = (
    "clips named <YouTube id>_<start>_<end>.mp4, seconds in six digits (abc-EFG_123_000017_000027.mp4), a folder a "
    "part or a class, or all in one; a clip below a folder replacement... takes the place of its namesake. The lists, "
    "next to the clips (with or without a folder annotations or kinetics400) or in the folder that `lists` names, are "
    "train.csv or kinetics-400_train.csv, and val.csv, validate.csv or kinetics-400_val.csv, with the columns label, "
    "youtube_id, time_start, time_end. Clips of the test list are not needed"
)
COUNTS = {1: {"train": 246_534, "test": 19_906}}
CLASSES_LISTED = 400
LISTS: dict[Part, tuple[str, ...]] = {
    "train": ("train.csv", "kinetics-400_train.csv"),
    "test": ("val.csv", "validate.csv", "kinetics-400_val.csv"),
}
FOLDERS = ("", "annotations", "kinetics400")
READS = tuple(f"{folder}/{name}".lstrip("/") for folder in FOLDERS for names in LISTS.values() for name in names)
COLUMNS = ("label", "youtube_id", "time_start", "time_end")
CLIP = re.compile(r"[\w-]{11}_\d{6}_\d{6}", re.ASCII)


def videos(folder: Path, options: Options) -> list[Video]:
    """List the clips present, id <YouTube id>_<start>_<end>; replacements come first."""
    chosen(NoOptions, options, "kinetics400")
    places: dict[bool, list[tuple[str, str]]] = {False: [], True: []}  # by whether it is a replacement
    for video in found(folder):
        *folders, clip = video.id.split("/")
        if CLIP.fullmatch(clip):
            places[any(name.startswith("replacement") for name in folders)].append((clip, video.path))
    clips = {video.id: video for replacing in places for video in once("kinetics400", folder, places[replacing])}
    return [clips[clip] for clip in sorted(clips)]


def splits(lists: Path, options: Options) -> Splits:
    """Read the official lists, with classes in alphabetical order."""
    chosen(NoOptions, options, "kinetics400")
    parts = {part: _listed(_place(lists, part)) for part in LISTS}
    labels = {part: {label for _, _, label in lines} for part, lines in parts.items()}
    alone = labels["train"] ^ labels["test"]
    for part, lines in parts.items():
        for where, _, label in lines:
            if label in alone:
                raise UserError(f"{where}: the class {label!r} is in the list of the {part} part alone")
    classes = tuple(sorted(labels["train"]))
    if len(classes) != CLASSES_LISTED:
        raise UserError(
            f"kinetics400: the lists in {lists.resolve()} have {len(classes)} classes, not {CLASSES_LISTED}"
        )
    numbers = {name: number for number, name in enumerate(classes)}
    rows = [Row(clip, part, (numbers[label],)) for part, lines in parts.items() for _, clip, label in lines]
    return Splits(classes, {1: rows})


def _place(lists: Path, part: Part) -> Path:
    """Return the first of a list's names that exists."""
    for path in (lists / folder / name for folder in FOLDERS for name in LISTS[part]):
        if path.is_file():
            return path
    raise UserError(f"kinetics400: {lists.resolve()} holds no {' or '.join(LISTS[part])}. Expected: {LAYOUT}")


def _listed(path: Path) -> list[tuple[str, str, str]]:
    """List (file and line number, clip, label) of each line of a list."""
    listed = []
    for where, line in table("kinetics400", path, COLUMNS, LAYOUT):
        label, video, start, end = cells = [line[column] or "" for column in COLUMNS]
        clip = f"{video}_{start:0>6}_{end:0>6}"
        whole = start.isdecimal() and end.isdecimal() and int(start) < int(end)
        if not label or not whole or not CLIP.fullmatch(clip):
            content = ",".join(cells)
            raise UserError(f"{where}: expected a label, an id of 11 signs and whole seconds, not {content!r}")
        listed.append((where, clip, label))
    return listed
