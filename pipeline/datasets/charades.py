"""Charades: 9,848 multi-label videos, 157 actions (Sigurdsson et al. 2016).

There is a train and a test list.
- Multi-label: a row is a video with all its actions, each once, at any time in the video. `actions` reads their times.
- 174 videos of the train list and 49 of the test list have no action at all. They are rows without a label: in training
  a video of none of the classes, in testing one that the official measure leaves out.
- Some actions end after their video does, and a few before they begin. They stay: a video's labels are as listed.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.datasets import NoOptions, Options, Part, Row, Splits, Video, by_name, chosen, lines, table, within
from pipeline.errors import UserError

LICENCE = "the makers' own terms: for non-commercial use only"
CITATION = (
    "Sigurdsson, Varol, Wang, Farhadi, Laptev, Gupta: Hollywood in homes: Crowdsourcing data collection for activity "
    "understanding. ECCV 2016"
)
HOMEPAGE = "https://prior.allenai.org/projects/charades"
FETCH = (
    "Charades_v1_480.zip and Charades.zip from https://ai2-public-datasets.s3-us-west-2.amazonaws.com/charades/, under "
    "the license that comes along; no form to sign"
)
SIZE = 13_000_000_000  # rounded by the makers
LAYOUT = (
    "the content of Charades_v1_480.zip: Charades_v1_480/<five letters and digits>.mp4, 9848 videos. The lists are of "
    "Charades.zip: Charades_v1_classes.txt, Charades_v1_train.csv and Charades_v1_test.csv, next to the videos (with "
    "or without a folder Charades) or in the folder that `lists` names"
)
READS = tuple(f"{place}Charades_v1_{name}" for place in ("", "Charades/") for name in ("*.csv", "classes.txt"))
COUNTS = {1: {"train": 7_985, "test": 1_863}}
CLASSES_LISTED = 157
MULTI_LABEL = True
MIRRORED: tuple[tuple[str, str], ...] = ()  # no class has a left or a right: mirrored clips keep their labels
PARTS: tuple[Part, ...] = ("train", "test")
NAME = re.compile(r"[A-Z0-9]{5}")
ACTION = re.compile(r"c(\d{3}) (\d+(?:\.\d+)?) (\d+(?:\.\d+)?)", re.ASCII)


class Action(NamedTuple):
    """An action in a video, and its time."""

    label: int
    start: float  # s
    end: float  # s


def videos(folder: Path, options: Options) -> list[Video]:
    """List the videos present; an id is the file's name without suffix."""
    chosen(NoOptions, options, "charades")
    return by_name("charades", folder, NAME.fullmatch)


def splits(lists: Path, options: Options) -> Splits:
    """Read the official lists."""
    chosen(NoOptions, options, "charades")
    folder = within(lists, "Charades")
    classes, rows = _classes(folder / "Charades_v1_classes.txt"), []
    for part in PARTS:
        for name, each in actions(folder / f"Charades_v1_{part}.csv"):
            rows.append(Row(name, part, tuple(sorted({action.label for action in each}))))
    return Splits(classes, {1: rows})


def actions(path: Path) -> Iterator[tuple[str, list[Action]]]:
    """Yield (video, its actions) of each line of a list."""
    for where, line in table("charades", path, ("id", "actions"), LAYOUT):
        video, texts = line["id"] or "", line["actions"]
        if not NAME.fullmatch(video) or texts is None:
            raise UserError(f"{where}: expected an id of five letters and digits, and actions, not {video!r}")
        yield video, [_action(where, text) for text in texts.split(";") if text]


def _action(where: str, text: str) -> Action:
    match = ACTION.fullmatch(text)
    if not match:
        raise UserError(f"{where}: expected actions `c<three digits> <start> <end>` with `;` between, not {text!r}")
    if int(match[1]) >= CLASSES_LISTED:
        raise UserError(f"{where}: c{match[1]} is none of c000 to c{CLASSES_LISTED - 1}")
    return Action(int(match[1]), float(match[2]), float(match[3]))


def _classes(path: Path) -> tuple[str, ...]:
    pairs = [line.partition(" ") for _, line in lines("charades", path, LAYOUT)]
    if [code for code, _, _ in pairs] != [f"c{number:03d}" for number in range(CLASSES_LISTED)]:
        raise UserError(f"{path.resolve()}: expected the classes c000 to c{CLASSES_LISTED - 1} in turn, a line each")
    return tuple(name for _, _, name in pairs)
