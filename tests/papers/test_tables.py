"""A paper's tables are written whatever has run, with the same bytes each time."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.config.schema import Params
from pipeline.errors import UserError
from pipeline.measure import results
from pipeline.measure.results import Result
from pipeline.papers import tables as replication
from pipeline.papers.published import PAPERS, load
from pipeline.report import table
from tests.support import invented
from tests.support.composed import composed
from tests.support.printed import lines, texts

ROOT = Path(__file__).parents[2]
REGISTRY, COUNTS = ROOT / "reports" / "papers", ROOT / "reports" / "parity.csv"
NONE, EAM, K5, K7, K9 = (f"{name}-resnet3d50-hmdb51" for name in ("none", "eam", "eam-k5", "eam-k7", "eam-k9"))
WORDS = {"reproduced", "can't tell", "below", "above", "protocol differs", "not run", "failed", ""}
FORMS = ("md", "csv", "tex", "json")


@pytest.fixture(scope="module")
def params() -> Params:
    return composed("eam", "full")


@pytest.fixture(scope="module")
def rows(params: Params, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """Return four rows of table 1, one of which failed; no other row has run."""
    folder = invented.splits(tmp_path_factory.mktemp("splits"), 1_500)
    rows = {row: results.measure(results.read(params, row, folder / "nothing")) for row in params.experiments}
    rows |= {row: invented.result(params, row, folder, right) for row, right in ((NONE, 0.62), (EAM, 0.70), (K5, 0.5))}
    return {**rows, K7: invented.measured(params, K7, "failed: out | of memory")}


def save(folder: Path, params: Params, rows: dict[str, Result]) -> Path:
    replication.save(folder, folder / "pictures", params, rows, REGISTRY, COUNTS)
    return folder


@pytest.mark.parametrize("name", PAPERS)
def test_a_paper_of_which_nothing_has_run_has_all_its_tables_and_every_printed_number(
    name: str, tmp_path: Path
) -> None:
    params = composed(name, "full")
    absent = {row: results.measure(results.read(params, row, tmp_path)) for row in params.experiments}
    folder = save(tmp_path / "tables", params, absent)
    tables = load(name, REGISTRY).tables
    assert {path.name for path in folder.glob("*.*")} == {
        *(f"{title}.{end}" for title in (*tables, "claims", "scoreboard") for end in FORMS),
        "README.md",
    }
    for title, of in tables.items():
        cells = lines(folder / f"{title}.csv")
        printed = [(row.label, value) for row in of.rows for value in row.printed.values()]
        assert {(cell["row"].removeprefix("'"), cell["as_printed"]) for cell in cells} >= set(printed)
        for cell in cells:
            assert cell["verdict"] in WORDS
            assert bool(cell["as_printed"]) == bool(cell["verdict"])
            if cell["verdict"] == "not run":
                assert cell["why"] and cell["status"] == "not run" and not cell["ours"]
            elif cell["as_printed"]:
                assert cell["unit"] in ("M", "G", "%") and cell["verdict"] in ("reproduced", "below", "above")
        text = (folder / f"{title}.md").read_text()
        body = [line for line in text.splitlines() if line.startswith("|")]
        for label, value in printed:
            shown = [line for line in body if line.startswith(f"| {label.replace('|', chr(92) + '|')} ")]
            assert any(re.search(rf"\| {re.escape(value)} +\| ", line) for line in shown), (title, label, value)
        assert "not run" not in "".join(body)  # a dash
        assert text.startswith(f"# {title}: ") and f"[{title}]({title}.md)" in (folder / "README.md").read_text()


def test_all_has_the_tables_of_all_papers_and_other_suites_have_none(params: Params, tmp_path: Path) -> None:
    save(tmp_path / "all", replace(params, suite="all"), {})
    tables = [path for path in (tmp_path / "all").glob("*.md") if path.stem.startswith(tuple(PAPERS))]
    assert len(tables) == sum(len(load(name, REGISTRY).tables) for name in PAPERS) == 43
    save(tmp_path / "quick", replace(params, suite="quick"), {})
    assert not (tmp_path / "quick").exists()


def test_markdown_shows_print_and_ours_in_columns_of_their_own(
    params: Params, rows: dict[str, Result], tmp_path: Path
) -> None:
    text = (save(tmp_path, params, rows) / "T1.md").read_text()
    cells = {cell["row"]: cell for cell in lines(tmp_path / "T1.csv")}
    shown = {line.split("|")[1].strip(): [part.strip() for part in line.split("|")[2:-1]]
             for line in text.splitlines() if line.startswith("| ")}  # fmt: skip
    eam = cells["EAM, k = 3"]
    value, low, high = (f"{float(eam[key]):.1f}" for key in ("ours", "ours_low", "ours_high"))
    gain = "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(float(eam[key]) for key in ("gain", "gain_low", "gain_high")))
    heads = dict(zip(shown["row"], shown["EAM, k = 3"], strict=True))
    assert (heads["printed"], heads["ours"]) == ("65.4", f"{value} [{low}, {high}]")
    assert re.fullmatch(r"can't tell \(± \d+\.\d\)", heads["verdict"]) and eam["verdict"] == "can't tell"
    assert (heads["gain printed"], heads["gain, ours"], heads["the gain"]) == ("+2.9", gain, eam["gain_verdict"])
    assert dict(zip(shown["row"], shown["EAM, k = 7"], strict=True)) | {"note": "1"} == {
        "of": "top-1 %", "printed": "63.6", "ours": "–", "verdict": "failed", "gain printed": "+1.1",
        "gain, ours": "–", "the gain": "failed", "note": "1",
    }  # fmt: skip
    assert "1. out | of memory" in text and "In every row: run by authors" in text
    assert (eam["gain_over"], eam["printed_gain"]) == ("ResNet-50", "2.9")
    assert float(eam["ratio"]) == pytest.approx(float(eam["gain"]) / 2.9, abs=0.01)
    assert eam["protocol"] == rows[EAM].protocol and eam["experiment"] == EAM
    assert (eam["n"], eam["units"], eam["seeds"], eam["run_by"]) == ("1500", "1500", "3", "authors")
    by_seed = [float(text.partition(":")[2]) for text in eam["by_seed"].split()]
    assert float(eam["ours"]) == pytest.approx(sum(by_seed) / 3, abs=1e-4)
    for grid in (block for block in text.split("\n\n") if block.startswith("|")):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in grid.splitlines()}) == 1


def test_each_paper_has_its_claims_once_the_headline_first(
    params: Params, rows: dict[str, Result], tmp_path: Path
) -> None:
    claims = lines(save(tmp_path, params, rows) / "claims.csv")
    assert [line["headline"] for line in claims[:5]] == ["yes"] * 4 + ["no"]
    assert len({(line["table"], line["row"], line["column"]) for line in claims}) == len(claims)
    # EAM's gain on HMDB51 stands in tables 1, 2, 3 and 4; it is one claim.
    assert sum(line["row"].startswith("EAM") and line["printed"] == "2.9000" for line in claims) == 1
    claim = next(line for line in claims if line["row"] == "EAM, k = 3")
    cell = next(line for line in lines(tmp_path / "T1.csv") if line["row"] == "EAM, k = 3")
    pairs = {"ours": "gain", "ours_low": "gain_low", "verdict": "gain_verdict", "p_holm": "p_holm"}
    assert {key: claim[key] for key in pairs} == {key: cell[other] for key, other in pairs.items()}
    (scores,) = lines(tmp_path / "scoreboard.csv")
    counts = ("survives", "smaller", "larger", "doesnt", "reversed", "cant_tell", "not_run")
    assert sum(int(scores[score]) for score in counts) == int(scores["gains"]) == len(claims)
    assert int(scores["not_run"]) == sum(line["verdict"] in ("not run", "failed") for line in claims)
    assert (scores["costs_met"], scores["costs"]) == ("30", "30")
    text = (tmp_path / "claims.md").read_text()
    assert text.index("# Verdicts on") < text.index("## Printed gains") and "★" in text


def test_a_correction_is_a_footnote_of_its_cell(tmp_path: Path) -> None:
    params = composed("action_net", "full")
    save(tmp_path / "tables", params, {})
    text = (tmp_path / "tables" / "T1.md").read_text()
    mark = re.search(r"\| 97\.3 .* (\d+) +\|$", text, re.M)
    assert mark is not None and f"\n{mark[1]}. table 2 prints 98.3" in text
    note = next(cell for cell in lines(tmp_path / "tables" / "T1.csv") if cell["as_printed"] == "97.3")
    assert "98.3" in note["notes"]


def test_fractions_are_fractions_to_read_and_percent_to_compute_with(tmp_path: Path) -> None:
    params = composed("st_manet", "full")
    folder = invented.splits(tmp_path / "splits", 600)
    row = "scratch-resnet3d50-ucf101"
    rows = {row: invented.result(params, row, folder, 0.8)}
    text = (save(tmp_path / "tables", params, rows) / "T4.md").read_text()
    first = lines(tmp_path / "tables" / "T4.csv")[0]
    assert (first["as_printed"], first["printed"], first["unit"]) == ("0.8317", "83.17", "%")
    assert 75 < float(first["ours_low"]) < float(first["ours"]) < 85
    assert re.search(rf"\| 0\.8317 +\| {float(first['ours']) / 100:.4f} \[", text)


def test_the_same_results_give_the_same_bytes(params: Params, rows: dict[str, Result], tmp_path: Path) -> None:
    save(tmp_path / "one", params, rows)
    save(tmp_path / "two", params, dict(reversed(rows.items())))
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert {Path("pictures/T4-flops.svg"), Path("pictures/F5.svg"), Path("pictures/gains-eam.svg")} <= set(files)
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file


def test_tex_is_balanced_escaped_and_has_every_cell(params: Params, rows: dict[str, Result], tmp_path: Path) -> None:
    text = (save(tmp_path, params, rows) / "T4.tex").read_text()
    body = text.split("\\midrule\n")[1].split("\\bottomrule")[0].splitlines()
    cells = lines(tmp_path / "T4.csv")
    assert len(body) == len(cells) and all(line.count(" & ") == 7 and line.endswith(" \\\\") for line in body)
    assert all(f" & {cell['as_printed']} & " in line for cell, line in zip(cells, body, strict=True))
    assert r"top-1 \%" in text and text.count("{") == text.count("}")
    assert (
        table.escaped("50 % & a_b ~ λ1 <#>")
        == r"50 \% \& a\_b \textasciitilde{} $\lambda$1 \textless{}\#\textgreater{}"
    )


def test_figures_that_were_not_counted_are_an_error_that_says_what_to_do(params: Params, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="models --parity` writes it"):
        replication.save(tmp_path, tmp_path, params, {}, REGISTRY, tmp_path / "parity.csv")
    shutil.copy(COUNTS, tmp_path / "parity.csv")
    text = (tmp_path / "parity.csv").read_text()
    (tmp_path / "parity.csv").write_text("".join(line for line in text.splitlines(True) if "SE 3D" not in line))
    with pytest.raises(UserError, match="SE 3D ResNet-50 16f"):
        replication.save(tmp_path, tmp_path, params, {}, REGISTRY, tmp_path / "parity.csv")


def test_accuracy_against_flops_shows_every_row_and_who_has_not_run(
    params: Params, rows: dict[str, Result], tmp_path: Path
) -> None:
    words = set(texts(save(tmp_path, params, rows) / "pictures" / "T4-flops.svg"))
    ran = {"baseline 3D ResNet-50 16f", "EAM 3D ResNet-50 16f"}
    labels = {row.label for row in load("eam", REGISTRY).tables["T4"].rows}
    assert ran | {f"{label} (not run)" for label in labels - ran} <= words
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {"T4-flops.svg", "F5.svg", "gains-eam.svg"}


def test_the_classes_that_gain_most_are_listed_and_drawn_where_both_rows_have_run(
    params: Params, rows: dict[str, Result], tmp_path: Path
) -> None:
    words = set(texts(save(tmp_path / "both", params, rows) / "pictures" / "F5.svg"))
    listed = lines(tmp_path / "both" / "F5.csv")
    gains = [float(line["gain"]) for line in listed]
    assert gains == sorted(gains, reverse=True) and {line["row"] for line in listed} == {EAM}
    assert {line["class"] for line in listed} | {NONE, EAM} <= words and len(listed) == len(invented.CLASSES)
    for line in listed:
        assert float(line["accuracy"]) - float(line["base"]) == pytest.approx(float(line["gain"]), abs=2e-4)
    save(tmp_path / "one", params, {**rows, NONE: rows[K9]})
    assert not (tmp_path / "one" / "F5.csv").exists() and not (tmp_path / "one" / "pictures" / "F5.svg").exists()


def test_a_printed_curve_is_drawn_from_ours(tmp_path: Path) -> None:
    params = composed("st_manet", "full")
    folder = invented.splits(tmp_path / "splits")
    names = ("st-manet-resnet3d50-ucf101", "st-manet-res2-resnet3d50-ucf101")
    rows = {name: invented.result(params, name, folder, 0.8) for name in names}
    pictures = save(tmp_path / "tables", params, rows) / "pictures"
    labels = {row.label for row in load("st_manet", REGISTRY).tables["F4"].rows}
    assert labels | {"ours, fraction", "accuracy"} <= set(texts(pictures / "F4.svg"))
    assert {path.name for path in pictures.iterdir()} == {"F4.svg", "F5.svg", "gains-st_manet.svg"}
