"""Our numbers against printed ones: verdicts, differences of protocol, absent rows."""

import csv
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config.schema import Fusion, Params, Tier, Trajectories
from pipeline.measure import claims, crossed, power
from pipeline.measure.crossed import Estimate
from pipeline.measure.results import Result, difference
from pipeline.measure.scores import Accuracy
from pipeline.papers import match
from pipeline.papers.conditions import differences
from pipeline.papers.gains import gains
from pipeline.papers.match import Costs, Match
from pipeline.papers.printed_costs import Figure, Line
from pipeline.papers.printed_costs import load as load_figures
from pipeline.papers.published import Paper, Views, conditions, load, meant
from tests.support import invented
from tests.support.composed import composed

ROOT = Path(__file__).parents[2]
PAPERS = ROOT / "reports" / "papers"
NONE, EAM, K5, K7 = (f"{name}-resnet3d50-hmdb51" for name in ("none", "eam", "eam-k5", "eam-k7"))
T1 = {"ResNet-50": NONE, "EAM, k = 3": EAM, "EAM, k = 5": K5, "EAM, k = 7": K7}


@cache
def paper(name: str = "eam") -> Paper:
    return load(name, PAPERS)


@pytest.fixture(scope="module")
def params() -> Params:
    return composed("eam", "full")


