"""Stages to run with reasons, by DVC's status, and estimates with sources."""

import hashlib
import json
import subprocess
import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from pipeline.config import load
from pipeline.config.schema import Cluster, Params, Subset
from pipeline.download import sources
from pipeline.errors import UserError
from stages import fresh
from stages.repro import estimate, plan
from stages.repro.plan import Step
from tests.support import machine

ROOT = Path(__file__).parents[2]
FILE = "reports/inputs/rows/a.json"
LOCK = {"train@a": {"params": {FILE: {"recipes.quick": {"lr": 0.1, "augment": {"crop": "random"}}, "weights": "00"}}}}
STAGES: dict[str, tuple[str, ...]] = {
    "download@one": (),
    "decode@one": ("download@one",),
    "splits@one": ("download@one",),
    "train@a": ("decode@one", "splits@one"),
    "evaluate@a": ("decode@one", "splits@one", "train@a"),
    "train@b": ("decode@one", "splits@one"),
    "evaluate@b": ("decode@one", "splits@one", "train@b"),
    "download@two": (),
    "decode@two": ("download@two",),
    "splits@two": ("download@two",),
    "train@c": ("decode@two", "splits@two"),
    "evaluate@c": ("decode@two", "splits@two", "train@c"),
    "aggregate": (
        "splits@one",
        "train@a",
        "evaluate@a",
        "train@b",
        "evaluate@b",
        "splits@two",
        "train@c",
        "evaluate@c",
    ),
}


@pytest.fixture(scope="module")
def params() -> Params:
    """Return params with rows a and b on one data set, c on another."""
    whole = load.load(ROOT / "params.yaml")
    dataset, row = next(iter(whole.datasets.values())), next(iter(whole.experiments.values()))
    row = replace(row, dataset="one", splits=(1,), seeds=(0, 1))
    rows = {"a": row, "b": replace(row, attention="tsm"), "c": replace(row, dataset="two")}
    return replace(whole, datasets={"one": dataset, "two": dataset}, experiments=rows, tables={})


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder whose row a has other settings than LOCK."""
    now = {"recipes": {"quick": {"lr": 0.2, "augment": {"crop": "corner"}}}, "weights": "01"}
    (tmp_path / FILE).parent.mkdir(parents=True)
    (tmp_path / FILE).write_text(json.dumps(now))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def steps(params: Params, status: plan.Status, cached: tuple[str, ...] = ()) -> dict[str, Step]:
    lock = {stage: {"params": {}} for stage in STAGES} | LOCK
    return {step.stage: step for step in plan.steps(params, plan.Project(STAGES, status), lock, cached)}


def test_the_graph_is_dvcs(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Order the real dvc.yaml's stages by dependency; one row has no net."""
    text = (
        (ROOT / "params.yaml").read_text().replace("\ntrajectories: {}\n", "\ntrajectories: {idt: {dataset: shapes}}\n")
    )
    (workspace / "params.yaml").write_text(text)
    (workspace / "stages").mkdir()
    for name in ("dvc.yaml", "stages/dvc.yaml"):
        (workspace / name).write_text((ROOT / name).read_text())
    subprocess.run([Path(sys.executable).with_name("dvc"), "init", "--no-scm", "-q"], cwd=workspace, check=True)
    monkeypatch.setattr(fresh, "refresh", lambda: None)
    project = plan.project()
    assert project.first
    assert project.stages["evaluate@tsn"] == ("decode@shapes", "splits@shapes", "train@tsn")
    assert project.stages["trajectories@idt"] == ("decode@shapes", "splits@shapes")
    assert {"splits@shapes", "train@tsm", "evaluate@tsm", "trajectories@idt"} <= set(project.stages["aggregate"])
    order = list(project.stages)
    assert all(order.index(maker) < order.index(stage) for stage, makers in project.stages.items() for maker in makers)
    assert not set(plan.FIRST) & {*order, *project.status}


