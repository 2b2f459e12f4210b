"""A suite for a user's folder of videos: a file in conf/suite, and lists where the folder has none."""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline import datasets
from pipeline.config.schema import NAME
from pipeline.datasets import Part, Video
from pipeline.errors import UserError
from pipeline.storage.atomic import write
from stages.repro.compose import composed

CONF = Path("conf")
FILE = "folder"  # the data set file that reads a folder of class folders
LISTS = ("train.txt", "test.txt")
TESTED = 0.3  # share of each class's videos that a drawn list tests on
LARGEST = 32  # clips of a batch: the recipe's, whose learning rate goes with it
RATE = 0.05
STEPS = 4  # an epoch has at least so many
# Names that YAML or Hydra read as a number or another value.
NO_TEXT = re.compile(r"[\d_]+(e[+-]?\d+)?|0[box]\w+|nan|inf|null|true|false|yes|no|on|off|y|n", re.IGNORECASE)
SUITE = """\
# @package _global_
# Small networks from scratch on your own videos, by one recipe. conf/suite/mobilenet.yaml starts from ImageNet instead.
defaults:
  - /dataset@datasets.{name}: folder
  - /recipe@recipes.{name}: jhmdb
  - /protocol@protocols.center: center

suite: {name}
datasets:
  {name}: {{source: {source}, lists: {lists}, decode: {{short_side: 128}}}}
recipes:
  # The batch fits {train} training videos, and lr the batch. Set flip to true if a mirrored video keeps its class.
  {name}: {{batch: {batch}, micro_batch: {micro}, lr: {rate:g}, augment: {{flip: false}}}}
experiments:
  {name}-tsn: &tsn
    {{dataset: {name}, backbone: resnet, variant: tiny, attention: none, recipe: {name}, protocol: center{splits}}}
  {name}-tsm: {{<<: *tsn, attention: tsm}}
  {name}-action: {{<<: *tsn, attention: action}}
tables:
  comparison: {{title: Systems on {name}, rows: [{name}-tsn, {name}-tsm, {name}-action]}}
  ablation: {{title: What each module adds to TSN on {name}, base: {name}-tsn, rows: [{name}-tsm, {name}-action]}}
"""


@dataclass(frozen=True)
class Suite:
    """A suite that was written."""

    path: Path
    lists: Path | None  # folder of the drawn lists; None if the videos came with lists
    classes: int
    splits: int
    train: int  # videos of the smallest split's part
    test: int


def new(name: str, folder: Path, seed: int) -> Suite:
    """Write conf/suite/<name>.yaml, and conf/lists/<name>/ if the folder has no lists.

    Args:
        name: Of the suite, its data set and its recipe.
        folder: Has one folder of videos for each class.
        seed: Of the drawn lists.

    Raises:
        UserError: The name is invalid or taken, or the folder has too few classes or videos, or invalid lists.
    """
    path, lists = CONF / "suite" / f"{name}.yaml", CONF / "lists" / name
    _check_name(name, path, lists)
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; it must have one folder of videos for each class")
    videos = datasets.found(folder)
    drawn = not any((folder / part).is_file() for part in LISTS) and not any(folder.glob("split-*"))
    texts = draw(folder, videos, seed) if drawn else {}
    written = [path, *(lists / part for part in texts)]
    try:
        for part, text in texts.items():
            write(lists / part, text)
        suite = _counted(path, folder, videos, lists if drawn else None)
        write(path, _text(name, folder, suite))
        composed(name)
    except BaseException:
        for made in written:
            made.unlink(missing_ok=True)
        if drawn and lists.is_dir():
            lists.rmdir()
        raise
    return suite


def _check_name(name: str, path: Path, lists: Path) -> None:
    if not CONF.joinpath("suite").is_dir():
        raise UserError(f"{path.parent} is not there; run from the project's root")
    if not re.fullmatch(NAME, f"{name}-action") or NO_TEXT.fullmatch(name):
        raise UserError(
            f"{name[:60]!r} is no name for a suite; it must be up to 93 letters, digits, `_`, `-` and `+`, begin with "
            "one of the first three, and be no number and no value of YAML such as null or on"
        )
    for taken in (path, lists, CONF / "dataset" / f"{name}.yaml"):
        if taken.exists():
            raise UserError(f"{taken} is there already; choose another name, or remove it")


def draw(folder: Path, videos: Sequence[Video], seed: int) -> dict[str, str]:
    """Return the contents of train.txt and test.txt, with TESTED of each class's videos in the latter.

    The choice depends on the seed and on names alone. Each class has at least one video in both lists.

    Raises:
        UserError: A video is in no class folder, or there are fewer than two classes, or than two videos of one.
    """
    classes = defaultdict[str, list[Video]](list)
    for video in videos:
        if "/" not in video.id:
            raise UserError(f"{folder / video.path} is in no class folder; move it into the folder of its class")
        classes[video.id.partition("/")[0]].append(video)
    if len(classes) < 2:
        content = f"only the class {next(iter(classes))!r}" if classes else "no videos"
        raise UserError(f"{folder} has {content}; it must have a folder of videos for each of two or more classes")
    if single := next((name for name, members in classes.items() if len(members) < 2), None):
        raise UserError(f"{folder / single} has one video; a class needs at least two, to train and to test on")

    def place(video: Video) -> str:
        return hashlib.sha256(f"{seed}/{video.id}".encode()).hexdigest()

    tested = {
        video
        for members in classes.values()
        for video in sorted(members, key=place)[: max(1, int(TESTED * len(members) + 0.5))]
    }
    parts = {"train.txt": [video for video in videos if video not in tested], "test.txt": sorted(tested)}
    return {part: "".join(f"{video.path}\n" for video in members) for part, members in parts.items()}


def _counted(path: Path, folder: Path, videos: Sequence[Video], lists: Path | None) -> Suite:
    """Read the lists as stage splits does, and count."""
    listing = datasets.loaded(FILE).splits(lists or folder, {})
    present = {video.id for video in videos}

    def count(part: Part) -> int:
        return min(sum(row.part == part and row.video in present for row in rows) for rows in listing.rows.values())

    suite = Suite(path, lists, len(listing.classes), len(listing.rows), count("train"), count("test"))
    if lists and suite.train + suite.test < len(videos):
        listed = {row.video for row in listing.rows[1]}
        odd = next(video.path for video in videos if video.id not in listed)
        raise UserError(f"{folder / odd}: a list can't hold this name; rename the file")
    if suite.train < 2 or suite.test < 1:
        raise UserError(
            f"{lists or folder}: of the listed videos {suite.train} to train on and {suite.test} to test on are there; "
            "two and one are the fewest"
        )
    return suite


def _text(name: str, folder: Path, suite: Suite) -> str:
    inside = folder.resolve().is_relative_to(Path.cwd())
    source = folder.resolve().relative_to(Path.cwd()) if inside else folder.resolve()
    if "${" in str(source):
        raise UserError(f"{source}: `${{` in a path is read as a reference; rename the folder")
    batch = LARGEST
    while batch > max(2, suite.train // STEPS):
        batch //= 2
    return SUITE.format(
        name=name,
        source=json.dumps(source.as_posix(), ensure_ascii=False),
        lists=suite.lists.as_posix() if suite.lists else "null",
        train=suite.train,
        batch=batch,
        micro=min(batch, LARGEST // 2),
        rate=RATE * batch / LARGEST,
        splits=f", splits: {list(range(1, suite.splits + 1))}" if suite.splits > 1 else "",
    )
