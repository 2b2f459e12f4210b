"""A paper's tables are written whatever has run, say what was run and how to run it again, and are the same bytes."""

import csv
import re
import shutil
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest
from dvc.utils.hydra import compose_and_dump
from pipeline.measure.verdict import POWER

from pipeline.config import load as params
from pipeline.config.schema import Params
from pipeline.errors import UserError
from pipeline.measure import results
from pipeline.measure.results import Result
from pipeline.papers import tables as replication
from pipeline.papers import tex
from pipeline.papers.published import PAPERS, load
from tests.support import invented

ROOT = Path(__file__).parents[2]
REGISTRY, COUNTS = ROOT / "reports" / "papers", ROOT / "reports" / "parity.csv"
NONE, EAM, K5, K7, K9 = (f"{name}-resnet3d50-hmdb51" for name in ("none", "eam", "eam-k5", "eam-k7", "eam-k9"))
WORDS = {"reproduced", "within noise", "below", "above", "protocol differs", "not run", "failed", ""}


def suite(folder: Path, name: str) -> Params:
    compose_and_dump(folder / "params.yaml", str(ROOT / "conf"), None, "config", "", [f"suite={name}"])
    return params.load(folder / "params.yaml")


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Params:
    return suite(tmp_path_factory.mktemp("params"), "eam")


