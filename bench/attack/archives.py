"""Archives as input: whole, cut, flipped and hostile."""

import bz2
import gzip
import hashlib
import io
import lzma
import random
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa

from bench.attack.changes import Change, cut, empty, flip
from bench.attack.judge import Attack
from pipeline.config.schema import Dataset, Decode
from pipeline.download import sources

NOTES = (sources.MADE, sources.SUMS)  # files that the download stage adds
DECODE = Decode(short_side=36, quality=90, decoder="ffmpeg", videos_per_shard=8, max_failed=0.0)
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "tar": bytes,
    "tar.gz": gzip.compress,
    "tar.bz2": bz2.compress,
    "tar.xz": lzma.compress,
    "tar.zst": lambda content: pa.compress(content, "zstd", asbytes=True),
}
LEADING_OUT = (
    "../out.mp4",
    "a/../../out.mp4",
    "/tmp/out.mp4",
    "..\\out.mp4",
    "C:\\out.mp4",
    "a/../../../precious/x.mp4",
)
ODD = (
    *("x:y/a.mp4", "müsli/ß.mp4", "a b/c d.mp4", "=1+1/a.mp4"),
    *("-rf/a.mp4", "a'b/$HOME.mp4", "..a/b..mp4", "CON/nul.mp4"),
)
CONTROL = ("a\nb/c.mp4", "a\tb.mp4", "\x1b[31m.mp4", "\udcff.mp4")
SPECIAL = {
    "link": tarfile.SYMTYPE,
    "hard link": tarfile.LNKTYPE,
    "device": tarfile.CHRTYPE,
    "block device": tarfile.BLKTYPE,
    "pipe": tarfile.FIFOTYPE,
}


def attacks(rng: random.Random) -> Iterator[Attack]:
    for suffix in ("zip", *PACKERS):
        yield _attack(f"whole {suffix}", "right", suffix, FILES)
        for _ in range(2):
            yield _attack(f"cut {suffix}", "line", suffix, FILES, cut(rng.random(), end=1100))
        flipped = flip(rng.random(), rng.randrange(8))
        yield _attack(f"flipped {suffix}, checksum named", "line", suffix, FILES, flipped, named=True)
    for name in LEADING_OUT:
        suffix = rng.choice(("zip", "tar"))
        # Names that are paths on Windows only may be refused elsewhere too.
        yield _attack(f"name {name!r} in {suffix}", "line", suffix, {**FILES, name: b"x"})
    for name in ODD:
        yield _attack(f"name {name!r}", "right", rng.choice(("zip", "tar.gz")), {**FILES, name: b"x"})
    for name in CONTROL:
        yield _attack(f"name {name!r}", "either", "tar", {**FILES, name: b"x"})
    for name, kind in SPECIAL.items():
        yield _attack(f"{name} in tar", "line", "tar", FILES, special=kind)
    yield _attack("link in zip", "line", "zip", FILES, special=b"zip")
    for words, change in {
        "bytes behind a zip": lambda content: content + b"more" * 100,
        "bytes before a zip": lambda content: b"#!/bin/sh\n" * 10 + content,
        "an empty zip file": empty,
        "text as a zip": lambda content: b"<html>not found</html>",
        "a zip that declares 4 GiB": _declares,
        "a zip with a password": _locked,
    }.items():
        wants = "right" if words.startswith("bytes") else "either" if "declares" in words else "line"
        yield _attack(words, wants, "zip", FILES, change)
    yield _attack("a tar without its end mark", "line", "tar", FILES, lambda content: content[: 3 * 1024])
    yield _attack("a tar in a zip", "right", "zip", {"part1.tar": _tar(FILES)}, expected=FILES)
    yield _attack("a cut tar in a zip", "line", "zip", {"part1.tar": _tar(FILES)[:1500]})
    yield _attack("a file that is a folder too", "either", "tar", {"a": b"x", "a/b.mp4": b"y"})
    yield _attack("a name of 300 characters", "line", "tar.gz", {"n" * 300 + ".mp4": b"x"})
    yield _attack("200 folders deep", "either", "tar.gz", {"d/" * 200 + "a.mp4": b"x"})
    for suffix in ("rar", "7z"):
        yield _attack(f"text as a {suffix}", "line", suffix, FILES)


FILES = {f"class {number % 2}/{number}.mp4": bytes([number]) * 700 for number in range(4)}


def _attack(
    words: str,
    wants: str,
    suffix: str,
    files: dict[str, bytes],
    change: Change = bytes,
    named: bool = False,
    special: bytes = b"",
    expected: dict[str, bytes] | None = None,
) -> Attack:
    def act(folder: Path) -> str:
        whole = _packed(suffix, files, special)
        archive = folder / f"set.{suffix}"
        archive.write_bytes(change(whole))
        precious = folder / "precious"
        precious.mkdir()
        (precious / "file").write_text("mine")
        before = _tree(folder)
        source = str(archive) + (f"#sha256={hashlib.sha256(whole).hexdigest()}" if named else "")
        dataset = Dataset("folder", source, None, {}, DECODE)
        videos = folder / "data" / "videos" / "set"
        try:
            unpacked = sources.fetch("set", dataset, folder, videos)
        finally:
            after = {name: content for name, content in _tree(folder).items() if not name.startswith("data/")}
            if after != before or Path("/tmp/out.mp4").exists():
                raise AssertionError("it wrote outside its folder")
        contents = {name: content for name, content in _tree(unpacked).items() if name not in NOTES}
        return "" if contents == (expected or files) else f"unpacked {sorted(contents)[:3]}"

    return Attack("archives", words, wants, act)


def _packed(suffix: str, files: dict[str, bytes], special: bytes) -> bytes:
    if suffix in PACKERS:
        return PACKERS[suffix](_tar(files, special))
    return zipped(files, bool(special)) if suffix == "zip" else b"no archive at all"


def zipped(files: dict[str, bytes], link: bool = False) -> bytes:
    """Return a zip of some files, perhaps with a symbolic link."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        if link:
            entry = zipfile.ZipInfo("link.mp4")
            entry.external_attr = 0o120777 << 16
            archive.writestr(entry, "/etc/passwd")
    return target.getvalue()


def _tar(files: dict[str, bytes], special: bytes = b"") -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", errors="surrogateescape") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        if special:
            member = tarfile.TarInfo("special.mp4")
            member.type, member.linkname = special, "../precious/file"
            archive.addfile(member)
    return target.getvalue()


def _declares(content: bytes) -> bytes:
    """Let a zip's directory declare more bytes for its first entry than any disk has."""
    at = content.index(b"PK\x01\x02")
    return content[: at + 24] + b"\xfe\xff\xff\xff" + content[at + 28 :]


def _locked(content: bytes) -> bytes:
    """Set the password flag of a zip's first entry."""
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.index(mark) + offset
        content = content[:at] + bytes([content[at] | 1]) + content[at + 1 :]
    return content


def _tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
