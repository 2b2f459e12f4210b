"""What papers claim, and what is left of it: each printed gain with ours, and a scoreboard."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING

from pipeline.measure import claims as verdicts
from pipeline.papers.gains import DIFFERS, FAILED, NONE_PRINTED, NOT_RUN, PRINTED, Gain
from pipeline.papers.match import in_unit, scaled
from pipeline.report import table as writers
from pipeline.report.figures import COLOURS, GREY, drawing
from pipeline.report.table import ALWAYS, BLANK, DATA, Cell, Table
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
# What isn't like for like tells nothing of the claim.
SAME_AS = {DIFFERS: verdicts.CANT_TELL, FAILED: NOT_RUN, verdicts.OTHER_WEIGHTS: verdicts.CANT_TELL} | {
    verdicts.OTHER_VIEWS: verdicts.CANT_TELL
}
LONGEST = 72  # characters of a claim in the picture
CLAIMS = (
    "A paper's gains over the row that it changes, in its authors' own runs; the headline first, and each gain once. "
    "Ours: on the same test videos, with the same seeds. Ratio: ours / printed."
)
SCOREBOARD = (
    "Parameters and FLOPs: how many printed figures ours meet to the last digit. Gains measured under another protocol "
    "count as can't tell."
)


def listed(replica: "Replica") -> Iterator[tuple[str, Gain, bool]]:
    """Return (table, gain, whether it is a headline) of a paper's claims, headlines first."""
    every = [
        (table, gain)
        for table, gains in replica.gains.items()
        for gain in gains
        if gain.row.run == "authors" and gain.printed and gain.of.measure not in PRINTED
    ]
    places = {place: number for number, place in enumerate(replica.paper.headline)}
    place = lambda one: places.get((one[0], one[1].row.label, one[1].column), len(places))  # noqa: E731
    seen: set[object] = set()
    for table, gain in sorted(every, key=place):
        # The same two systems, in another table; a claim without systems of ours is only itself.
        same = (gain.systems, round(gain.claimed, 6)) if gain.systems else (table, gain.row.label, gain.column)
        if same not in seen:
            seen.add(same)
            yield table, gain, place((table, gain)) < len(places)


def table(replicas: Sequence["Replica"]) -> Table:
    """Every claim of some papers, a line each."""
    rows = [_line(replica, name, gain, headline) for replica in replicas for name, gain, headline in listed(replica)]
    return Table("claims", "Printed gains, and ours", tuple(map(tuple, rows)), (CLAIMS,))


def scoreboard(replicas: Sequence["Replica"]) -> Table:
    """A line a paper: how many of its claims have which verdict, and how many printed costs ours meet."""
    rows = []
    for replica in replicas:
        found = [gain for _, gain, _ in listed(replica)]
        counts = Counter(SAME_AS.get(gain.verdict, gain.verdict) for gain in found)
        costs = [
            cell for cells in replica.cells.values() for cell in cells if cell.of.measure == "cost" and cell.printed
        ]
        met = sum(cell.verdict == verdicts.REPRODUCED for cell in costs)
        row = [Cell("paper", replica.paper.short, {"paper": replica.paper.short}, ALWAYS)]
        row.append(Cell("gains", str(len(found)), {"gains": str(len(found))}, DATA))
        for score, key in SCORES.items():
            read, place = str(counts[score] or BLANK), DATA if score == verdicts.LARGER else ALWAYS
            if score == verdicts.SURVIVES:  # a gain that is larger than the printed one has survived
                read = str(counts[score] + counts[verdicts.LARGER] or BLANK)
            row.append(Cell(score, read, {key: str(counts[score])}, place))
        text = f"{met} of {len(costs)}" if costs else BLANK
        row.append(Cell("costs met", text, {"costs_met": str(met), "costs": str(len(costs))}, ALWAYS))
        rows.append(tuple(row))
    return Table("scoreboard", "What is left of the printed gains", tuple(rows), (SCOREBOARD,))


