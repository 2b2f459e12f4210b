"""Absent videos, lists and weights are named before anything runs."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.config import load
from pipeline.config.schema import Params, Subset
from stages.repro import driver, needs, plan
from stages.repro.plan import Project, Step
from tests.support.project import ROOT

STAGES = ("download@mine", "splits@mine", "train@tsn", "evaluate@tsn")
NAMED = "resnet3d50-kinetics400"  # only a person can download it


@pytest.fixture
def params() -> Params:
    """Return params with row tsn on a data set of the user, from published weights."""
    whole = load.load(ROOT / "params.yaml")
    mine = replace(whole.datasets["shapes"], file="folder", source="my/videos", options={})
    row = replace(whole.experiments["tsn"], dataset="mine", weights=NAMED)
    return replace(whole, datasets={"mine": mine}, experiments={"tsn": row}, tables={})


def steps(*stages: str, state: plan.State = "runs") -> list[Step]:
    return [Step(stage, state, (), ()) for stage in stages]


def named(params: Params, root: Path, *stages: str) -> list[str]:
    return [each.what for each in needs.missing(params, steps(*stages), root)]


def test_each_absent_file_is_named_with_a_remedy(params: Params, tmp_path: Path) -> None:
    data, weights = needs.missing(params, steps(*STAGES), tmp_path)
    assert str(data).startswith(
        f"data set mine: no videos at {tmp_path}/my/videos; put them there, or set datasets.mine"
    )
    assert NAMED in weights.what and "download resnet-50-kinetics.pth from https://drive" in weights.remedy
    (tmp_path / "my/videos/run").mkdir(parents=True)
    assert named(params, tmp_path, "splits@mine") == [
        f"data set mine: no lists at {tmp_path}/my/videos (classes.txt, train.txt ...)"
    ]
    (tmp_path / "my/videos/train.txt").write_text("run/1.mp4\n")
    (tmp_path / "data/weights").mkdir(parents=True)
    (tmp_path / f"data/weights/{NAMED}.pth").touch()
    assert named(params, tmp_path, *STAGES) == []
    (elsewhere := tmp_path / "lists").mkdir()
    object.__setattr__(params.datasets["mine"], "lists", "lists")
    assert named(params, tmp_path, *STAGES) == [f"data set mine: no lists at {elsewhere} (classes.txt, train.txt ...)"]


def test_only_stale_stages_need_something(params: Params, tmp_path: Path) -> None:
    assert named(params, tmp_path, "decode@mine", "evaluate@tsn", "aggregate") == []
    assert needs.missing(params, steps(*STAGES, state="restored"), tmp_path) == []
    assert len(named(params, tmp_path, "train@tsn")) == 1
    (tmp_path / "my/videos/run").mkdir(parents=True)
    assert named(params, tmp_path, "download@mine") == []
    subset = replace(params, tier=replace(params.tier, subset=Subset(2, 2, 2)))
    assert len(named(subset, tmp_path, "download@mine")) == 1  # the lists choose the videos


def test_drawn_and_downloaded_files_need_nothing(params: Params, tmp_path: Path) -> None:
    drawn = load.load(ROOT / "params.yaml")
    assert named(drawn, tmp_path, "download@shapes", "splits@shapes", "train@tsn") == []
    url = replace(params.datasets["mine"], source=f"https://host/videos.zip#sha256={'0' * 64}")
    row = replace(params.experiments["tsn"], weights="resnet50-imagenet")
    assert named(replace(params, datasets={"mine": url}, experiments={"tsn": row}), tmp_path, *STAGES) == []
    cifar = replace(url, file="cifar100", source="generated", options={"binary": "absent"})
    (what,) = named(replace(params, datasets={"mine": cifar}), tmp_path, "download@mine")
    assert "absent/train.bin" in what


def test_repro_stops_before_dvc_runs(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(driver.load, "load", lambda: params)
    monkeypatch.setattr(plan, "project", lambda: Project(dict.fromkeys(STAGES, ()), {}, first=True))
    monkeypatch.setattr(plan, "current", lambda *_: steps(*STAGES))
    monkeypatch.setattr(plan, "dvc", lambda *_: pytest.fail("DVC ran"))
    assert driver.repro([], 1, keep_going=False) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["error", "error"]
    assert lines[0].startswith("error: data set mine: no videos at my/videos; put them there")
