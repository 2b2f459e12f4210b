"""Is a video file whole? What its container says about its own size, held against the bytes that are there."""

import mmap
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

_MATROSKA_SEGMENT = 0x18538067
_CRC32 = b"\xbf\x84"  # id and size of the element that may come first in any other
_MP4_FIRST = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")


def broken(path: Path) -> str | None:
    """One line that says what the file lacks, or None where nothing can be said against it.

    Decoders read a cut file to its end and return fewer frames without a word; the container knows better. Known:
    AVI (RIFF sizes, and idx1's entries against the chunks), MP4 and MOV (boxes), Matroska and WebM (element sizes,
    and CRC-32 where it is written). Other containers are left to the decoder's own errors.
    """
    if path.stat().st_size == 0:
        return "the file is empty"
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return _avi(data)
    if data[4:8] in _MP4_FIRST:
        return _mp4(data)
    if data[:4] == b"\x1a\x45\xdf\xa3":
        return _matroska(data)
    return None


def _cut(what: str, end: int, size: int) -> str:
    return f"the file is cut: its {what} ends at byte {end}, the file at {size}"


def _chunks(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """RIFF chunks from `start`: (four letters, start of the payload, its size); a size may lie."""
    while start + 8 <= end:
        name, size = struct.unpack_from("<4sI", data, start)
        yield name, start + 8, size
        start += 8 + size + (size & 1)


def _avi(data: mmap.mmap) -> str | None:
    """AVI and OpenDML: a chain of RIFF chunks, and the old index of the first."""
    for name, start, size in _chunks(data, 0, len(data)):
        if name != b"RIFF":
            break
        if size != 0xFFFFFFFF and start + size > len(data):
            return _cut("RIFF chunk", start + size, len(data))
    movi = 0
    for name, start, size in _chunks(data, 12, len(data)):
        if name == b"LIST" and data[start : start + 4] == b"movi":
            movi = start
        if name == b"idx1" and movi and start + size <= len(data):
            return _idx1(data, movi, start, size)
    return None


def _idx1(data: mmap.mmap, movi: int, start: int, size: int) -> str | None:
    """Every entry of the index (name, flags, offset, size) against the chunk header that it points at."""
    whole = np.frombuffer(data, np.uint8)
    entries = np.frombuffer(data, "<u4", size // 16 * 4, start).reshape(-1, 4)
    entries = entries[entries[:, 0] != int.from_bytes(b"rec ", "little")]
    if not len(entries):
        return None
    wrong = len(entries)
    for origin in (movi, 0):  # writers disagree on what the offsets count from
        at = entries[:, 2].astype(np.int64) + origin
        inside = np.minimum(at, len(whole) - 8)
        header = whole[inside[:, None] + np.arange(8)].view("<u4")
        same = (header == entries[:, (0, 3)]).all(axis=1) & (at == inside)
        wrong = min(wrong, int((~same).sum()))
    return f"{wrong} of the {len(entries)} entries of its index point at no such chunk" if wrong else None


def _mp4(data: mmap.mmap) -> str | None:
    """ISO base media: the boxes of the top level follow one another up to the end of the file."""
    start = 0
    while start + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, start)
        header = 8
        if size == 1 and start + 16 <= len(data):
            size, header = struct.unpack_from(">Q", data, start + 8)[0], 16
        if size == 0:  # up to the end of the file; or zeros that a writer left there
            return None
        if size < header or not name.isascii():
            return f"no box begins at byte {start}"
        if start + size > len(data):
            return _cut(f"box {name.decode()!r}", start + size, len(data))
        start += size
    return None


def _vint(data: mmap.mmap, at: int, keep_marker: bool) -> tuple[int | None, int]:
    """An EBML number of 1 to 8 bytes: (value, or None for the reserved unknown, where the next byte lies)."""
    if at >= len(data) or not data[at]:
        raise ValueError(at)
    length = 9 - data[at].bit_length()
    raw = data[at : at + length]
    if len(raw) < length:
        raise ValueError(at)
    value, ones = int.from_bytes(raw, "big"), (1 << 7 * length) - 1
    if keep_marker:
        return value, at + length
    return (None if value & ones == ones else value & ones), at + length


def _elements(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int | None]]:
    """EBML elements from `start`: (id, start of the payload, its size or None for unknown); ValueError for no id."""
    while start < end:
        name, at = _vint(data, start, keep_marker=True)
        size, at = _vint(data, at, keep_marker=False)
        yield name or 0, at, size
        if size is None:
            return
        start = at + size


def _matroska(data: mmap.mmap) -> str | None:
    """Matroska and WebM: the segment, and the elements one level below it."""
    try:
        for name, start, size in _elements(data, 0, len(data)):
            if name != _MATROSKA_SEGMENT:
                continue
            if size is not None and start + size > len(data):
                return _cut("Matroska segment", start + size, len(data))
            for part, at, length in _elements(data, start, len(data) if size is None else start + size):
                if length is None:
                    return None
                if at + length > len(data):
                    return _cut(f"Matroska element {part:X}", at + length, len(data))
                if data[at : at + 2] == _CRC32:
                    expected, content = data[at + 2 : at + 6], memoryview(data)[at + 6 : at + length]
                    if zlib.crc32(content).to_bytes(4, "little") != expected:
                        return f"the checksum of Matroska element {part:X} at byte {at} is wrong"
    except ValueError as error:
        return f"no Matroska element begins at byte {error}"
    return None
