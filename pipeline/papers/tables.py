"""A paper's tables again: each printed number with ours, its verdict, and the gain over the row that it changes."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from pipeline.config.schema import Params
from pipeline.errors import UserError
from pipeline.measure.crossed import Estimate
from pipeline.measure.results import Result, common
from pipeline.measure.uncertainty import Interval
from pipeline.papers import claims, curves
from pipeline.papers.gains import NOT_RUN, PRINTED, Gain, gains
from pipeline.papers.match import Costs, Number, in_unit, numbers, scaled
from pipeline.papers.printed_costs import Line
from pipeline.papers.printed_costs import load as load_figures
from pipeline.papers.published import PAPERS, Classes, Column, Paper, PaperTable, Row, conditions, load, meant
from pipeline.report import exports
from pipeline.report import table as writers
from pipeline.report.table import ALWAYS, BLANK, DATA, Cell, Table
from pipeline.storage.atomic import write

KEY = ("paper", "table", "row", "quantity")  # of a figure of parity.yaml


@dataclass(frozen=True)
class Replica:
    """A paper's tables with ours."""

    name: str
    paper: Paper
    cells: Mapping[str, Sequence[Number]]  # by table
    gains: Mapping[str, Sequence[Gain]]


def of_suite(suite: str) -> list[str]:
    """The papers whose tables a suite writes: the one that it is called by, or all for suite "all"."""
    return list(PAPERS) if suite == "all" else [suite] if suite in PAPERS else []


def replica(name: str, given: Params, found: Mapping[str, Result], papers: Path, counts: Path) -> Replica:
    """Match a paper's tables with results, whatever has run.

    Args:
        name: The paper.
        given: The params of its suite.
        found: Results by row.
        papers: The folder of the printed numbers.
        counts: The CSV of parameters and FLOPs as counted.
    """
    paper, costs = load(name, papers), _costs(name, papers, counts)
    gained = {table: gains(paper, table, given, found) for table in paper.tables}
    cells = {table: numbers(paper, table, given, found, costs, gained[table]) for table in paper.tables}
    return Replica(name, paper, cells, gained)


def save(folder: Path, pictures: Path, given: Params, found: Mapping[str, Result], papers: Path, counts: Path) -> None:
    """Write the tables of the paper that the suite is called by, or of all five for suite "all"; of others, none.

    With them the paper's claims, and an index. A table is written whatever has run, a picture where a row of it has.
    The same results give the same bytes.
    """
    replicas = [replica(name, given, found, papers, counts) for name in of_suite(given.suite)]
    for one in replicas:
        claims.draw(one, pictures / f"gains-{one.name}.svg")
        prefix = f"{one.name}-" if given.suite == "all" else ""
        for name, table in one.paper.tables.items():
            writers.save(folder, of(f"{prefix}{name}", one, name, found))
            curves.draw(table, one.cells[name], pictures / f"{prefix}{name}")
            if drawn := table.classes:
                other = f"{prefix}{drawn.figure}"
                _classes(table, drawn, found, folder / f"{other}.csv", pictures / f"{other}.svg")
    if replicas:
        claims.save(folder, replicas)
        write(folder / "README.md", _index(given, replicas))


def of(name: str, replica: Replica, key: str, found: Mapping[str, Result]) -> Table:
    """One table of a paper, a line a printed number."""
    table, notes = replica.paper.tables[key], _Notes()
    # A gain that is printed as such is a cell itself.
    over = [gain for gain in replica.gains[key] if gain.of.measure not in PRINTED]
    by_place = {(gain.row.label, gain.column): gain for gain in over}
    rows = [
        _line(cell, by_place.get((cell.row.label, cell.column)), notes, found.get(cell.system or ""))
        for cell in replica.cells[key]
    ]
    about = f"{replica.paper.title}. Split: {table.split}.{_tests(replica.paper, table)}"
    numbered = (f"{at}. {note}" for note, at in notes.numbers.items())
    return Table(name, f"{key}: {table.caption}", tuple(map(tuple, rows)), (about, *table.notes, *numbered))


def settings(row: Row) -> str:
    """What the paper says of a row, e.g. "backbone ResNet-50, frames 8"."""
    return ", ".join(f"{key} {value}" for key, value in row.settings.items())


