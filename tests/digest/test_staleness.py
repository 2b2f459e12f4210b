"""DVC's status shows exactly the stages that an edit makes stale, in the real graph."""

import hashlib
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import load as params
from pipeline.digest import inputs
from tests.support import graph, mutants
from tests.support.graph import restored, stale
from tests.support.project import ROOT, load, save

ROWS = ("tsn", "tsm", "action", "tpn")
MINE = {"train@mine", "evaluate@mine"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project with rows of suite quick, a row on a folder of videos with weights, and a fusion."""
    folder = tmp_path_factory.mktemp("project")
    settings = load(ROOT)
    rows = {name: settings["experiments"][name] for name in ROWS}
    rows["mine"] = {**rows["tsn"], "dataset": "own", "weights": "weights/x.pt"}
    own = {**settings["datasets"]["shapes"], "file": "folder", "source": "own", "options": {}}
    settings["datasets"]["own"] = own
    fusions = {"both": {"rows": {"tsn": 1.0}, "outside": {"scores.parquet": 0.5}}}
    settings |= {"experiments": rows, "tables": {}, "fusions": fusions}
    for name in ("a/1.mp4", "a/2.mp4", "b/3.mp4"):
        (folder / "own" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "own" / name).write_text(name)
    (folder / "own" / "train.txt").write_text("a/1.mp4\nb/3.mp4\n")
    (folder / "own" / "test.txt").write_text("a/2.mp4\n")
    (folder / "weights").mkdir()
    (folder / "weights" / "x.pt").write_text("weights")
    (folder / "scores.parquet").write_text("scores")
    return graph.build(folder, settings)


def changed(project: Path, change: Callable[[dict[str, Any]], object]) -> set[str]:
    """Return the stages that a change of params.yaml makes stale, then restore the file."""
    with restored(project / "params.yaml"):
        settings = load(project)
        change(settings)
        save(project, settings)
        return set(stale(project))


def edited(project: Path, name: str, old: str = "", new: str = "edited = 1") -> set[str]:
    """Return the stages that an edit of a file makes stale; without `old`, append the text."""
    path = project / name
    with restored(path):
        text = path.read_text() if path.exists() else ""
        assert old in text
        path.write_text(text.replace(old, new, 1) if old else f"{text}\n{new}\n")
        return set(stale(project))


def both(*rows: str) -> set[str]:
    return {f"{stage}@{row}" for stage in ("train", "evaluate") for row in rows}


def test_nothing_is_stale_after_a_run(project: Path) -> None:
    assert stale(project) == {}
    assert "didn't change" in graph.dvc(project, "repro")
    assert stale(project) == {}


def test_a_learning_rate_is_named_and_concerns_the_rows_of_its_recipe(project: Path) -> None:
    with restored(project / "params.yaml"):
        settings = load(project)
        settings["recipes"]["quick"]["lr"] = 0.123
        save(project, settings)
        status = stale(project)
    assert set(status) == both(*ROWS, "mine") | {"aggregate"}
    assert status["train@tsm"] == [{"changed deps": {"reports/inputs/rows/tsm.json": {"recipes.quick": "modified"}}}]


def test_another_recipe_concerns_the_tables_alone(project: Path) -> None:
    assert changed(project, lambda raw: raw["recipes"].update(other=raw["recipes"]["quick"])) == {"aggregate"}


def test_a_rows_settings_concern_it_alone(project: Path) -> None:
    assert changed(project, lambda raw: raw["experiments"]["tsm"].update(seeds=[0, 1, 2, 3])) == both("tsm") | {
        "aggregate"
    }


def test_a_protocol_concerns_evaluations(project: Path) -> None:
    stages = changed(project, lambda raw: raw["protocols"]["center"].update(clips=3))
    assert stages == {f"evaluate@{row}" for row in (*ROWS, "mine")} | {"aggregate"}


def test_how_videos_are_decoded_concerns_the_decoding(project: Path) -> None:
    assert changed(project, lambda raw: raw["datasets"]["shapes"]["decode"].update(quality=80)) == {"decode@shapes"}


def test_the_cluster_concerns_nothing(project: Path) -> None:
    settings = {"workers": 2, "address": "auto", "max_failures": 9, "storage": "elsewhere"}
    assert changed(project, lambda raw: raw["cluster"].update(settings)) == set()


@pytest.mark.parametrize(
    "name, text",
    [
        ("models/attention/tsm.py", "# a comment"),
        ("pipeline/train/loop.py", '"""A text that stands alone."""'),
        ("pipeline/tracking/mlflow_mirror.py", "edited = 1"),
        ("cluster/fit.py", "edited = 1"),
        ("stages/train.py", "edited = 1"),
        ("models/attention/brand_new.py", "edited = 1"),
    ],
)
def test_an_edit_that_changes_no_result_concerns_nothing(project: Path, name: str, text: str) -> None:
    assert edited(project, name, new=text) == set()
    (project / "reports/code/attention/brand_new").unlink(missing_ok=True)


def test_a_plug_in_concerns_its_rows(project: Path) -> None:
    assert edited(project, "models/attention/action.py") == both("action")
    assert edited(project, "models/layers/tpn.py") == both("tpn")
    assert edited(project, "pipeline/datasets/folder.py") == {"download@own", "splits@own"}


def test_training_code_concerns_what_trains(project: Path) -> None:
    stages = edited(project, "pipeline/train/optimizer.py")
    assert {f"train@{row}" for row in (*ROWS, "mine")} <= stages
    assert not {stage for stage in stages if stage.startswith(("download", "decode", "splits"))}


def test_a_figure_concerns_the_tables(project: Path) -> None:
    assert edited(project, "pipeline/report/table.py") <= {"aggregate", *both(*ROWS, "mine")}


def test_a_pin_concerns_who_imports_the_package(project: Path) -> None:
    pin = next(line for line in (project / "constraints.txt").read_text().splitlines() if line.startswith("torch=="))
    stages = edited(project, "constraints.txt", pin, "torch==0.0.1")
    assert both(*ROWS, "mine") <= stages and "download@own" not in stages
    pin = next(line for line in (project / "constraints.txt").read_text().splitlines() if line.startswith("pytest=="))
    assert edited(project, "constraints.txt", pin, "pytest==0.0.1") == set()


def test_a_video_moved_to_another_list_concerns_the_splits(project: Path) -> None:
    train, test = project / "own/train.txt", project / "own/test.txt"
    with restored(train, test):
        train.write_text("b/3.mp4\n")
        test.write_text("a/2.mp4\na/1.mp4\n")
        assert stale(project) == {
            "splits@own": [{"changed deps": {"reports/inputs/datasets/own.json": {"lists": "modified"}}}]
        }
    assert stale(project) == {}


def test_a_new_list_concerns_the_splits(project: Path) -> None:
    with restored(project / "own/val.txt"):
        (project / "own/val.txt").write_text("a/1.mp4\n")
        assert set(stale(project)) == {"splits@own"}


@pytest.mark.parametrize("change", ["added", "removed", "longer", "newer"])
def test_a_video_concerns_the_download(project: Path, change: str) -> None:
    path = project / "own/a" / ("4.mp4" if change == "added" else "1.mp4")
    with restored(path):
        if change == "removed":
            path.unlink()
        elif change == "newer":
            os.utime(path)
        else:
            path.write_text("a new video")
        assert set(stale(project)) == {"download@own"}
    assert stale(project) == {}


def test_other_files_next_to_the_videos_are_ignored(project: Path) -> None:
    with restored(project / "own/README.txt"):
        (project / "own/README.txt").write_text("mine")
        assert stale(project) == {}


def test_a_moved_folder_runs_what_is_cheap(project: Path) -> None:
    """Listing and lists stay the same, and so do the outputs of the download: nothing after it runs."""
    with restored(project / "params.yaml"):
        (project / "own").rename(project / "moved")
        settings = load(project)
        settings["datasets"]["own"]["source"] = "moved"
        save(project, settings)
        try:
            assert set(stale(project)) == {"download@own"}
        finally:
            (project / "moved").rename(project / "own")
    assert stale(project) == {}


def test_results_outlive_their_sources(project: Path) -> None:
    for name in ("own", "weights"):
        (project / name).rename(project / f"{name}-away")
    try:
        assert stale(project) == {}
    finally:
        for name in ("own", "weights"):
            (project / f"{name}-away").rename(project / name)


def test_other_weights_concern_the_rows_that_load_them(project: Path) -> None:
    path = project / "weights/x.pt"
    with restored(path):
        path.write_text("WEIGHTS")
        assert stale(project) == {
            "train@mine": [{"changed deps": {"reports/inputs/rows/mine.json": {"weights": "modified"}}}]
        }
    assert stale(project) == {}


def test_the_same_weights_at_another_path_concern_the_tables_alone(project: Path) -> None:
    shutil.copy(project / "weights/x.pt", project / "weights/y.pt")
    assert changed(project, lambda raw: raw["experiments"]["mine"].update(weights="weights/y.pt")) == {"aggregate"}
    stages = changed(project, lambda raw: raw["experiments"]["mine"].update(weights="weights/absent.pt"))
    assert stages == {"train@mine", "aggregate"}


def test_other_scores_from_outside_concern_the_tables(project: Path) -> None:
    with restored(project / "scores.parquet"):
        (project / "scores.parquet").write_text("SCORES")
        assert stale(project) == {
            "aggregate": [{"changed deps": {"reports/inputs/suite.json": {"outside": "modified"}}}]
        }


def test_scores_that_a_row_writes_are_no_input(project: Path) -> None:
    """They appear during the run; the tables would be stale after it."""
    path, outside = "data/predictions/tsn/predictions.parquet", []
    settings = load(project)
    settings["fusions"]["both"]["outside"] = {path: 0.5, "scores.parquet": 0.5}
    with restored(project / "params.yaml"), restored(project / path):
        save(project, settings)
        for text in ("before", "after"):
            (project / path).parent.mkdir(parents=True, exist_ok=True)
            (project / path).write_text(text)
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(project)
                taken = inputs.taken(params.load(), project, Path("data"), inputs.Memo(project / "memo.json"))
            outside.append(taken["suite.json"]["outside"]["both"])
    assert outside[0] == outside[1] == [[0.5, None], [0.5, hashlib.sha256(b"scores").hexdigest()]]


def stages_of(digests: set[str], settings: dict[str, Any]) -> set[str]:
    """Return the stages that read any of these digests, including those of plug-ins in their rows."""
    stages = set[str]()
    for stage in ("download", "decode", "splits"):
        stages |= {
            f"{stage}@{name}"
            for name, dataset in settings["datasets"].items()
            if f"stages/{stage}" in digests or (stage != "decode" and f"datasets/{dataset['file']}" in digests)
        }
    for stage in ("train", "evaluate"):
        stages |= {
            f"{stage}@{name}"
            for name, row in settings["experiments"].items()
            if {f"stages/{stage}", f"attention/{row['attention']}", f"backbones/{row['backbone']}"} & digests
        }
    return stages | ({"aggregate"} if "stages/aggregate" in digests else set())


def test_seeded_mutations_make_exactly_the_right_stages_stale(project: Path) -> None:
    readers, rng, struck = mutants.readers(), random.Random(8), set[str]()
    settings = load(project)
    modules = [name for name in sorted(readers) if mutants.path_of(name, project).read_text().strip()]
    rng.shuffle(modules)
    made = 0
    for name in modules:
        path = mutants.path_of(name, project)
        expected = stages_of(readers[name], settings)
        # Half of all modules concern aggregate alone; others are to have their turn, too.
        if (expected == {"aggregate"} and "aggregate" in struck) or (
            mutation := mutants.mutation(path.read_text(), rng)
        ) is None:
            continue
        with restored(path):
            path.write_text(mutation[1])
            assert set(stale(project)) == expected, (name, mutation[0])
        struck |= {stage.partition("@")[0] for stage in expected}
        made += 1
        if made == 24:
            break
    assert made == 24
    assert struck == {"download", "decode", "splits", "train", "evaluate", "aggregate"}


def test_seeded_edits_that_change_nothing_make_nothing_stale(project: Path) -> None:
    rng = random.Random(9)
    paths = [
        path for package in ("models", "pipeline", "cluster", "stages") for path in (project / package).rglob("*.py")
    ]
    for path in rng.sample([path for path in sorted(paths) if path.read_text().strip()], 8):
        with restored(path):
            path.write_text(mutants.harmless(path.read_text(), rng)[1])
            assert stale(project) == {}, path


@pytest.mark.parametrize(
    ("name", "old", "new"), [("pipeline/splits.py", "", "x = 1"), ("params.yaml", "seed: 0", "seed: 3")]
)
def test_a_stage_refuses_code_and_params_that_dvc_has_not_compared(
    project: Path, name: str, old: str, new: str
) -> None:
    """This happens under `dvc repro -s`, or after an edit while another stage ran."""
    command, path = [sys.executable, "-m", "stages.splits", "shapes"], project / name
    environment = {**os.environ, "DVC_STAGE": "splits@shapes", "PYTHONPATH": str(project)}
    with restored(path):
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1) if old else f"{text}\n{new}\n")
        done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "is older than the code or params.yaml" in done.stderr and done.stderr.count("\n") == 1
