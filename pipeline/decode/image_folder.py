"""Frames of a video from a folder of numbered JPEG files, scaled where needed."""

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

# JPEG's markers that begin a frame of each kind, and those without a length.
_BASELINE, _OTHERS = 0xC0, (0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
_BARE = (0x01, *range(0xD0, 0xDA))


def decode(folder: Path, first: int | None, last: int | None, fps: float, ffmpeg: FFmpeg) -> tuple[Frames, str, bool]:
    """Return (frames, their digest, true if they are the folder's bytes).

    Baseline JPEGs whose short side is the store's keep their bytes, and so their quality. Otherwise ffmpeg scales all
    frames as it does videos', smaller ones too. An orientation in Exif is ignored, as by PIL, which the papers' code
    reads with.

    Args:
        folder: the folder.
        first: number of the first frame; None for 1, or 0 if that exists.
        last: number of the last frame, included; None for the last file.
        fps: published frames per second, 0 if unknown; a frame's time is its place in the range / fps.
        ffmpeg: the decoder.

    Raises:
        Damaged: A frame is missing, present twice, damaged or of another size than the first.
        OSError: A file can't be read.
    """
    files = _whole(datasets.frames(folder, first, last), first, last)
    contents = [file.read_bytes() for file in files]
    sizes = [_size(file.name, content) for file, content in zip(files, contents, strict=True)]
    height, width = sizes[0]
    for file, (high, wide) in zip(files, sizes, strict=True):
        if (high, wide) != (height, width):
            raise Damaged(f"frame {file.name} has {wide}x{high} pixels, {files[0].name} {width}x{height}")
    times = [number / fps if fps else math.nan for number in range(len(files))]
    frames = Frames(width, height, fps, times, contents)
    kept = min(width, height) == ffmpeg.short_side and all(map(baseline, contents))
    if not kept:
        scaled = _scaled(contents, ffmpeg)
        frames = replace(frames, width=scaled.width, height=scaled.height, jpegs=scaled.jpegs)
    return frames, datasets.digest((file.name, content) for file, content in zip(files, contents, strict=True)), kept


def baseline(jpeg: bytes) -> bool:
    """Return true for a sequential, 8-bit, Huffman-coded JPEG."""
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
    """Return the files of a range without gaps."""
    if not listed and first is None:
        raise Damaged("the folder holds no numbered JPEG frames")
    files: dict[int, Path] = {}
    for number, file in listed:
        if number in files:
            raise Damaged(f"frame {number} is there twice, as {files[number].name} and {file.name}")
        files[number] = file
    begin = min(1, min(files)) if first is None else first
    end = max(files) if last is None else last
    numbers = [number for number in sorted(files) if begin <= number <= end]
    if lost := end - begin + 1 - len(numbers):  # counted, not listed: a name that is a date is a number too
        expected = enumerate(numbers, begin)
        missing = next((place for place, number in expected if place != number), begin + len(numbers))
        more = f", and {lost - 1} more of {begin} to {end}" if lost > 1 else ""
        raise Damaged(f"frame {missing} is missing{more}")
    return [files[number] for number in numbers]


def _size(name: str, jpeg: bytes) -> tuple[int, int]:
    """Return (height, width) of a frame, after decoding all of it to find damage."""
    try:
        height, width = simplejpeg.decode_jpeg_header(jpeg)[:2]
        if height * width > MOST_PIXELS:
            raise Damaged(f"frame {name} declares {width}x{height} pixels, more than can be decoded")
        return simplejpeg.decode_jpeg(jpeg).shape[:2]
    except ValueError as error:
        raise Damaged(f"frame {name} is damaged: {str(error).strip()}"[:200]) from None


def _scaled(jpegs: Sequence[bytes], ffmpeg: FFmpeg) -> Frames:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frames.mjpeg"  # Motion JPEG without a container: one picture after another
        path.write_bytes(b"".join(jpegs))
        scaled = ffmpeg.frames(path)
    if len(scaled.jpegs) != len(jpegs):
        raise Damaged(f"{len(scaled.jpegs)} frames of {len(jpegs)} came through")
    return scaled