def test_stages_run_in_this_environment_though_it_is_not_on_path(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `.venv/bin/actionbench repro` of a shell that did not activate the environment."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    script = (
        "import pathlib, sys; pathlib.Path('out').write_text(sys.executable); sys.exit('no such thing: ' + sys.argv[1])"
    )
    (workspace / "step.py").write_text(script)
    (workspace / "dvc.yaml").write_text("stages: {step: {cmd: python step.py x, outs: [out]}}")
    plan.dvc("init", "--no-scm", "-q")
    with pytest.raises(UserError, match="dvc repro: no such thing: x"):
        plan.dvc("repro", "--quiet")
    assert (workspace / "out").read_text() == sys.executable


def test_nothing_changed_is_no_step(params: Params) -> None:
    assert steps(params, {}) == {}


def test_a_changed_file_runs_its_rows_and_what_follows(params: Params) -> None:
    stale = steps(params, {"train@b": [{"changed deps": {"reports/code/attention/tsm": "modified"}}]})
    assert list(stale) == ["train@b", "evaluate@b", "aggregate"]
    assert stale["train@b"].reasons == ("changed code of attention tsm",)
    assert stale["train@b"].state == "runs"
    assert stale["train@b"].runs == ("split1-seed0", "split1-seed1")
    assert stale["evaluate@b"].reasons == ("because train@b runs",)
    assert stale["evaluate@b"].state == "may run"
    assert stale["aggregate"].reasons == ("because evaluate@b runs",)
    assert stale["aggregate"].runs == ()


def test_a_data_set_runs_its_own_rows_only(params: Params) -> None:
    stale = steps(params, {"decode@two": [{"changed deps": {FILE: {"datasets.two.decode": "modified"}}}]})
    assert list(stale) == ["decode@two", "train@c", "evaluate@c", "aggregate"]
    assert stale["decode@two"].reasons == ("changed param datasets.two.decode",)


def test_a_missing_upstream_output_is_told_once(params: Params) -> None:
    status = {
        "decode@two": [{"changed outs": {"data/frames/two": "deleted"}}],
        "train@c": [{"changed deps": {"data/frames/two": "deleted", "reports/code/stages/train": "modified"}}],
    }
    stale = steps(params, status, cached=("decode@two",))
    assert stale["decode@two"].reasons == ("missing output data/frames/two",)
    assert stale["decode@two"].state == "restored"
    assert stale["train@c"].reasons == ("changed code of train", "because decode@two runs")


def test_changed_inputs_are_never_called_restored(params: Params) -> None:
    """Ignore `dvc repro --dry`, which looks up a changed stage by its old inputs."""
    status = {"train@a": [{"changed deps": {FILE: {"recipes.quick": "modified"}}}]}
    assert steps(params, status, cached=("train@a",))["train@a"].state == "runs"


def test_a_param_is_named_with_both_values(params: Params) -> None:
    status = {"train@a": [{"changed deps": {FILE: {"recipes.quick": "modified"}}}, "changed command"]}
    assert steps(params, status)["train@a"].reasons == (
        'changed param recipes.quick.augment.crop ("corner", was "random")',
        "changed param recipes.quick.lr (0.2, was 0.1)",
        "changed command",
    )


def test_a_file_that_params_name_is_named(params: Params) -> None:
    status = {"train@a": [{"changed deps": {FILE: {"weights": "modified"}}}]}
    assert steps(params, status)["train@a"].reasons == ("changed file of weights",)


def test_changed_modules_are_named_where_git_has_the_old_digests(params: Params, workspace: Path) -> None:
    path = workspace / "reports/code/stages/train"
    path.parent.mkdir(parents=True)
    path.write_text("00  pipeline/loop.py\n01  pipeline/train/optimizer.py\ntorch==2.9.0\n")
    git = partial(subprocess.run, cwd=workspace, check=True, capture_output=True)
    git(["git", "init", "-q"])
    git(["git", "add", "reports"])
    git(["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-qm", "digests"])
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    path.write_text("00  pipeline/loop.py\n02  pipeline/train/optimizer.py\ntorch==2.10.0\n")
    name = path.relative_to(workspace).as_posix()
    entries = [{"changed deps": {name: "modified"}}]
    assert plan.reasons(entries, {"deps": [{"path": name, "md5": md5}]}) == (
        "changed code of train (pipeline/train/optimizer.py, torch)",
    )
    assert plan.reasons(entries, {"deps": [{"path": name, "md5": "another"}]}) == ("changed code of train",)


