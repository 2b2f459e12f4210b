"""The papers' claims: each printed gain with ours, and a scoreboard of verdicts."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING

from pipeline.measure import claims as verdicts
from pipeline.papers.gains import DIFFERS, FAILED, NONE_PRINTED, NOT_RUN, PRINTED, Gain
from pipeline.papers.match import in_unit
from pipeline.report import table as writers
from pipeline.report.figures import COLOURS, GREY, drawing, intervals
from pipeline.report.table import ALWAYS, BLANK, DATA, Cell, Table, interval_data
from pipeline.storage.atomic import write

if TYPE_CHECKING:
    from pipeline.papers.tables import Replica

SCORES = {  # a verdict, and its column in the CSV
    verdicts.SURVIVES: "survives",
    verdicts.SMALLER: "smaller",
    verdicts.LARGER: "larger",
    verdicts.DOESNT: "doesnt",
    verdicts.REVERSED: "reversed",
    verdicts.CANT_TELL: "cant_tell",
    NOT_RUN: "not_run",
}
# Gains measured under other conditions say nothing about the claim.
SAME_AS = {FAILED: NOT_RUN} | dict.fromkeys((DIFFERS, verdicts.OTHER_WEIGHTS, verdicts.OTHER_VIEWS), verdicts.CANT_TELL)
LONGEST = 72  # characters of a claim in the picture
CLAIMS = (
    "A paper's gains over the row that it changes, in its authors' own runs; the headline first, and each gain once. "
    "Ours: on the same test videos, with the same seeds. Ratio: ours / printed."
)
SCOREBOARD = (
    "Costs met: printed parameters and FLOPs that our counts equal to the last digit. Gains measured under another "
    "protocol count as can't tell."
)


def listed(replica: "Replica") -> Iterator[tuple[str, Gain, bool]]:
    """Yield (table, gain, is headline) of a paper's claims, headlines first."""
    every = [
        (table, gain)
        for table, gains in replica.gains.items()
        for gain in gains
        if gain.row.run == "authors" and gain.printed and gain.of.measure not in PRINTED
    ]
    places = {place: number for number, place in enumerate(replica.paper.headline)}
    place = lambda claim: places.get((claim[0], claim[1].row.label, claim[1].column), len(places))  # noqa: E731
    seen: set[object] = set()
    for table, gain in sorted(every, key=place):
        # The same two systems may be in another table; a claim without systems of ours is unique.
        same = (gain.systems, round(gain.claimed, 6)) if gain.systems else (table, gain.row.label, gain.column)
        if same not in seen:
            seen.add(same)
            yield table, gain, place((table, gain)) < len(places)


def table(replicas: Sequence["Replica"]) -> Table:
    """Return all claims of some papers, a line each."""
    rows = [_line(replica, name, gain, headline) for replica in replicas for name, gain, headline in listed(replica)]
    return Table("claims", "Printed gains, and ours", tuple(map(tuple, rows)), (CLAIMS,))


def scoreboard(replicas: Sequence["Replica"]) -> Table:
    """Return a line a paper: its claims by verdict, and the printed costs we meet."""
    rows = []
    for replica in replicas:
        gains = [gain for _, gain, _ in listed(replica)]
        counts = Counter(SAME_AS.get(gain.verdict, gain.verdict) for gain in gains)
        costs = [
            cell for cells in replica.cells.values() for cell in cells if cell.of.measure == "cost" and cell.printed
        ]
        met = sum(cell.verdict == verdicts.REPRODUCED for cell in costs)
        row = [Cell("paper", replica.paper.short, {"paper": replica.paper.short}, ALWAYS)]
        row.append(Cell("gains", str(len(gains)), {"gains": str(len(gains))}, DATA))
        for score, key in SCORES.items():
            read, place = str(counts[score] or BLANK), DATA if score == verdicts.LARGER else ALWAYS
            if score == verdicts.SURVIVES:  # a gain that is larger than the printed one has survived
                read = str(counts[score] + counts[verdicts.LARGER] or BLANK)
            row.append(Cell(score, read, {key: str(counts[score])}, place))
        text = f"{met} of {len(costs)}" if costs else BLANK
        row.append(Cell("costs met", text, {"costs_met": str(met), "costs": str(len(costs))}, ALWAYS))
        rows.append(tuple(row))
    return Table("scoreboard", "Verdicts on the printed gains", tuple(rows), (SCOREBOARD,))


