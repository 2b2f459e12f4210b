"""Power plans agree with the analysis, from measured or assumed variances."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.aggregate import planning
from pipeline.aggregate.planning import Assumed
from pipeline.config.schema import Dataset, Table
from pipeline.measure import power
from pipeline.measure.results import difference
from stages.repro.compose import composed
from tests.support import invented

ROOT = Path(__file__).parents[2]


def test_measured_variances_plan_the_seeds_and_videos_of_params(tmp_path: Path) -> None:
    params = replace(invented.params(["a", "b"], seeds=(0, 1, 2)), tables={"t": Table("T", ("b",), base="a")})
    folder = invented.splits(tmp_path, 300)
    results = {row: invented.result(params, row, folder, 0.7, seed) for seed, row in enumerate(("a", "b"))}
    (line,) = planning.table(params, results, ROOT / "reports", Assumed()).records()
    less = difference(results["b"], results["a"])
    assert not isinstance(less, str)
    assert (line["row"], line["over"], line["n"], line["seeds"]) == ("b", "a", "300", "3")
    assert (line["variances"], line["verdicts"]) == ("measured", "better; worse; can't tell")
    assert float(line["smallest"]) == pytest.approx(100 * power.detectable(less.less.spread), abs=0.005)
    needed = power.seeds_for_gain(less.less.spread, 0.01)
    assert line["seeds_needed"] == str(needed or "more videos")


def test_without_results_variances_are_assumed_and_more_of_them_need_more_seeds() -> None:
    params = replace(invented.params(["a", "b"], seeds=(0, 1, 2, 3, 4)), tables={"t": Table("T", ("b",), base="a")})
    drawn = replace(params.datasets["shapes"], options={"test": 4000})
    params = replace(params, datasets={"shapes": drawn})
    lines = [planning.table(params, {}, ROOT / "reports", Assumed(sd, 0.2)).records()[0] for sd in (0.002, 0.01)]
    assert [line["n"] for line in lines] == ["4000", "4000"] and lines[0]["variances"] == "assumed"
    assert float(lines[0]["smallest"]) < float(lines[1]["smallest"])
    assert int(lines[0]["seeds_needed"]) < int(lines[1]["seeds_needed"])
    spread = power.assumed(0.01, 0.2, 4000, 5)
    assert float(lines[1]["smallest"]) == pytest.approx(100 * power.detectable(spread), abs=0.005)


def test_two_seeds_can_reach_no_verdict_about_systems() -> None:
    params = replace(invented.params(["a", "b"]), tables={"t": Table("T", ("b",), base="a")})
    params = replace(params, datasets={"shapes": replace(params.datasets["shapes"], options={"test": 400})})
    (line,) = planning.table(params, {}, ROOT / "reports", Assumed()).records()
    assert (line["verdicts"], line["smallest"]) == ("these nets differ; can't tell", "")
    checked = replace(params, tables={"t": Table("T", ("b",), base="a", check=True)})
    assert planning.table(checked, {}, ROOT / "reports", Assumed()).rows == ()


def test_test_videos_are_those_that_the_data_set_publishes() -> None:
    params = invented.params(["a"], splits=(1, 3))
    shapes = params.datasets["shapes"]

    def on(dataset: Dataset) -> int | None:
        return planning.videos_of(replace(params, datasets={"shapes": dataset}), "a")

    assert on(replace(shapes, file="jhmdb")) == 268 + 265
    assert on(replace(shapes, options={"test": 400})) == 800
    assert on(shapes) is None


def test_a_papers_claims_are_planned_with_their_printed_gains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    params = composed("eam")
    lines = planning.table(params, {}, ROOT / "reports", Assumed(0.002, 0.15)).records()
    claims = [line for line in lines if line["table"].startswith("EAM ")]
    line = next(line for line in claims if line["row"] == "eam-resnet3d50-hmdb51-3splits")
    assert (line["printed"], line["over"]) == ("+2.40", "none-resnet3d50-hmdb51-3splits")
    assert line["n"] == str(3 * 1530) and int(line["seeds_needed"]) >= 3
