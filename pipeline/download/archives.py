"""Unpacking of archives, with no file outside the target folder."""

import bz2
import gzip
import lzma
import shutil
import stat
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pyarrow as pa

from pipeline.errors import UserError

ZIP = (".zip",)
TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")
TOOL = (".rar", ".7z")
KNOWN = ZIP + TAR + TOOL
# Errors of libraries for a damaged archive; OSError is also a full disk, RuntimeError a zip's password.
DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError)
TOOLS = {  # the first installed one is used; each refuses or cuts a name that leads out of the folder
    "unrar": ["x", "-y", "-idq", "{archive}", "{folder}/"],
    "bsdtar": ["-x", "-f", "{archive}", "-C", "{folder}"],
    "7z": ["x", "-y", "-bd", "-o{folder}", "{archive}"],
    "7zz": ["x", "-y", "-bd", "-o{folder}", "{archive}"],
}


def unpack(archive: Path, folder: Path) -> None:
    """Unpack into a fresh folder; an error leaves the files unpacked so far.

    An archive inside (HMDB51 is a rar of rars) is unpacked in its place and removed.

    Raises:
        UserError: The archive is damaged, locked or of unknown kind; it holds a link, a device or a name that leads out
            of the folder; or it needs a tool that isn't installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _unpack(archive, folder)
        for inner in sorted(path for path in folder.rglob("*") if path.name.lower().endswith(KNOWN) and path.is_file()):
            _unpack(inner, inner.parent)
            inner.unlink()
    except DAMAGED as error:
        raise UserError(f"{archive} can't be unpacked: {error}") from None


def _unpack(archive: Path, folder: Path) -> None:
    name = archive.name.lower()
    if name.endswith(ZIP):
        _unzip(archive, folder)
    elif name.endswith(TAR):
        _untar(archive, folder)
    elif name.endswith(TOOL):
        _tool(archive, folder)
    else:
        raise UserError(f"{archive} is no archive of a known kind ({', '.join(KNOWN)})")


def _unzip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as source:
        members = source.infolist()
        _check(archive, ((member.filename, stat.S_ISLNK(member.external_attr >> 16)) for member in members))
        if sum(member.file_size for member in members) > shutil.disk_usage(folder).free:
            raise UserError(f"{archive} unpacks to more than the disk of {folder.parent} has left")
        source.extractall(folder)


def _untar(archive: Path, folder: Path) -> None:
    with _decompressed(archive) as content:
        stream = _Counted(content)
        with tarfile.open(fileobj=stream, mode="r|") as tar:  # type: ignore[call-overload]
            # Not extractall(): videos need no links, owners or modes, and before Python 3.11.4 it can't leave them out.
            for member in tar:
                _check(archive, [(member.name, not (member.isfile() or member.isdir()))])
                target = folder / member.name
                (target if member.isdir() else target.parent).mkdir(parents=True, exist_ok=True)
                if data := tar.extractfile(member):
                    with data, target.open("wb") as file:
                        shutil.copyfileobj(data, file)
        while stream.read(1 << 20):  # a compression's checksum follows the tar's end
            pass
        if stream.count - tar.offset < tarfile.BLOCKSIZE:  # tarfile stops at a block of zeros, or without one
            raise UserError(f"{archive} can't be unpacked: it is cut, its end mark is missing; download it again")


class _Counted:
    """A stream that counts the bytes read from it."""

    def __init__(self, stream: Any) -> None:
        self._stream, self.count = stream, 0

    def read(self, size: int) -> bytes:
        data: bytes = self._stream.read(size)
        self.count += len(data)
        return data


def _decompressed(archive: Path) -> Any:
    """Open a tar, decompressed as its first bytes require."""
    with archive.open("rb") as file:
        start = file.read(6)
    for magic, opener in ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open)):
        if start.startswith(magic):
            return opener(archive)
    if start.startswith(b"\x28\xb5\x2f\xfd"):
        return pa.input_stream(str(archive), compression="zstd")
    return archive.open("rb")


def _tool(archive: Path, folder: Path) -> None:
    tool = next(filter(shutil.which, TOOLS), None)
    if tool is None:
        raise UserError(
            f"to unpack {archive.name}, install one of: {', '.join(TOOLS)} (Debian: apt install libarchive-tools)"
        )
    places = {"archive": str(archive.resolve()), "folder": str(folder.resolve())}
    command = [tool, *(word.format(**places) for word in TOOLS[tool])]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
    if done.returncode:
        output = (done.stderr or done.stdout).strip().splitlines()
        raise UserError(f"{archive} can't be unpacked by {tool}: {output[0] if output else 'it printed no error'}")
    paths = sorted(folder.rglob("*"))
    _check(archive, ((path.relative_to(folder).as_posix(), path.is_symlink()) for path in paths))


def _check(archive: Path, members: Iterable[tuple[str, bool]]) -> None:
    """Refuse (name, true for no file or folder) that could write outside the folder."""
    for name, special in members:
        path = PurePosixPath(name.replace("\\", "/"))
        # A class such as "x:y" is a name; no set has a name that is an absolute path for Windows.
        if special or path.is_absolute() or ".." in path.parts or PureWindowsPath(name).is_absolute():
            what = "a link or device" if special else "a name that leads out of the folder"
            raise UserError(f"{archive} is refused: {name!r} is {what}")
        if not name.isprintable():
            raise UserError(f"{archive} is refused: {name!r} has characters that no name of a video needs")
