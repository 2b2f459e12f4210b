"""A folder of numbered JPEG frames -> a video's frames: their own bytes where these fit the store, else scaled."""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import simplejpeg

from pipeline import datasets
from pipeline.decode.decoders import FFmpeg, Frames
from pipeline.decode.ffmpeg import MOST_PIXELS
from pipeline.decode.integrity import Damaged

# JPEG's markers: those that a frame of each kind begins with, and those that no length follows.
_BASELINE, _OTHERS = 0xC0, (0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
_BARE = (0x01, *range(0xD0, 0xDA))


def decode(folder: Path, first: int | None, last: int | None, fps: float, ffmpeg: FFmpeg) -> tuple[Frames, str, bool]:
    """(frames, their digest, whether they are the folder's own bytes), from `first` to `last`, both included.

    Without a range, from the frame 1, or 0 where there is one, to the last one there. fps: as published, 0 where that
    is unknown; a frame's time is its place / fps, counted from the range's first. Frames whose short side is the
    store's keep their bytes, and hence their quality, where all are baseline JPEG; else ffmpeg scales them all as it
    does videos', smaller ones too. An orientation in Exif is passed over either way, as by PIL, by which the papers'
    code reads. Raises Damaged where a frame is missing, twice there, damaged or of another size than the first, and
    OSError where one can't be read.
    """
    files = _whole(datasets.frames(folder, first, last), first, last)
    contents = [file.read_bytes() for file in files]
    sizes = [_size(file.name, content) for file, content in zip(files, contents, strict=True)]
    height, width = sizes[0]
    for file, (high, wide) in zip(files, sizes, strict=True):
        if (high, wide) != (height, width):
            raise Damaged(f"frame {file.name} has {wide}x{high} pixels, {files[0].name} {width}x{height}")
    times = [number / fps if fps else math.nan for number in range(len(files))]
    found = Frames(width, height, fps, times, contents)
    own = min(width, height) == ffmpeg.short_side and all(map(baseline, contents))
    if not own:
        scaled = _scaled(contents, ffmpeg)
        found = replace(found, width=scaled.width, height=scaled.height, jpegs=scaled.jpegs)
    return found, datasets.digest((file.name, content) for file, content in zip(files, contents, strict=True)), own


def baseline(jpeg: bytes) -> bool:
    """Whether it is sequential, 8 bits, Huffman coded: what every decoder reads in one pass, at any scale."""
    at = 2
    while at + 4 <= len(jpeg) and jpeg[at] == 0xFF:
        marker = jpeg[at + 1]
        if marker == _BASELINE:
            return True
        if marker in _OTHERS:
            return False
        at += 1 if marker == 0xFF else 2 if marker in _BARE else 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
    return False


def _whole(listed: Sequence[tuple[int, Path]], first: int | None, last: int | None) -> list[Path]:
    """The files of a range without gaps."""
    if not listed and first is None:
        raise Damaged("the folder holds no numbered JPEG frames")
    there: dict[int, Path] = {}
    for number, file in listed:
        if number in there:
            raise Damaged(f"frame {number} is there twice, as {there[number].name} and {file.name}")
        there[number] = file
    begin = min(1, min(there)) if first is None else first
    end = max(there) if last is None else last
    numbers = [number for number in sorted(there) if begin <= number <= end]
    if lost := end - begin + 1 - len(numbers):  # counted, not listed: a name that is a date is a number too
        missing = next(
            (wanted for wanted, number in enumerate(numbers, begin) if wanted != number), begin + len(numbers)
        )
        more = f", and {lost - 1} more of {begin} to {end}" if lost > 1 else ""
        raise Damaged(f"frame {missing} is missing{more}")
    return [there[number] for number in numbers]


def _size(name: str, jpeg: bytes) -> tuple[int, int]:
    """(height, width) of a frame that is whole, which only reading all of it can tell."""
    try:
        height, width = simplejpeg.decode_jpeg_header(jpeg)[:2]
        if height * width > MOST_PIXELS:
            raise Damaged(f"frame {name} declares {width}x{height} pixels, more than can be decoded")
        return simplejpeg.decode_jpeg(jpeg).shape[:2]
    except ValueError as error:
        raise Damaged(f"frame {name} is damaged: {str(error).strip()}"[:200]) from None


def _scaled(jpegs: Sequence[bytes], ffmpeg: FFmpeg) -> Frames:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frames.mjpeg"  # Motion JPEG without a container is just one picture after the other
        path.write_bytes(b"".join(jpegs))
        scaled = ffmpeg.frames(path)
    if len(scaled.jpegs) != len(jpegs):
        raise Damaged(f"{len(scaled.jpegs)} frames of {len(jpegs)} came through")
    return scaled
