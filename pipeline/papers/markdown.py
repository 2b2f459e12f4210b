"""A paper's table again as Markdown: ours in each printed cell, whether gains survive, notes, where ours are from."""

from collections.abc import Iterable, Mapping, Sequence

from pipeline.config.schema import Params
from pipeline.measure import verdict
from pipeline.measure.results import Result
from pipeline.measure.uncertainty import Interval
from pipeline.papers.gains import Gain
from pipeline.papers.match import Number
from pipeline.papers.published import Column, Paper, PaperTable, Row, conditions
from pipeline.report.table import BLANK, Cell, markdown

NOTE = (
    "A cell has the printed number, then ours with its 95 % interval (bootstrap over videos, and over seeds where "
    "there are several), the number of test videos n, and what the difference means. Reproduced: the whole interval "
    f"lies within {100 * verdict.MARGIN:g} point of the printed number (an equivalence test: two one-sided tests at "
    "2.5 %). Below, above: the whole interval lies on one side of it. Within noise: neither, so these videos and seeds "
    "can't tell. Protocol differs: not measured as the paper's was, so no verdict; the notes say in what. Parameters "
    "and FLOPs are counts: reproduced to the last printed digit, or not. A printed number is taken as exact. Quoted: "
    "the paper's authors took the row from another paper."
)
GAINS = (
    "Each row less the row it changes, on the same videos, splits and seeds, in points. p: exact paired test "
    "(McNemar's; over several seeds or splits its generalisation by sign flips; of mAP a paired bootstrap test), "
    "two-sided, Holm-adjusted for this table's rows. Survives: p < 0.05 and an interval on the printed side of 0. "
    "Doesn't: the whole interval lies short of half the printed gain. Needed: how many test videos, or seeds on these "
    f"videos, would see the printed gain with a chance of {100 * verdict.POWER:g} %, from the share of videos on which "
    "the two rows disagree and from the spread of the seeds' gains."
)


def text(
    paper: Paper,
    name: str,
    cells: Sequence[Number],
    survived: Sequence[Gain],
    given: Params,
    found: Mapping[str, Result],
) -> str:
    """A table's Markdown: the print with ours in each cell, the gains, notes, and where the numbers come from."""
    table, notes = paper.tables[name], _Notes()
    lines = _lines(table, cells, notes)
    parts = [f"# {name}: {table.caption}", f"{paper.title}. Split: {table.split}.{_tests(paper, table)}"]
    parts += [markdown(lines).rstrip("\n")] if lines else []
    parts += [NOTE]
    parts += ["Gains:", markdown(_gain_lines(survived)).rstrip("\n"), GAINS] if survived else []
    parts += table.notes
    parts += ["\n".join(f"{at}. {note}" for note, at in notes.numbers.items())] if notes.numbers else []
    parts += ["Left open by the paper, and the reading taken:"]
    parts += ["\n".join(f"- {one.what}: {one.reading}" for one in paper.unstated)]
    parts += _provenance(cells, given, found)
    return "\n\n".join(parts) + "\n"


def _tests(paper: Paper, table: PaperTable) -> str:
    """The test protocols of a table's cells, in the paper's words."""
    names = dict.fromkeys(conditions(table, row, column).protocol for row in table.rows for column in table.columns)
    return "".join(f" Test protocol {name}: {paper.protocols[name].words}." for name in names if name)


def _lines(table: PaperTable, cells: Sequence[Number], notes: "_Notes") -> list[list[Cell]]:
    """A line a row, with what the paper says of it, and a cell for each column that has something in any row."""
    columns = {column: of for column, of in table.columns.items() if any(cell.column == column for cell in cells)}
    by_place = {(cell.row.label, cell.column): cell for cell in cells}
    lines = []
    for row in table.rows:
        line = [Cell("row", row.label + notes.mark([row.notes["row"]] if "row" in row.notes else []), {})]
        line.append(Cell("run by", row.run, {}))
        if any(other.settings for other in table.rows):
            line.append(Cell("settings", settings(row), {}))
        for column, of in columns.items():
            cell = by_place.get((row.label, column))
            said = [row.notes[column]] if cell and column in row.notes else []
            said += [cell.reason] if cell and cell.reason else []
            heading = of.heading + ("" if of.unit in ("fraction", "ratio", "count") else f" {of.unit}")
            line.append(Cell(heading, (read(cell) if cell else BLANK) + notes.mark(said), {}))
        lines.append(line)
    return lines


