"""A paper's tables: each printed number with ours, its verdict, and its gain."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from pipeline.config.schema import Params
from pipeline.errors import UserError
from pipeline.measure.crossed import Estimate
from pipeline.measure.results import Result, common
from pipeline.papers import claims, curves
from pipeline.papers.gains import NOT_RUN, PRINTED, Gain, gains
from pipeline.papers.match import Costs, Match, in_unit, matches
from pipeline.papers.printed_costs import Line
from pipeline.papers.printed_costs import load as load_figures
from pipeline.papers.published import Classes, Paper, PaperTable, conditions, load, meant, of_suite
from pipeline.report import exports
from pipeline.report import table as writers
from pipeline.report.table import ALWAYS, BLANK, DATA, Cell, Table, interval_data
from pipeline.storage.atomic import write

KEY = ("paper", "table", "row", "quantity")  # of a figure of parity.yaml


@dataclass(frozen=True)
class Replica:
    """A paper's tables with ours."""

    name: str
    paper: Paper
    cells: Mapping[str, Sequence[Match]]  # by table
    gains: Mapping[str, Sequence[Gain]]


def replica(name: str, params: Params, results: Mapping[str, Result], papers: Path, counts: Path) -> Replica:
    """Match a paper's tables with the rows that have run.

    Args:
        name: The paper.
        params: The params of its suite.
        results: Results by row.
        papers: The folder of the printed numbers.
        counts: The CSV of counted parameters and FLOPs.
    """
    paper, costs = load(name, papers), _costs(name, papers, counts)
    gained = {table: gains(paper, table, params, results) for table in paper.tables}
    cells = {table: matches(paper, table, params, results, costs, gained[table]) for table in paper.tables}
    return Replica(name, paper, cells, gained)


def save(
    folder: Path, pictures: Path, params: Params, results: Mapping[str, Result], papers: Path, counts: Path
) -> list[Replica]:
    """Write the tables, claims and index of the suite's papers; return the papers.

    A table is written even if nothing has run, a picture if a row of it has. The same results give the same bytes. The
    arguments are those of replica(), and the folders to write to.
    """
    prefixes = of_suite(params.suite)
    replicas = [replica(name, params, results, papers, counts) for name in prefixes]
    for ours in replicas:
        claims.draw(ours, pictures / f"gains-{ours.name}.svg")
        prefix = prefixes[ours.name]
        for name, table in ours.paper.tables.items():
            writers.save(folder, of(f"{prefix}{name}", ours, name, results))
            curves.draw(table, ours.cells[name], pictures / f"{prefix}{name}")
            if drawn := table.classes:
                other = f"{prefix}{drawn.figure}"
                _classes(table, drawn, results, folder / f"{other}.csv", pictures / f"{other}.svg")
    if replicas:
        claims.save(folder, replicas)
        write(folder / "README.md", _index(params, replicas))
    return replicas


def of(name: str, replica: Replica, key: str, results: Mapping[str, Result]) -> Table:
    """Return one table of a paper, a line a printed number."""
    table = replica.paper.tables[key]
    numbers: dict[str, int] = {}  # footnote -> its number
    # A column of printed gains has them as its cells.
    over = [gain for gain in replica.gains[key] if gain.of.measure not in PRINTED]
    by_place = {(gain.row.label, gain.column): gain for gain in over}
    rows = [
        _line(cell, by_place.get((cell.row.label, cell.column)), numbers, results.get(cell.system or ""))
        for cell in replica.cells[key]
    ]
    about = f"{replica.paper.title}. Split: {table.split}.{_tests(replica.paper, table)}"
    numbered = (f"{at}. {note}" for note, at in numbers.items())
    return Table(name, f"{key}: {table.caption}", tuple(map(tuple, rows)), (about, *table.notes, *numbered))


