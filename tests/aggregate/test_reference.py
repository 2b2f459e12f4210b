"""Reference results are recomputed byte for byte and compared with a workspace."""

import json
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import polars as pl
import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from pipeline.aggregate import provenance, reference, speeds
from pipeline.aggregate.agreement import compare, words
from pipeline.aggregate.suite import Folders, aggregate
from pipeline.config import load
from pipeline.config.schema import Fusion, Table
from pipeline.digest import files
from pipeline.digest.environment import cpu
from pipeline.errors import UserError
from pipeline.measure import outcomes
from stages.cli import app
from stages.repro import plan
from tests.support import invented

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project with results of two rows and of their fusion with an outside file."""
    params = invented.params(["tsn", "tsm"])
    params = replace(
        params,
        fusions={"both": Fusion({"tsn": 1.0, "tsm": 1.0}, {"outside/predictions.parquet": 1.0})},
        tables={"gains": Table("Gains", ("tsm", "both"), base="tsn")},
    )
    data = tmp_path / "data"
    splits = invented.splits(data / "splits" / "shapes")
    for seed, (row, right) in enumerate((("tsn", 0.5), ("tsm", 0.8))):
        frame = invented.predictions(params, row, splits, right, seed=seed)
        path = invented.write(frame, data / "predictions" / row / "predictions.parquet", params, row)
        outcomes.keep(path, "softmax")
        written(data / "predictions" / row / "costs.json", {"parameters": 10 + seed, "macs": 5})
        files.write_sums(data / "predictions" / row)
        written(data / "tracking" / row / "speeds.json", {"clips_per_second": 20.0 + seed})
        for run in ("split1-seed0", "split1-seed1"):
            lines = [{"kind": "steps", "epoch": 0, "step": 1, "loss": 9.0}]
            lines += [{"kind": "epoch", "epoch": epoch, "loss": 2.0 - epoch, "lr": 0.1} for epoch in (0, 1)]
            log = data / "runs" / row / f"{run}.jsonl"
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "outside").mkdir()
    frame.filter(seed=0).write_parquet(tmp_path / "outside" / "predictions.parquet")
    shutil.copytree(ROOT / "reports" / "templates", tmp_path / "reports" / "templates")
    written(tmp_path / "params.yaml", asdict(replace(params, cluster=replace(params.cluster, storage="/secret/place"))))
    monkeypatch.chdir(tmp_path)
    aggregate(params, data, Folders.of(tmp_path / "reports", "quick"), tmp_path / "reports")
    return tmp_path


def written(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_they_are_recomputed_byte_for_byte_without_data(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timings = project / "data" / "tracking" / "tsn" / "split1-seed0.timings.jsonl"
    timings.write_text("".join(f'{{"kind": "epoch", "epoch": {n}, "clips_per_second": {n + 9.0}}}\n' for n in (0, 1)))
    monkeypatch.setattr(speeds, "gpus", lambda: 0)
    folder = reference.save(project)
    assert speeds.load(folder / speeds.FILE) == {"tsn": (9.5, 1)}
    tables = contents(project / "reports" / "tables" / "quick")
    outside = tables.pop("gains.md"), tables.pop("gains.csv")  # a fusion's signature names its file, by name alone
    saved = contents(project / "reports" / "reference")
    assert {name: saved[f"quick/tables/{name}"] for name in tables} == tables
    assert saved["quick/tables/gains.csv"] == outside[1]
    for name in ("data", "outside", "params.yaml", "reports/tables"):
        gone = project / name
        shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    code = "from stages.commands.recompute import reference; reference(None)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    assert "quick: equal bytes" in done.stdout and "of predictions" in done.stdout
    assert contents(project / "reports" / "reference") == saved
    assert not list(folder.glob("predictions/*/*outcomes*")), "tables are recomputed from logits"
    assert "cluster" not in YAML(typ="safe").load(folder / "params.yaml")
    assert not any(b"/secret" in content or str(project).encode() in content for content in saved.values())


def test_machines_share_a_suite_and_other_code_is_refused(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = contents(reference.save(project))
    origins = {row: {"data/frames/shapes": "1", f"reports/code/attention/{row}": row} for row in ("tsn", "tsm")}
    shutil.rmtree(project / "reports" / "reference")
    for folder in ("predictions", "tracking", "runs"):
        (project / "data" / folder / "tsm").rename(project / f"{folder}-of-tsm")
    folder = reference.save(project, origins, ["tsm"])
    assert not (folder / "predictions" / "tsm").exists()
    for name in ("predictions", "tracking", "runs"):
        (project / "data" / name / "tsn").rename(project / f"{name}-of-tsn")
        (project / f"{name}-of-tsm").rename(project / "data" / name / "tsm")
    monkeypatch.setattr("pipeline.digest.environment.cpu", lambda: "Other CPU")
    shared = contents(reference.save(project, origins, ["tsn"]))
    provenance = json.loads(shared.pop("provenance.json"))
    assert shared == {name: content for name, content in whole.items() if name != "provenance.json"}
    assert [provenance["rows"][row]["cpu"] for row in ("tsn", "tsm")] == [cpu(), "Other CPU"]
    assert provenance["cpu"] == f"Other CPU; {cpu()}"
    written(folder / "provenance.json", {name: value for name, value in provenance.items() if name != "rows"})
    with pytest.raises(UserError, match="tsn: the results saved earlier don't say what they depend on; run the row"):
        reference.save(project, origins, ["tsn"])
    written(folder / "provenance.json", provenance)
    origins["tsn"]["data/frames/shapes"] = "2"
    with pytest.raises(UserError, match="tsn: the results saved earlier come from another data/frames/shapes; run"):
        reference.save(project, origins, ["tsn"])
    assert contents(folder) == shared | {"provenance.json": (folder / "provenance.json").read_bytes()}


def test_rows_that_never_ran_may_be_absent_but_nothing_may_be_stale(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digested(project, monkeypatch)
    never = [plan.Step(f"{stage}@tsm", "runs", plan.NEVER, ()) for stage in ("train", "evaluate")]
    steps = [*never, plan.Step("aggregate", "runs", ("because evaluate@tsm runs",), ())]
    for stage in ("decode@shapes", "evaluate@tsn"):
        stale = [plan.Step(stage, "runs", ("changed code",), ()), *steps]
        monkeypatch.setattr(plan, "current", lambda *_, stale=stale: stale)
        assert f"{stage} is stale" in saving()
    monkeypatch.setattr(plan, "current", lambda *_: steps)
    assert "not run: tsm" in saving()
    record = json.loads((project / "reports/reference/quick/provenance.json").read_text())["rows"]
    assert record.keys() == {"tsn"} and record["tsn"]["data/frames/shapes"] == "frames"
    assert record["tsn"].keys() >= {"cpu", "reports/code/attention/none", "reports/inputs/rows/tsn.json"}


def test_a_data_set_that_is_not_here_leaves_out_its_rows_alone(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = YAML(typ="safe").load(project / "params.yaml")
    params["datasets"]["absent"] = params["datasets"]["shapes"]
    params["experiments"]["tsm"]["dataset"] = "absent"
    written(project / "params.yaml", params)
    digested(project, monkeypatch)
    earlier = project / "reports" / "reference" / "quick" / "splits" / "absent"  # of another machine, which has it
    invented.splits(earlier)
    makers = ("download@absent", "decode@absent", "splits@absent", "train@tsm", "evaluate@tsm")
    steps = [plan.Step(stage, "runs", plan.NEVER, ()) for stage in (*makers, "aggregate")]
    monkeypatch.setattr(plan, "current", lambda *_: steps)
    assert "not run: tsm" in saving()
    assert (earlier / "split-1.parquet").is_file()
    monkeypatch.setattr(plan, "current", lambda *_: [plan.Step("splits@shapes", "runs", plan.NEVER, ()), *steps])
    assert "splits@shapes is stale" in saving()


def digested(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the project digests of code and inputs, and a lock of its data; row tsm has not run."""
    for name in ("stages/train", "stages/evaluate", "attention/none", "backbones/resnet"):
        written(project / "reports" / "code" / name, name)
    for row in ("tsn", "tsm"):
        written(project / "reports" / "inputs" / "rows" / f"{row}.json", row)
    outputs = {"decode": "frames", "splits": "splits"}
    lock = {f"{stage}@shapes": {"outs": [{"path": f"data/{out}/shapes", "md5": out}]} for stage, out in outputs.items()}
    monkeypatch.setattr(plan, "project", lambda: None)
    monkeypatch.setattr(plan, "locked", lambda: lock)
    shutil.rmtree(project / "data" / "predictions" / "tsm")


