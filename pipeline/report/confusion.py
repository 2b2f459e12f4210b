"""Confusion matrices as SVG: the cells as one image, every class named; a few milliseconds where a plot takes seconds.

Written by hand, as a plotting library lays out hundreds of names one by one. Lengths are in pixels.
"""

import base64
import io
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from html import escape
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import Normalize
from matplotlib.image import imsave

from pipeline.storage.atomic import write

CELL = 12  # the side of a cell: the least at which names of rows can be read one below the other
FONT = 9
WIDE = 0.62  # of a letter, as a share of its height: more than most have, so that no name is cut
FEW = 12  # classes, up to which there is room for a cell's number
GAP = 4
HUES = 64  # steps of the colour bar


def save(
    path: Path,
    shares: np.ndarray,
    names: tuple[Sequence[str], Sequence[str]],
    title: str,
    label: str,
    hues: str,
    scale: tuple[float, float],
) -> None:
    """Shares of actual classes (rows) that were predicted as others (columns), `names` being those of rows and columns.

    `hues` is a colour map of matplotlib's, spread over the scale, which the colour bar shows with its label.
    """
    actual, predicted = names
    side = CELL if len(actual) > FEW else 3 * CELL
    width, height = side * len(predicted), side * len(actual)
    left = _long(actual) + 2 * FONT + 2 * GAP
    top, bar = 3 * FONT, left + width + 2 * FONT
    whole = max(bar + 8 * FONT, left + _long([title], FONT + 2) + GAP), top + height + _long(predicted) + 3 * FONT
    middle = top + height / 2
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{whole[0]:.0f}" height="{whole[1]:.0f}" viewBox="0 0 {whole[0]:.0f} {whole[1]:.0f}" '
        f'font-family="DejaVu Sans, sans-serif" font-size="{FONT}">',
        '<rect width="100%" height="100%" fill="white"/>',
        _text(left, 2 * FONT, title, f'font-size="{FONT + 2}"'),
        _image(left, top, width, height, _png(shares, hues, scale)),
        _named(tuple(actual), tuple(predicted), side, left, top),
        _text(left + width / 2, whole[1] - FONT, "predicted", CENTRE),
        _up(FONT + GAP, middle, "actual", CENTRE),
        *(_numbers(shares, scale, side, left, top) if len(actual) <= FEW else ()),
        *_bar(bar, top, min(height, 40 * FONT), label, hues, scale),
        "</svg>\n",
    ]
    write(path, "\n".join(parts))


MIDDLE, CENTRE, END = ' dominant-baseline="central"', ' text-anchor="middle"', ' text-anchor="end"'


@lru_cache(maxsize=8)  # a data set's pictures have the same
def _named(actual: tuple[str, ...], predicted: tuple[str, ...], side: int, left: float, top: float) -> str:
    """The names beside rows and below columns."""
    low = top + side * len(actual) + GAP
    beside = (_text(left - GAP, top + side * (k + 0.5), name, MIDDLE + END) for k, name in enumerate(actual))
    below = (_up(left + side * (k + 0.5), low, name, END) for k, name in enumerate(predicted))
    return "\n".join([*beside, *below])


def _numbers(shares: np.ndarray, scale: tuple[float, float], side: int, left: float, top: float) -> Iterator[str]:
    """Each share that is not 0 in %, upon its cell; with its sign where shares are changes."""
    for y, x in np.argwhere(shares).tolist():
        share = shares[y, x]
        ink = "white" if abs(share) > scale[1] / 2 else "black"
        said = f"{100 * share:{'+' if scale[0] < 0 else ''}.0f}"
        yield _text(left + side * (x + 0.5), top + side * (y + 0.5), said, MIDDLE + CENTRE + f' fill="{ink}"')


def _bar(x: float, y: float, height: float, label: str, hues: str, scale: tuple[float, float]) -> Iterator[str]:
    """What the hues mean: the scale from its high end to its low one, five numbers beside it."""
    yield _image(x, y, FONT, height, _hues(hues))
    for share in np.linspace(0, 1, 5).tolist():
        value = f"{scale[1] + share * (scale[0] - scale[1]) + 0.0:.2f}"
        yield _text(x + FONT + GAP, y + share * height, value, MIDDLE)
    yield _up(x + 6 * FONT, y + height / 2, label, CENTRE)


@cache
def _hues(hues: str) -> str:
    """All of a map's colours, the highest above; the same whatever the scale."""
    return _png(np.linspace(1, 0, HUES)[:, None], hues, (0, 1))


def _png(values: np.ndarray, hues: str, scale: tuple[float, float]) -> str:
    """Rows, columns -> a PNG of a pixel a value, base64."""
    colours = matplotlib.colormaps[hues](Normalize(*scale)(values), bytes=True)
    buffer = io.BytesIO()
    unsaid: Any = {"Software": None}  # its version would change the bytes
    imsave(buffer, colours, format="png", origin="upper", metadata=unsaid)
    return base64.b64encode(buffer.getvalue()).decode()


def _image(x: float, y: float, width: float, height: float, png: str) -> str:
    # A pixel is a cell: not to be smoothed. The link by its older name, which all readers know.
    return (
        f'<image x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" preserveAspectRatio="none" '
        f'style="image-rendering: pixelated" xlink:href="data:image/png;base64,{png}"/>'
    )


def _text(x: float, y: float, said: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {more.strip()}>{escape(said)}</text>'


def _up(x: float, y: float, said: str, more: str = "") -> str:
    """Text that is read from below."""
    return _text(x, y, said, more + MIDDLE + f' transform="rotate(-90 {x:.1f} {y:.1f})"')


def _long(names: Sequence[str], font: int = FONT) -> float:
    """The room that the longest name needs."""
    return WIDE * font * max(map(len, names))
