"""The registry has each published number once, as printed."""

from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.errors import UserError
from pipeline.papers import printed_costs, published
from pipeline.papers.conditions import differences
from pipeline.papers.published import Paper, conditions, load, meant
from tests.support.composed import composed
from tests.support.printed import lines
from tests.support.real_data import TEST_DATA

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "reports" / "papers"
PUBLISHED = TEST_DATA / "published"


@cache
def paper(name: str) -> Paper:
    return load(name, FOLDER)


@cache
def figures(name: str) -> dict[tuple[str, str, str], str]:
    """Return (table, row, quantity) -> printed value, from parity.yaml."""
    every = printed_costs.load(FOLDER / "parity.yaml").figures
    return {(figure.table, figure.row, figure.quantity): figure.printed for figure in every if figure.paper == name}


@cache
def transcribed(name: str) -> dict[str, Any]:
    """Return the transcription of a paper's tables, with values as text to keep trailing zeros."""
    if not (PUBLISHED / f"{name}.yaml").exists():
        pytest.skip(f"no {PUBLISHED}: the transcriptions of the papers")
    tables = yaml.load((PUBLISHED / f"{name}.yaml").read_text(), yaml.BaseLoader)["tables"]
    return {table["table"]: table for table in tables}


def cells(name: str) -> list[tuple[str, int, str, str, bool]]:
    """Return (table, number of row, column, printed, run by authors) of every cell."""
    listed = []
    for place, table in paper(name).tables.items():
        for at, row in enumerate(table.rows):
            authors = row.run == "authors"
            listed += [(place, at, column, value, authors) for column, value in row.printed.items()]
            for column, of in table.columns.items():
                key = (place, of.row.format(label=row.label, **row.settings), of.of or "")
                if of.measure == "cost" and key in figures(name):
                    listed.append((place, at, column, figures(name)[key], authors))
    return listed


@pytest.mark.parametrize("name", published.PAPERS)
def test_every_published_cell_is_there_once_as_printed_and_no_other(name: str) -> None:
    expected = [
        (place, at, column, value, row["own"] == "true")
        for place, table in transcribed(name).items()
        for at, row in enumerate(table["rows"])
        for column, value in row["values"].items()
        if value not in ("null", "")
    ]
    assert Counter(cells(name)) == Counter(expected)
    assert max(Counter(cells(name)).values()) == 1


def test_every_published_cell_stands_in_one_place_of_the_reference_tables_with_its_verdict() -> None:
    written, expected = [], []
    for name in published.PAPERS:
        expected += [(name, place, value) for place, _, _, value, _ in cells(name)]
        for path in sorted((ROOT / "reports" / "reference" / name / "tables").glob("*.csv")):
            if path.stem in paper(name).tables:
                written += [(name, path.stem, line) for line in lines(path) if line["as_printed"]]
    assert Counter((name, place, line["as_printed"]) for name, place, line in written) == Counter(expected)
    places = [(name, place, *(line[key] for key in ("row", "column", "unit"))) for name, place, line in written]
    assert len(places) == len(set(places)) == 593
    assert all(line["verdict"] for *_, line in written)
    costs = [line["verdict"] for *_, line in written if line["unit"] in ("M", "G") and line["verdict"] != "not run"]
    assert "reproduced" in costs


def test_593_numbers_of_43_tables_are_listed_337_of_them_the_authors_own_and_72_of_parity() -> None:
    every = [(name, *cell) for name in published.PAPERS for cell in cells(name)]
    assert (len(every), sum(authors for *_, authors in every)) == (593, 337)
    assert sum(len(paper(name).tables) for name in published.PAPERS) == 43
    costs = [cell[:4] for cell in every if paper(cell[0]).tables[cell[1]].columns[cell[3]].measure == "cost"]
    assert len(costs) == len(set(costs)) == sum(len(figures(name)) for name in published.PAPERS) == 72


@pytest.mark.parametrize("name", published.PAPERS)
def test_rows_are_those_of_the_print(name: str) -> None:
    for place, table in transcribed(name).items():
        ours = paper(name).tables[place]
        names = {metric["name"] for metric in table["metrics"]}
        printed = any(row.printed for row in ours.rows)  # a figure without numbers may have more columns
        assert set(ours.columns) == names if printed else set(ours.columns) >= names, place
        units = {metric["name"]: metric["unit"] for metric in table["metrics"]}
        for column, of in ours.columns.items():
            if of.unit in ("fraction", "M", "G", "task/s"):
                assert units[column] == of.unit, (place, column)
        for row, line in zip(ours.rows, table["rows"], strict=False):
            for key, value in row.settings.items():
                text = line[key]
                assert value == ("+".join(text) or "none" if isinstance(text, list) else text), (place, row.label)


@pytest.mark.parametrize("name", published.PAPERS)
def test_contradictions_of_the_print_are_footnotes(name: str) -> None:
    places = {
        "action_net": [("T1", "TSN, EgoGesture", "top5", "98.3"), ("T2", "TSN, 8 frames", "ego_top5", "97.3")],
        "maagn": [("T1", "MAAGN, 8x1x1", "v2_top1", "62.7")],
        "istpa": [("T15", "Ours, entire loss", "wap", "28.5")],
        "eam": [("T5", "ResNet-50", "hmdb51", "62.5")],
        "st_manet": [("T3", "LFSNet", "row", "LESNet")],
    }
    for place, label, column, words in places[name]:
        row = next(row for row in paper(name).tables[place].rows if row.label == label)
        assert words in row.notes[column]


