"""Printed parameters and FLOPs are all registered, counted again and reported."""

import csv
import json
import re
import shutil
from decimal import Decimal
from functools import cache
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.errors import UserError
from pipeline.papers.printed_costs import Extra, Figure, Line, Net, Printed, as_printed, load
from stages import cli
from stages.commands import parity
from tests.support.real_data import TEST_DATA

ROOT = Path(__file__).parents[2]
PUBLISHED = TEST_DATA / "published"
# paper, table -> the published columns that are parameters or FLOPs, and how many figures they hold
WHERE = {
    ("action_net", "T3"): (("flops", "params"), 12),
    ("action_net", "T5"): (("flops", "params"), 12),
    ("eam", "T4"): (("flops", "params"), 30),
    ("istpa", "T10"): (("vgg16", "bn_inception", "inception_resnet_v2"), 12),
    ("maagn", "T6"): (("params",), 5),
    ("st_manet", "F6"): (("flops_increase_pct",), 1),
}
QUANTITY = {"flops": "FLOPs", "flops_increase_pct": "FLOPs increase"}  # else parameters
NAMES = {"vgg16": "VGG-16", "bn_inception": "BN-Inception", "inception_resnet_v2": "Inception-ResNet-v2"}
METHODS = {"TPN (our baseline)": "TPN", "ST-MANet vs 3D ResNet-50": "ST-MANet over 3D ResNet-50"}


@cache
def printed() -> Printed:
    return load(ROOT / parity.PRINTED)


@cache
def lines() -> list[Line]:
    return parity.count(printed())


def figures(paper: str, table: str) -> list[tuple[str, str, float]]:
    """Return (row, quantity, value) of every published figure of a table."""
    file = PUBLISHED / f"{paper}.yaml"
    if not file.exists():
        pytest.skip(f"no {file}")
    columns, _ = WHERE[paper, table]
    tables = YAML(typ="safe").load(file.read_text())["tables"]
    rows = next(part["rows"] for part in tables if part["table"] == table)
    return [
        (ours(table, row, column), QUANTITY.get(column, "parameters"), value)
        for row in rows
        for column, value in row["values"].items()
        if column in columns
    ]


def ours(table: str, row: dict, column: str) -> str:
    """Return the name in parity.yaml of a published row or one of its columns."""
    method = re.sub(r"\((\w+)\)", lambda word: word[0].lower(), METHODS.get(row["method"], row["method"]))
    match table:
        case "T4":
            return f"{method} {row['backbone']} {row['frames']}f"
        case "T5":
            return f"{method} {row['backbone']}"
        case "T10":
            return f"{method}, {NAMES[column]}"
    return method.replace("+", " + ")


@pytest.mark.parametrize("paper,table", WHERE)
def test_every_published_figure_is_there_once_with_its_value(paper, table):
    published = figures(paper, table)
    listed = [(f.row, f.quantity, float(f.printed)) for f in printed().figures if (f.paper, f.table) == (paper, table)]
    assert sorted(listed) == sorted(published)
    assert len(set(listed)) == len(listed) == WHERE[paper, table][1]


def test_there_are_72_figures():
    count = [(figure.paper, figure.table) for figure in printed().figures]
    assert {place: count.count(place) for place in set(count)} == {
        place: number for place, (_, number) in WHERE.items()
    }
    assert len(count) == 72


def must_match(figure: Figure) -> bool:
    """Return whether a figure is known to match."""
    if figure.paper == "action_net":
        return figure.row != "ACTION-Net BNInception"
    if figure.paper == "istpa":
        return figure.row.endswith("Inception-ResNet-v2")
    return figure.paper == "eam"


@pytest.mark.parametrize("at", range(72))
def test_figures_come_out_as_printed_where_they_can(at):
    line = lines()[at]
    assert line.verdict == ("match" if line.figure.reachable else "unreachable"), (line.figure, line.ours)
    assert line.figure.reachable or not must_match(line.figure), line.figure
    assert line.figure.reason


def test_nothing_is_added_to_a_count_but_tf_slims_auxiliary_classifier():
    for figure in printed().figures:
        if figure.extra:
            classes = printed().nets[figure.net].classes
            assert printed().nets[figure.net].variant == "slim"
            assert figure.extra.parameters == 2_597_760 + 769 * classes


def test_the_committed_report_is_what_is_counted(tmp_path):
    parity.save(printed(), lines(), tmp_path / "parity.md")
    for name in ("parity.md", "parity.csv"):
        assert (tmp_path / name).read_bytes() == (ROOT / "reports" / name).read_bytes(), name
    assert len((tmp_path / "parity.md").read_text().splitlines()) > 72
    with (tmp_path / "parity.csv").open(newline="") as rows:
        records = list(csv.DictReader(rows))
    assert [row["printed"] for row in records] == [figure.printed for figure in printed().figures]
    assert {row["verdict"] for row in records} == {"match", "unreachable"}


