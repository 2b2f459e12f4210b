"""Integrity of video files: the sizes in a container, compared with its bytes."""

import mmap
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

_SEGMENT, _TRACKS, _CLUSTER = 0x18538067, 0x1654AE6B, 0x1F43B675  # Matroska's ids
_CRC32 = b"\xbf\x84"  # id and size of the element that may come first in any other
MP4_FIRST = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
HOLE = bytes(512)  # a lost sector, which decodes; VP8's and VP9's arithmetic coders never write it
# Boxes that a recorder or an editor writes at the top level; bytes of other names after the media are no part of it.
_MP4_BOXES = {*MP4_FIRST, b"moof", b"mfra", b"styp", b"sidx", b"ssix", b"prft", b"emsg", b"meta", b"meco", b"pdin"}
_MP4_BOXES |= {b"uuid", b"udta"}
_CODECS = {b"\x86\x85V_VP8": "vp8", b"\x86\x85V_VP9": "vp9", b"vp08": "vp8", b"vp09": "vp9"}


class Damaged(Exception):
    """A video that is not whole; the message is a reproducible line without paths."""


def check(path: Path) -> None:
    """Raise Damaged if a file does not match the sizes in its container.

    Decoders silently return fewer frames of a cut file. Checked are AVI (RIFF sizes, and idx1's entries against the
    chunks), MP4 and MOV (boxes), Matroska and WebM (element sizes, and CRC-32 if present). Other containers are left to
    the decoder's errors. OSError for a file that can't be read.
    """
    if path.stat().st_size == 0:
        raise Damaged("the file is empty")
    data = _mapped(path)
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        _check_avi(data)
    elif data[:4] == b"\x1a\x45\xdf\xa3":
        _check_matroska(data)
    for _ in _parts(data):  # raises for a cut file
        pass


def hollow(path: Path) -> bool:
    """Return true if a VP8 or VP9 file has a lost sector in any stream."""
    data = _mapped(path)
    media = [(start, end) for name, start, end in _parts(data) if name in (b"mdat", _CLUSTER)]
    return codec(path) is not None and any(data.find(HOLE, start, end) >= 0 for start, end in media)


def codec(path: Path) -> str | None:
    """Return "vp8" or "vp9" if a whole MP4, Matroska or WebM file holds it, or None."""
    data = _mapped(path)
    heads = [(start, end) for name, start, end in _parts(data) if name in (b"moov", _TRACKS)]
    return next((name for mark, name in _CODECS.items() for head in heads if data.find(mark, *head) >= 0), None)


def _parts(data: mmap.mmap) -> Iterator[tuple[bytes | int, int, int]]:
    """Yield (name, start, end of payload) of an MP4's, MOV's or Matroska's parts."""
    if data[4:8] in MP4_FIRST:
        yield from _boxes(data)
    elif data[:4] == b"\x1a\x45\xdf\xa3":
        for _, name, start, end in _elements(data):
            yield name, start, end


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _fits(what: str, end: int, data: mmap.mmap) -> None:
    if end > len(data):
        raise Damaged(f"the file is cut: its {what} ends at byte {end}, the file at {len(data)}")


def _chunks(data: mmap.mmap, start: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield RIFF chunks: (four letters, start of the payload, declared size)."""
    while start + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, start)
        yield name, start + 8, size
        start += 8 + size + (size & 1)


def _check_avi(data: mmap.mmap) -> None:
    """Check an AVI or OpenDML: a chain of RIFF chunks, and the index of the first."""
    for name, start, size in _chunks(data, 0):
        if name != b"RIFF":
            break
        if size != 0xFFFFFFFF:  # left by a writer that could not seek
            _fits("RIFF chunk", start + size, data)
    movi = 0
    for name, start, size in _chunks(data, 12):
        if name == b"LIST" and data[start : start + 4] == b"movi":
            movi = start
        if name == b"idx1" and movi and start + size <= len(data):
            _check_idx1(data, movi, start, size)


def _check_idx1(data: mmap.mmap, movi: int, start: int, size: int) -> None:
    """Compare index entries (name, flags, offset, size) with their chunks."""
    whole = np.frombuffer(data, np.uint8)
    entries = np.frombuffer(data, "<u4", size // 16 * 4, start).reshape(-1, 4)
    entries = entries[entries[:, 0] != int.from_bytes(b"rec ", "little")]
    wrong = len(entries)
    for origin in (movi, 0):  # writers disagree on what the offsets count from
        at = entries[:, 2].astype(np.int64) + origin
        inside = np.minimum(at, len(whole) - 8)
        headers = whole[inside[:, None] + np.arange(8)].view("<u4")
        same = (headers == entries[:, (0, 3)]).all(axis=1) & (at == inside)
        wrong = min(wrong, int((~same).sum()))
    if wrong:
        raise Damaged(f"{wrong} of the {len(entries)} entries of its index point at no such chunk")


def _boxes(data: mmap.mmap) -> Iterator[tuple[bytes, int, int]]:
    """Yield ISO base media's boxes of the top level: (name, start, end of payload).

    Bytes behind them are ignored: some cameras, editors and downloaders append bytes to a complete file.
    """
    start, seen = 0, set[bytes]()
    while start + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, start)
        header = 8
        if size == 1 and start + 16 <= len(data):
            size, header = struct.unpack_from(">Q", data, start + 8)[0], 16
        if size == 0:  # up to the end of the file, or zeros left by a writer
            size = len(data) - start
        if b"moov" in seen and seen & {b"mdat", b"moof"} and name not in _MP4_BOXES:
            if b"moof" in seen and data.find(b"moof", start) >= 0:
                raise Damaged(
                    f"the file is damaged: no box of an MP4 begins at byte {start}, and more fragments follow"
                )
            return
        if size < header or not name.isascii():
            raise Damaged(f"the file is damaged: no box of an MP4 begins at byte {start}")
        _fits(f"box {name.decode()!r}", start + size, data)
        yield name, start + header, start + size
        seen.add(name)
        start += size


def _elements(
    data: mmap.mmap, start: int = 0, stop: int | None = None, level: int = 0
) -> Iterator[tuple[int, int, int, int]]:
    """Yield Matroska's elements: (level, id, start, end of payload)."""
    while start < (len(data) if stop is None else stop):
        name, at, _ = _number(data, start)
        size, at, unknown = _number(data, at)
        end = len(data) if unknown else at + (size & ~(1 << size.bit_length() - 1))
        _fits(f"Matroska element {name:X}", end, data)
        yield level, name, at, end
        if unknown and name != _SEGMENT:  # a live recording, whose elements have no known end
            return
        if name == _SEGMENT:
            yield from _elements(data, at, end, level + 1)
            return
        start = end


def _number(data: mmap.mmap, at: int) -> tuple[int, int, bool]:
    """Read an EBML number: (value with its marker bit, next byte, all ones)."""
    length = 9 - data[at].bit_length() if at < len(data) else 9
    if length > 8 or at + length > len(data):
        raise Damaged(f"the file is damaged: no Matroska element begins at byte {at}")
    number = int.from_bytes(data[at : at + length], "big")
    return number, at + length, number == (1 << 7 * length + 1) - 1


def _check_matroska(data: mmap.mmap) -> None:
    for level, name, start, end in _elements(data):
        if level and data[start : start + 2] == _CRC32:
            written, content = data[start + 2 : start + 6], memoryview(data)[start + 6 : end]
            if zlib.crc32(content).to_bytes(4, "little") != written:
                raise Damaged(f"the checksum of Matroska element {name:X} at byte {start} is wrong")
