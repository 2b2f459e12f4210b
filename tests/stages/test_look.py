"""`actionbench look` and its pictures of explanations."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
import pytest
import torch

from pipeline.config import load
from pipeline.digest.files import write_sums
from pipeline.executable import ffmpeg_exe
from pipeline.report import film_strip
from pipeline.train.rows import runs
from stages import cli

HEAD = film_strip.LABELS + 2 * film_strip.LINE  # inches above the strip


def strip(path: Path, **changed: Any) -> np.ndarray:
    """Return the pixels of a picture of a synthetic clip of 3 frames."""
    draws = np.random.default_rng(0)
    settings: dict[str, Any] = {
        "title": "row, $x$ & co\nvideo",
        "frames": draws.integers(0, 255, (3, 16, 16, 3), np.uint8),
        "labels": ["frame 0", "frame 4", "frame 9"],
        "heat": draws.random((3, 16, 16)),
        "bars": [
            film_strip.Bars("weights", [0.1, 0.9, 0.4], 1.0),
            film_strip.Bars("channels", draws.random(40).tolist()),
        ],
    }
    film_strip.film(path, **settings | changed)
    return cv2.imread(str(path))


def test_a_picture_is_the_same_bytes_each_time_whatever_the_users_style(tmp_path: Path) -> None:
    strip(tmp_path / "one.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(matplotlib.rcParams, "font.size", 30)
        patch.setitem(matplotlib.rcParams, "savefig.dpi", 200)
        strip(tmp_path / "two.png")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.png", "two.png"], "no half of a file is left"


def test_a_picture_is_as_large_as_what_it_shows(tmp_path: Path) -> None:
    def inches(*rows: float) -> int:
        return round(100 * (HEAD + sum(row + film_strip.GAP for row in rows) + film_strip.GAP))

    whole = strip(tmp_path / "a.png")
    assert whole.shape == (inches(1.6, 1.6, film_strip.BAR, film_strip.BAR), 700, 3)
    assert strip(tmp_path / "b.png", heat=None, bars=[]).shape[0] == inches(1.6)
    long = strip(tmp_path / "c.png", frames=np.zeros((64, 8, 8, 3), np.uint8), labels=["f"] * 64, heat=None, bars=[])
    assert long.shape[1] == round(100 * (film_strip.MARGIN + 64 * 0.5 + film_strip.GAP))


def test_a_strip_shows_its_frames_and_their_heat(tmp_path: Path) -> None:
    frames = np.zeros((3, 16, 16, 3), np.uint8)
    frames[1] = (200, 100, 0)
    heat = np.zeros((3, 16, 16))
    heat[2] = 1.0
    picture = strip(tmp_path / "a.png", frames=frames, heat=heat, bars=[])[..., ::-1].astype(int)

    def at(row: int, frame: int) -> list[int]:
        y = round(100 * (HEAD + row * (1.6 + film_strip.GAP) + 0.8))
        return picture[y, round(100 * (film_strip.MARGIN + (frame + 0.5) * 1.6))].tolist()

    assert [at(0, n) for n in range(3)] == [[0, 0, 0], [200, 100, 0], [0, 0, 0]]
    assert [at(1, n) for n in range(2)] == [[0, 0, 0], [200, 100, 0]]
    assert min(at(1, 2)[:2]) > 100, "the hottest is bright"


@pytest.fixture
def project(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project of four rows, all with initial weights except `untrained`, which has none.

    Its data set is that of conftest.py.
    """
    row = {"dataset": "tiny", "backbone": "resnet", "variant": "tiny", "attention": "none", "knobs": {}}
    row |= {"weights": None, "recipe": "r", "protocol": "p", "splits": [1], "seeds": [0, 1]}
    decode = {"short_side": 36, "quality": 90, "decoder": "ffmpeg", "videos_per_shard": 64, "max_failed": 0.1}
    clip = {"sampling": "segments", "size": 32}
    recipe = {"epochs": 1, "batch": 4, "micro_batch": 4, "frames": 4, "augment": {"crop": "random"}, "lr": 0.1}
    raw = {
        "suite": "test",
        "datasets": {"tiny": {"file": "folder", "source": "nowhere", "lists": None, "options": {}, "decode": decode}},
        "recipes": {"r": {**recipe, **clip, "momentum": 0.9, "weight_decay": 0.0}},
        "protocols": {"p": {"clips": 2, "crops": "three", "average": "softmax", "batch": 4, **clip}},
        "experiments": {
            "plain": row,
            "eam": {**row, "attention": "eam"},
            "istpa": {**row, "attention": "istpa", "knobs": {"positions": 2}},
            "untrained": row,
        },
        "tables": {},
    }
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "data").symlink_to(data)
    (folder / "params.yaml").write_text(json.dumps(raw))
    monkeypatch.chdir(folder)
    torch.manual_seed(0)
    settings = load.load()
    for name in ("plain", "eam", "istpa"):
        for cell in runs(settings, name, Path("data")):
            cell.weights.parent.mkdir(parents=True, exist_ok=True)
            torch.save(cell.net().state_dict(), cell.weights)
            write_sums(cell.weights.parent)
    return folder


