"""Crops, flips and color changes of a training clip, drawn from a generator.

NumPy draws them on the CPU, where frames are cut and resized as they are decoded. A device only normalizes its input,
so a clip has the same pixels on every device.
"""

from typing import NamedTuple

import numpy as np

from pipeline.config.schema import Augment
from pipeline.errors import unknown

SHARE = 7 / 8  # of the short side: the 224 of 256 pixels that TSN, TSM and their followers crop
SNAP = 3  # pixels; a side this close to the network's input is set to it, so that nothing is resized (TSN's code)
# Corners, edge centers, center and quarter points, in quarters of the space that the crop leaves free (TSN's code).
POSITIONS = ((0, 0), (4, 0), (0, 4), (4, 4), (2, 2), (0, 2), (4, 2), (2, 0), (2, 4), (1, 1), (3, 1), (1, 3), (3, 3))
CROPS = ("center", "corner", "corners", "random", "resized", "padded")
AREA = (0.08, 1.0)
ASPECT = (3 / 4, 4 / 3)
TRIES = 10
GRAY = (0.299, 0.587, 0.114)
YIQ = np.array([GRAY, (0.596, -0.274, -0.321), (0.211, -0.523, 0.311)])
# Standard deviations of ImageNet's colors along their main axes (columns), in 0..255 (Krizhevsky et al. 2012).
AXES = np.array([(-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203)])
DEVIATIONS = np.array([55.46, 4.794, 1.148])
Color = tuple[tuple[float, ...], ...]  # (3, 4): an affine map of a pixel's (R, G, B, 1)


class Box(NamedTuple):
    """Part of a stored frame, in its pixels."""

    x: int
    y: int
    w: int
    h: int


def draw(augment: Augment, width: int, height: int, size: int, rng: np.random.Generator) -> tuple[Box, bool]:
    """Draw the box and the flip of one clip.

    Crops:
    - center: the square of testing (see side()).
    - random: that square at a random position. With `scales`, a square of a random one of these shares of the short
      side (Hara et al.'s MultiScaleRandomCrop; ST-MANet's squares of half to all of it).
    - corner: a box at one of 13 fixed positions (TSN section 3.2; its code's GroupMultiScaleCrop). Width and height are
      shares of the short side, at most max_distort steps of `scales` apart.
    - padded: a square of the short side at a random position of the frame with black edges, `pad` of the short side
      each. Its box may reach beyond the frame (CIFAR's 32 of 40 pixels).
    - corners: a square in one of the four corners or the center (MultiScaleCornerCrop of Hara et al.'s code). Its side
      is a random one of `scales`, shares of the short side.
    - resized: 8 to 100 % of the area with an aspect of 3/4 to 4/3, the center after ten draws that don't fit
      (Inception's; TPN's code).

    With `squash` the crop is of the frame squeezed to size x size, as in ACTION-Net's code for EgoGesture; its box is
    the corresponding part of the stored frame. The caller handles the labels of flipped clips.

    Args:
        augment: the recipe's settings.
        width: of the stored frames, in pixels.
        height: of the stored frames, in pixels.
        size: side of the network's input, in pixels.
        rng: the clip's generator.

    Raises:
        UserError: The crop is unknown.
    """
    if augment.squash:
        x, y, w, h = _box(augment, size, size, size, rng)
        box = Box(x * width // size, y * height // size, max(1, w * width // size), max(1, h * height // size))
    else:
        box = _box(augment, width, height, size, rng)
    return box, augment.flip and bool(rng.random() < 0.5)


def color(augment: Augment, rng: np.random.Generator) -> Color | None:
    """Draw the color change of one clip, an affine map of RGB in 0..255, or None.

    - jitter: noise along the main axes of ImageNet's colors, 0.1 of their deviations.
    - space: TPN's color-space augmentation before the jitter. Each change has probability half: brightness (up to 32
      more or less), contrast, saturation (0.6 to 1.4 each), hue (turned by any angle). Contrast is first or last. TPN's
      code draws these choices once per frame and rounds colors to 8 bits; here they are drawn once per clip.
    """
    if augment.color == "none":
        return None
    matrix, shift = np.eye(3), np.zeros(3)
    if augment.color == "space":
        coins = rng.random(5) < 0.5
        brightness, contrast, saturation = rng.uniform((-32, 0.6, 0.6), (32, 1.4, 1.4))
        turn = np.pi * rng.uniform(-18, 18)
        turned = np.array([(1, 0, 0), (0, np.cos(turn), -np.sin(turn)), (0, np.sin(turn), np.cos(turn))])
        changes = [
            saturation * np.eye(3) + (1 - saturation) * np.array([GRAY] * 3) if coins[1] else np.eye(3),
            np.linalg.inv(YIQ) @ turned @ YIQ if coins[2] else np.eye(3),
        ]
        changes.insert(0 if coins[4] else 2, (contrast if coins[3] else 1.0) * np.eye(3))
        shift = np.full(3, brightness if coins[0] else 0.0)
        for change in changes:
            matrix, shift = change @ matrix, change @ shift
    shift = shift + AXES @ (rng.normal(0, 0.1, 3) * DEVIATIONS)
    return tuple(tuple(row) for row in np.column_stack([matrix, shift]).tolist())


def side(width: int, height: int, size: int) -> int:
    """Return the side, in stored pixels, of the square that becomes size x size.

    It is 7/8 of the short side, as 224 of 256 pixels. It is `size` where that is larger and fits the frame, so that
    frames stored at nearly the input's size aren't enlarged. Smaller frames are, as if resized to 8/7 of `size` first
    (Something-Something V1's, of 100 pixels).
    """
    short = min(width, height)
    share = max(1, round(short * SHARE))
    return max(size, share) if size <= short else share


def centred(width: int, height: int, w: int, h: int) -> Box:
    """Return the w x h box in the middle of a frame."""
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
        case "corners":
            square = int(rng.choice(_sides(augment.scales, width, height, size)))
            right, down = POSITIONS[rng.integers(5)]
            return Box(right * (width - square) // 4, down * (height - square) // 4, square, square)
        case "padded":
            short = min(width, height)
            edge = round(short * augment.pad)
            x, y = _integers(rng, width + 2 * edge - short, height + 2 * edge - short)
            return Box(x - edge, y - edge, short, short)
        case "resized":
            return _resized(width, height, rng)
    raise unknown("crop", augment.crop, CROPS)


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
