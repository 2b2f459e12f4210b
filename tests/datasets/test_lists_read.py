"""READS names all list files that a data set's splits() opens, because they make results stale."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.videos.lists import ANNOTATIONS, official

ROOT = Path(__file__).parents[2]
# An audit hook can't be removed, so another process listens.
LISTEN = """
import sys
from pathlib import Path
from pipeline import datasets
from pipeline.errors import UserError
name, folder = sys.argv[1], Path(sys.argv[2]).resolve()
plugin, opened = datasets.loaded(name), set()
sys.addaudithook(lambda event, args: opened.add(str(args[0])) if event == "open" else None)
try:
    plugin.splits(folder, {})
except UserError as error:
    print("stopped:", error, file=sys.stderr)  # some official lists are here in part
paths = {Path(path).resolve() for path in opened if Path(path).is_file()}
below = {path for path in paths if path.is_relative_to(folder)}
named = {path.resolve() for pattern in plugin.READS for path in folder.glob(pattern)}
print(len(below), *sorted(str(path) for path in below - named))
"""


def opened(name: str, folder: Path) -> tuple[int, list[str]]:
    """Return how many files below the folder splits() opened, and those that READS doesn't name."""
    command = [sys.executable, "-c", LISTEN, name, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    count, *others = done.stdout.split()
    return int(count), others


@pytest.mark.parametrize("name", ["charades", "egogesture", "hmdb51", "jester", "jhmdb", "sthv2", "ucf101"])
def test_what_is_read_of_official_lists_is_named(name: str) -> None:
    folder = official(name)
    nested = {"hmdb51": "testTrainMulti_7030_splits", "jhmdb": "splits"}
    folder = folder / nested[name] if name in nested and (folder / nested[name]).is_dir() else folder
    count, others = opened(name, folder)
    assert count and not others, ANNOTATIONS / name


@pytest.mark.parametrize("split", ["", "split-1/"])
def test_what_is_read_of_a_folders_lists_is_named(tmp_path: Path, split: str) -> None:
    for video in ("a/1.mp4", "b/2.mp4"):
        (tmp_path / video).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / video).touch()
    for part, line in (("train", "a/1.mp4 a"), ("val", "b/2.mp4 b"), ("test", "b/2.mp4 b")):
        (tmp_path / split).mkdir(exist_ok=True)
        (tmp_path / split / f"{part}.txt").write_text(f"{line}\n")
    (tmp_path / "classes.txt").write_text("a\nb\n")
    count, others = opened("folder", tmp_path)
    assert count >= 3 and not others
