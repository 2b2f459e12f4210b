"""Confusion matrices as SVG: the cells are one image, and every class is named.

The SVG is written directly, in milliseconds. A plotting library takes seconds, because it lays out hundreds of names
one by one. Lengths are in pixels.
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

CELL = 12  # the side of a cell, the least at which the names of rows don't overlap
FONT = 9
WIDE = 0.62  # width of a letter over its height, more than most have, so that no name is cut
FEW = 12  # the most classes whose cells have room for a number
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
    """Draw the predicted shares (columns) of each class (rows).

    Args:
        path: The SVG.
        shares: The shares.
        names: The names of rows and of columns.
        title: The title.
        label: The colour bar's label.
        hues: A colour map of matplotlib's.
        scale: The shares at the ends of the colour map.
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


@lru_cache(maxsize=8)  # the pictures of a data set share them
def _named(actual: tuple[str, ...], predicted: tuple[str, ...], side: int, left: float, top: float) -> str:
    """Return the names left of rows and below columns."""
    low = top + side * len(actual) + GAP
    left_of = (_text(left - GAP, top + side * (k + 0.5), name, MIDDLE + END) for k, name in enumerate(actual))
    below = (_up(left + side * (k + 0.5), low, name, END) for k, name in enumerate(predicted))
    return "\n".join([*left_of, *below])


def _numbers(shares: np.ndarray, scale: tuple[float, float], side: int, left: float, top: float) -> Iterator[str]:
    """Yield each share above 0 in %, on its cell; a change has its sign."""
    for y, x in np.argwhere(shares).tolist():
        share = shares[y, x]
        ink = "white" if abs(share) > scale[1] / 2 else "black"
        text = f"{100 * share:{'+' if scale[0] < 0 else ''}.0f}"
        yield _text(left + side * (x + 0.5), top + side * (y + 0.5), text, MIDDLE + CENTRE + f' fill="{ink}"')


def _bar(x: float, y: float, height: float, label: str, hues: str, scale: tuple[float, float]) -> Iterator[str]:
    """Yield the colour bar: its hues from high to low, and five numbers."""
    yield _image(x, y, FONT, height, _hues(hues))
    for share in np.linspace(0, 1, 5).tolist():
        value = f"{scale[1] + share * (scale[0] - scale[1]) + 0.0:.2f}"
        yield _text(x + FONT + GAP, y + share * height, value, MIDDLE)
    yield _up(x + 6 * FONT, y + height / 2, label, CENTRE)


@cache
def _hues(hues: str) -> str:
    """Return all colours of a map as a PNG, the highest on top."""
    return _png(np.linspace(1, 0, HUES)[:, None], hues, (0, 1))


def _png(values: np.ndarray, hues: str, scale: tuple[float, float]) -> str:
    """Return a PNG of a pixel a value, in base64."""
    colours = matplotlib.colormaps[hues](Normalize(*scale)(values), bytes=True)
    buffer = io.BytesIO()
    unversioned: Any = {"Software": None}  # a version would change the bytes
    imsave(buffer, colours, format="png", origin="upper", metadata=unversioned)
    return base64.b64encode(buffer.getvalue()).decode()


def _image(x: float, y: float, width: float, height: float, png: str) -> str:
    # A pixel is a cell, so it must not be smoothed. All readers know the link by its older name.
    return (
        f'<image x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" preserveAspectRatio="none" '
        f'style="image-rendering: pixelated" xlink:href="data:image/png;base64,{png}"/>'
    )


def _text(x: float, y: float, text: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {more.strip()}>{escape(text)}</text>'


def _up(x: float, y: float, text: str, more: str = "") -> str:
    """Return text that runs upwards."""
    return _text(x, y, text, more + MIDDLE + f' transform="rotate(-90 {x:.1f} {y:.1f})"')


def _long(names: Sequence[str], font: int = FONT) -> float:
    """Return the width of the longest name."""
    return WIDE * font * max(map(len, names))