def settings(row: Row) -> str:
    """What the paper says of a row, e.g. "backbone ResNet-50, frames 8"."""
    return ", ".join(f"{key} {value}" for key, value in row.settings.items())


def read(cell: Number) -> str:
    """A cell in short, e.g. "62.5; ours 61.9 [59.4, 64.4], n = 1530: within noise" or "62.5; not run"."""
    if cell.ours is None:
        return f"{cell.printed}; {cell.verdict}" if cell.printed else BLANK
    value, low, high = cell.shown
    ours = f"ours {value}" + (f" [{low}, {high}], n = {cell.videos}" if cell.videos is not None else "")
    return f"{cell.printed}; {ours}: {cell.verdict}" if cell.printed else ours


class _Notes:
    """Footnotes, numbered as they come, each once."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def mark(self, texts: Iterable[str]) -> str:
        found = [self.numbers.setdefault(text, len(self.numbers) + 1) for text in texts]
        return f" ({', '.join(map(str, found))})" if found else ""


def _gain_lines(survived: Sequence[Gain]) -> list[list[Cell]]:
    return [
        [
            Cell("row", gain.row.label, {}),
            Cell("over", gain.base.label, {}),
            Cell("in", gain.of.heading, {}),
            Cell("printed gain", f"{gain.printed.scaleb(2 if gain.of.unit == 'fraction' else 0):+f}", {}),
            Cell("our gain", "{:+.1f} [{:+.1f}, {:+.1f}]".format(*_bounds(in_points(gain.of, gain.ours))), {}),
            Cell("p (Holm)", "< 0.001" if gain.p < 0.001 else f"{gain.p:.3f}", {}),
            Cell("the gain", gain.verdict, {}),
            Cell("videos needed", str(gain.videos_needed or BLANK), {}),
            Cell("seeds needed", str(gain.seeds_needed or BLANK), {}),
        ]
        for gain in survived
    ]


def in_points(of: Column, ours: Interval | None) -> Interval | None:
    """An interval in %, where the paper prints fractions; else as it is."""
    return Interval(*(100 * bound for bound in _bounds(ours))) if ours and of.unit == "fraction" else ours


def _bounds(ours: Interval | None) -> tuple[float, ...]:
    return (ours.value, ours.low, ours.high) if ours else ()


def _provenance(cells: Sequence[Number], given: Params, found: Mapping[str, Result]) -> list[str]:
    """What was run, on what, and how to run it again; a row's files lie under data/, which DVC keeps."""
    rows = sorted({cell.system for cell in cells if cell.system})
    if not rows:
        return ["No row of ours stands in this table."]
    lines = []
    for row in rows:
        result = found.get(row)
        ran = result is not None and not isinstance(result.accuracy, str)
        links = (
            [f"[{one}](../../../data/predictions/{one}/predictions.parquet)" for one in _members(given, row)]
            if ran
            else [BLANK]
        )
        lines.append(
            [
                Cell("experiment", row, {}),
                Cell("system", ", ".join(filter(None, (result.backbone, result.attention))) if result else BLANK, {}),
                Cell("data set", result.dataset if result else BLANK, {}),
                Cell("splits", " ".join(map(str, result.splits)) if result else BLANK, {}),
                Cell("seeds", " ".join(map(str, result.seeds)) if result else BLANK, {}),
                Cell("protocol", result.protocol if result else f"suite {given.suite} has no such row", {}),
                Cell("predictions", ", ".join(links), {}),
            ]
        )
    tier = "" if given.tier.name == "full" else f" -S tier={given.tier.name}"
    members = dict.fromkeys(member for row in rows for member in _members(given, row))
    stages = " ".join(f"{'trajectories' if one in given.trajectories else 'evaluate'}@{one}" for one in members)
    return [
        f"Where it comes from: suite {given.suite}, tier {given.tier.name}, by [params.yaml](../../../params.yaml).",
        markdown(lines).rstrip("\n"),
        "To run this table again:",
        f"```\ndvc exp run -S suite={given.suite}{tier} {stages}\ndvc repro -s aggregate\n```",
        f'Each run\'s params and curves are in MLflow (`make mlflow`), found by `tags."actionbench.name" = '
        f"'{given.suite}/<experiment>'`; `actionbench explain <table> <row>` names the run and all else it came from.",
    ]


def _members(given: Params, row: str) -> list[str]:
    return list(given.fusions[row].rows) if row in given.fusions else [row]
