"""Figures of results: learning curves, accuracies with intervals, confusions.

The same input gives the same bytes.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle, product
from pathlib import Path
from textwrap import shorten
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from pipeline.measure.crossed import Estimate
from pipeline.measure.results import Result, confused
from pipeline.measure.scores import Accuracy
from pipeline.report import confusion as matrices
from pipeline.report.exports import NOT_DECODED
from pipeline.storage.atomic import writing
from pipeline.tracking.run_log import VALIDATION, epochs

# Okabe and Ito (2008): colours that color-blind readers can distinguish; without yellow, too faint for lines on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "D", "^", "v")
DASHES = ("-", "--", "-.", ":")  # to show both of two lines in one place
GREY = "#666666"
MOST = 100  # rows of a panel, which nobody could read with more
NO_XML = re.compile("[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f\\ufffe\\uffff]")
STYLE: Any = {
    "svg.hashsalt": "actionbench",  # makes ids in the file reproducible
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "text.parse_math": False,  # names may hold a $
}


def learning_curves(runs: Mapping[str, Sequence[Path]], path: Path) -> None:
    """Draw loss, learning rate and validation scores, if any, over epochs; seven rows share a panel.

    A strong line is a row's mean over its runs, light lines are the runs.

    Args:
        runs: Each row's logs. Absent logs, and rows without one, are left out.
        path: The SVG.
    """
    curves = {row: [lines for path in paths if (lines := epochs(path))] for row, paths in runs.items()}
    logs = {row: [{line["epoch"]: line for line in lines} for lines in curves[row]] for row in curves}
    rows = [row for row in logs if logs[row]]
    panels = [rows[begin : begin + len(COLOURS)] for begin in range(0, len(rows), len(COLOURS))] or [[]]
    with drawing(path, 9.0, 3.0 * len(panels)) as figure:
        scored = [
            name
            for name in VALIDATION
            if any(name in line for runs in curves.values() for lines in runs for line in lines)
        ]
        grid = figure.subplots(len(panels), 2 + len(scored), squeeze=False)
        for (losses, rates, *validated), panel in zip(grid, panels, strict=True):
            for row, colour, dash in zip(panel, COLOURS, cycle(DASHES)):
                _curve(losses, logs[row], "loss", row, color=colour, linestyle=dash)
                _curve(rates, logs[row], "lr", row, color=colour, linestyle=dash)
                for axes, name in zip(validated, scored, strict=True):
                    _curve(axes, logs[row], name, row, color=colour, linestyle=dash)
            losses.set_ylabel("training loss")
            rates.set_ylabel("learning rate")
            for axes, name in zip(validated, scored, strict=True):
                axes.set_ylabel(name.replace("_", " "))
            # Logarithmic, so that one row's large losses don't flatten the others' curves.
            for axes in (
                rates,
                losses,
                *(axes for axes, name in zip(validated, scored, strict=True) if "loss" in name),
            ):
                axes.set_yscale("log")
                _log_ticks(axes.yaxis)
            for axes in (losses, rates, *validated):
                axes.set_xlabel("epoch")
                axes.xaxis.get_major_locator().set_params(integer=True)
            if losses.lines:
                (validated or [rates])[-1].legend(
                    *losses.get_legend_handles_labels(), loc="center left", bbox_to_anchor=(1.0, 0.5)
                )


def accuracies(rows: Sequence[Result], path: Path) -> None:
    """Draw each row's top-1 or mAP with its interval, or its reason for none.

    A data set has a panel, with chance as a dashed line. A panel has at most MOST rows, and then says so.
    """
    sets: dict[tuple[str, bool], list[Result]] = {}
    for row in rows:
        sets.setdefault((row.dataset, row.several), []).append(row)
    heights = [min(len(members), MOST) + 1 for members in sets.values()]
    with drawing(path, 7.0, 0.28 * sum(heights) + 0.7 * len(sets)) as figure:
        panels = figure.subplots(len(sets), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axes, ((name, several), members) in zip(panels, sets.items(), strict=True):
            _forest(axes, name, "mAP" if several else "top-1", members)


def against_macs(rows: Sequence[Result], path: Path) -> None:
    """Draw top-1 or mAP against the MACs of one view, a panel a data set.

    Nothing is written if no row has both.
    """
    sets: dict[tuple[str, str], list[tuple[Result, Estimate]]] = {}
    for row in rows:
        if not isinstance(row.accuracy, str) and row.costs.get("macs"):
            sets.setdefault((row.dataset, row.accuracy.heading), []).append((row, row.accuracy.main))
    if not sets:
        return
    columns = {key: 1 + (min(len(members), MOST) - 1) // 16 for key, members in sets.items()}
    longest = {key: max(len(row.name) for row, _ in members) for key, members in sets.items()}
    # Inches: the axes, and a legend's columns.
    width = 4.0 + max(columns[key] * (0.4 + 0.06 * longest[key]) for key in sets)
    with drawing(path, max(8.0, width), 3.6 * len(sets)) as figure:
        panels = figure.subplots(len(sets), 1, squeeze=False)[:, 0]
        for axes, (key, members) in zip(panels, sets.items(), strict=True):
            dataset, heading = key
            for (row, main), (marker, colour) in zip(members[:MOST], cycle(product(MARKERS, COLOURS))):
                macs, value = row.costs["macs"] / 1e9, 100 * main.value
                error = [[value - 100 * main.low], [100 * main.high - value]]
                axes.errorbar(macs, value, yerr=error, fmt=marker, color=colour, ms=5, elinewidth=1.0, label=row.name)
            axes.set_xscale("log")
            _log_ticks(axes.xaxis)
            axes.set_xlabel("MACs of one view, G")
            axes.set_ylabel(f"{heading} %")
            axes.set_title(dataset + _left_out(members), loc="left", fontsize=9)
            axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7, ncols=columns[key])


def confusion(row: Result, path: Path) -> None:
    """Draw the predicted shares of each class's test videos, over all runs.

    Nothing is written for a row without a result.
    """
    if isinstance(row.accuracy, Accuracy):
        # One hue from white to dark, so lightness alone shows the order.
        _matrix(path, row, confused(row, row.runs), row.name, "share of the class's videos", "Blues", 0.0, 1.0)


def confusion_change(row: Result, base: Result, runs: Sequence[tuple[int, int]], path: Path) -> None:
    """Draw the confusions of a row less its base's, over the runs that both have.

    Shares that grew are orange, those that shrank purple. Growing is better on the diagonal, worse elsewhere. The scale
    is that of the largest change.
    """
    change = confused(row, runs) - confused(base, runs)
    most = float(np.abs(change).max()) or 1.0
    _matrix(path, row, change, f"{row.name} less {base.name}", "change of the share", "PuOr_r", -most, most)


def _matrix(
    path: Path, row: Result, shares: np.ndarray, title: str, label: str, hues: str, low: float, high: float
) -> None:
    """Draw K,K+1 shares."""
    assert isinstance(row.accuracy, Accuracy)
    names = list(row.accuracy.classes)
    columns = [*names, NOT_DECODED] if shares[:, -1].any() else names
    title = f"{title} ({row.dataset}, n = {row.accuracy.videos})"
    matrices.save(path, shares[:, : len(columns)], (names, columns), title, label, hues, (low, high))


def _curve(axes: Axes, logs: Sequence[Mapping[int, Mapping[str, float]]], key: str, row: str, **line: Any) -> None:
    """Draw a row's runs as light lines unless all are equal, and their mean at the epochs that all have."""
    curves = [{epoch: values[key] for epoch, values in log.items() if key in values} for log in logs]
    for curve in curves if any(curve != curves[0] for curve in curves) else []:
        axes.plot(list(curve), list(curve.values()), alpha=0.3, linewidth=0.8, **line)
    epochs = sorted(set.intersection(*map(set, curves))) if curves else []
    if epochs:
        means = [np.mean([curve[epoch] for curve in curves]) for epoch in epochs]
        axes.plot(epochs, means, linewidth=1.6, label=row, marker="." if len(epochs) == 1 else "", **line)


