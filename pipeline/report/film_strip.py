"""A clip as a film strip (PNG): its frames, heat over them, and bars below.

Legend: T frames, S pixels of their side. The same input gives the same bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.report.figures import COLOURS, GREY, drawing

MARGIN, GAP, BAR = 1.1, 0.08, 0.8  # inches: left of the strip, between its rows, a row of bars
LABELS, LINE = 0.25, 0.165  # inches: above the strip for its labels, and for a line of the title
NARROWEST, LONGEST = 7.0, 16.0  # inches: least width of a picture; width of a strip unless its frames get too small


@dataclass(frozen=True)
class Bars:
    """A row of bars over the strip's width, which T of them share with their frames."""

    label: str
    values: Sequence[float]
    top: float | None = None  # of the scale; the largest value by default


def film(
    path: Path, title: str, frames: np.ndarray, labels: Sequence[str], heat: np.ndarray | None, bars: Sequence[Bars]
) -> None:
    """Write the picture, atomically.

    Args:
        path: The PNG.
        title: Lines of text.
        frames: T,S,S,3 uint8 RGB.
        labels: T labels of the frames.
        heat: T,S,S in [0, 1], which a second row of frames shows; None for none.
        bars: Rows of bars below.
    """
    rows = [frames] if heat is None else [frames, overlay(frames, heat)]
    side = min(1.6, max(0.5, LONGEST / len(frames)))  # inches of a frame
    strip = side * len(frames)
    width = max(NARROWEST, MARGIN + strip + GAP)
    lines = [part for line in title.splitlines() for part in wrap(line, int(13 * width))]  # characters to an inch
    head = LABELS + LINE * len(lines)
    height = head + len(rows) * (side + GAP) + len(bars) * (BAR + GAP) + GAP
    with drawing(path, width, height) as figure:
        figure.set_layout_engine("none")  # the bars must be below their frames
        figure.text(GAP / width, 1 - GAP / height, "\n".join(lines), va="top")
        top = head
        for n, images in enumerate(rows):
            axes = _axes(figure, top, strip, side)
            axes.imshow(np.concatenate([*images], axis=1), extent=(0, len(frames), 0, 1), aspect="auto")
            axes.vlines(range(1, len(frames)), 0, 1, color="white", linewidth=1.0)
            axes.set_axis_off()
            for place, label in enumerate(labels if n == 0 else ()):
                axes.text(place + 0.5, 1.02, label, ha="center", va="bottom", fontsize=7, color=GREY)
            top += side + GAP
        for row in bars:
            _draw(_axes(figure, top, strip, BAR), row, len(frames))
            top += BAR + GAP


def overlay(frames: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Return frames (T,S,S,3 uint8 RGB) under the colours of heat (T,S,S in [0, 1]).

    A colour is the more opaque, the more heat it stands for.
    """
    levels = (255 * heat).round().astype(np.uint8)
    colours = np.stack(
        [cv2.cvtColor(cv2.applyColorMap(level, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB) for level in levels]
    )
    share = 0.75 * heat[..., None]
    return (frames * (1 - share) + colours * share).round().astype(np.uint8)


def _axes(figure: Figure, top: float, width: float, height: float) -> Axes:
    """Return axes of so many inches, `top` inches below the figure's upper edge."""
    whole, high = figure.get_size_inches()
    return figure.add_axes((MARGIN / whole, 1 - (top + height) / high, width / whole, height / high))


def _draw(axes: Axes, bars: Bars, frames: int) -> None:
    wide = frames / len(bars.values)
    places = [(n + 0.5) * wide for n in range(len(bars.values))]
    axes.bar(places, bars.values, width=0.8 * wide, color=COLOURS[0])
    axes.set_xlim(0, frames)
    top = bars.top or max(bars.values) or 1.0
    axes.set_ylim(0, 1.3 * top)  # room for the numbers
    if len(bars.values) <= 16:
        for place, value in zip(places, bars.values, strict=True):
            axes.text(place, value + 0.03 * top, f"{value:.3f}", ha="center", va="bottom", fontsize=7)
    axes.set_xticks([])
    axes.set_yticks([0, top], [f"{0:.0f}", f"{top:.2g}"], fontsize=7)
    axes.set_ylabel(bars.label, rotation=0, ha="right", va="center", fontsize=8)
