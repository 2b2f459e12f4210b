"""A paper's tables again, as files: Markdown to read, CSV to compute with, TeX to print."""

import csv
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path

from pipeline.config.schema import Params
from pipeline.errors import UserError
from pipeline.measure.results import Result, common
from pipeline.measure.uncertainty import Interval
from pipeline.papers import curves, markdown, tex
from pipeline.papers.gains import Gain, gains
from pipeline.papers.markdown import in_points
from pipeline.papers.match import Costs, Number, numbers
from pipeline.papers.printed_costs import Line
from pipeline.papers.printed_costs import load as load_figures
from pipeline.papers.published import PAPERS, Classes, PaperTable, load, meant
from pipeline.report import exports
from pipeline.report.table import csv_text
from pipeline.storage.atomic import write

KEY = ("paper", "table", "row", "quantity")  # of a figure of parity.yaml


def save(folder: Path, pictures: Path, given: Params, found: Mapping[str, Result], papers: Path, counts: Path) -> None:
    """Writes the tables of the paper that the suite is called by, or of all five for suite "all"; of others, none.

    `papers` is the folder of the printed numbers, `counts` the CSV of parameters and FLOPs as counted. A table is
    written whatever has run, a picture where a row of it has. The same results give the same bytes.
    """
    for name in PAPERS if given.suite == "all" else [given.suite] if given.suite in PAPERS else []:
        paper, costs = load(name, papers), _costs(name, papers, counts)
        for table in paper.tables:
            cells = numbers(paper, table, given, found, costs)
            survived = gains(paper, table, given, found)
            stem = f"{name}-{table}" if given.suite == "all" else table
            path = folder / stem
            write(path.with_suffix(".md"), markdown.text(paper, table, cells, survived, given, found))
            write(path.with_suffix(".csv"), csv_text(*_records(cells, survived, found)))
            write(path.with_suffix(".tex"), tex.tabular(paper, table, cells))
            curves.draw(paper.tables[table], cells, pictures / stem)
            if drawn := paper.tables[table].classes:
                other = f"{name}-{drawn.figure}" if given.suite == "all" else drawn.figure
                _classes(paper.tables[table], drawn, found, folder / f"{other}.csv", pictures / f"{other}.svg")


def _classes(table: PaperTable, drawn: Classes, found: Mapping[str, Result], path: Path, picture: Path) -> None:
    """Every class by gain as CSV, the first as a picture; neither where row or base has not run."""
    rows = {row.label: row for row in table.rows}
    own = rows[drawn.row]
    one, base = (found.get(meant(row.ours, table, drawn.column) or "") for row in (own, rows[own.base or ""]))
    if one and base and not isinstance(common(one, base), str):
        exports.save_gains(path, base, [one])
        curves.draw_classes(one, base, drawn, picture)


def _records(
    cells: Sequence[Number], survived: Sequence[Gain], found: Mapping[str, Result]
) -> tuple[list[str], list[list[str]]]:
    """Headings and lines of the CSV, a line a cell; shares in %, also where the paper prints fractions."""
    by_place = {(gain.row.label, gain.column): gain for gain in survived}
    lines = []
    for cell in cells:
        places, gain = (2 if cell.of.unit == "fraction" else 0), by_place.get((cell.row.label, cell.column))
        result = found.get(cell.system or "")
        lines.append(
            {
                "row": cell.row.label,
                "run_by": cell.row.run,
                "column": cell.of.heading,
                "settings": markdown.settings(cell.row),
                "data_set": cell.dataset,
                "unit": "%" if cell.of.unit == "fraction" else cell.of.unit,
                "as_printed": cell.printed or "",
                "printed": f"{Decimal(cell.printed).scaleb(places):f}" if cell.printed else "",
                "status": "ok" if cell.ours else cell.verdict,
                **_interval("ours", in_points(cell.of, cell.ours), bounds=cell.videos is not None),
                "n": "" if cell.videos is None else str(cell.videos),
                "seeds": str(len(result.seeds)) if result and cell.ours else "",
                "verdict": cell.verdict,
                "why": cell.reason,
                "gain_over": gain.base.label if gain else "",
                "printed_gain": f"{gain.printed.scaleb(places):f}" if gain else "",
                **_interval("gain", in_points(cell.of, gain.ours) if gain else None),
                "p_holm": f"{gain.p:.6f}" if gain else "",
                "gain_verdict": gain.verdict.partition(" (")[0] if gain else "",
                "videos_needed": str(gain.videos_needed or "") if gain else "",
                "seeds_needed": str(gain.seeds_needed or "") if gain else "",
                "experiment": cell.system or "",
                "protocol": result.protocol if result else "",
                "notes": "; ".join(cell.row.notes[key] for key in ("row", cell.column) if key in cell.row.notes),
            }
        )
    return list(lines[0]) if lines else ["row"], [list(line.values()) for line in lines]


def _interval(key: str, found: Interval | None, bounds: bool = True) -> dict[str, str]:
    """A count has no bounds."""
    value, low, high = (found.value, found.low, found.high) if found else (None, None, None)
    named = {key: value, f"{key}_low": low if bounds else None, f"{key}_high": high if bounds else None}
    return {name: "" if number is None else f"{round(number, 4) + 0.0:.4f}" for name, number in named.items()}


def _costs(paper: str, papers: Path, counts: Path) -> Costs:
    """The paper's figures of parity.yaml, with ours as the CSV has them counted."""
    try:
        with counts.open(newline="", encoding="utf-8") as file:
            counted = {tuple(line[key] for key in KEY): Decimal(line["ours"]) for line in csv.DictReader(file)}
        figures = [one for one in load_figures(papers / "parity.yaml").figures if one.paper == paper]
        return {
            (one.table, one.row, one.quantity): Line(one, counted[one.paper, one.table, one.row, one.quantity])
            for one in figures
        }
    except (OSError, KeyError, ArithmeticError) as error:
        raise UserError(f"{counts} lacks {error}; `actionbench models --parity` writes it") from None