def _line(cell: Match, gain: Gain | None, numbers: dict[str, int], result: Result | None) -> list[Cell]:
    of, row = cell.of, cell.row
    places = 2 if of.unit == "fraction" else 0
    unit = "" if of.unit in ("fraction", "ratio", "count") else f" {of.unit}"
    notes = [row.notes[key] for key in ("row", cell.column) if key in row.notes]
    texts = [*notes, *([cell.reason] if cell.reason and cell.verdict != NOT_RUN else [])]
    marks = ", ".join(str(numbers.setdefault(text, len(numbers) + 1)) for text in texts)
    printed_gain = f"{gain.printed.scaleb(places):f}" if gain else ""
    bounds = {} if cell.estimate else {"ours_low": "", "ours_high": ""}  # a count has none
    settings = ", ".join(f"{key} {value}" for key, value in row.settings.items())
    return [
        Cell("row", row.label, {"row": row.label, "settings": settings}, ALWAYS),
        Cell("run by", row.run, {"run_by": row.run}),
        Cell("of", of.heading + unit, {
            "column": of.heading, "data_set": cell.dataset, "unit": "%" if places else of.unit,
        }, ALWAYS),
        Cell("printed", cell.printed or BLANK, {
            "as_printed": cell.printed or "",
            "printed": f"{Decimal(cell.printed).scaleb(places):f}" if cell.printed else "",
        }, ALWAYS),
        Cell("ours", cell.shown, {
            "status": "ok" if cell.ours else cell.verdict,
            **interval_data("ours", cell.ours, 10**places),
            **bounds,
            **_spread(cell.estimate, result),
        }, ALWAYS),
        Cell("verdict", BLANK if cell.verdict in (NOT_RUN, "") else cell.read or cell.verdict, {
            "verdict": cell.verdict, "why": cell.reason,
        }, ALWAYS),
        Cell("gain printed", f"{gain.printed:+f}" if gain and gain.printed else BLANK, {
            "gain_over": gain.over if gain else "", "printed_gain": printed_gain,
        }),
        Cell("gain, ours", in_unit(of, gain.less, "+") if gain else BLANK, {
            **interval_data("gain", gain.less if gain else None),
            "p_holm": f"{gain.p:.6g}" if gain and gain.p is not None else "",
            "ratio": f"{gain.ratio:.2f}" if gain and gain.ratio is not None else "",
        }),
        Cell("the gain", gain.read if gain and gain.verdict != NOT_RUN else BLANK, {
            "gain_verdict": gain.verdict if gain else "",
            "seeds_needed": str(gain.seeds_needed or "") if gain else "",
        }),
        Cell("note", marks or BLANK, {"notes": "; ".join(notes)}),
        Cell("experiment", cell.system or BLANK, {"experiment": cell.system or ""}, DATA),
        Cell("protocol", result.protocol if result else BLANK, {"protocol": result.protocol if result else ""}, DATA),
    ]  # fmt: skip


def _spread(estimate: Estimate | None, result: Result | None) -> dict[str, str]:
    """Return the sizes of our measurement, and each seed's value, in %."""
    by_seed = zip(sorted(result.seeds), estimate.by_seed, strict=False) if estimate and result else ()
    return {
        "sd_of_seeds": writers.number(100 * estimate.sd, 4) if estimate else "",
        "by_seed": " ".join(f"{seed}:{100 * value:.4f}" for seed, value in by_seed),
        "n": str(estimate.videos) if estimate else "",
        "units": str(estimate.units) if estimate else "",
        "seeds": str(estimate.seeds) if estimate else "",
    }


def _tests(paper: Paper, table: PaperTable) -> str:
    """Return the test protocols of a table's cells, in the paper's words."""
    names = dict.fromkeys(conditions(table, row, column).protocol for row in table.rows for column in table.columns)
    return "".join(f" Test protocol {name}: {paper.protocols[name].words}." for name in names if name)


def _index(params: Params, replicas: Sequence[Replica]) -> str:
    """Return the folder's README: tables, command, and open details of the papers."""
    parts = []
    for ours in replicas:
        prefix = of_suite(params.suite)[ours.name]
        parts.append(f"# {ours.paper.title}")
        parts.append(
            "Each printed number with ours next to it. [claims](claims.md) has the paper's gains with their verdicts; "
            f"[the guide]({writers.GUIDE}) says what the columns mean."
        )
        tables = ours.paper.tables.items()
        parts.append("\n".join(f"- [{name}]({prefix}{name}.md): {table.caption}" for name, table in tables))
    tier = "" if params.tier.name == "full" else f" -S tier={params.tier.name}"
    parts.append(f"To run them:\n\n```\ndvc exp run -S suite={params.suite}{tier}\n```")
    for ours in replicas:
        parts.append(f"Left open by {ours.paper.short}'s paper, and the reading taken:")
        parts.append("\n".join(f"- {open.what}: {open.reading}" for open in ours.paper.unstated))
    return "\n\n".join(parts) + "\n"


def _classes(table: PaperTable, drawn: Classes, results: Mapping[str, Result], path: Path, picture: Path) -> None:
    """Write all classes by gain, and draw the first, if row and base have run."""
    rows = {row.label: row for row in table.rows}
    row = rows[drawn.row]
    ours, base = (results.get(meant(each.ours, table, drawn.column) or "") for each in (row, rows[row.base or ""]))
    if ours and base and not isinstance(common(ours, base), str):
        exports.save_gains(path, base, [ours])
        curves.draw_classes(ours, base, drawn, picture)


def _costs(paper: str, papers: Path, counts: Path) -> Costs:
    """Return the paper's figures of parity.yaml, with our counts."""
    try:
        with counts.open(newline="", encoding="utf-8") as file:
            counted = {tuple(line[key] for key in KEY): Decimal(line["ours"]) for line in csv.DictReader(file)}
        figures = [figure for figure in load_figures(papers / "parity.yaml").figures if figure.paper == paper]
        places = [(figure.table, figure.row, figure.quantity) for figure in figures]
        return {at: Line(figure, counted[paper, *at]) for at, figure in zip(places, figures, strict=True)}
    except (OSError, KeyError, ArithmeticError) as error:
        raise UserError(f"{counts} lacks {error}; `actionbench models --parity` writes it") from None
