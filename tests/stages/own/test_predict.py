"""`actionbench predict` classifies new videos with a row's trained networks."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.clips import loading, views
from pipeline.config import load
from pipeline.decode.frame_store import FrameStore
from pipeline.digest.files import write_sums
from pipeline.evaluate import inference
from pipeline.train.rows import runs
from stages.own import predict
from tests.support.command import called
from tests.support.trainings import params
from tests.support.videos.stores import BAD, decoded


@pytest.fixture
def data(data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return conftest.py's data folder with two runs of row `row`, whose weights are untrained."""
    given = params()
    given = replace(given, experiments={"row": replace(given.experiments["row"], seeds=(0, 1))})
    folder = data / "project"
    folder.mkdir()
    (folder / "data").symlink_to(data)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(load, "load", lambda: given)
    torch.manual_seed(0)
    for run in runs(given, "row", Path("data")):
        net = run.net()
        torch.nn.init.normal_(net.head.weight)  # so that classes differ
        run.weights.parent.mkdir(parents=True, exist_ok=True)
        torch.save(net.state_dict(), run.weights)
    write_sums(data / "runs" / "row")
    return data


def read(path: str) -> dict[str, dict[str, str]]:
    with Path(path).open(newline="") as file:
        return {line["video"]: line for line in csv.DictReader(file)}


def test_scores_are_the_mean_of_all_networks_and_views(
    data: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*") if path.is_file()}
    code, out, err = called(capsys, "predict", "row", str(videos))
    path = f"data/predicted/row-{videos.name}.csv"
    assert (code, out) == (0, f"{path}: 8 of 10 videos classified, by the mean of 2 networks\n")
    assert "sit/text.mp4 can't be decoded: " in err
    changed = [p for p in data.rglob("*") if p.is_file() and before.get(p) != p.stat().st_mtime_ns]
    assert changed == [data / "predicted" / Path(path).name], "no result is touched"

    lines, given = read(path), load.load()
    assert list(lines["run/0.mp4"]) == ["video", "class", "score", "problem"] + [
        f"{what}_{place}" for place in (1, 2, 3) for what in ("class", "score")
    ]
    decoded(tmp_path / "store", videos, given.datasets["tiny"].decode)
    store = FrameStore(tmp_path / "store")
    assert {name for name, line in lines.items() if line["problem"]} == {f"{video}.mp4" for video in BAD}
    for video, entry in store.videos.items():
        means = []
        for run in runs(given, "row", Path("data")):
            net = inference.load(run, torch.device("cpu"))
            taken = [(video, view) for view in views.views(run.protocol, video, entry, run.test_frames)]
            x = torch.from_numpy(loading.load_views(store, taken, run.protocol.size))
            with torch.inference_mode():
                means.append(net(loading.normalise(x, net.mean, net.std, net.channels)).softmax(1).mean(0).numpy())
        mean, line = np.mean(means, axis=0), lines[f"{video}.mp4"]
        order = np.argsort(-mean)
        assert [line[f"class_{place}"] for place in (1, 2, 3)] == [("a", "b", "c")[k] for k in order]
        assert [float(line[f"score_{place}"]) for place in (1, 2, 3)] == pytest.approx(mean[order], abs=1e-4)
        assert (line["class"], line["score"]) == (line["class_1"], line["score_1"])

    monkeypatch.setattr(predict, "BLOCK", 3)
    assert called(capsys, "predict", "row", str(videos), "-o", "deep/few.csv")[0] == 0
    assert Path("deep/few.csv").read_bytes() == Path(path).read_bytes(), "however many at a time"


def test_one_video_file(data: Path, videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = called(capsys, "predict", "row", str(videos / "sit/text.mp4"), "-o", "one.csv")
    assert (code, out) == (0, "one.csv: 0 of 1 videos classified, by the mean of 2 networks\n")
    assert list(read("one.csv")) == ["text.mp4"] and read("one.csv")["text.mp4"]["problem"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["raw", "VIDEOS"], "no experiment 'raw'; did you mean 'row'?"),
        (["row", "nowhere"], "nowhere is neither a folder of videos nor a video file"),
        (["row", "."], ". has no video files; known suffixes: .3gp"),
        (["row", "VIDEOS", "-o", "a.txt"], "a.txt: --out is a file that ends in .csv"),
        (["row", "VIDEOS", "gone"], "experiments.row has no weights of split1-seed1 yet; `actionbench repro row` trai"),
        (["row", "VIDEOS", "other"], "the weights of row, split1-seed0, don't fit the row as it is now; "),
    ],
)
def test_a_mistake_is_one_line(
    data: Path, videos: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    if "gone" in arguments:
        (data / "runs/row/split1-seed1.pt").unlink()
    if "other" in arguments:
        torch.save({}, data / "runs/row/split1-seed0.pt")
        write_sums(data / "runs/row")
    arguments = [str(videos) if word == "VIDEOS" else word for word in arguments if word not in ("gone", "other")]
    code, out, err = called(capsys, "predict", *arguments)
    assert (code, out) == (2, "") and err.splitlines()[-1].startswith(f"error: {words}")