def _left_out(members: Sequence[Any]) -> str:
    """Return the end of a panel's title: empty if it shows all rows."""
    return f", the first {MOST} of {len(members)} rows" if len(members) > MOST else ""


def _log_ticks(axis: Axis) -> None:
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def _forest(axes: Axes, dataset: str, heading: str, members: Sequence[Result]) -> None:
    rows = members[:MOST]
    for y, row in enumerate(rows):
        if isinstance(row.accuracy, str):
            axes.text(1, y, shorten(row.accuracy, 80), va="center", color=GREY, fontsize=8, backgroundcolor="white")
    intervals(axes, {y: row.accuracy.main for y, row in enumerate(rows) if not isinstance(row.accuracy, str)})
    known = [row.accuracy for row in rows if not isinstance(row.accuracy, str)]
    if known and isinstance(known[0], Accuracy):
        chance = 100 * known[0].chance
        axes.axvline(chance, color=GREY, linestyle="--", linewidth=1.0, label="chance")
        axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), borderaxespad=0.1)
    videos = sorted({accuracy.videos for accuracy in known})
    title = f"{dataset} (n = {', '.join(map(str, videos))})" if videos else dataset
    axes.set_title(title + _left_out(members), loc="right", fontsize=9)
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 100)
    axes.set_xlabel(f"{heading} %, 95 % interval; dots: seeds")
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def intervals(axes: Axes, estimates: Mapping[int, Estimate]) -> None:
    """Draw estimates at their heights: intervals as lines, seeds as dots."""
    lows, highs = ([100 * getattr(main, end) for main in estimates.values()] for end in ("low", "high"))
    axes.hlines(list(estimates), lows, highs, color=COLOURS[0], linewidth=1.6)
    for y, main in estimates.items():
        axes.plot([100 * value for value in main.by_seed], [y] * main.seeds, "o", mfc="white", mec=GREY, markersize=3)
    values = [100 * main.value for main in estimates.values()]
    axes.plot(values, list(estimates), "|", color=COLOURS[0], markersize=9, markeredgewidth=2)


@contextmanager
def drawing(path: Path, width: float, height: float) -> Iterator[Figure]:
    """Yield a figure of so many inches; save it as SVG or PNG if the block succeeds."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a user's matplotlibrc must not change the bytes
        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        with writing(path) as temporary:
            kind = path.suffix[1:]
            absent = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}  # would change the bytes
            figure.savefig(temporary, format=kind, metadata=absent[kind])
            if kind == "svg":  # names may hold characters that XML can't
                temporary.write_bytes(NO_XML.sub("\ufffd", temporary.read_text(encoding="utf-8")).encode())