def save(folder: Path, replicas: Sequence["Replica"]) -> None:
    """Write claims and scoreboard; claims.md has both."""
    scores, claims = scoreboard(replicas), table(replicas)
    writers.save(folder, scores)
    writers.save(folder, claims)
    write(folder / "claims.md", f"{writers.markdown(scores)}\n{writers.markdown(claims, 2)}")


def draw(replica: "Replica", path: Path) -> None:
    """A paper's printed gains (hollow) with ours (filled), in points, with interval and each seed's gain."""
    found = [(name, gain, headline) for name, gain, headline in listed(replica)]
    if not found:
        return
    with drawing(path, 9.0, 0.24 * len(found) + 1.2) as figure:
        axes = figure.subplots()
        axes.axvline(0, color=GREY, linewidth=0.8)
        for y, (_, gain, _) in enumerate(found):
            if less := gain.less:
                axes.plot([100 * value for value in less.by_seed], [y] * less.seeds, ".", color=GREY, markersize=4)
                axes.hlines(y, 100 * less.low, 100 * less.high, color=COLOURS[0], linewidth=1.6)
                axes.plot(100 * less.value, y, "o", color=COLOURS[0], markersize=5)
        axes.plot(
            [100 * gain.claimed for _, gain, _ in found], range(len(found)), "D", mfc="none", mec=COLOURS[1], ms=5
        )
        axes.plot([], [], "D", mfc="none", mec=COLOURS[1], label="printed")
        if any(gain.less for _, gain, _ in found):
            axes.plot([], [], "o", color=COLOURS[0], label="ours, 95 % interval; dots: seeds")
        axes.set_yticks(range(len(found)), [_label(*one) for one in found], fontsize=7)
        axes.set_ylim(len(found) - 0.4, -0.6)
        axes.set_xlabel("gain, points")
        axes.set_title(f"{replica.paper.short}: printed gains, and ours", fontsize=9, loc="left")
        figure.legend(loc="outside lower left", ncols=2, fontsize=7)


def _label(name: str, gain: Gain, headline: bool) -> str:
    text = f"{'★ ' if headline else ''}{name} {gain.row.label} over {gain.over}, {gain.of.heading}"
    return shorten(text, LONGEST, placeholder=" ...")


def _line(replica: "Replica", name: str, gain: Gain, headline: bool) -> list[Cell]:
    of, less = gain.of, gain.less
    ours = scaled(of, less)
    points = (100 * less.value, 100 * less.low, 100 * less.high) if less else ()
    values = dict(zip(("ours", "ours_low", "ours_high"), (writers.number(one, 4) for one in points), strict=False))
    where = f"{replica.paper.short} {name}" + (" ★" if headline else "")
    return [
        Cell("where", where, {"paper": replica.name, "table": name, "headline": "yes" if headline else "no"}, ALWAYS),
        Cell("row", gain.row.label, {"row": gain.row.label}, ALWAYS),
        Cell("over", gain.over, {"over": gain.over}, ALWAYS),
        Cell("of", of.heading, {"column": of.heading, "data_set": gain.dataset}, ALWAYS),
        Cell("printed", f"{gain.printed:+f}", {"printed": f"{100 * gain.claimed:.4f}"}, ALWAYS),
        Cell("ours", in_unit(of, ours, "+"), values or dict.fromkeys(("ours", "ours_low", "ours_high"), ""), ALWAYS),
        Cell("ratio", BLANK if gain.ratio is None else f"{gain.ratio:.2f}",
             {"ratio": "" if gain.ratio is None else f"{gain.ratio:.4f}"}, ALWAYS),
        Cell("verdict", BLANK if gain.verdict in (NOT_RUN, NONE_PRINTED) else gain.read, {
            "verdict": gain.verdict, "why": gain.why, "p_holm": "" if gain.p is None else f"{gain.p:.6g}",
            "seeds": str(less.seeds) if less else "", "n": str(less.videos) if less else "",
            "units": str(less.units) if less else "", "seeds_needed": str(gain.seeds_needed or ""),
        }, ALWAYS),
    ]  # fmt: skip
