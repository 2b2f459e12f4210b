"""CIFAR-100: 60,000 32 x 32 images in 100 classes, as videos of one frame.

Krizhevsky 2009. All images are in two files, so they are written as videos here: uncompressed AVI, without loss. The
frame store then keeps them as JPEG, with color at half the size. Labels are the fine ones. Rows are in the files'
order. `lists` is not used: labels are with the images, in the folder of the option `binary`.
"""

import struct
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass

from pipeline.config.schema import STRICT
from pipeline.datasets import Options as Given
from pipeline.datasets import Part, Row, Splits, Video, chosen
from pipeline.errors import UserError
from pipeline.storage.atomic import writing

LICENCE = "the makers state none"
CITATION = "Krizhevsky: Learning multiple layers of features from tiny images. Technical report, 2009"
HOMEPAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
FETCH = (
    "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz (md5 03b5dce01913d631647c71ecec9e9cb8); no form to sign"
)
SIZE = 168_513_733
LAYOUT = (
    "the content of cifar-100-binary.tar.gz: train.bin, test.bin and fine_label_names.txt, in the folder that the "
    "option `binary` names"
)
READS: tuple[str, ...] = ()
COUNTS = {1: {"train": 50_000, "test": 10_000}}
CLASSES_LISTED = 100
STILL = True
MIRRORED: tuple[tuple[str, str], ...] = ()  # no class has a direction: mirrored images keep their labels
PARTS: tuple[Part, ...] = ("train", "test")
SIDE = 32  # pixels
RECORD = 2 + 3 * SIDE * SIDE  # bytes: coarse label, fine label, then red, green and blue, each row by row
IMAGES_PER_ITEM = 2_500


@dataclass(frozen=True, config=STRICT)
class Options:
    """The folder of the makers' files."""

    binary: str  # relative to the project's root, or absolute


class Item(NamedTuple):
    """Some images of a file, by their numbers in it, ascending."""

    part: Part
    numbers: Sequence[int]
    file: Path


def drawn_from(options: Given) -> list[Path]:
    """List the makers' files; a relative path starts from the project's root."""
    return [_binary(options) / name for name in ("train.bin", "test.bin", "fine_label_names.txt")]


def videos(folder: Path, options: Given) -> list[Video]:
    """List the images present as videos, id <part>/<number in its file>."""
    names = [name for item in plan(options) for name in _names(item)]
    return [Video(name, f"{name}.avi") for name in names if (folder / f"{name}.avi").is_file()]


def splits(lists: Path, options: Given) -> Splits:
    """Read the makers' parts.

    Raises:
        UserError: A file is absent or cut, or a label is no class.
    """
    binary = _binary(options)
    try:
        classes = tuple((binary / "fine_label_names.txt").read_text(encoding="utf-8").split())
    except FileNotFoundError:
        raise UserError(f"cifar100: {binary.resolve()} has no fine_label_names.txt. Expected: {LAYOUT}") from None
    if len(classes) != CLASSES_LISTED:
        raise UserError(f"{binary}/fine_label_names.txt has {len(classes)} classes; published are {CLASSES_LISTED}")
    rows = [
        Row(name, item.part, (int(label),))
        for item in plan(options)
        for name, label in zip(_names(item), _records(item)[:, 1], strict=True)
    ]
    return Splits(classes, {1: rows})


def plan(options: Given) -> list[Item]:
    """List all images, some thousand per item.

    Raises:
        UserError: A file is absent, or its size is not the published one.
    """
    binary, items = _binary(options), []
    for part in PARTS:
        file, count = binary / f"{part}.bin", COUNTS[1][part]
        if not file.is_file():
            raise UserError(f"cifar100: there is no {file.resolve()}. Expected: {LAYOUT}")
        if (size := file.stat().st_size) != count * RECORD:
            raise UserError(f"{file.resolve()} has {size} bytes; published are {count} images of {RECORD} bytes each")
        starts = range(0, count, IMAGES_PER_ITEM)
        items += [Item(part, range(start, min(start + IMAGES_PER_ITEM, count)), file) for start in starts]
    return items


def only(items: Sequence[Item], ids: Collection[str]) -> list[Item]:
    """Reduce items to the wanted images; an item without any is left out."""
    fewer = [
        item._replace(numbers=[n for n, name in zip(item.numbers, _names(item), strict=True) if name in ids])
        for item in items
    ]
    return [item for item in fewer if item.numbers]


def made(item: Item, folder: Path) -> bool:
    """Return true if all of an item's images exist."""
    return all((folder / f"{name}.avi").is_file() for name in _names(item))


def make(item: Item, folder: Path) -> None:
    """Write an item's images, except those that exist."""
    for name, record in zip(_names(item), _records(item), strict=True):
        if not (path := folder / f"{name}.avi").is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            with writing(path) as temporary:
                temporary.write_bytes(avi(record[2:].reshape(3, SIDE, SIDE)))


def avi(image: NDArray[np.uint8]) -> bytes:
    """Encode an image (3,H,W) as a one-frame AVI.

    RGB, W a multiple of 4; a RIFF file with a bitmap.
    """
    _, height, width = image.shape
    pixels = np.ascontiguousarray(image[::-1, ::-1].transpose(1, 2, 0)).tobytes()  # blue first, the lowest row first
    size = len(pixels)
    main = struct.pack("<14I", 1_000_000, size, 0, 0x10, 1, 0, 1, size, width, height, 0, 0, 0, 0)  # 1 s; has an index
    stream = struct.pack("<4s4sI2H8I4H", b"vids", b"DIB ", 0, 0, 0, 0, 1, 1, 0, 1, size, 0, 0, 0, 0, width, height)
    bitmap = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, size, 0, 0, 0, 0)
    streams = _chunk(b"LIST", b"strl" + _chunk(b"strh", stream) + _chunk(b"strf", bitmap))
    header = _chunk(b"LIST", b"hdrl" + _chunk(b"avih", main) + streams)
    index = _chunk(b"idx1", struct.pack("<4s3I", b"00db", 0x10, 4, size))
    return _chunk(b"RIFF", b"AVI " + header + _chunk(b"LIST", b"movi" + _chunk(b"00db", pixels)) + index)


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content


def _binary(options: Given) -> Path:
    return Path(chosen(Options, options, "cifar100").binary).expanduser()


def _names(item: Item) -> list[str]:
    return [f"{item.part}/{number:05d}" for number in item.numbers]


def _records(item: Item) -> NDArray[np.uint8]:
    """Read an item's images with their labels (images, RECORD)."""
    first, last = item.numbers[0], item.numbers[-1]
    read = np.fromfile(item.file, np.uint8, (last + 1 - first) * RECORD, offset=first * RECORD).reshape(-1, RECORD)
    return read[np.array(item.numbers) - first]