@pytest.fixture(scope="module")
def rows(params: Params, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """Return rows of table 1, printed as 62.5, 65.4, 63.2, 63.6 and (not run) 63.2 %."""
    folder = invented.splits(tmp_path_factory.mktemp("splits"), 9_000)
    return {
        NONE: invented.result(params, NONE, folder, 0.625, 0),
        EAM: invented.result(params, EAM, folder, 0.58, 1),
        K5: invented.result(params, K5, folder, 0.69, 2),
        K7: invented.measured(params, K7, "failed: out of memory"),
    }


def numbers(paper: Paper, name: str, params: Params, rows: Mapping[str, Result], costs: Costs) -> list[Match]:
    return match.matches(paper, name, params, rows, costs, gains(paper, name, params, rows))


def line(cells: list[Match], label: str, column: str = "top1") -> Match:
    return next(cell for cell in cells if (cell.row.label, cell.column) == (label, column))


def figures(name: str) -> dict[tuple[str, str, str], Figure]:
    """Return a paper's figures of parity.yaml by table, row and quantity."""
    every = load_figures(PAPERS / "parity.yaml").figures
    return {(figure.table, figure.row, figure.quantity): figure for figure in every if figure.paper == name}


def few(result: Result, seeds: int) -> Result:
    """Return the result of the first seeds."""
    assert isinstance(result.accuracy, Accuracy)
    right = result.accuracy.right.select("split", "video", *map(str, result.seeds[:seeds]))
    top1 = crossed.row(right.drop("split", "video").to_numpy().T)
    return replace(result, seeds=result.seeds[:seeds], accuracy=replace(result.accuracy, right=right, top1=top1))


def test_a_cell_has_its_verdict_or_why_there_is_none(params: Params, rows: dict[str, Result]) -> None:
    cells = numbers(paper(), "T1", params, rows, {})
    assert [cell.row.label for cell in cells] == [row.label for row in paper().tables["T1"].rows]
    assert [cell.printed for cell in cells] == ["62.5", "65.4", "63.2", "63.6", "63.2"]
    assert [(cell.verdict, cell.reason) for cell in cells] == [
        ("reproduced", ""),
        ("below", ""),
        ("above", ""),
        ("failed", "out of memory"),
        ("not run", "suite eam has no row eam-k9-resnet3d50-hmdb51"),
    ]
    accuracy = rows[NONE].accuracy
    assert isinstance(accuracy, Accuracy) and accuracy.videos == 9_000
    shown = cells[0].ours
    assert shown is not None and cells[0].estimate is accuracy.top1
    expected = [100 * share for share in (accuracy.top1.value, accuracy.top1.low, accuracy.top1.high)]
    assert [shown.value, shown.low, shown.high] == pytest.approx(expected)
    assert cells[3].ours is cells[4].ours is None and cells[4].dataset == "hmdb51"
    for seeds, words in ((1, "2 more seeds needed"), (2, "1 more seed needed")):
        cell = line(numbers(paper(), "T1", params, {**rows, EAM: few(rows[EAM], seeds)}, {}), "EAM, k = 3")
        assert (cell.verdict, cell.read) == ("can't tell", f"can't tell ({words})")
    late = {**rows, NONE: invented.measured(params, NONE, "not run")}
    assert line(numbers(paper(), "T1", params, late, {}), "ResNet-50").reason == "ours has not run"


def test_a_number_that_so_few_classes_cannot_have_is_no_failure_of_a_tier(
    params: Params, rows: dict[str, Result]
) -> None:
    eam = paper()
    columns = {name: replace(column, measure="top5") for name, column in eam.tables["T1"].columns.items()}
    eam = replace(eam, tables={"T1": replace(eam.tables["T1"], columns=columns)})
    accuracy = rows[NONE].accuracy
    assert isinstance(accuracy, Accuracy)
    few = {**rows, NONE: replace(rows[NONE], accuracy=replace(accuracy, top5=None))}
    for tier, word in (("full", "failed"), ("mini", "protocol differs")):
        cell = line(numbers(eam, "T1", replace(params, tier=replace(params.tier, name=tier)), few, {}), "ResNet-50")
        assert cell.verdict == word and cell.ours is None and "five guesses" in cell.reason, tier
        assert ("tier mini" in cell.reason) == (tier == "mini")


def test_a_quoted_row_says_why_it_has_no_number(params: Params, rows: dict[str, Result]) -> None:
    tbn = line(numbers(paper(), "T5", params, rows, {}), "TBN", "hmdb51")
    assert (tbn.verdict, tbn.printed, tbn.system) == ("not run", "69.4", None)
    assert tbn.reason == paper().reasons["quoted"]


@pytest.mark.parametrize(
    "part,change,words",
    [
        ("tier", {"name": "mini"}, "tier mini, not the whole data set and net"),
        ("protocol", {"size": 64}, "size: 64, not 112"),
        ("protocol", {"crops": "center"}, "crops: center, not whole"),
        ("protocol", {"sampling": "dense"}, "sampling: dense, not windows"),
        ("recipe", {"frames": 8}, "frames: 8, not 16"),
        ("experiment", {"splits": (1, 2)}, "splits: 1 2, not 1"),
        ("experiment", {"weights": None}, "pre-trained on: none, not kinetics400"),
        ("experiment", {"weights": "w/resnet3d50-imagenet.pth"}, "pre-trained on: imagenet, not kinetics400"),
        ("recipe", {"train": ("train", "val")}, "trained on the parts: train val, not train"),
        ("dataset", {"file": "jhmdb"}, "data set: jhmdb, not hmdb51"),
    ],
)
def test_what_was_not_measured_as_the_papers_was_gets_no_verdict(
    params: Params, rows: dict[str, Result], part: str, change: Mapping[str, Any], words: str
) -> None:
    row = params.experiments[NONE]
    match part:
        case "tier":
            params = replace(params, tier=replace(Tier(), **change))
        case "protocol":
            params = replace(params, protocols={"eam": replace(params.protocols["eam"], **change)})
        case "recipe":
            params = replace(params, recipes={**params.recipes, "eam": replace(params.recipes["eam"], **change)})
        case "experiment":
            params = replace(params, experiments={**params.experiments, NONE: replace(row, **change)})
        case "dataset":
            dataset = replace(params.datasets["hmdb51"], **change)
            params = replace(params, datasets={**params.datasets, "hmdb51": dataset})
    cell = line(numbers(paper(), "T1", params, rows, {}), "ResNet-50")
    assert (cell.verdict, cell.reason) == ("protocol differs", words)
    assert cell.ours is not None and cell.ours.value == pytest.approx(62.5, abs=1.5)
    verdicts = {gain.row.label: gain.verdict for gain in gains(paper(), "T1", params, rows)}
    assert verdicts["EAM, k = 5"] == "protocol differs"  # its base is the changed row


def test_what_a_paper_leaves_open_and_what_does_not_change_scores_is_no_difference(params: Params) -> None:
    table = paper().tables["T1"]
    under = conditions(table, table.rows[0], "top1")
    other = replace(params, protocols={"eam": replace(params.protocols["eam"], average="logits", batch=1)})
    assert differences(paper(), under, other, NONE) == []
    unnamed = replace(params.experiments[NONE], weights="weights/mine.pth")
    assert differences(paper(), under, replace(params, experiments={NONE: unnamed}), NONE) == []


def test_crops_are_compared_by_the_share_that_they_take(params: Params) -> None:
    """A center crop of 224 covers 7/8 of 256, as printed, but all of 224."""
    center = replace(
        paper(), protocols={"windows": Views("center", crops="center", size=224, clips=1, sampling="segments")}
    )
    under = conditions(center.tables["T1"], center.tables["T1"].rows[0], "top1")
    protocol = replace(params.protocols["eam"], crops="center", size=224, sampling="segments", stride=4)  # unused
    params, by_side = replace(params, protocols={"eam": protocol}), {}
    for side in (224, 240, 256, 100):
        decode = replace(params.datasets["hmdb51"].decode, short_side=side)
        stored = {"hmdb51": replace(params.datasets["hmdb51"], decode=decode)}
        by_side[side] = differences(center, under, replace(params, datasets=stored), NONE)
    assert by_side == {224: ["crop's share of the short side: 100%, not 87.5%"], 240: [], 256: [], 100: []}


def test_a_fusion_differs_where_one_of_its_members_does(params: Params) -> None:
    table = paper().tables["T1"]
    under = conditions(table, table.rows[0], "top1")
    dense = Trajectories("hmdb51", (1,))
    other = replace(params, trajectories={"idt": dense}, fusions={"both": Fusion({NONE: 1.0, "idt": 1.0})})
    assert differences(paper(), under, other, "both") == []
    other = replace(other, trajectories={"idt": replace(dense, splits=(2,))})
    assert differences(paper(), under, other, "both") == ["splits: 2, not 1"]
    other = replace(other, fusions={"both": Fusion({EAM: 1.0, NONE: 1.0})})
    other = replace(other, experiments={**params.experiments, EAM: replace(params.experiments[EAM], weights=None)})
    assert differences(paper(), under, other, "both") == ["pre-trained on: none, not kinetics400"]


def test_gains_are_judged_by_the_crossed_analysis_and_say_how_many_seeds_would_tell(
    params: Params, rows: dict[str, Result]
) -> None:
    by_row = {gain.row.label: gain for gain in gains(paper(), "T1", params, rows)}
    assert list(by_row) == [row.label for row in paper().tables["T1"].rows[1:]]  # whatever has run
    assert [by_row[label].verdict for label in ("EAM, k = 7", "EAM, k = 9")] == ["failed", "not run"]
    lost, won = by_row["EAM, k = 3"], by_row["EAM, k = 5"]
    assert (lost.verdict, won.verdict) == ("reversed", "larger")
    assert (lost.printed, won.printed) == (Decimal("2.9"), Decimal("0.7"))
    differences_found = [difference(rows[system], rows[NONE]) for system in (EAM, K5)]
    adjusted = claims.adjusted([less.less for less in differences_found if not isinstance(less, str)])
    for gain, less, p in zip((lost, won), differences_found, adjusted, strict=True):
        assert not isinstance(less, str) and gain.ours == less and gain.p == p
        assert gain.ratio == pytest.approx(less.less.value / gain.claimed)
        assert gain.seeds_needed == power.seeds_for_gain(less.less.spread, gain.claimed, 2)
    two = {**rows, K5: few(rows[K5], 2)}
    gain = {gain.row.label: gain for gain in gains(paper(), "T1", params, two)}["EAM, k = 5"]
    assert (gain.verdict, gain.read, gain.p) == ("can't tell", "can't tell (1 more seed needed)", None)


def test_a_gain_over_other_initial_weights_has_no_verdict(params: Params, rows: dict[str, Result]) -> None:
    other = {**rows, K5: replace(rows[K5], pretrained="imagenet")}
    gain = {gain.row.label: gain for gain in gains(paper(), "T1", params, other)}["EAM, k = 5"]
    assert (gain.verdict, gain.p) == ("other pre-training", None) and gain.less is not None


def test_counts_are_reproduced_to_the_digit_or_not(params: Params) -> None:
    costs = {key: Line(figure, Decimal(figure.printed) * 1_000_000) for key, figure in figures("eam").items()}
    cells = numbers(paper(), "T4", params, {}, costs)
    params_of_se = line(cells, "SE 3D ResNet-50 16f", "params")
    assert (params_of_se.printed, params_of_se.verdict, params_of_se.estimate) == ("46.99", "reproduced", None)
    flops = line(cells, "SE 3D ResNet-50 16f", "flops")  # counted as millions, printed as billions
    assert (flops.printed, flops.verdict) == ("10.105", "below") and flops.reason
    assert line(cells, "SE 3D ResNet-50 16f").verdict == "not run"


def test_differences_of_counts_follow_the_counts(params: Params) -> None:
    with (ROOT / "reports" / "parity.csv").open(newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["paper"] == "action_net"]
    counted = {(line["table"], line["row"], line["quantity"]): line["ours"] for line in lines}
    costs = {key: Line(figure, Decimal(counted[key])) for key, figure in figures("action_net").items()}
    cells = numbers(paper("action_net"), "T3", params, {}, costs)
    ste, tsm = (Decimal(counted["T3", row, "FLOPs"]) for row in ("STE", "TSM"))
    assert line(cells, "STE", "d_flops").ours.value == pytest.approx(float((ste - tsm) / 10**9))
    assert line(cells, "STE", "d_flops_pct").ours.value == pytest.approx(float(100 * (ste / tsm - 1)))
    assert line(numbers(paper("action_net"), "T3", params, {}, {}), "STE", "d_flops").verdict == "not run"


def of(result: Result, classes: tuple[str, ...]) -> Result:
    assert isinstance(result.accuracy, Accuracy)
    return replace(result, accuracy=replace(result.accuracy, classes=classes))


def test_gains_efficiencies_and_classes_of_other_tables(
    params: Params, rows: dict[str, Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The systems are invented, with the registry's names."""
    action, istpa = paper("action_net"), paper("istpa")
    printed = [row for table in ("T1", "F4") for row in action.tables[table].rows]
    names = {meant(way, action.tables["F4"], "eta_ego") for row in printed for way in (row.ours, row.against)} - {None}
    t7 = istpa.tables["T7"].rows[0]
    assert isinstance(t7.ours, str) and isinstance(t7.against, str)
    experiments = {name: params.experiments[NONE] for name in (*names, t7.ours, t7.against)}
    params = replace(params, experiments=experiments)
    systems = {name: replace(rows[K5 if name.startswith("action") else NONE], name=name) for name in names}
    t1 = numbers(action, "T1", params, systems, {})
    gain = line(t1, "ACTION-Net, EgoGesture", "d_top1")
    less = difference(*(systems[f"{name}-resnet50-egogesture-8f"] for name in ("action", "tsn")))
    assert not isinstance(less, str) and gain.ours is not None
    assert gain.ours.value == pytest.approx(100 * less.less.value)
    fifth = line(t1, "ACTION-Net, EgoGesture", "d_top5")
    top5 = [rows[row].accuracy.top5 for row in (K5, NONE)]
    assert isinstance(top5[0], Estimate) and isinstance(top5[1], Estimate) and fifth.ours is not None
    assert fifth.ours.value == pytest.approx(100 * (top5[0].value - top5[1].value))
    assert gain.verdict == "protocol differs"

    costs = {key: Line(figure, Decimal(figure.printed) * 10**9) for key, figure in figures("action_net").items()}
    eta = line(numbers(action, "F4", params, systems, costs), "ACTION-Net ResNet-50", "eta_ego")
    more = 100 * (34.75 / 33 - 1)
    less = difference(*(systems[f"{name}-resnet50-egogesture-8f"] for name in ("action", "tsm")))
    assert not isinstance(less, str)
    assert eta.ours.value == pytest.approx(more / (100 * less.less.value))
    assert eta.ours.low == pytest.approx(more / (100 * less.less.high))
    worse = {name: replace(rows[EAM if name.startswith("action") else NONE], name=name) for name in names}
    nothing = line(numbers(action, "F4", params, worse, costs), "ACTION-Net ResNet-50", "eta_ego")
    assert nothing.ours is None and "nothing to divide by" in nothing.reason
    place = ("ACTION-Net ResNet-50", "eta_ego")
    with monkeypatch.context() as patch:  # were all conditions the paper's, only the base's weights would differ
        patch.setattr(match, "differences", lambda *_: [])
        assert line(numbers(action, "F4", params, systems, costs), *place).verdict in (claims.BELOW, claims.ABOVE)
        tsm = "tsm-resnet50-egogesture-8f"
        others = systems | {tsm: replace(systems[tsm], pretrained="imagenet")}
        assert line(numbers(action, "F4", params, others, costs), *place).verdict == "other pre-training"
    experiment = replace(params.experiments[tsm], splits=(2,))
    apart = replace(params, experiments=params.experiments | {tsm: experiment})
    assert "splits: 2, not 1" in line(numbers(action, "F4", apart, systems, costs), *place).reason

    named = ("HammerThrow", "Archery", *invented.CLASSES[2:])
    for table, label, sign in (("T7", "HammerThrow", 1), ("T8", "Archery", -1)):
        both = {
            t7.ours: of(replace(rows[K5], name=t7.ours), classes=named),
            t7.against: of(replace(rows[NONE], name=t7.against), classes=named),
        }
        cell = next(cell for cell in numbers(istpa, table, params, both, {}) if cell.row.label == label)
        shares = [np.diag(rows[row].accuracy.confusion.sum(0)) / rows[row].accuracy.confusion.sum((0, 2))
                  for row in (K5, NONE)]  # fmt: skip
        at = named.index(label)
        assert cell.ours.value == pytest.approx(sign * 100 * (shares[0][at] - shares[1][at]))
        assert cell.ours.low < cell.ours.value < cell.ours.high
    others = {name: replace(rows[NONE], name=name) for name in (t7.ours, t7.against)}
    absent = numbers(istpa, "T7", params, others, {})[0]
    assert absent.ours is None and "no class HammerThrow" in absent.reason