def figure(shown: str, unit: str = "M", **more) -> Figure:
    default = {"paper": "p", "table": "T1", "row": "r", "quantity": "parameters", "net": "n", "reason": "why"}
    return Figure(**{**default, "counted_by": "parameters", "printed": shown, "unit": unit, **more})


@pytest.mark.parametrize(
    "ours,shown,more,verdict",
    [
        (46_999_795, "46.99", {}, "differs"),
        (46_999_795, "46.99", {"digits": "truncated"}, "match"),
        (46_999_795, "47.00", {}, "match"),
        (46_999_795, "47.00", {"digits": "truncated"}, "differs"),
        (46_999_795, "47.0", {}, "match"),
        (46_999_795, "47", {}, "match"),
        (46_995_000, "47.00", {}, "match"),  # halves go up
        (46_999_795, "33.62", {}, "differs"),
        (46_999_795, "33.62", {"reachable": False}, "unreachable"),
        (46_999_795, "47.00", {"reachable": False}, "match"),  # and the test above would tell that a reason is stale
        (16_394_747_219, "16.39", {"unit": "G"}, "match"),
        (16_394_747_219, "16.4", {"unit": "G"}, "match"),
        (16_394_747_219, "16.39", {"unit": "M"}, "differs"),
        ("88.3055", "88", {"unit": "%"}, "match"),
        ("88.3055", "24", {"unit": "%", "reachable": False}, "unreachable"),
    ],
)
def test_verdicts(ours, shown, more, verdict):
    assert Line(figure(shown, **more), Decimal(ours)).verdict == verdict


def test_digits():
    assert as_printed(Decimal("9.9996"), "9.999", "rounded") == "10.000"
    assert as_printed(Decimal("9.9996"), "9.999", "truncated") == "9.999"


SMALL = Net("resnet", "tiny", "none", 5, 4, 32)


def test_counting_adds_what_is_extra_and_compares_with_a_base():
    nets = {"n": SMALL, "wider": Net("resnet", "tiny", "se", 5, 4, 32)}
    plain = figure("1")
    more = figure("1", extra=Extra(1000, "an auxiliary classifier"))
    increase = figure("1", "%", net="wider", base="n")
    flops = [figure("1", "G", counted_by=tool) for tool in ("macs", "ptflops", "thop")]
    counts = [line.ours for line in parity.count(Printed({"p": "P"}, nets, (plain, more, increase, *flops)))]
    assert counts[1] == counts[0] + 1000
    assert 0 < counts[2] < 10
    macs, ptflops, thop = counts[3:]
    assert macs < thop < ptflops


def test_a_net_that_cannot_be_built_is_named():
    nets = {"n": Net("resnet", "51", "none", 5, 4, 32)}
    with pytest.raises(UserError, match=r"parity.yaml: nets.n: no variant .*'51'"):
        parity.count(Printed({"p": "P"}, nets, (figure("1"),)))


@pytest.mark.parametrize(
    "old,new,words",
    [
        ("net: tsn-r50,", "net: tsn-r51,", "figures.0: no net 'tsn-r51'; did you mean 'tsn-r50'"),
        ("counted_by: ptflops", "counted_by: fvcore", "figures.0.counted_by: Input should be"),
        ("classes: 83,", "klasses: 83,", "nets.tsn-r50"),
        ("papers:", "papers: [", "is damaged"),
        ('printed: "33"', "printed: 33", "figures.0.printed: Input should be a valid string"),
    ],
)
def test_a_mistake_in_the_file_is_one_line(tmp_path, old, new, words):
    text = (ROOT / parity.PRINTED).read_text()
    assert old in text
    path = tmp_path / "parity.yaml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(UserError) as error:
        load(path)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"parity\.yaml is not there; run from the project's root"):
        load(tmp_path / "parity.yaml")


def test_it_is_shown(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(parity, "load", lambda path: Printed({"p": "P"}, {"n": SMALL}, (figure("1"),)))
    monkeypatch.chdir(tmp_path)
    parity.show(as_json=False)
    out = capsys.readouterr().out
    assert "parameters. why" in out and "1 figures: 1 differs." in out
    assert "resnet tiny, none, 5 classes, 4 frames of 32x32" in (tmp_path / "reports/parity.csv").read_text()
    assert (tmp_path / "reports/parity.md").exists()
    assert (tmp_path / "reports/parity.csv").exists()


def test_the_command_line_has_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(parity, "count", lambda printed: lines())
    (tmp_path / "reports/papers").mkdir(parents=True)
    shutil.copy(ROOT / parity.PRINTED, tmp_path / parity.PRINTED)
    monkeypatch.chdir(tmp_path)
    cli.app(["models", "--parity", "--json"], standalone_mode=False)
    records = json.loads(capsys.readouterr().out)
    assert [row["printed"] for row in records] == [float(figure.printed) for figure in printed().figures]
    assert (tmp_path / "reports/parity.md").read_bytes() == (ROOT / "reports/parity.md").read_bytes()