def called(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr of `actionbench look` in this process."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as left:
        patch.setattr(sys, "argv", ["actionbench", "look", *arguments])
        cli.main()
    return int(left.value.code or 0), *capsys.readouterr()


@pytest.mark.parametrize(
    "row, show", [("plain", "gradcam"), ("eam", "eam"), ("istpa", "receptive"), ("istpa", "gradcam")]
)
def test_look_leaves_a_picture(project: Path, capsys: pytest.CaptureFixture[str], row: str, show: str) -> None:
    code, out, err = called(capsys, row, "video-13", "--show", show)
    assert (code, err) == (0, "")
    first, second, verdict, path = out.splitlines()
    assert first.startswith(f"{row}, split1-seed0: ") and second == "video-13 (test)"
    assert verdict.split(" (")[0] in {f"predicted: {name}" for name in "abc"} and verdict.endswith("%); true: b")
    assert path == f"data/looks/{row}-split1-seed0-video-13-{show}.png"
    assert cv2.imread(path).shape[1] == round(100 * (film_strip.MARGIN + 4 * 1.6 + film_strip.GAP))
    once = Path(path).read_bytes()
    called(capsys, row, "video-13", "--show", show, "-o", "again.png")
    assert Path("again.png").read_bytes() == once


def test_look_takes_a_run_and_a_video_file(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [ffmpeg_exe()[0], "-v", "error", "-f", "lavfi", "-i", "testsrc=size=64x48:rate=10:duration=1", "clip.mp4"]
    subprocess.run(command, check=True)
    code, out, err = called(capsys, "plain", "clip.mp4", "--seed", "1", "-o", "deep/one.png")
    assert (code, err) == (0, "")
    assert out.startswith("plain, split1-seed1: ") and "true label unknown" in out
    assert cv2.imread("deep/one.png") is not None


def test_look_takes_a_stage(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    last, earlier = (called(capsys, "plain", "video-13", *more)[1] for more in ([], ["--stage", "res3"]))
    assert earlier.startswith("plain, split1-seed0: Grad-CAM of the predicted class in res3\n")
    assert earlier.splitlines()[-1] == "data/looks/plain-split1-seed0-video-13-gradcam-res3.png"
    assert Path(earlier.splitlines()[-1]).read_bytes() != Path(last.splitlines()[-1]).read_bytes()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["plane", "video-13"], "no experiment 'plane'; did you mean 'plain'? known: eam, istpa, plain, untrained"),
        (["plain", "video-99"], "no video 'video-99' in split 1 of tiny, and no such file; of the 17 there: video-"),
        (["plain", "video-16"], "no frames of 'video-16' in "),
        (["plain", "params.yaml"], "params.yaml can't be decoded: "),
        (["untrained", "video-13"], "experiments.untrained has no weights of split1-seed0 yet, `actionbench repro "),
        (["plain", "video-13", "--show", "eam"], "experiments.plain: attention 'none' has nothing for --show eam; "),
        (["eam", "video-13", "--show", "receptive"], "experiments.eam: attention 'eam' has nothing for --show recep"),
        (["plain", "video-13", "--stage", "res9"], "--stage res9: only for Grad-CAM; stages: stem, res2, "),
        (["eam", "video-13", "--show", "eam", "--stage", "res4"], "--stage res4: only for Grad-CAM; "),
        (["plain", "video-13", "--show", "cam"], "Invalid value for '--show'"),
        (["plain", "video-13", "--seed", "7"], "experiments.plain has no run of seed 7; known: split1-seed0, split1-"),
        (["plain", "video-13", "-o", "a.jpg"], "a.jpg: a picture is written as .png"),
        (["plain", "video-13", "-o", "params.yaml/a.png"], "params.yaml/a.png can't be written: "),
    ],
)
def test_what_look_cannot_do_is_one_line(
    project: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    code, out, err = called(capsys, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"error: {message}")


def test_weights_of_another_net_are_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy("data/runs/eam/split1-seed0.pt", "data/runs/plain/split1-seed0.pt")
    write_sums(Path("data/runs/plain"))
    code, _, err = called(capsys, "plain", "video-13")
    assert code == 2 and err.count("\n") == 1
    assert "split1-seed0.pt doesn't fit the row as it is now; `actionbench repro plain` trains it again" in err
    Path("data/runs/plain/split1-seed0.pt").write_bytes(b"damaged")
    code, _, err = called(capsys, "plain", "video-13")
    assert code == 2 and err.count("\n") == 1 and "data/runs/plain/split1-seed0.pt" in err