def _line(cell: Number, gain: Gain | None, notes: "_Notes", result: Result | None) -> list[Cell]:
    of, row = cell.of, cell.row
    places = 2 if of.unit == "fraction" else 0
    unit = "" if of.unit in ("fraction", "ratio", "count") else f" {of.unit}"
    said = [row.notes[key] for key in ("row", cell.column) if key in row.notes]
    marks = notes.mark([*said, *([cell.reason] if cell.reason and cell.verdict != NOT_RUN else [])])
    printed_gain = f"{gain.printed.scaleb(places):f}" if gain else ""
    estimate = cell.estimate
    return [
        Cell("row", row.label, {"row": row.label, "settings": settings(row)}, ALWAYS),
        Cell("run by", row.run, {"run_by": row.run}),
        Cell("of", of.heading + unit, {
            "column": of.heading, "data_set": cell.dataset, "unit": "%" if places else of.unit,
        }, ALWAYS),
        Cell("printed", cell.printed or BLANK, {
            "as_printed": cell.printed or "",
            "printed": f"{Decimal(cell.printed).scaleb(places):f}" if cell.printed else "",
        }, ALWAYS),
        Cell("ours", _ours(cell), {
            "status": "ok" if cell.ours else cell.verdict,
            **_interval("ours", of, cell.ours, bounds=cell.videos is not None),
            **_spread(estimate, result),
        }, ALWAYS),
        Cell("verdict", BLANK if cell.verdict in (NOT_RUN, "") else cell.read or cell.verdict, {
            "verdict": cell.verdict, "why": cell.reason,
        }, ALWAYS),
        Cell("gain printed", f"{gain.printed:+f}" if gain and gain.printed else BLANK, {
            "gain_over": gain.over if gain else "", "printed_gain": printed_gain,
        }),
        Cell("gain, ours", in_unit(of, scaled(of, gain.less), "+") if gain else BLANK, {
            **_interval("gain", of, scaled(of, gain.less) if gain else None),
            "p_holm": f"{gain.p:.6g}" if gain and gain.p is not None else "",
            "ratio": f"{gain.ratio:.2f}" if gain and gain.ratio is not None else "",
        }),
        Cell("the gain", gain.read if gain and gain.verdict != NOT_RUN else BLANK, {
            "gain_verdict": gain.verdict if gain else "",
            "seeds_needed": str(gain.seeds_needed or "") if gain else "",
        }),
        Cell("note", marks or BLANK, {"notes": "; ".join(said)}),
        Cell("experiment", cell.system or BLANK, {"experiment": cell.system or ""}, DATA),
        Cell("protocol", result.protocol if result else BLANK, {"protocol": result.protocol if result else ""}, DATA),
    ]  # fmt: skip


def _ours(cell: Number) -> str:
    if cell.ours is None:
        return BLANK
    value, low, high = cell.shown
    return f"{value} [{low}, {high}]" if cell.videos is not None else value


def _spread(found: Estimate | None, result: Result | None) -> dict[str, str]:
    """On how much ours was measured, and each seed's value, in %."""
    by_seed = {}
    if found and result:
        by_seed = dict(zip(sorted(result.seeds), found.by_seed, strict=False))
    return {
        "sd_of_seeds": writers.number(100 * found.sd, 4) if found and found.seeds > 1 else "",
        "by_seed": " ".join(f"{seed}:{100 * value:.4f}" for seed, value in by_seed.items()),
        "n": str(found.videos) if found else "",
        "units": str(found.units) if found else "",
        "seeds": str(found.seeds) if found else "",
    }


def _interval(key: str, of: Column, found: Interval | None, bounds: bool = True) -> dict[str, str]:
    """Values of the CSV: shares in %, also where the paper prints fractions. A count has no bounds."""
    scale = 100 if of.unit == "fraction" else 1
    values = (found.value, found.low if bounds else None, found.high if bounds else None) if found else (None,) * 3
    names = (key, f"{key}_low", f"{key}_high")
    return {
        name: "" if value is None else writers.number(scale * value, 4)
        for name, value in zip(names, values, strict=True)
    }


class _Notes:
    """Footnotes, numbered as they come, each once."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def mark(self, texts: Iterable[str]) -> str:
        return ", ".join(str(self.numbers.setdefault(text, len(self.numbers) + 1)) for text in texts)


def _tests(paper: Paper, table: PaperTable) -> str:
    """The test protocols of a table's cells, in the paper's words."""
    names = dict.fromkeys(conditions(table, row, column).protocol for row in table.rows for column in table.columns)
    return "".join(f" Test protocol {name}: {paper.protocols[name].words}." for name in names if name)


def _index(given: Params, replicas: Sequence[Replica]) -> str:
    """What somebody reads who opens the folder: the tables, how to run them, and what the papers leave open."""
    parts = []
    for one in replicas:
        prefix = f"{one.name}-" if given.suite == "all" else ""
        parts.append(f"# {one.paper.title}")
        parts.append(
            "Each printed number with ours next to it. [claims](claims.md) has the paper's gains with their verdicts; "
            f"[the guide]({writers.GUIDE}) says what the columns mean."
        )
        parts.append(
            "\n".join(f"- [{name}]({prefix}{name}.md): {table.caption}" for name, table in one.paper.tables.items())
        )
    tier = "" if given.tier.name == "full" else f" -S tier={given.tier.name}"
    parts.append(f"To run them:\n\n```\ndvc exp run -S suite={given.suite}{tier}\n```")
    for one in replicas:
        parts.append(f"Left open by {one.paper.short}'s paper, and the reading taken:")
        parts.append("\n".join(f"- {open.what}: {open.reading}" for open in one.paper.unstated))
    return "\n\n".join(parts) + "\n"


def _classes(table: PaperTable, drawn: Classes, found: Mapping[str, Result], path: Path, picture: Path) -> None:
    """Every class by gain as CSV, the first as a picture; neither where row or base has not run."""
    rows = {row.label: row for row in table.rows}
    own = rows[drawn.row]
    one, base = (found.get(meant(row.ours, table, drawn.column) or "") for row in (own, rows[own.base or ""]))
    if one and base and not isinstance(common(one, base), str):
        exports.save_gains(path, base, [one])
        curves.draw_classes(one, base, drawn, picture)


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
