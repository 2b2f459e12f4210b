"""Shapes: generated H.264 videos in eight classes that differ in frame order.

A marked shape moves left or right, up or down, grows or shrinks, turns clockwise or counter-clockwise. The textured
background drifts, smaller shapes swing back and forth, and noise is added. A clip of a pair's second class is the
complete time reversal of a clip drawn for the first: as sets, the frames of both have one distribution. Every motion is
on a circle with a uniform start, so a frame at a fixed position of the clip has one distribution too. A shape that
leaves at one edge enters at the other, and the smallest size follows the largest. A model that ignores order can tell
the four pairs apart at best, not the two classes of a pair: 50 %.
"""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import ffmpeg
import numpy as np
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass

from pipeline.config.schema import STRICT
from pipeline.datasets import Options as Given
from pipeline.datasets import Row, Splits, Video, chosen
from pipeline.errors import UserError
from pipeline.executable import ffmpeg_exe
from pipeline.storage.atomic import writing

LICENCE = "none needed: the videos are drawn here"
CITATION = ""
HOMEPAGE = ""
LAYOUT = "nothing to download: `source: generated` draws the videos, <class>/<number>.mp4"
READS: tuple[str, ...] = ()
COUNTS: dict[int, dict[str, int]] = {}
PAIRS = (("left", "right"), ("up", "down"), ("grow", "shrink"), ("clockwise", "counter-clockwise"))
CLASSES = tuple(name for pair in PAIRS for name in pair)
MIRRORED = (PAIRS[0], PAIRS[3])  # the mirror image of up is up, and so it grows or shrinks
RANGES = {"train": (8, 10**7), "test": (8, 10**7), "splits": (1, 1000), "seed": (0, 2**32 - 1), "fps": (1, 1000)}
RANGES |= {"side": (32, 4096)}
MOST_FRAMES = 10**5
CLIPS_PER_ITEM = 40  # about a second of work, much more than starting a task

Array = NDArray[Any]
Rng = np.random.Generator


@dataclass(frozen=True, config=STRICT)
class Options:
    """Number and size of the videos."""

    train: int  # clips per split, over all classes
    test: int
    splits: int = 1
    seed: int = 0
    frames: tuple[int, int] = (16, 24)  # a clip's length: smallest and largest
    side: int = 96  # pixels
    fps: int = 12

    @property
    def pool(self) -> int:
        """Clips per class, over all splits: enough that no two splits share a test clip."""
        return max(self.train + self.test, self.splits * self.test) // len(CLASSES)


class Item(NamedTuple):
    """Clips `start` to `stop` (excluded) of a class."""

    label: int
    start: int
    stop: int
    options: Options


def videos(folder: Path, options: Given) -> list[Video]:
    """List the videos of the plan that are present, id <class>/<number>."""
    drawn = (name for item in plan(options) for name in names(item))
    return sorted(Video(name, f"{name}.mp4") for name in drawn if (folder / f"{name}.mp4").is_file())


def splits(lists: Path, options: Given) -> Splits:
    """Build the splits: split k tests on the k-th stretch of each class's pool.

    It trains on the clips after that stretch, which wrap around the pool's end.
    """
    checked = _checked(options)
    train, test = checked.train // len(CLASSES), checked.test // len(CLASSES)
    rows: dict[int, list[Row]] = {split: [] for split in range(1, checked.splits + 1)}
    for split, label in ((split, label) for split in rows for label in range(len(CLASSES))):
        for place in range(test + train):
            index = ((split - 1) * test + place) % checked.pool
            rows[split].append(Row(_name(label, index), "test" if place < test else "train", (label,)))
    return Splits(CLASSES, rows)


def plan(options: Given) -> list[Item]:
    """List independent pieces of work of up to CLIPS_PER_ITEM clips each."""
    checked = _checked(options)
    starts = range(0, checked.pool, CLIPS_PER_ITEM)
    return [
        Item(label, start, min(start + CLIPS_PER_ITEM, checked.pool), checked)
        for label in range(len(CLASSES))
        for start in starts
    ]


def made(item: Item, folder: Path) -> bool:
    """Return true if all of an item's clips exist."""
    return all((folder / f"{name}.mp4").exists() for name in names(item))