def saving() -> str:
    """Return what `actionbench tables --save` prints, or its error."""
    result = CliRunner().invoke(app, ["tables", "--save"])
    return str(result.exception or result.output)


def test_other_predictions_make_other_tables_and_damaged_ones_are_refused(project: Path) -> None:
    folder = reference.save(project)
    params, path = load.load(folder / "params.yaml"), folder / "predictions" / "tsm" / "predictions.parquet"
    invented.write(invented.predictions(params, "tsm", folder / "splits" / "shapes", 0.6), path, params, "tsm")
    changed = reference.recompute(project / "reports", "quick")
    assert {"tables/gains.csv", "metrics/tsm.json", "plots/confusions/tsm.csv"} <= set(changed)
    assert "metrics/tsn.json" not in changed
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    before = contents(folder)
    with pytest.raises(UserError, match=r"tsm/predictions.parquet is damaged: .*; `git checkout .*tsm` brings it back"):
        reference.recompute(project / "reports", "quick")
    with pytest.raises(UserError, match=r"tsm/predictions.parquet is damaged: .*; `git checkout .*tsm` brings it back"):
        provenance.explain(params, "gains", "tsm", provenance.reference(project, "quick"))
    path.unlink()
    with pytest.raises(UserError, match=r"tsm/predictions.parquet is missing; `git checkout"):
        reference.recompute(project / "reports", "quick")
    path.write_bytes(content)
    assert contents(folder) == before


