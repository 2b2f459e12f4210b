"""A paper's figures again, drawn from ours: accuracy along a knob, against FLOPs, and where classes gain most."""

from collections.abc import Sequence
from itertools import cycle, product
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from pipeline.measure.results import Result, by_class, common
from pipeline.papers.match import Number
from pipeline.papers.published import Classes, PaperTable
from pipeline.report.figures import COLOURS, DASHES, GREY, MARKERS, drawing

ACCURACIES = ("top1", "map")


def draw(table: PaperTable, cells: Sequence[Number], path: Path) -> None:
    """<path>.svg where the paper prints a curve without numbers, and <path>-flops.svg where a table has FLOPs.

    Neither is written where no row of ours has run.
    """
    found = [cell for cell in cells if cell.of.measure in ACCURACIES and cell.ours]
    if found and not any(row.printed for row in table.rows):
        _along(table, found, path.with_suffix(".svg"))
    costs = {cell.row.label: cell for cell in cells if cell.of.of == "FLOPs" and cell.of.measure == "cost"}
    if costs and found:
        _against(
            costs, [cell for cell in cells if cell.of.measure in ACCURACIES], path.with_name(f"{path.name}-flops.svg")
        )


def draw_classes(row: Result, base: Result, drawn: Classes, path: Path) -> None:
    """The classes that a row gains most on, the largest gain above: its base's share (hollow) and its own (filled)."""
    runs = common(row, base)
    assert not isinstance(runs, str) and not isinstance(row.accuracy, str)
    (counts, own), (_, other) = by_class(row, runs), by_class(base, runs)
    order = [int(k) for k in np.argsort(-100 * (own - other), kind="stable") if counts[k]][: drawn.most]
    with drawing(path, 6.0, 0.25 * len(order) + 1.2) as figure:
        axes = figure.subplots()
        axes.hlines(range(len(order)), 100 * other[order], 100 * own[order], color=GREY, linewidth=1.0)
        axes.plot(100 * other[order], range(len(order)), "o", mfc="white", mec=COLOURS[1], label=base.name)
        axes.plot(100 * own[order], range(len(order)), "o", color=COLOURS[0], label=row.name)
        axes.set_yticks(range(len(order)), [row.accuracy.classes[k] for k in order])
        axes.invert_yaxis()
        axes.set_xlabel(f"ours, {row.accuracy.heading if row.several else 'accuracy'} of the class, %")
        axes.set_title(drawn.caption, fontsize=9)
        axes.legend(fontsize=7)


def _along(table: PaperTable, cells: Sequence[Number], path: Path) -> None:
    """A line a column, over the rows in the paper's order."""
    labels = [row.label for row in table.rows]
    with drawing(path, 6.0, 3.6) as figure:
        axes = figure.subplots()
        headings = list(dict.fromkeys(cell.of.heading for cell in cells))
        for heading, colour, dash in zip(headings, COLOURS, cycle(DASHES)):
            own = [cell for cell in cells if cell.of.heading == heading]
            _points(axes, [labels.index(cell.row.label) for cell in own], own, colour, heading, linestyle=dash)
        axes.set_xticks(range(len(labels)), labels, rotation=30, ha="right")
        axes.set_ylabel(f"ours, {'fraction' if cells[0].of.unit == 'fraction' else '%'}")
        axes.legend()


def _against(costs: dict[str, Number], cells: Sequence[Number], path: Path) -> None:
    """A panel a column: each row's printed number (hollow) and ours (filled), at its printed and our FLOPs."""
    headings = list(dict.fromkeys(cell.of.heading for cell in cells))
    with drawing(path, 4.0 * len(headings) + 1, 3.6) as figure:
        for axes, heading in zip(figure.subplots(1, len(headings), squeeze=False)[0], headings, strict=True):
            own = [cell for cell in cells if cell.of.heading == heading]
            for cell, (marker, colour) in zip(own, cycle(product(MARKERS, COLOURS))):
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
    axes: Axes, at: Sequence[float], cells: Sequence[Number], colour: str, label: str, marker: str = "o", **line: Any
) -> None:
    intervals = [cell.ours for cell in cells if cell.ours]
    values = [one.value for one in intervals]
    errors = [[one.value - one.low for one in intervals], [one.high - one.value for one in intervals]]
    axes.errorbar(at, values, yerr=errors, fmt=marker, color=colour, capsize=2, ms=4, label=label, **line)