def make(item: Item, folder: Path) -> None:
    """Draw and encode an item's clips, except those that exist."""
    for index in range(item.start, item.stop):
        path = folder / f"{_name(item.label, index)}.mp4"
        if not path.exists():
            # Each clip has a seed: a class's clips are not the reversals of its partner's, and do not change when the
            # pool grows.
            frames = clip(item.label, np.random.default_rng((item.options.seed, item.label, index)), item.options)
            encode(frames, path, item.options.fps)


def clip(label: int, rng: Rng, options: Options) -> NDArray[np.uint8]:
    """Draw a clip (T,side,side,3), RGB.

    With the same generator a pair's second class gives the first's frames, reversed.
    """
    frames = _forward(PAIRS[label // 2][0], rng, int(rng.integers(*options.frames, endpoint=True)), options.side)
    return frames[::-1] if label % 2 else frames


def encode(frames: NDArray[np.uint8], path: Path, fps: int) -> None:
    """Encode frames (T,H,W,3) to H.264: equal bytes for equal frames and ffmpeg.

    Raises:
        UserError: ffmpeg fails.
    """
    _, height, width, _ = frames.shape
    with writing(path) as temporary:
        source = ffmpeg.input("pipe:", format="rawvideo", pix_fmt="rgb24", s=f"{width}x{height}", r=fps, threads=1)
        target = source.output(
            str(temporary),
            format="mp4",
            vcodec="libx264",
            preset="ultrafast",
            pix_fmt="yuv420p",
            # Every frame is coded independently at one quantizer. With predicted frames, or a rate control that looks
            # back, quality would rise or fall in the order of coding, and reveal the direction of a reversed clip.
            g=1,
            qp=24,
            threads=1,
            fflags="+bitexact",
            flags="+bitexact",
        )
        try:
            target.overwrite_output().run(cmd=ffmpeg_exe()[0], input=frames.tobytes(), quiet=True)
        except ffmpeg.Error as error:
            messages = error.stderr.decode(errors="replace").strip().splitlines()
            raise UserError(
                f"ffmpeg could not write {path.name}: {messages[-1] if messages else 'it printed no error'}"
            ) from None


def _checked(options: Given) -> Options:
    checked = chosen(Options, options, "shapes")
    if checked.frames[1] > MOST_FRAMES:
        raise UserError(f"shapes: option frames: {checked.frames[1]} is more than {MOST_FRAMES}")
    for key in ("train", "test"):
        if (count := getattr(checked, key)) < len(CLASSES) or count % len(CLASSES):
            raise UserError(f"shapes: option {key}: {count} is no multiple of the {len(CLASSES)} classes")
    if not 2 <= checked.frames[0] <= checked.frames[1]:
        raise UserError(
            f"shapes: option frames: from {checked.frames[0]} to {checked.frames[1]} is no range of lengths >= 2"
        )
    for key, (least, most) in RANGES.items():
        if not least <= (value := getattr(checked, key)) <= most:
            raise UserError(f"shapes: option {key}: {value} is not from {least} to {most}")
    if checked.side % 2:
        raise UserError(f"shapes: option side: {checked.side} is odd, and H.264 stores color at half size")
    return checked


def _name(label: int, index: int) -> str:
    return f"{CLASSES[label]}/{index:06d}"


def names(item: Item) -> list[str]:
    """Return the ids of the clips that an item makes."""
    return [_name(item.label, index) for index in range(item.start, item.stop)]


def _forward(motion: str, rng: Rng, length: int, side: int) -> NDArray[np.uint8]:
    """Draw a clip of a pair's first class (T,S,S,3)."""
    # T frames, S pixels per side
    time = np.arange(length, dtype=np.float32) / length  # (T,)
    image = _background(rng, time, side)  # (T,S,S,3)
    for _ in range(rng.integers(2, 4)):
        x, y = (rng.uniform() + _swing(rng, time, 0.05, 0.15) for _ in range(2))
        _draw(image, x, y, rng.uniform(0.03, 0.06) + 0 * time, _swing(rng, time, 0, 0.5), rng, marked=False)
    way = rng.uniform() + rng.uniform(0.5, 0.9) * time  # position on its circle, in widths, sizes or turns
    x, y = (rng.uniform(0.2, 0.8) + _swing(rng, time, 0, 0.03) for _ in range(2))
    angle = rng.uniform() + _swing(rng, time, 0, 0.03)
    phase = rng.uniform() + 0 * time
    if motion == "left":
        x = -way
    elif motion == "up":
        y = -way  # y points down
    elif motion == "grow":
        phase = way
    else:
        angle = way  # clockwise, because y points down
    radius = 0.14 + 0.16 * (phase % 1)
    _draw(image, x, y, radius, angle, rng, marked=True)
    noise = rng.integers(-10, 11, image.shape, dtype=np.int8)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def _swing(rng: Rng, time: Array, least: float, most: float) -> Array:
    """Return a swing back and forth (T,), with an amplitude between the two.

    It has no direction.
    """
    turns, start = rng.uniform(0.7, 1.5), rng.uniform()
    return rng.uniform(least, most) * np.sin(2 * np.pi * (turns * time + start), dtype=np.float32)


def _background(rng: Rng, time: Array, side: int) -> Array:
    """Draw a texture that drifts, in any direction, on a torus (T,S,S,3)."""
    coarse = rng.uniform(40, 110, (rng.integers(4, 10), rng.integers(4, 10), 3)).astype(np.float32)
    wrapped = np.pad(coarse, ((1, 1), (1, 1), (0, 0)), mode="wrap")
    rows, columns = (side * (size + 2) // size for size in coarse.shape[:2])
    tile = cv2.resize(wrapped, (columns, rows), interpolation=cv2.INTER_LINEAR)
    top, left = (rows - side) // 2, (columns - side) // 2
    tile = tile[top : top + side, left : left + side]  # (S,S,3)
    place = np.arange(side)
    y, x = (
        (place + np.round(side * rng.uniform(-0.3, 0.3) * time)[:, None].astype(int)) % side  # (T,S)
        for _ in range(2)
    )
    return tile[y[:, :, None], x[:, None, :]]


def _draw(image: Array, x: Array, y: Array, radius: Array, angle: Array, rng: Rng, marked: bool) -> None:
    """Draw a shape into every frame; x, y, radius (T,) in sides, angle (T,) in turns."""
    side = image.shape[1]
    corners = int(rng.choice([0, 3, 4, 5]))  # 0 is a disc
    place = (np.arange(side, dtype=np.float32) + 0.5) / side
    # The nearest of the shape's images on the torus, in sides from its center.
    right = ((place - x[:, None] + 0.5) % 1 - 0.5).astype(np.float32)[:, None, :]  # (T,1,S)
    down = ((place - y[:, None] + 0.5) % 1 - 0.5).astype(np.float32)[:, :, None]  # (T,S,1)
    size, turn = radius.astype(np.float32)[:, None, None], (2 * np.pi * angle).astype(np.float32)[:, None, None]
    if corners:
        # A point is outside a regular polygon if it is outside one of its edges.
        edges = [turn + np.float32(2 * np.pi * edge / corners) for edge in range(corners)]
        distance = functools.reduce(np.maximum, [right * np.cos(edge) + down * np.sin(edge) for edge in edges])
        distance -= size * np.float32(0.75)
    else:
        distance = np.sqrt(right**2 + down**2) - size
    colour = rng.uniform(150, 255, 3) if marked else rng.uniform(20, 160, 3)
    _blend(image, distance, colour.astype(np.float32))
    if marked:
        # A turning disc always looks the same, and a square repeats every quarter: a dark end makes the turn visible.
        end = size * np.float32(0.2) - right * np.cos(turn) - down * np.sin(turn)
        _blend(image, np.maximum(distance, end), (colour - 150).astype(np.float32))


def _blend(image: Array, distance: Array, colour: Array) -> None:
    """Color (3,) the inside of a shape, with a soft edge.

    The inside has a negative distance (T,S,S), in sides. The edge is a pixel wide.
    """
    inside = np.nonzero(distance * image.shape[1] < 0.5)  # few pixels of many
    cover = np.minimum(0.5 - distance[inside] * image.shape[1], 1)[:, None]
    image[inside] += cover * (colour - image[inside])
