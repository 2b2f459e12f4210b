"""A paper's figures, drawn from our results."""

from collections.abc import Sequence
from itertools import cycle, product
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from pipeline.measure.results import Result, by_class, common
from pipeline.papers.match import Match
from pipeline.papers.published import Classes, PaperTable
from pipeline.report.figures import COLOURS, DASHES, GREY, MARKERS, drawing

ACCURACIES = ("top1", "map")


def draw(table: PaperTable, cells: Sequence[Match], path: Path) -> None:
    """Draw a table as a curve, or against FLOPs.

    <path>.svg is for a figure without printed numbers, <path>-flops.svg for a table with FLOPs. Neither is written if
    no row of ours has run.
    """
    accuracies = [cell for cell in cells if cell.of.measure in ACCURACIES]
    ours = [cell for cell in accuracies if cell.ours]
    if ours and not any(row.printed for row in table.rows):
        _along(table, ours, path.with_suffix(".svg"))
    costs = {cell.row.label: cell for cell in cells if cell.of.of == "FLOPs" and cell.of.measure == "cost"}
    if costs and ours:
        _against(costs, accuracies, path.with_name(f"{path.name}-flops.svg"))


def draw_classes(row: Result, base: Result, drawn: Classes, path: Path) -> None:
    """Draw a row (filled) and its base (hollow) in the classes that gain most."""
    runs = common(row, base)
    assert not isinstance(runs, str) and not isinstance(row.accuracy, str)
    (counts, shares), (_, base_shares) = by_class(row, runs), by_class(base, runs)
    order = [int(k) for k in np.argsort(-100 * (shares - base_shares), kind="stable") if counts[k]][: drawn.most]
    after, before = 100 * shares[order], 100 * base_shares[order]
    with drawing(path, 6.0, 0.25 * len(order) + 1.2) as figure:
        axes = figure.subplots()
        axes.hlines(range(len(order)), before, after, color=GREY, linewidth=1.0)
        axes.plot(before, range(len(order)), "o", mfc="white", mec=COLOURS[1], label=base.name)
        axes.plot(after, range(len(order)), "o", color=COLOURS[0], label=row.name)
        axes.set_yticks(range(len(order)), [row.accuracy.classes[k] for k in order])
        axes.invert_yaxis()
        axes.set_xlabel(f"ours, {row.accuracy.heading if row.several else 'accuracy'} of the class, %")
        axes.set_title(drawn.caption, fontsize=9)
        axes.legend(fontsize=7)


def _along(table: PaperTable, cells: Sequence[Match], path: Path) -> None:
    """Draw a line a column, over the rows in the paper's order."""
    labels = [row.label for row in table.rows]
    with drawing(path, 6.0, 3.6) as figure:
        axes = figure.subplots()
        headings = list(dict.fromkeys(cell.of.heading for cell in cells))
        for heading, colour, dash in zip(headings, COLOURS, cycle(DASHES)):
            line = [cell for cell in cells if cell.of.heading == heading]
            _points(axes, [labels.index(cell.row.label) for cell in line], line, colour, heading, linestyle=dash)
        axes.set_xticks(range(len(labels)), labels, rotation=30, ha="right")
        axes.set_ylabel(f"ours, {'fraction' if cells[0].of.unit == 'fraction' else '%'}")
        axes.legend()


def _against(costs: dict[str, Match], cells: Sequence[Match], path: Path) -> None:
    """Draw printed numbers (hollow) and ours (filled) against FLOPs, by column."""
    headings = list(dict.fromkeys(cell.of.heading for cell in cells))
    with drawing(path, 4.0 * len(headings) + 1, 3.6) as figure:
        for axes, heading in zip(figure.subplots(1, len(headings), squeeze=False)[0], headings, strict=True):
            panel = [cell for cell in cells if cell.of.heading == heading]
            for cell, (marker, colour) in zip(panel, cycle(product(MARKERS, COLOURS))):
                cost = costs[cell.row.label]
                axes.plot(float(cost.printed or 0), float(cell.printed or 0), marker, mfc="none", mec=colour)
                if cell.ours and cost.ours:
                    _points(axes, [cost.ours.value], [cell], colour, cell.row.label, marker)
                else:
                    axes.plot([], [], marker, color=colour, mfc="none", label=f"{cell.row.label} (not run)")
            axes.set_xlabel("FLOPs, G, as the paper counts them")
            axes.set_ylabel(f"{heading}, %")
            axes.legend(fontsize=6)
        figure.suptitle("hollow: printed; filled: ours", fontsize=8, color=GREY)


def _points(
    axes: Axes, at: Sequence[float], cells: Sequence[Match], colour: str, label: str, marker: str = "o", **line: Any
) -> None:
    intervals = [cell.ours for cell in cells if cell.ours]
    values = [ours.value for ours in intervals]
    errors = [[ours.value - ours.low for ours in intervals], [ours.high - ours.value for ours in intervals]]
    axes.errorbar(at, values, yerr=errors, fmt=marker, color=colour, capsize=2, ms=4, label=label, **line)
