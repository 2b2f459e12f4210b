"""A suite's tables: intervals, seeds, absent rows and verdicts."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipeline.config.schema import Subset, Table, Tier
from pipeline.evaluate.predictions import read
from pipeline.measure import claims, power, results, uncertainty
from pipeline.measure.results import Difference, Result, difference
from pipeline.report import exports, suite_tables
from pipeline.report import table as writers
from tests.support import invented
from tests.support.printed import lines

ROWS = ("tsn", "tsm", "eam", "late", "crashed")
COMPARISON = Table("Systems", ROWS)
ABLATION = Table("Against TSN", ROWS[1:], base="tsn")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """Return tsn, a better row, an equal one, and two without predictions; three seeds."""
    params = invented.params(ROWS, splits=(1, 2), seeds=(0, 1, 2))
    folder = invented.splits(tmp_path_factory.mktemp("splits"), 300, (1, 2))
    costs = {"parameters": 11_200_000, "macs": 3_300_000_000}
    return {
        "tsn": invented.result(params, "tsn", folder, 0.7, 0, **costs),
        "tsm": invented.result(params, "tsm", folder, 0.85, 1, **costs),
        "eam": invented.result(params, "eam", folder, 0.7, 2, **{**costs, "parameters": 11_208_192}),
        "late": invented.measured(params, "late", "not run"),
        "crashed": invented.measured(params, "crashed", "failed: out | of memory", parameters=5, macs=7),
    }


def save(folder: Path, name: str, spec: Table, rows: dict[str, Result]) -> None:
    writers.save(folder, suite_tables.of(name, spec, rows))


def test_comparison_has_a_line_a_row_and_reasons_where_numbers_lack(rows: dict[str, Result], tmp_path: Path) -> None:
    save(tmp_path, "comparison", COMPARISON, rows)
    records = lines(tmp_path / "comparison.csv")
    assert [line["row"] for line in records] == list(ROWS)
    assert [line["status"] for line in records] == ["ok", "ok", "ok", "not run", "failed: out | of memory"]
    tsn = records[0]
    assert float(tsn["top1_low"]) < float(tsn["top1"]) < float(tsn["top1_high"])
    assert (tsn["n"], tsn["units"], tsn["decoded"], tsn["seeds"], tsn["splits"]) == ("600", "600", "600", "3", "2")
    assert (tsn["chance"], tsn["above_chance"], tsn["pretrained"]) == ("16.6667", "yes", "none")
    by_seed = [float(tsn[f"seed_{seed}"]) for seed in (0, 1, 2)]
    assert float(tsn["top1"]) == pytest.approx(np.mean(by_seed), abs=1e-4)
    assert float(tsn["sd_of_seeds"]) == pytest.approx(np.std(by_seed, ddof=1), abs=1e-4)
    assert (tsn["parameters"], tsn["macs"]) == ("11200000", "3300000000")
    assert tsn["protocol"] == "1 clip x center, 8f segments, 64 px, softmax"
    assert records[3]["top1"] == records[3]["n"] == "" and records[4]["parameters"] == "5"
    text = (tmp_path / "comparison.md").read_text()
    body = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(line) for line in body}) == 1, "columns are not aligned"
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in body}) == 1, "a cell breaks the table"
    assert re.search(r"\| tsn +\| \d\d\.\d \[\d\d\.\d, \d\d\.\d\] +\| \d\.\d +\| 11\.20 +\| 3\.30", text)
    assert text.count("protocol 1 clip x center") == 1 and "In every row: data set shapes; backbone resnet-tiny" in text
    assert "/docs/statistics.md" in text and max(line.replace(r"\|", "").count("|") for line in body) <= 9


@pytest.mark.parametrize(
    "text, words",
    {
        "failed: no data/predictions/tsn/costs.json": "failed: no tsn's costs.json",
        "failed: no data/runs/tsn": "failed: no runs's tsn",
        "base failed: no data/runs/tsn": "base failed: no runs's tsn",
        "failed: /far/away/clip.avi is damaged": "failed: away's clip.avi is damaged",
        "failed: 3/8 of the videos at 2.5 clips/s": "failed: 3/8 of the videos at 2.5 clips/s",
    }.items(),
)
def test_a_reason_has_no_path_but_keeps_fractions_and_units(text: str, words: str) -> None:
    assert writers.reason(text) == words


def test_ablation_puts_the_base_first_and_tests_each_row_against_it(rows: dict[str, Result], tmp_path: Path) -> None:
    save(tmp_path, "ablation", ABLATION, rows)
    base, tsm, eam, late, crashed = lines(tmp_path / "ablation.csv")
    assert (base["row"], base["verdict"], base["delta"]) == ("tsn", "base", "")
    assert float(tsm["delta"]) == pytest.approx(float(tsm["top1"]) - float(base["top1"]), abs=2e-4)
    assert float(tsm["delta_low"]) > 0 and tsm["verdict"] == "better" and tsm["pairs"] == "600"
    assert eam["verdict"] == "can't tell" and eam["delta_parameters"] == "8192" and eam["delta_macs"] == "0"
    assert (late["verdict"], crashed["verdict"]) == ("not run", "failed: out | of memory")
    gains = [difference(rows[row], rows["tsn"]) for row in ("tsm", "eam")]
    adjusted = claims.adjusted([gain.less for gain in gains if isinstance(gain, Difference)])
    assert [tsm["p_holm"], eam["p_holm"]] == [f"{p:.6g}" for p in adjusted]
    assert [float(tsm["p"]), float(tsm["p_nets"])] == pytest.approx([gains[0].less.p, gains[0].nets], rel=1e-5)
    spread = power.planned(gains[0].less.spread, gains[0].less.seeds)
    assert float(tsm["smallest"]) == pytest.approx(100 * power.detectable(spread, 2), abs=1e-4), (
        "as plan --power has it"
    )
    shown = next(line for line in (tmp_path / "ablation.md").read_text().splitlines() if line.startswith("| tsm"))
    assert f"| {adjusted[0]:.3g} " in shown and "| better " in shown


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_say_how_many_are_missing(seeds: int, tmp_path: Path) -> None:
    params, folder = invented.params(["a", "b"], seeds=tuple(range(seeds))), invented.splits(tmp_path, 400)
    rows = {row: invented.result(params, row, folder, right, number)
             for number, (row, right) in enumerate((("a", 0.5), ("b", 0.9)))}  # fmt: skip
    save(tmp_path, "t", Table("t", ("b",), base="a"), rows)
    line = lines(tmp_path / "t.csv")[1]
    assert (line["verdict"], line["seeds_missing"], line["p_holm"]) == ("these nets differ", str(3 - seeds), "")
    assert float(line["p_nets"]) < 1e-6
    words = "2 more seeds needed" if seeds == 1 else "1 more seed needed"
    assert f"these nets differ ({words})" in (tmp_path / "t.md").read_text()


def test_two_videos_can_tell_no_difference(tmp_path: Path) -> None:
    params, folder = invented.params(["a", "b"], seeds=(0, 1, 2)), invented.splits(tmp_path, 2)
    rows = {row: invented.result(params, row, folder, 0.5, number) for number, row in enumerate("ab")}
    save(tmp_path, "t", Table("t", ("b",), base="a"), rows)
    line = lines(tmp_path / "t.csv")[1]
    assert float(line["smallest"]) > 100 and line["smallest"] not in (tmp_path / "t.md").read_text()
    assert "| none " in (tmp_path / "t.md").read_text()


def test_two_rows_of_one_system_are_a_check_without_a_verdict(tmp_path: Path) -> None:
    folder = invented.splits(tmp_path, 400)
    first = invented.result(invented.params(["tsm"], seeds=(0, 1, 2)), "tsm", folder, 0.8, 0)
    again = invented.result(invented.params(["again"], seeds=(7, 8, 9)), "again", folder, 0.8, 1)
    rows = {"tsm": first, "again": again}
    assert difference(again, first) == "base has other splits or seeds"
    save(tmp_path, "same", Table("t", ("again",), base="tsm", check=True), rows)
    line = lines(tmp_path / "same.csv")[1]
    assert line["verdict"] == line["p_holm"] == "" and 0 < float(line["p"]) < 1
    gains = [float(line["seed_" + seed]) - float(lines(tmp_path / "same.csv")[0]["seed_" + base_seed])
             for seed, base_seed in (("7", "0"), ("8", "1"), ("9", "2"))]  # fmt: skip
    assert float(line["delta"]) == pytest.approx(np.mean(gains), abs=2e-4)
    text = (tmp_path / "same.md").read_text()
    assert "A check, without a verdict" in text and not any(word in text for word in ("better", "worse", "can't tell"))


def test_a_row_of_other_pre_training_gets_no_verdict_and_no_part_in_holms(
    rows: dict[str, Result], tmp_path: Path
) -> None:
    pretrained = {**rows, "eam": replace(rows["eam"], pretrained="imagenet")}
    save(tmp_path, "t", ABLATION, pretrained)
    _, tsm, eam, *_ = lines(tmp_path / "t.csv")
    assert (eam["verdict"], eam["p_holm"]) == ("other pre-training", "")
    assert tsm["p_holm"] == tsm["p"]  # alone
    text = (tmp_path / "t.md").read_text()
    assert "| pre-training |" in text and re.search(r"\| eam .*\| imagenet +\|", text)
    save(tmp_path, "alike", ABLATION, rows)
    assert "| pre-training |" not in (tmp_path / "alike.md").read_text(), "above the table, since all rows share it"
    views = {**rows, "eam": replace(rows["eam"], protocol="10 clips x three, 8f segments, 64 px, softmax")}
    save(tmp_path, "t", ABLATION, views)
    assert lines(tmp_path / "t.csv")[2]["verdict"] == "other views"


def test_what_is_left_without_time_is_each_rows_loss(tmp_path: Path) -> None:
    params = invented.params(["tsn", "tsm"], seeds=(0, 1, 2), probes=("reversed", "static"))
    folder = invented.splits(tmp_path, 300)
    forward = {row: invented.result(params, row, folder, 0.9, 0) for row in ("tsn", "tsm")}
    rights = {"tsn": 0.9, "tsm": 0.5}
    probes = {
        "reversed": {row: invented.result(params, row, folder, right, 0) for row, right in rights.items()},
        "static": {"tsn": forward["tsn"], "tsm": invented.measured(params, "tsm", "not run")},
    }
    writers.save(tmp_path, suite_tables.without_time("quick", forward, probes))
    tsn, tsm = lines(tmp_path / "time.csv")
    assert float(tsn["reversed"]) == float(tsn["static"]) == 0 and float(tsn["static_low"]) < 0
    expected = 100 * (probes["reversed"]["tsm"].accuracy.top1.value - forward["tsm"].accuracy.top1.value)
    assert float(tsm["reversed"]) == pytest.approx(expected, abs=1e-4) and float(tsm["reversed_high"]) < 0
    assert tsm["static"] == "" and "| not run " in (tmp_path / "time.md").read_text()


def test_a_base_without_result_leaves_its_rows_their_own_numbers(rows: dict[str, Result], tmp_path: Path) -> None:
    save(tmp_path, "t", Table("t", ("tsn", "tsm"), base="late"), rows)
    base, tsn, tsm = lines(tmp_path / "t.csv")
    assert base["status"] == "not run"
    assert tsn["verdict"] == tsm["verdict"] == "base not run" and tsn["top1"]


def test_rows_on_other_data_or_other_seeds_are_not_compared(rows: dict[str, Result], tmp_path: Path) -> None:
    folder = invented.splits(tmp_path, 300, (1, 2))
    other = invented.result(invented.params(["tsn"], splits=(1, 2), seeds=(7,)), "tsn", folder)
    assert difference(rows["tsm"], other) == "base has other splits or seeds"
    fewer = invented.result(invented.params(["tsn"], splits=(2,), seeds=(1, 5)), "tsn", folder)
    common = difference(rows["tsm"], fewer)
    assert isinstance(common, Difference) and common.videos == 300


def test_a_difference_is_that_of_right_answers_on_the_same_videos(rows: dict[str, Result]) -> None:
    both = [rows[row].accuracy.right.drop("split", "video").to_numpy().astype(int) for row in ("tsm", "tsn")]
    gain = difference(rows["tsm"], rows["tsn"])
    assert gain.less.value == pytest.approx((both[0] - both[1]).mean())
    assert gain.nets == uncertainty.sign_flip((both[0] - both[1]).sum(axis=1))
    same = difference(rows["tsn"], rows["tsn"])
    assert same.less.p == same.nets == 1.0 and same.less.low < 0 < same.less.high


def test_a_row_at_chance_is_marked(tmp_path: Path) -> None:
    params, folder = invented.params(["a"], seeds=(0,)), invented.splits(tmp_path)
    save(tmp_path, "t", Table("t", ("a",)), {"a": invented.result(params, "a", folder, right=1 / 6)})
    assert lines(tmp_path / "t.csv")[0]["above_chance"] == "no"
    assert "16.7, not beaten" in (tmp_path / "t.md").read_text()


def test_bytes_do_not_depend_on_the_order_of_files_rows_or_results(rows: dict[str, Result], tmp_path: Path) -> None:
    params = invented.params(ROWS, splits=(1, 2), seeds=(0, 1, 2))
    folder = invented.splits(tmp_path / "splits", 300, (1, 2))
    invented.result(params, "tsm", folder, 0.85, 1)
    frame = pl.read_parquet(folder / "tsm.parquet").sample(fraction=1, shuffle=True, seed=3)
    path = invented.write(frame, folder / "shuffled.parquet", params, "tsm")
    again = invented.measured(params, "tsm", read(path, "tsm", params, folder), **rows["tsm"].costs)
    other = dict(reversed({**rows, "tsm": again}.items()))
    for name, version in (("one", rows), ("two", other)):
        for title, table in (("comparison", COMPARISON), ("ablation", ABLATION)):
            save(tmp_path / name, title, table, version)
        exports.save_classes(tmp_path / name / "classes.csv", [version[row] for row in ROWS])
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name


def test_measured_speed_stays_out_of_the_tables(rows: dict[str, Result], tmp_path: Path) -> None:
    save(tmp_path, "comparison", COMPARISON, rows)
    save(tmp_path, "ablation", ABLATION, rows)
    assert all("201.5" not in path.read_text() for path in tmp_path.iterdir())
    exports.save_speed(tmp_path, {"tsn": 201.5, "tsm": 99.04}, {})
    assert (tmp_path / "speed.csv").read_text().splitlines()[:2] == ["row,clips_per_second,printed", "tsn,201.5,"]
    assert "| tsn | 201.5 " in (tmp_path / "speed.md").read_text()
    assert "printed" not in (tmp_path / "speed.md").read_text()
    exports.save_speed(tmp_path, dict.fromkeys(rows, 201.5), {"tsm": "13.26 task/s", "other": "1 task/s"})
    assert re.search(r"\| tsm +\| 201.5 +\| 13.26 task/s \|", (tmp_path / "speed.md").read_text())


def test_the_metrics_file_holds_what_the_table_prints(rows: dict[str, Result], tmp_path: Path) -> None:
    save(tmp_path, "comparison", COMPARISON, rows)
    (tsn, *_) = lines(tmp_path / "comparison.csv")
    assert exports.summary(rows["tsn"]) == {key: float(tsn[key]) for key in exports.summary(rows["tsn"])}
    assert exports.summary(rows["late"]) == {}


def test_the_splits_spread_stands_where_a_row_has_several(rows: dict[str, Result], tmp_path: Path) -> None:
    save(tmp_path, "comparison", COMPARISON, rows)
    line = lines(tmp_path / "comparison.csv")[0]
    right = rows["tsn"].accuracy.right.group_by("split").agg(pl.col("0", "1", "2").mean()).sort("split")
    by_split = [100 * np.mean(split[1:]) for split in right.rows()]
    assert [float(line["split_1"]), float(line["split_2"])] == pytest.approx(by_split, abs=1e-4)
    assert float(line["sd_of_splits"]) == pytest.approx(np.std(by_split, ddof=1), abs=1e-4)
    assert float(line["top1"]) == pytest.approx(np.mean(by_split), abs=1e-4)
    assert "sd of splits: the standard deviation" in (tmp_path / "comparison.md").read_text()
    params, folder = invented.params(["a"]), invented.splits(tmp_path / "splits")
    save(tmp_path, "one", Table("t", ("a",)), {"a": invented.result(params, "a", folder)})
    assert "sd of splits" not in (tmp_path / "one.md").read_text() and "split_1" not in lines(tmp_path / "one.csv")[0]


def test_a_table_of_both_kinds_has_the_columns_of_both(tmp_path: Path) -> None:
    single = invented.result(invented.params(["one"]), "one", invented.splits(tmp_path / "splits"))
    params = invented.params(["many", "late"], average="sigmoid")
    frame = invented.predictions(params, "many", tmp_path / "splits")
    path = invented.write(frame, tmp_path / "many.parquet", params, "many")
    many = invented.measured(params, "many", read(path, "many", params, tmp_path / "splits"))
    rows = {"one": single, "many": many, "late": invented.measured(params, "late", "not run")}
    save(tmp_path, "t", Table("t", tuple(rows)), rows)
    top1, several, late = lines(tmp_path / "t.csv")
    assert float(top1["top1"]) and top1["map"] == top1["wap"] == several["top1"] == several["chance"] == ""
    assert float(several["map"]) == pytest.approx(100 * many.accuracy.map.value, abs=1e-4)
    assert float(several["wap_low"]) < float(several["wap"]) < float(several["wap_high"])
    assert late["status"] == "not run" and late["map"] == ""
    text = (tmp_path / "t.md").read_text()
    assert re.search(r"\| one +\| .*\d\d\.\d \[.*\] +\| – +\|", text)
    assert re.search(r"\| late +\| .*– +\| not run +\| – ", text)
    alone = Table("t", ("many",), base="many")
    save(tmp_path, "several", alone, rows)
    assert "Δ mAP" in (tmp_path / "several.md").read_text() and "top-1" not in (tmp_path / "several.md").read_text()
    assert exports.summary(many)["map"] == float(several["map"]) and "top1" not in exports.summary(many)
    exports.save_confusion(tmp_path / "confusion.csv", many)
    assert lines(tmp_path / "confusion.csv") == []
    exports.save_classes(tmp_path / "classes.csv", [many])
    assert [line["n"] for line in lines(tmp_path / "classes.csv")] == ["10"] * 6


def test_part_of_a_data_set_is_named_wherever_its_numbers_are(tmp_path: Path) -> None:
    params = replace(invented.params(["a", "b"]), tier=Tier("mini", Subset(5, 12, 8)))
    folder = invented.splits(tmp_path / "splits")
    rows = {row: invented.result(params, row, folder) for row in ("a", "b")}
    save(tmp_path, "comparison", Table("t", ("a", "b")), rows)
    save(tmp_path, "ablation", Table("t", ("b",), base="a"), rows)
    for table in ("comparison", "ablation"):
        assert "softmax, mini 5 x (12 + 8)" in (tmp_path / f"{table}.md").read_text()
    assert lines(tmp_path / "comparison.csv")[0]["data_set"] == "shapes, mini 5 x (12 + 8)"
    whole = invented.result(invented.params(["a"]), "a", folder)
    assert difference(rows["b"], whole) == "base is on shapes"


def test_gains_and_losses_by_class_are_sorted_and_those_of_both_rows_runs(
    rows: dict[str, Result], tmp_path: Path
) -> None:
    exports.save_gains(tmp_path / "gains.csv", rows["tsn"], [rows[row] for row in ROWS[1:]])
    records = lines(tmp_path / "gains.csv")
    assert [line["row"] for line in records] == ["tsm"] * 6 + ["eam"] * 6
    for row in ("tsm", "eam"):
        gains = [float(line["gain"]) for line in records if line["row"] == row]
        assert gains == sorted(gains, reverse=True)
    exports.save_classes(tmp_path / "classes.csv", rows.values())
    shares = {(line["row"], line["class"]): float(line["accuracy"]) for line in lines(tmp_path / "classes.csv")}
    for line in records:
        share, base = shares[line["row"], line["class"]], shares["tsn", line["class"]]
        assert float(line["gain"]) == pytest.approx(share - base, abs=2e-4) and line["n"] == "100"


def test_changes_of_confusions_are_of_the_runs_that_both_have(rows: dict[str, Result], tmp_path: Path) -> None:
    params = invented.params(ROWS, splits=(1, 2), seeds=(1, 5))
    folder = invented.splits(tmp_path / "splits", 300, (1, 2))
    other = invented.result(params, "tsm", folder, 0.85, 3)
    runs = results.common(other, rows["tsn"])
    assert runs == [(1, 1), (2, 1)]
    exports.save_confusion_change(tmp_path / "c.csv", other, rows["tsn"], runs)
    records = lines(tmp_path / "c.csv")
    names = invented.CLASSES
    kept = [other.accuracy.confusion[at] for at in (0, 2)], [rows["tsn"].accuracy.confusion[at] for at in (1, 4)]
    counts, base_counts = (sum(part) for part in kept)
    for line in records:
        at = names.index(line["actual"]), names.index(line["predicted"])
        assert float(line["row"]) == pytest.approx(100 * counts[at] / counts[at[0]].sum(), abs=1e-3)
        assert float(line["change"]) == pytest.approx(100 * (counts[at] - base_counts[at]) / 100, abs=1e-3)
    assert len(records) == ((counts + base_counts) > 0).sum()
    assert results.common(rows["late"], rows["tsn"]) == "not run"
