"""Which part of its frames a training clip shows: boxes and flips drawn from a generator, no pixels.

They are drawn on the CPU, by NumPy, and cut and resized there while frames are decoded; a device only normalises
what it gets. So a clip shows the same pixels whatever device trains on it.
"""

from typing import NamedTuple

import numpy as np

from pipeline.errors import UserError, alternatives
from pipeline.schema import Augment

SHARE = 7 / 8  # of the short side: the 224 of 256 pixels that TSN, TSM and their followers crop
SNAP = 3  # pixels; a side this near the network's input becomes it, so that nothing is resized (TSN's code)
# Corners, middles of the edges, middle, and quarter points, in quarters of what the crop leaves free (TSN's code).
POSITIONS = ((0, 0), (4, 0), (0, 4), (4, 4), (2, 2), (0, 2), (4, 2), (2, 0), (2, 4), (1, 1), (3, 1), (1, 3), (3, 3))
AREA = (0.08, 1.0)
ASPECT = (3 / 4, 4 / 3)
TRIES = 10


class Box(NamedTuple):
    """Part of a stored frame, in its pixels."""

    x: int
    y: int
    w: int
    h: int


def draw(augment: Augment, width: int, height: int, size: int, rng: np.random.Generator) -> tuple[Box, bool]:
    """Box and flip of one clip, for frames stored as width x height and an input of size x size pixels.

    - center: the square that test takes (see side()).
    - random: that square at a random position; with `scales`, a square of a random one of these shares of the short
      side (Hara et al.'s MultiScaleRandomCrop; ST-MANet's squares of half to all of it).
    - corner: width and height each a share of the short side, at most max_distort steps of `scales` apart, at one of
      13 fixed positions (TSN section 3.2; its code's GroupMultiScaleCrop).
    - resized: 8 to 100 % of the area with an aspect of 3/4 to 4/3, the centre after ten draws that don't fit
      (Inception's; TPN's code).

    With `squash` the crop is of the frame squeezed to size x size, as ACTION-Net's code has it on EgoGesture, and its
    box the part of the stored frame that it comes from. Whether a flip keeps the label is the caller's to know.
    """
    if augment.squash:
        x, y, w, h = _box(augment, size, size, size, rng)
        box = Box(x * width // size, y * height // size, max(1, w * width // size), max(1, h * height // size))
    else:
        box = _box(augment, width, height, size, rng)
    return box, augment.flip and bool(rng.random() < 0.5)


def side(width: int, height: int, size: int) -> int:
    """Side in stored pixels of the square that becomes size x size.

    7/8 of the short side, as 224 of 256 pixels; more where that is fewer pixels than the network takes, so that
    frames stored at nearly the input's size aren't enlarged.
    """
    short = min(width, height)
    return min(short, max(size, round(short * SHARE)))


def centred(width: int, height: int, w: int, h: int) -> Box:
    """The box of w x h in the middle of a frame."""
    return Box((width - w) // 2, (height - h) // 2, w, h)


def _box(augment: Augment, width: int, height: int, size: int, rng: np.random.Generator) -> Box:
    square = side(width, height, size)
    match augment.crop:
        case "center":
            return centred(width, height, square, square)
        case "random":
            if augment.scales != (1.0,):
                square = int(rng.choice(_sides(augment.scales, width, height, size)))
            return Box(*_integers(rng, width - square, height - square), square, square)
        case "corner":
            sides = _sides(augment.scales, width, height, size)
            pairs = [
                (w, h) for i, h in enumerate(sides) for j, w in enumerate(sides) if abs(i - j) <= augment.max_distort
            ]
            w, h = pairs[rng.integers(len(pairs))]
            right, down = POSITIONS[rng.integers(len(POSITIONS))]
            return Box(right * ((width - w) // 4), down * ((height - h) // 4), w, h)
        case "resized":
            return _resized(width, height, rng)
    raise UserError(
        f"no crop {augment.crop!r}; {alternatives(augment.crop, ('center', 'corner', 'random', 'resized'))}"
    )


def _sides(scales: tuple[float, ...], width: int, height: int, size: int) -> list[int]:
    short = min(width, height)
    sides = [max(1, min(short, int(short * scale))) for scale in scales]
    return [size if abs(side - size) < SNAP and size <= short else side for side in sides]


def _resized(width: int, height: int, rng: np.random.Generator) -> Box:
    for _ in range(TRIES):
        area = width * height * rng.uniform(*AREA)
        aspect = np.exp(rng.uniform(*np.log(ASPECT)))
        w, h = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        if 0 < w <= width and 0 < h <= height:
            return Box(*_integers(rng, width - w, height - h), w, h)
    return centred(width, height, min(width, round(height * ASPECT[1])), min(height, round(width / ASPECT[0])))


def _integers(rng: np.random.Generator, right: int, down: int) -> tuple[int, int]:
    return int(rng.integers(right + 1)), int(rng.integers(down + 1))