def test_never_run_says_only_that(params: Params) -> None:
    status = {stage: [{"changed outs": {"x": "deleted"}}] for stage in STAGES}
    stale = plan.steps(params, plan.Project(STAGES, status), lock={})
    assert [step.stage for step in stale] == list(STAGES)
    assert {step.reasons for step in stale} == {("never run",)}


def test_targets(params: Params) -> None:
    stages = STAGES
    assert plan.needed([], stages) == list(stages)
    assert plan.needed(["c"], stages) == ["download@two", "decode@two", "splits@two", "train@c", "evaluate@c"]
    assert plan.needed(["splits"], stages) == ["download@one", "splits@one", "download@two", "splits@two"]
    with pytest.raises(UserError, match=r"no stage or row 'train@d'; did you mean 'train@c'\?"):
        plan.needed(["train@d"], stages)


def splits(data: Path, dataset: str, train: int, test: int) -> None:
    folder = data / "splits" / dataset
    folder.mkdir(parents=True)
    parts = ["train"] * train + ["test"] * test
    pyarrow.parquet.write_table(pyarrow.table({"part": parts}), folder / "split-1.parquet")


def log(data: Path, row: str, *rates: float) -> None:
    """Write a run's curve and timings."""
    places = (data / "runs" / row / "split1-seed0.jsonl", data / "tracking" / row / "split1-seed0.timings.jsonl")
    for path, name in zip(places, ("loss", "clips_per_second"), strict=True):
        path.parent.mkdir(parents=True)
        lines = [{"kind": "epoch", "epoch": epoch, name: rate} for epoch, rate in enumerate(rates)]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def ran(params: Params, row: str, **recipe: int) -> dict:
    """Return dvc.lock's entry of a trained row."""
    experiment = asdict(params.experiments[row])
    settings = {**asdict(params.recipes[experiment["recipe"]]), **recipe}
    params = {f"experiments.{row}": experiment, f"recipes.{experiment['recipe']}": settings}
    return {f"train@{row}": {"params": {f"reports/inputs/rows/{row}.json": params}}}


def test_time_from_the_rows_own_log(params: Params, tmp_path: Path) -> None:
    splits(tmp_path, "one", train=100, test=50)
    log(tmp_path, "a", 10.0, 20.0, 30.0)
    speeds = estimate.measured(tmp_path, ran(params, "a"))
    epochs = params.recipes[params.experiments["a"].recipe].epochs
    guess = estimate.seconds(Step("train@a", "runs", (), ("split1-seed0", "split1-seed1")), params, tmp_path, speeds)
    assert guess == estimate.Estimate(2 * 100 * epochs / 20.0, "measured")
    guess = estimate.seconds(Step("evaluate@a", "runs", (), ()), params, tmp_path, speeds)
    orders = 1 + len(params.protocols[params.experiments["a"].protocol].probes)
    assert guess.value == pytest.approx(orders * 2 * 50 / 20.0 / 3)


def test_time_counts_the_parts_that_a_recipe_trains_on(params: Params, tmp_path: Path) -> None:
    splits(tmp_path, "one", train=100, test=50)
    parts = pyarrow.table({"part": ["train"] * 100 + ["val"] * 30 + ["test"] * 50})
    pyarrow.parquet.write_table(parts, tmp_path / "splits" / "one" / "split-1.parquet")
    log(tmp_path, "a", 20.0)
    name, speeds = params.experiments["a"].recipe, estimate.measured(tmp_path, ran(params, "a"))
    both = replace(params, recipes={**params.recipes, name: replace(params.recipes[name], train=("train", "val"))})
    videos = [
        estimate.seconds(Step("train@a", "runs", (), ()), each, tmp_path, speeds).value for each in (params, both)
    ]
    assert videos[1] == pytest.approx(1.3 * videos[0])


