"""Writers of a table: at most eight columns to read, all values in CSV and JSON."""

import csv
import io
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.report import table as writers
from pipeline.report.table import ALWAYS, BLANK, DATA, ROOM, Cell, Table, view


def made(columns: int, rows: int = 3, place: int = ROOM, same: tuple[int, ...] = ()) -> Table:
    """Return a table with named rows; the columns `same` are equal in every row."""
    lines = []
    for row in range(rows):
        cells = [Cell("row", f"r{row}", {"row": f"r{row}"}, ALWAYS)]
        for column in range(1, columns):
            text = f"c{column}" if column in same else f"{row}.{column}"
            cells.append(Cell(f"h{column}", text, {f"k{column}": text}, place))
        lines.append(tuple(cells))
    return Table("t", "Title", tuple(lines), ("A note.",))


def test_eight_columns_are_read_and_all_are_in_the_csv() -> None:
    table = made(12)
    assert view(table).headings == ("row", *(f"h{column}" for column in range(1, 8)))
    assert list(csv.DictReader(io.StringIO(writers.csv_of(table)))) == table.records()
    assert len(table.records()[0]) == 12
    for line in writers.markdown(table).splitlines():
        assert not line.startswith("|") or line.count("|") == 9


def test_what_is_the_same_in_every_row_stands_above_once() -> None:
    shown = view(made(5, same=(2, 4)))
    assert shown.headings == ("row", "h1", "h3") and shown.shared == (("h2", "c2"), ("h4", "c4"))
    assert "In every row: h2 c2; h4 c4." in writers.markdown(made(5, same=(2, 4)))
    assert view(made(5, rows=1)).shared == ()  # one row has no others to share with
    hidden = made(4, place=DATA, same=(1,))
    assert view(hidden).headings == ("row",) and view(hidden).shared == (("h1", "c1"),)
    assert view(made(3, place=ALWAYS, same=(1,))).headings == ("row", "h1", "h2")


def test_a_column_that_says_nothing_is_left_out_unless_it_always_stands() -> None:
    rows = [(Cell("row", name, {"row": name}, ALWAYS), Cell("ours", BLANK, {"ours": ""}, ALWAYS), Cell("p", BLANK, {}))
            for name in "ab"]  # fmt: skip
    assert view(Table("t", "t", tuple(rows))).headings == ("row", "ours")


@given(st.lists(st.text(max_size=8), min_size=1, max_size=4), st.text(max_size=12))
def test_json_gives_the_table_back(texts: list[str], note: str) -> None:
    row = tuple(Cell(f"h{at}", text, {f"k{at}": text[::-1]}, at % 3) for at, text in enumerate(texts))
    table = Table("name", "Title", (row, row), (note,))
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "name.json"
        path.write_text(writers.dumps(table), encoding="utf-8")
        assert writers.load(path) == table


def test_an_empty_table_has_every_form(tmp_path: Path) -> None:
    empty = Table("none", "Nothing", ())
    writers.save(tmp_path, empty)
    assert {path.name for path in tmp_path.iterdir()} == {"none.md", "none.csv", "none.tex", "none.json"}
    assert writers.load(tmp_path / "none.json") == empty


def test_tex_has_the_rows_of_the_markdown() -> None:
    text = writers.tex(made(3))
    assert r"row & h1 & h2 \\" in text and r"r2 & 2.1 & 2.2 \\" in text
    assert len(re.findall(r"\\\\$", text, re.M)) == 4


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    for text in ("{", "[]", '{"name": 1}', writers.dumps(made(3)).replace('["r1", "r1"], ', "")):
        path.write_text(text)
        with pytest.raises(UserError, match=r"t\.json is damaged"):
            writers.load(path)


def test_a_failed_cell_has_no_path_and_no_trace() -> None:
    for text, shown in {
        "failed: predictions/idt/scores.parquet is not there": "failed: idt's scores.parquet is not there",
        "failed: /home/someone/x/scores.csv: bad\nTraceback (most recent": "failed: x's scores.csv: bad",
        "failed: absent.parquet is not there": "failed: absent.parquet is not there",
        "64xN/AxN/A": "64xN/AxN/A",
    }.items():
        assert writers.reason(text) == shown


def test_no_written_cell_is_a_path_or_a_trace(tmp_path: Path) -> None:
    failed = "failed: data/predictions/idt/predictions.parquet is not there\nTraceback"
    cells = (Cell("row", "idt", {"row": "idt"}), Cell("top-1", failed, {"status": failed}))
    writers.save(tmp_path, Table("t", "T", (cells,)))
    for path in tmp_path.iterdir():
        text = path.read_text()
        assert "idt's predictions.parquet is not there" in text and "data/" not in text and "Traceback" not in text