def save(folder: Path, replicas: Sequence["Replica"]) -> None:
    """Write claims and scoreboard; claims.md has both."""
    scores, claims = scoreboard(replicas), table(replicas)
    writers.save(folder, scores)
    writers.save(folder, claims)
    write(folder / "claims.md", f"{writers.markdown(scores)}\n{writers.markdown(claims, 2)}")


def draw(replica: "Replica", path: Path) -> None:
    """Draw a paper's printed gains, and ours with intervals."""
    claims = list(listed(replica))
    if not claims:
        return
    places = range(len(claims))
    with drawing(path, 9.0, 0.24 * len(claims) + 1.2) as figure:
        axes = figure.subplots()
        axes.axvline(0, color=GREY, linewidth=0.8)
        axes.plot([100 * gain.claimed for _, gain, _ in claims], places, "D", mfc="none", mec=COLOURS[1], ms=5)
        axes.plot([], [], "D", mfc="none", mec=COLOURS[1], label="printed")
        if ours := {y: gain.less for y, (_, gain, _) in enumerate(claims) if gain.less}:
            intervals(axes, ours)
            axes.plot([], [], "|", color=COLOURS[0], mew=2, label="ours, 95 % interval; dots: seeds")
        axes.set_yticks(places, [_label(*claim) for claim in claims], fontsize=7)
        axes.set_ylim(len(claims) - 0.4, -0.6)
        axes.set_xlabel("gain, points")
        axes.set_title(f"{replica.paper.short}: printed gains, and ours", fontsize=9, loc="left")
        figure.legend(loc="outside lower left", ncols=2, fontsize=7)


def _label(name: str, gain: Gain, headline: bool) -> str:
    text = f"{'★ ' if headline else ''}{name} {gain.row.label} over {gain.over}, {gain.of.heading}"
    return shorten(text, LONGEST, placeholder=" ...")


def _line(replica: "Replica", name: str, gain: Gain, headline: bool) -> list[Cell]:
    of, less = gain.of, gain.less
    where = f"{replica.paper.short} {name}" + (" ★" if headline else "")
    return [
        Cell("where", where, {"paper": replica.name, "table": name, "headline": "yes" if headline else "no"}, ALWAYS),
        Cell("row", gain.row.label, {"row": gain.row.label}, ALWAYS),
        Cell("over", gain.over, {"over": gain.over}, ALWAYS),
        Cell("of", of.heading, {"column": of.heading, "data_set": gain.dataset}, ALWAYS),
        Cell("printed", f"{gain.printed:+f}", {"printed": f"{100 * gain.claimed:.4f}"}, ALWAYS),
        Cell("ours", in_unit(of, less, "+"), interval_data("ours", less), ALWAYS),
        Cell("ratio", BLANK if gain.ratio is None else f"{gain.ratio:.2f}",
             {"ratio": "" if gain.ratio is None else f"{gain.ratio:.4f}"}, ALWAYS),
        Cell("verdict", BLANK if gain.verdict in (NOT_RUN, NONE_PRINTED) else gain.read, {
            "verdict": gain.verdict, "why": gain.why, "p_holm": "" if gain.p is None else f"{gain.p:.6g}",
            "seeds": str(less.seeds) if less else "", "n": str(less.videos) if less else "",
            "units": str(less.units) if less else "", "seeds_needed": str(gain.seeds_needed or ""),
        }, ALWAYS),
    ]  # fmt: skip