def test_a_suite_without_predictions_keeps_its_tables_and_is_named(project: Path) -> None:
    reference.save(project)
    shutil.copytree(project / "reports/reference/quick/tables", project / "reports/reference/old/tables")
    result = CliRunner().invoke(app, ["tables", "--reference"])
    assert result.exit_code == 0 and "without reference predictions, so unchanged: old" in result.output
    page = (project / "reports/reference/index.html").read_text()
    assert 'data-path="old/tables/gains.csv"' in page and 'data-path="quick/tables/gains.csv"' in page
    with pytest.raises(UserError, match="old holds no predictions"):
        reference.recompute(project / "reports", "old")
    with pytest.raises(UserError, match="no reference results of suite 'quik'; did you mean 'quick'"):
        reference.recompute(project / "reports", "quik")


def test_a_run_is_compared_with_them(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = reference.save(project)
    same = list(words(compare(project / "reports", "quick")))
    assert same == [
        "suite quick: 3 of 3 cells agree with the reference within their intervals",
        "3 of 3 verdicts are the same",
        "every digit of the metrics is the same",
    ]
    worse = project / "reports" / "metrics" / "quick" / "tsm.json"
    numbers = json.loads(worse.read_text())
    written(worse, numbers | {"top1": 1.0, "top1_low": 0.5, "top1_high": 1.5})
    table = project / "reports" / "tables" / "quick" / "gains.csv"
    assert "these nets differ" in table.read_text()
    table.write_text(table.read_text().replace("these nets differ", "can't tell", 1))
    was = json.loads((folder / "provenance.json").read_text())
    written(folder / "provenance.json", was | {"cpu": "Other CPU", "code": was["code"] | {"stages/train": "0"}})
    output = CliRunner().invoke(app, ["diff", "reference"]).output
    assert "2 of 3 cells agree" in output and f"tsm, top1: {numbers['top1']:.1f} -> 1.0" in output
    assert "2 of 3 verdicts are the same" in output and "gains, tsm: these nets differ -> can't tell" in output
    assert "code that is not the reference's: stages/train" in output
    assert f"cpu: Other CPU -> {cpu()}" in output and "digits differ between CPU types" in output
    shutil.rmtree(worse.parent)
    with pytest.raises(UserError, match="no results of suite 'quick' here yet"):
        compare(project / "reports", "quick")


def test_every_committed_suite_is_recomputed_to_its_committed_bytes(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "reports", tmp_path / "reports")
    suites = [name for name in reference.suites(ROOT / "reports") if reference.has_predictions(ROOT / "reports", name)]
    if not suites:
        pytest.skip("no suite has reference predictions yet")
    for suite in suites:
        assert reference.recompute(tmp_path / "reports", suite) == []


def test_points_are_the_metrics_without_their_intervals(project: Path) -> None:
    from pipeline.measure import results
    from pipeline.report import exports

    params = load.load(project / "params.yaml")
    row = results.read(params, "tsm", project / "data")
    whole = exports.summary(results.measure(row))
    assert exports.points(row) == {name: value for name, value in whole.items() if not name.endswith(("_low", "_high"))}
    frame = row.predictions.frame.with_columns(pl.col("logits").list.eval(pl.element() - 1))  # type: ignore[union-attr]
    many = replace(
        row, several=True, predictions=replace(row.predictions, frame=frame, average="sigmoid", several=True)
    )  # type: ignore[arg-type, type-var]
    whole = exports.summary(results.measure(many))
    assert exports.points(many) == {
        name: value for name, value in whole.items() if not name.endswith(("_low", "_high"))
    }
    assert exports.points(replace(row, predictions="not run")) == {}
