"""The last stage, whole, on invented predictions: every table, picture and fusion, and the same bytes again."""

import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import polars as pl
import pytest

from pipeline.aggregate.provenance import explain
from pipeline.config.schema import Fusion, Params, Table
from pipeline.errors import UserError
from tests.support import invented

ROOT = Path(__file__).parents[2]


def aggregate(folder: Path, given: Params) -> dict[str, bytes]:
    """The files below reports/ that the stage leaves, but for what it builds the page of."""
    (folder / "params.yaml").write_text(json.dumps(asdict(given)))  # JSON is YAML
    shutil.copytree(ROOT / "reports" / "templates", folder / "reports" / "templates", dirs_exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "stages.aggregate"],
        cwd=folder, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    made = folder / "reports"
    return {
        str(path.relative_to(made)): path.read_bytes() for path in made.rglob("*.*") if "templates" not in path.parts
    }


@pytest.fixture
def project(tmp_path: Path) -> Params:
    given = invented.params(["rgb", "flow", "late-row"], splits=(1, 2), seeds=(0, 1, 2))
    splits = invented.splits(tmp_path / "data" / "splits" / "shapes", numbers=(1, 2))
    for seed, row in enumerate(("rgb", "flow")):
        frame = invented.predictions(given, row, splits, seed=seed)
        invented.write(frame, tmp_path / "data" / "predictions" / row / "predictions.parquet", given, row)
    frame.with_columns(experiment=pl.lit("svm")).filter(seed=0).write_parquet(tmp_path / "svm.parquet")
    return replace(
        given,
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
    made = aggregate(tmp_path, project)
    found = {line["row"]: line for line in csv.DictReader(made["tables/quick/all.csv"].decode().splitlines())}
    assert [line["status"] for line in found.values()] == [
        "ok", "ok", "not run", "ok", "failed: absent.parquet is not there", "not run"
    ]  # fmt: skip
    assert float(found["both"]["top1_low"]) < float(found["both"]["top1"]) < float(found["both"]["top1_high"])
    assert found["both"]["protocol"].startswith("rgb*1 + flow*1.5 + svm*0.5: 1 clip")
    gains = {line["row"]: line for line in csv.DictReader(made["tables/quick/gains.csv"].decode().splitlines())}
    assert float(gains["both"]["p_holm"]) <= 1 and gains["both"]["verdict"]
    assert gains["nothing"]["verdict"] == "failed: absent.parquet is not there"
    assert {line["row"] for line in csv.DictReader(made["tables/quick/gains-classes.csv"].decode().splitlines())} == {
        "flow", "both"
    }  # fmt: skip
    for row in ("flow", "both"):
        assert {f"figures/quick/confusion-{row}-less-rgb.{kind}" for kind in ("svg", "csv")} <= set(made)
    assert "figures/quick/confusion-nothing.svg" not in made


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
    told = explain(project, "all", "rgb", tmp_path, {})
    predictions = pl.read_parquet(tmp_path / "data/predictions/rgb/predictions.parquet")
    tested = predictions.select("split", "seed", "video").n_unique()
    share = float(told["result"].split()[1]) / 100
    wrong = sum(int(one["wrong"].split()[0]) for one in told["wrong"])
    assert wrong > 0 and wrong / tested == pytest.approx(1 - share, abs=0.001)
    assert set(told["workers"]) == set(told["each run"])
    assert explain(project, "all", "late-row", tmp_path, {})["result"] == "not run"
    with pytest.raises(UserError, match="no row 'rbg'; did you mean 'rgb'"):
        explain(project, "all", "rbg", tmp_path, {})
    with pytest.raises(UserError, match="no table 'al'"):
        explain(project, "al", "rgb", tmp_path, {})


def test_explain_knows_the_tables_of_the_suites_paper(project: Params, tmp_path: Path) -> None:
    project = replace(project, suite="eam")
    shutil.copytree(ROOT / "reports" / "papers", tmp_path / "reports" / "papers")
    with pytest.raises(UserError, match=r"T1\.csv is not there yet"):
        explain(project, "T1", "EAM, k = 3", tmp_path, {})
    head = "row,column,data_set,as_printed,ours,verdict,experiment"
    lines = ['"EAM, k = 3",top-1,hmdb51,65.4,64.9,within noise,rgb', "ResNet-50,top-1,hmdb51,62.5,,not run,gone"]
    (tmp_path / "reports" / "tables" / "eam").mkdir(parents=True)
    (tmp_path / "reports" / "tables" / "eam" / "T1.csv").write_text("\n".join([head, *lines]) + "\n")
    told = explain(project, "eam/T1", "EAM, k = 3", tmp_path, {})
    assert (told["row"], told["ours"]) == ("EAM, k = 3", "rgb") and told["wrong"]
    assert told["top-1 on hmdb51"]["verdict"] == "within noise" and told["top-1 on hmdb51"]["as_printed"] == "65.4"
    assert told["MLflow"] == {"filter": "tags.`actionbench.name` = 'eam/rgb'"}
    assert "result" not in explain(project, "T1", "ResNet-50", tmp_path, {})
    with pytest.raises(UserError, match="no row 'EAM, k = 4'; did you mean 'EAM, k = "):
        explain(project, "T1", "EAM, k = 4", tmp_path, {})
    with pytest.raises(UserError, match="no table 'T100'; did you mean 'T1"):
        explain(project, "T100", "ResNet-50", tmp_path, {})
