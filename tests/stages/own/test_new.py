"""`actionbench new` writes a suite for a folder of videos, and its stages run."""

import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.hydra import compose_and_dump

from pipeline.config import load
from pipeline.datasets import Video
from pipeline.decode.frame_store import FrameStore
from stages import decode, download, splits
from stages.own.new import draw
from tests.support.command import called

ROOT = Path(__file__).parents[3]
ROWS = ["mine-tsn", "mine-tsm", "mine-action"]


@pytest.fixture
def root(tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project with only conf/ and eight videos of two classes in clips/."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    shutil.copytree(videos, tmp_path / "clips", ignore=shutil.ignore_patterns("cut.mp4", "text.mp4"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def one_by_one(function: Callable[..., Any], items: Sequence[tuple], *_: Any) -> Iterator[tuple[int, Any]]:
    """Run fan_out() in this process."""
    for at, item in enumerate(items):
        yield at, function(*item)


def test_a_suite_is_written_and_its_data_goes_through_the_stages(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = called(capsys, "new", "mine", "clips")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "conf/suite/mine.yaml: 2 classes, 6 training and 2 test videos",
        "conf/lists/mine: the lists, drawn by seed 0; clips of one recording belong in the same list",
        "next: dvc exp run -S suite=mine && actionbench report",
    ]
    compose_and_dump("params.yaml", str(root / "conf"), None, "config", "", ["suite=mine"])
    params = load.load()
    assert (params.suite, list(params.experiments)) == ("mine", ROWS)
    assert [row.attention for row in params.experiments.values()] == ["none", "tsm", "action"]
    assert {row.seeds for row in params.experiments.values()} == {(0, 1, 2)}
    assert (params.tables["ablation"].base, params.recipes["mine"].batch) == ("mine-tsn", 2)
    assert (params.datasets["mine"].source, params.datasets["mine"].lists) == ("clips", "conf/lists/mine")

    monkeypatch.setattr(decode, "session", lambda *_, **__: nullcontext())
    monkeypatch.setattr(decode, "fan_out", one_by_one)
    download.download("mine")
    decode.decode("mine")
    splits.make_splits("mine")
    assert "mine, split 1: 2 test, 6 train, 2 classes" in capsys.readouterr().out
    assert len(FrameStore(root / "data/frames/mine").videos) == 8


def test_a_folders_lists_are_taken_and_a_folder_elsewhere_is_named_by_its_whole_path(
    root: Path, capsys: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    away = shutil.move("clips", tmp_path_factory.mktemp("away") / 'my "own" clips')
    for split, test in ((1, "run/0.mp4\nsit/1.mp4"), (2, "run/2.mp4\nsit/3.mp4")):
        (away / f"split-{split}").mkdir()
        (away / f"split-{split}/train.txt").write_text("run/4.mp4\nrun/6.mp4\nsit/5.mp4\nsit/7.mp4")
        (away / f"split-{split}/test.txt").write_text(test)
    code, out, err = called(capsys, "new", "mine", str(away))
    assert (code, err) == (0, "") and "4 training and 2 test videos in each of 2 splits" in out
    compose_and_dump("params.yaml", str(root / "conf"), None, "config", "", ["suite=mine"])
    dataset = load.load().datasets["mine"]
    assert (dataset.source, dataset.lists, Path("conf/lists").exists()) == (str(away), None, False)
    assert load.load().experiments["mine-tsm"].splits == (1, 2)


def test_lists_are_drawn_by_class_and_by_seed() -> None:
    sizes = {"few": 2, "some": 9, "many": 100}
    ids = [f"{name}/{number:03d}" for name, size in sorted(sizes.items()) for number in range(size)]
    videos = [Video(video, f"{video}.mp4") for video in ids]
    texts = draw(Path(), videos, 0)
    train, test = ([line.partition("/")[0] for line in texts[part].splitlines()] for part in ("train.txt", "test.txt"))
    assert {name: (train.count(name), test.count(name)) for name in sizes} == {
        "few": (1, 1),
        "some": (6, 3),
        "many": (70, 30),
    }
    assert set(texts["train.txt"].splitlines()) | set(texts["test.txt"].splitlines()) == {v.path for v in videos}
    assert draw(Path(), videos, 0) == texts != draw(Path(), videos, 1)


@pytest.mark.parametrize(
    ("name", "spoil", "words"),
    [
        ("mine/../x", "", "'mine/../x' is no name for a suite"),
        *((name, "", f"'{name}' is no name for a suite") for name in ("null", "no", "1e5", "0x1F", "1_000", "nan")),
        ("quick", "", "conf/suite/quick.yaml is there already; choose another name"),
        ("ucf101", "", "conf/dataset/ucf101.yaml is there already"),
        ("mine", "mv clips away", "clips is no folder; it must have one folder of videos for each class"),
        ("mine", "rm -r clips/run", "clips has only the class 'sit'; it must have a folder of videos for each of two"),
        ("mine", "rm -r clips/*", "clips has no videos; "),
        ("mine", "rm clips/run/[024]*", "clips/run has one video; a class needs at least two"),
        ("mine", "cp clips/run/0.mp4 clips", "clips/0.mp4 is in no class folder; "),
        ("mine", "mv clips/run/0.mp4 'clips/run/0.ts 1.mp4'", "clips/run/0.ts 1.mp4: a list can't hold this name; "),
        ("mine", "echo run/0.mp4 > clips/train.txt", "folder: the list "),
        ("mine", "rm -r conf/suite", "conf/suite is not there; run from the project's root"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    root: Path, capsys: pytest.CaptureFixture[str], name: str, spoil: str, words: str
) -> None:
    subprocess.run(["sh", "-c", spoil or "true"], check=True)
    before = sorted(Path("conf").rglob("*"))
    code, out, err = called(capsys, "new", name, "clips")
    assert (code, out, err.count("\n")) == (2, "", 1) and err.startswith(f"error: {words}")
    assert sorted(Path("conf").rglob("*")) in (before, sorted([*before, Path("conf/lists")]))
