"""Stage aggregate on invented predictions: tables, figures and fusions."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import polars as pl
import pytest
from ruamel.yaml import YAML

from pipeline.aggregate.provenance import explain, here
from pipeline.config.schema import Fusion, Params, Table
from pipeline.errors import UserError
from tests.support import invented

ROOT = Path(__file__).parents[2]


def aggregate(folder: Path, params: Params) -> dict[str, bytes]:
    """Return the files that the stage writes below reports/, without the templates."""
    (folder / "params.yaml").write_text(json.dumps(asdict(params)))  # JSON is YAML
    shutil.copytree(ROOT / "reports" / "templates", folder / "reports" / "templates", dirs_exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "stages.aggregate"],
        cwd=folder, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    reports = folder / "reports"
    paths = [path for path in reports.rglob("*.*") if "templates" not in path.parts]
    return {str(path.relative_to(reports)): path.read_bytes() for path in paths}


@pytest.fixture
def project(tmp_path: Path) -> Params:
    params = invented.params(["rgb", "flow", "late-row"], splits=(1, 2), seeds=(0, 1, 2))
    splits = invented.splits(tmp_path / "data" / "splits" / "shapes", numbers=(1, 2))
    for seed, row in enumerate(("rgb", "flow")):
        frame = invented.predictions(params, row, splits, seed=seed)
        invented.write(frame, tmp_path / "data" / "predictions" / row / "predictions.parquet", params, row)
    frame.with_columns(experiment=pl.lit("svm")).filter(seed=0).write_parquet(tmp_path / "svm.parquet")
    return replace(
        params,
        fusions={
            "both": Fusion({"rgb": 1.0, "flow": 1.5}, {"svm.parquet": 0.5}),
            "nothing": Fusion({"rgb": 1.0}, {"absent.parquet": 1.0}),
            "waiting": Fusion({"rgb": 1.0, "late-row": 1.0}),
        },
        tables={
            "all": Table("All", ("rgb", "flow", "late-row", "both", "nothing", "waiting")),
            "gains": Table("Gains", ("flow", "both", "nothing"), base="rgb"),
        },
    )


def test_fusions_stand_in_tables_with_interval_and_test_or_their_reason(project: Params, tmp_path: Path) -> None:
    files = aggregate(tmp_path, project)
    records = {line["row"]: line for line in csv.DictReader(files["tables/quick/all.csv"].decode().splitlines())}
    assert [line["status"] for line in records.values()] == [
        "ok", "ok", "not run", "ok", "failed: absent.parquet is not there", "not run"
    ]  # fmt: skip
    assert float(records["both"]["top1_low"]) < float(records["both"]["top1"]) < float(records["both"]["top1_high"])
    assert records["both"]["protocol"].startswith("rgb*1 + flow*1.5 + svm*0.5: 1 clip")
    gains = {line["row"]: line for line in csv.DictReader(files["tables/quick/gains.csv"].decode().splitlines())}
    assert float(gains["both"]["p_holm"]) <= 1 and gains["both"]["verdict"]
    assert gains["nothing"]["verdict"] == "failed: absent.parquet is not there"
    assert {line["row"] for line in csv.DictReader(files["tables/quick/gains-classes.csv"].decode().splitlines())} == {
        "flow", "both"
    }  # fmt: skip
    for row in ("flow", "both"):
        assert {f"figures/quick/confusion-{row}-less-rgb.{kind}" for kind in ("svg", "csv")} <= set(files)
    assert "figures/quick/confusion-nothing.svg" not in files


def test_the_files_that_dvc_shows_are_written_though_nothing_was_trained(project: Params, tmp_path: Path) -> None:
    files = aggregate(tmp_path, project)
    graph = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())
    shown = [*graph["metrics"], *(path for plot in graph["plots"] for path in plot)]
    paths = [path.removeprefix("reports/").replace("${suite}", "quick") for path in shown]
    assert len(paths) == 3 and all(any(file.startswith(path) for file in files) for path in paths), paths


def test_dvc_plots_columns_that_are_there(project: Params, tmp_path: Path) -> None:
    files = aggregate(tmp_path, project)
    for plot in YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["plots"]:
        ((path, about),) = plot.items()
        template = (ROOT / ".dvc" / "plots" / f"{about['template']}.json").read_text()
        drawn = {about["x"], about["y"], *re.findall(r'"field": "([a-z]+)"', template)} - {"rev"}  # rev is DVC's own
        start = path.removeprefix("reports/").replace("${suite}", "quick")
        (header, *_), *others = (files[name].decode().splitlines() for name in files if name.startswith(start))
        assert drawn <= set(header.split(",")) and all(lines[0] == header for lines in others), path


def test_bytes_are_the_same_each_time(project: Params, tmp_path: Path) -> None:
    first = aggregate(tmp_path, project)
    second = aggregate(tmp_path, project)
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


def test_explain_counts_the_videos_that_were_wrong(
    project: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "params.yaml").write_text(json.dumps(asdict(project)))
    monkeypatch.chdir(tmp_path)
    about = explain(project, "all", "rgb", here(tmp_path, "quick", {}))
    predictions = pl.read_parquet(tmp_path / "data/predictions/rgb/predictions.parquet")
    tested = predictions.select("split", "seed", "video").n_unique()
    share = float(about["result"].split()[1]) / 100
    wrong = sum(int(video["wrong"].split()[0]) for video in about["wrong"])
    assert wrong > 0 and wrong / tested == pytest.approx(1 - share, abs=0.001)
    assert set(about["workers"]) == set(about["each run"])
    assert explain(project, "all", "late-row", here(tmp_path, "quick", {}))["result"] == "not run"
    with pytest.raises(UserError, match="no row 'rbg'; did you mean 'rgb'"):
        explain(project, "all", "rbg", here(tmp_path, "quick", {}))
    with pytest.raises(UserError, match="no table 'al'"):
        explain(project, "al", "rgb", here(tmp_path, "quick", {}))


def test_explain_knows_the_tables_of_the_suites_paper(project: Params, tmp_path: Path) -> None:
    project = replace(project, suite="eam")
    shutil.copytree(ROOT / "reports" / "papers", tmp_path / "reports" / "papers")
    with pytest.raises(UserError, match=r"T1\.csv is not there yet"):
        explain(project, "T1", "EAM, k = 3", here(tmp_path, "eam", {}))
    head = "row,column,data_set,as_printed,ours,verdict,experiment"
    lines = ['"EAM, k = 3",top-1,hmdb51,65.4,64.9,within noise,rgb', "ResNet-50,top-1,hmdb51,62.5,,not run,gone"]
    (tmp_path / "reports" / "tables" / "eam").mkdir(parents=True)
    (tmp_path / "reports" / "tables" / "eam" / "T1.csv").write_text("\n".join([head, *lines]) + "\n")
    about = explain(project, "eam/T1", "EAM, k = 3", here(tmp_path, "eam", {}))
    assert (about["row"], about["ours"]) == ("EAM, k = 3", "rgb") and about["wrong"]
    assert about["top-1 on hmdb51"]["verdict"] == "within noise" and about["top-1 on hmdb51"]["as_printed"] == "65.4"
    assert about["MLflow"] == {"filter": "tags.`actionbench.name` = 'eam/rgb'"}
    assert "result" not in explain(project, "T1", "ResNet-50", here(tmp_path, "eam", {}))
    with pytest.raises(UserError, match="no row 'EAM, k = 4'; did you mean 'EAM, k = "):
        explain(project, "T1", "EAM, k = 4", here(tmp_path, "eam", {}))
    with pytest.raises(UserError, match="no table 'T100'; did you mean 'T1"):
        explain(project, "T100", "ResNet-50", here(tmp_path, "eam", {}))