def test_time_from_another_row_by_macs(params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    splits(tmp_path, "one", train=100, test=50)
    log(tmp_path, "a", 20.0)
    monkeypatch.setattr(estimate, "macs", lambda net: {"none": 1.0, "tsm": 4.0}[net.attention])
    speeds = estimate.measured(tmp_path, ran(params, "a"))
    epochs = params.recipes[params.experiments["b"].recipe].epochs
    guess = estimate.seconds(Step("train@b", "runs", (), ("split1-seed0",)), params, tmp_path, speeds)
    assert guess == estimate.Estimate(2 * 100 * epochs / 5.0, "from a by MACs")


def test_the_time_of_runs_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = tuple(f"split1-seed{seed}" for seed in range(3))
    known = [(Step("train@a", "runs", (), runs), 300.0), (Step("evaluate@a", "runs", (), ()), 60.0)]
    here = {"cores": 2, "gpus": 0}

    def wall(**settings: Any) -> float:
        taken = estimate.wall(known, Cluster(**settings))
        assert taken is not None
        return taken - 2 * estimate.START

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(estimate, "cores", lambda: here["cores"])
    monkeypatch.setattr(estimate, "gpus", lambda: here["gpus"])
    assert wall() == 100 + 30, "three share two cores"
    here["cores"] = 4
    assert wall() == 100 + 15
    assert wall(workers=2) == 2 * 100 + 30, "runs of several workers take turns"
    here["gpus"] = 2
    assert wall(gpus_per_worker=1.0) == 2 * 100 + 30, "and so do runs on GPUs"
    assert estimate.wall(known, Cluster(address="auto")) is None


def test_time_after_a_change_of_size_is_scaled(params: Params, tmp_path: Path) -> None:
    """Scale a log of half the side: a clip costs about four times as much."""
    splits(tmp_path, "one", train=100, test=50)
    log(tmp_path, "a", 20.0)
    speeds = estimate.measured(tmp_path, ran(params, "a", size=32))
    epochs = params.recipes[params.experiments["a"].recipe].epochs
    guess = estimate.seconds(Step("train@a", "runs", (), ("split1-seed0",)), params, tmp_path, speeds)
    assert guess.source == "from a by MACs"
    assert guess.value == pytest.approx(2 * 100 * epochs / 5.0, rel=0.1)


def test_epochs_of_the_same_key_are_kept(params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log(tmp_path, "a", 20.0, 20.0, 20.0)
    logs = [tmp_path / "runs/a/split1-seed0.jsonl", tmp_path / "absent"]
    monkeypatch.setattr(estimate, "running_logs", lambda *_: logs)
    step = Step("train@a", "runs", (), ("split1-seed0", "split1-seed1"))
    assert estimate.kept(step, params, tmp_path) == 3
    assert estimate.kept(replace(step, stage="evaluate@a"), params, tmp_path) == 0


def test_nothing_is_kept_before_the_data_are_there_or_out_of_reach(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Step("train@a", "runs", (), ("split1-seed0",))
    assert estimate.kept(step, params, tmp_path) == 0

    def away(*_: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(estimate, "running_logs", away)
    assert estimate.kept(step, params, tmp_path) == 0


def test_before_the_first_training_the_reference_machine_s_speeds_count(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.without_gpus(monkeypatch, 6)
    reports = tmp_path / "reports"
    assert estimate.known(params, tmp_path, {}, reports) == {}
    file = machine.reference(reports, {"tsn": 40.0})
    whole = file.read_text()
    file.write_text('{"tsn": {"clips_per_second": 40.0, "workers": 1}, "gone": {}}')
    with pytest.raises(UserError, match=r"speeds\.json is damaged; `git checkout"):
        estimate.known(params, tmp_path, {}, reports)
    file.write_text(whole)
    speeds = estimate.known(replace(params, suite="another"), tmp_path, {}, reports)
    assert estimate.origin(speeds) == "from the reference machine's speeds; 6 cores here"
    guess = estimate.seconds(Step("train@a", "runs", (), ()), params, tmp_path, speeds)
    epochs = params.recipes[params.experiments["a"].recipe].epochs  # 480 of the options, as there is no split table
    assert guess == estimate.Estimate(2 * 480 * epochs / 40.0, "as measured for tsn on the reference machine")
    guess = estimate.seconds(Step("train@b", "runs", (), ()), params, tmp_path, speeds)
    assert guess.source == "from tsn by MACs on the reference machine"
    log(tmp_path, "a", 10.0)
    measured_here = estimate.known(params, tmp_path, ran(params, "a"), reports)
    assert measured_here["a"].clips_per_second == 10.0 and estimate.origin(measured_here) == ""
    monkeypatch.setattr(estimate, "gpus", lambda: 1)
    assert estimate.known(params, tmp_path / "empty", {}, reports) == {}


def test_the_committed_speeds_cover_every_row_of_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = estimate.referenced(ROOT / "reports", "quick")
    assert speeds.keys() == load.load(ROOT / "params.yaml").experiments.keys()


def test_expected_videos_are_the_options_the_lists_or_those_published(params: Params, tmp_path: Path) -> None:
    dataset = params.datasets["one"]
    assert estimate.expected_videos("one", params) == {split: {"train": 480, "test": 400} for split in (1, 2)}
    few = replace(params, tier=replace(params.tier, subset=Subset(2, 10, 5)))
    assert estimate.expected_videos("one", few) == {split: {"train": 20, "test": 10} for split in (1, 2)}
    published = replace(dataset, file="egogesture", source="data/videos/egogesture", options={})
    assert estimate.expected_videos("one", replace(few, datasets={"one": published})) == {
        1: {"train": 20, "val": 10, "test": 10}
    }
    mine = replace(dataset, file="folder", source="videos", options={})
    assert estimate.expected_videos("one", replace(params, datasets={"one": mine})) == {}
    (tmp_path / "videos/run").mkdir(parents=True)
    (tmp_path / "videos/train.txt").write_text("run/1.mp4\nrun/2.mp4\n")
    (tmp_path / "videos/test.txt").write_text("run/3.mp4\n")
    assert estimate.expected_videos("one", replace(params, datasets={"one": mine})) == {1: {"train": 2, "test": 1}}


def test_unknown_time_says_why(params: Params, tmp_path: Path) -> None:
    step = Step("train@a", "runs", (), ("split1-seed0",))
    mine = {"one": replace(params.datasets["one"], file="folder", source="videos", options={})}
    unsplit = replace(params, datasets=mine)
    assert estimate.seconds(step, unsplit, tmp_path / "absent", {}).source == "the splits do not exist yet"
    splits(tmp_path, "one", train=1, test=1)
    assert estimate.seconds(step, params, tmp_path, {}) == estimate.Estimate(None, "no row has been trained yet")


def test_bytes(tmp_path: Path) -> None:
    step = Step("decode@one", "runs", (), ())
    assert estimate.size(step, tmp_path).value is None
    (tmp_path / "raw" / "one").mkdir(parents=True)
    entries = [sources.Entry("a", "a.mp4", 70, 64 * "0"), sources.Entry("b", "b.mp4", 30, 64 * "0")]
    sources.write(tmp_path / "raw" / "one" / "manifest.csv", entries)
    assert estimate.size(step, tmp_path) == estimate.Estimate(100, "the videos; frames take more")
    (tmp_path / "frames" / "one").mkdir(parents=True)
    (tmp_path / "frames" / "one" / "shard-00000.arrow").write_bytes(b"x" * 7)
    assert estimate.size(step, tmp_path) == estimate.Estimate(7, "the last run")