@pytest.mark.parametrize("tier", ["full", "mini"])
@pytest.mark.parametrize("name", published.PAPERS)
def test_every_row_of_ours_is_in_its_papers_suite_and_as_the_paper_has_it(name: str, tier: str) -> None:
    params = composed(name, tier)
    known = {**params.experiments, **params.fusions, **params.trajectories}
    for place, table in paper(name).tables.items():
        for row in table.rows:
            for column in table.columns:
                for system in (meant(row.ours, table, column), meant(row.against, table, column)):
                    assert system is None or system in known, (place, row.label, column, system)
                system = meant(row.ours, table, column)
                if system is None:
                    continue
                differs = differences(paper(name), conditions(table, row, column), params, system)
                other = table.columns[column].under.dataset == "diving48-v1"  # of other labels than ours
                assert bool(differs) == (tier == "mini" or other), (place, row.label, column, differs)
                assert tier == "full" or differs[0].startswith("tier mini")
                assert not other or "data set: diving48, not diving48-v1" in differs


def test_all_has_every_row_of_ours_too() -> None:
    params = composed("all", "full")
    for table in (table for name in published.PAPERS for table in paper(name).tables.values()):
        for row in table.rows:
            systems = {meant(row.ours, table, column) for column in table.columns} - {None}
            assert systems <= {*params.experiments, *params.fusions, *params.trajectories}


def test_what_authors_ran_is_run_unless_a_reason_is_given() -> None:
    reasons = Counter(
        meant(row.without, table, column)
        for name in published.PAPERS
        for table in paper(name).tables.values()
        for row in table.rows
        if row.run == "authors"
        for column in row.printed
        if meant(row.without, table, column)
    )
    assert set(reasons) == {"speed"}, reasons


def test_printed_speeds_belong_to_rows_that_are_run() -> None:
    speeds = published.speeds("maagn", FOLDER)
    assert "V1 speed 13.26 task/s, V2 speed 14.21 task/s" in speeds["maagn-resnet50-sthv1-8f-ten"]
    assert set(speeds) <= set(composed("maagn", "full").experiments) and len(speeds) == 2
    assert published.speeds("all", FOLDER) == speeds and published.speeds("quick", FOLDER) == {}


@pytest.mark.parametrize(
    "before,after,problem",
    [
        ('{top1: "62.5"}', '{top2: "62.5"}', "no column 'top2'"),
        ('{top1: "62.5"}', '{top1: "62,5"}', "'62,5' is no number"),
        ('{top1: "62.5"}', "{top1: 62.5}", "valid string"),
        ("label: ResNet-50\n", 'label: "EAM, k = 3"\n', "two rows are called 'EAM, k = 3'"),
        ("base: ResNet-50", "base: ResNet-51", "no row 'ResNet-51'; did you mean 'ResNet-50'?"),
        ("protocol: windows", "protocol: window", "no protocol 'window'; did you mean 'windows'?"),
        ("ours: none-resnet3d50-hmdb51", "without: quoted", ""),
        ("ours: none-resnet3d50-hmdb51", "without: quotes", "no reason 'quotes'; did you mean 'quoted'?"),
        ("        ours: none-resnet3d50-hmdb51\n", "", "either `ours` or `without`, and not both"),
        ("run: authors", "ran: authors", "rows.0.ran: Unexpected keyword"),
        ('printed: {top1: "62.5"}', 'printed: {params: "46.30", top1: "62.5"}', "no column 'params'"),
        ("{top1: ", "{top1: {", "is damaged"),
    ],
)
def test_a_damaged_registry_is_an_error_of_one_line(tmp_path: Path, before: str, after: str, problem: str) -> None:
    text = (FOLDER / "eam.yaml").read_text()
    assert before in text
    (tmp_path / "eam.yaml").write_text(text.replace(before, after, 1))
    if not problem:
        assert load("eam", tmp_path).tables["T1"].rows[0].without == "quoted"
        return
    with pytest.raises(UserError) as error:
        load("eam", tmp_path)
    assert problem in str(error.value) and "eam.yaml" in str(error.value) and "\n" not in str(error.value)


def test_costs_stand_in_parity_alone(tmp_path: Path) -> None:
    text = (FOLDER / "eam.yaml").read_text()
    row = 'printed: {top1: "63.7"}\n        settings: {backbone: "3D ResNet-50"'
    assert row in text
    (tmp_path / "eam.yaml").write_text(text.replace(row, row.replace("{top1", '{params: "46.99", top1')))
    with pytest.raises(UserError, match=r"T4.*parameters and FLOPs belong in parity.yaml"):
        load("eam", tmp_path)
    with pytest.raises(UserError, match="no paper 'quick'; known: action_net, eam, istpa, maagn, st_manet"):
        load("quick")
    with pytest.raises(UserError, match="is not there"):
        load("maagn", tmp_path)