@pytest.fixture(scope="module")
def made(given: Params, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """Four rows of table 1, one of which failed; no other row has run."""
    folder = invented.splits(tmp_path_factory.mktemp("splits"), 1_500)
    found = {row: results.measure(results.read(given, row, folder / "nothing")) for row in given.experiments}
    found |= {row: invented.result(given, row, folder, right) for row, right in ((NONE, 0.62), (EAM, 0.70), (K5, 0.5))}
    return {**found, K7: invented.measured(given, K7, "failed: out | of memory")}


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def save(folder: Path, given: Params, found: dict[str, Result]) -> Path:
    replication.save(folder, folder / "pictures", given, found, REGISTRY, COUNTS)
    return folder


@pytest.mark.parametrize("name", PAPERS)
def test_a_paper_of_which_nothing_has_run_has_all_its_tables_and_every_printed_number(
    name: str, tmp_path: Path
) -> None:
    given = suite(tmp_path, name)
    absent = {row: results.measure(results.read(given, row, tmp_path)) for row in given.experiments}
    folder = save(tmp_path / "tables", given, absent)
    tables = load(name, REGISTRY).tables
    assert {path.name for path in folder.iterdir()} == {
        f"{one}.{end}" for one in tables for end in ("md", "csv", "tex")
    }
    for one, table in tables.items():
        cells = lines(folder / f"{one}.csv")
        printed = [(row.label, value) for row in table.rows for value in row.printed.values()]
        assert {(cell["row"], cell["as_printed"]) for cell in cells} >= set(printed)
        for cell in cells:
            assert cell["verdict"] in WORDS
            assert bool(cell["as_printed"]) == bool(cell["verdict"])
            if cell["verdict"] == "not run":
                assert cell["why"] and cell["status"] == "not run" and not cell["ours"]
            elif cell["as_printed"]:
                assert cell["unit"] in ("M", "G", "%") and cell["verdict"] in ("reproduced", "below", "above")
        text = (folder / f"{one}.md").read_text()
        for label, value in printed:
            assert re.search(rf"^\| {re.escape(label.replace('|', ''))}.*\b{re.escape(value)};", text, re.M), (
                one,
                label,
            )
        assert text.startswith(f"# {one}: ") and "survives" not in text.split("\n\n")[2]


def test_all_has_the_tables_of_all_papers_and_other_suites_have_none(given: Params, tmp_path: Path) -> None:
    save(tmp_path / "all", replace(given, suite="all"), {})
    assert len(list((tmp_path / "all").glob("*.md"))) == sum(len(load(name, REGISTRY).tables) for name in PAPERS) == 41
    save(tmp_path / "quick", replace(given, suite="quick"), {})
    assert not (tmp_path / "quick").exists()


def test_markdown_shows_print_ours_verdict_gain_and_why(given: Params, made: dict[str, Result], tmp_path: Path) -> None:
    text = (save(tmp_path, given, made) / "T1.md").read_text()
    cells = {cell["row"]: cell for cell in lines(tmp_path / "T1.csv")}
    eam = cells["EAM, k = 3"]
    value, low, high = (f"{float(eam[key]):.1f}" for key in ("ours", "ours_low", "ours_high"))
    assert f"65.4; ours {value} [{low}, {high}], n = 1500: above" in text
    assert "63.6; failed (1)" in text and "1. out | of memory" in text
    assert "63.2; not run (2)" in text and "2. ours has not run" in text
    gain = "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(float(eam[key]) for key in ("gain", "gain_low", "gain_high")))
    shown = rf"\| EAM, k = 3 +\| ResNet-50 +\| top-1 +\| \+2\.9 +\| {re.escape(gain)} +\| < 0\.001 +\| survives +\|"
    assert re.search(shown + rf" {eam['videos_needed']} +\| {eam['seeds_needed']} ", text)
    assert f"{100 * POWER:g} %" in text
    assert f"[{EAM}](../../../data/predictions/{EAM}/predictions.parquet)" in text
    assert f"evaluate@{K9}" in text and "dvc exp run -S suite=eam " in text
    assert (eam["gain_verdict"], eam["gain_over"], eam["printed_gain"]) == ("survives", "ResNet-50", "2.9")
    assert eam["protocol"] == made[EAM].protocol and eam["experiment"] == EAM
    assert (eam["n"], eam["seeds"], eam["run_by"], eam["data_set"]) == ("1500", "3", "authors", "hmdb51")
    for table in (block for block in text.split("\n\n") if block.startswith("|")):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_a_correction_is_a_footnote_beside_its_cell(tmp_path: Path) -> None:
    given = suite(tmp_path, "action_net")
    save(tmp_path / "tables", given, {})
    text = (tmp_path / "tables" / "T1.md").read_text()
    mark = re.search(r"97\.3; not run \(([\d, ]+)\)", text)
    assert mark is not None
    assert any(f"\n{at}. table 2 prints 98.3" in text for at in mark[1].split(", "))
    note = next(cell for cell in lines(tmp_path / "tables" / "T1.csv") if cell["as_printed"] == "97.3")
    assert "98.3" in note["notes"]


def test_fractions_are_fractions_to_read_and_percent_to_compute_with(tmp_path: Path) -> None:
    given = suite(tmp_path, "st_manet")
    folder = invented.splits(tmp_path / "splits", 600)
    row = "scratch-resnet3d50-ucf101"
    found = {row: invented.result(given, row, folder, 0.8)}
    text = (save(tmp_path / "tables", given, found) / "T4.md").read_text()
    first = lines(tmp_path / "tables" / "T4.csv")[0]
    assert (first["as_printed"], first["printed"], first["unit"]) == ("0.8317", "83.17", "%")
    assert 75 < float(first["ours_low"]) < float(first["ours"]) < 85
    assert f"0.8317; ours {float(first['ours']) / 100:.4f} [" in text


def test_the_same_results_give_the_same_bytes(given: Params, made: dict[str, Result], tmp_path: Path) -> None:
    save(tmp_path / "one", given, made)
    save(tmp_path / "two", given, dict(reversed(made.items())))
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert {Path("pictures/T4-flops.svg"), Path("pictures/F5.svg")} <= set(files)
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file


def test_tex_is_balanced_escaped_and_has_every_cell(given: Params, made: dict[str, Result], tmp_path: Path) -> None:
    text = (save(tmp_path, given, made) / "T4.tex").read_text()
    body = text.split("\\midrule\n")[1].split("\\bottomrule")[0].splitlines()
    rows = load("eam", REGISTRY).tables["T4"].rows
    assert len(body) == len(rows) and all(line.count("&") == 6 and line.endswith(" \\\\") for line in body)
    assert all(row.printed["top1"] in line for row, line in zip(rows, body, strict=True))
    assert r"\multicolumn{2}{c}{top-1 \%}" in text and text.count("{") == text.count("}")
    assert (
        tex.escaped("50 % & a_b ~ λ1 <#>") == r"50 \% \& a\_b \textasciitilde{} $\lambda$1 \textless{}\#\textgreater{}"
    )
    assert "ours" in text and r"{\scriptsize[" in (tmp_path / "T1.tex").read_text()


def test_figures_that_were_not_counted_are_an_error_that_says_what_to_do(given: Params, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="models --parity` writes it"):
        replication.save(tmp_path, tmp_path, given, {}, REGISTRY, tmp_path / "parity.csv")
    shutil.copy(COUNTS, tmp_path / "parity.csv")
    text = (tmp_path / "parity.csv").read_text()
    (tmp_path / "parity.csv").write_text("".join(line for line in text.splitlines(True) if "SE 3D" not in line))
    with pytest.raises(UserError, match="SE 3D ResNet-50 16f"):
        replication.save(tmp_path, tmp_path, given, {}, REGISTRY, tmp_path / "parity.csv")


def texts(path: Path) -> set[str]:
    found = ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")
    return {"".join(node.itertext()).strip() for node in found}


def test_accuracy_against_flops_shows_every_row_and_who_has_not_run(
    given: Params, made: dict[str, Result], tmp_path: Path
) -> None:
    found = texts(save(tmp_path, given, made) / "pictures" / "T4-flops.svg")
    ran = {"baseline 3D ResNet-50 16f", "EAM 3D ResNet-50 16f"}
    labels = {row.label for row in load("eam", REGISTRY).tables["T4"].rows}
    assert ran | {f"{label} (not run)" for label in labels - ran} <= found
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {"T4-flops.svg", "F5.svg"}


def test_the_classes_that_gain_most_are_listed_and_drawn_where_both_rows_have_run(
    given: Params, made: dict[str, Result], tmp_path: Path
) -> None:
    found = texts(save(tmp_path / "both", given, made) / "pictures" / "F5.svg")
    listed = lines(tmp_path / "both" / "F5.csv")
    gains = [float(line["gain"]) for line in listed]
    assert gains == sorted(gains, reverse=True) and {line["row"] for line in listed} == {EAM}
    assert {line["class"] for line in listed} | {NONE, EAM} <= found and len(listed) == len(invented.CLASSES)
    for line in listed:
        assert float(line["accuracy"]) - float(line["base"]) == pytest.approx(float(line["gain"]), abs=2e-4)
    save(tmp_path / "one", given, {**made, NONE: made[K9]})
    assert not (tmp_path / "one" / "F5.csv").exists() and not (tmp_path / "one" / "pictures" / "F5.svg").exists()


def test_a_printed_curve_is_drawn_from_ours(tmp_path: Path) -> None:
    given = suite(tmp_path, "st_manet")
    folder = invented.splits(tmp_path / "splits")
    names = ("st-manet-resnet3d50-ucf101", "st-manet-res2-resnet3d50-ucf101")
    found = {name: invented.result(given, name, folder, 0.8) for name in names}
    pictures = save(tmp_path / "tables", given, found) / "pictures"
    labels = {row.label for row in load("st_manet", REGISTRY).tables["F4"].rows}
    assert labels | {"ours, fraction", "accuracy"} <= texts(pictures / "F4.svg")
    assert {path.name for path in pictures.iterdir()} == {"F4.svg", "F5.svg"}
