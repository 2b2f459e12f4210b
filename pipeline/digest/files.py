"""Checksums of a folder's files: SHA256SUMS, in the format of `sha256sum`."""

import hashlib
import re
from pathlib import Path, PurePosixPath

from pipeline.errors import UserError
from pipeline.storage import atomic

SUMS = "SHA256SUMS"
LINE = re.compile(r"[0-9a-f]{64}  .+", re.DOTALL)


def sha256(path: Path) -> str:
    """Return the sha256 of a file, as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_sums(folder: Path) -> None:
    """Write folder/SHA256SUMS: a line for every file below the folder except itself.

    Another process may write it at the same time, or was killed while it did: its unfinished file is no content.
    """
    files = (path for path in folder.rglob("*") if not path.name.startswith(f".{SUMS}.") and path.is_file())
    paths = sorted(path.relative_to(folder).as_posix() for path in files)
    lines = [f"{sha256(folder / path)}  {path}\n" for path in paths if path != SUMS]
    atomic.write(folder / SUMS, "".join(lines))


def sums(folder: Path) -> dict[str, str]:
    """Return path -> sha256 from folder/SHA256SUMS.

    Raises:
        UserError: The list is absent or damaged.
    """
    try:
        text = (folder / SUMS).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{folder / SUMS} is missing; {_remedy(folder)}") from None
    except (ValueError, OSError):
        text = ""
    lines = [line for line in text.split("\n") if line]
    listed = {line[66:]: line[:64] for line in lines if LINE.fullmatch(line) and not leads_out(line[66:])}
    if not lines or len(listed) < len(lines) or not text.endswith("\n"):
        raise UserError(f"{folder / SUMS} is damaged; {_remedy(folder)}")
    return listed


def leads_out(name: str) -> bool:
    """Tell whether a name from a list would lead out of the folder that it is for."""
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name


def verify(path: Path) -> str:
    """Return a file's sha256 after checking it against SHA256SUMS in its folder.

    Raises:
        UserError: The file or the list is absent, or the bytes differ.
    """
    expected = sums(path.parent).get(path.name)
    if expected is None:
        raise UserError(f"{path.parent / SUMS} does not list {path.name}; {_remedy(path.parent)}")
    try:
        actual = sha256(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; {_remedy(path.parent)}") from None
    if actual != expected:
        raise UserError(f"{path} is damaged: its sha256 is not the one in {SUMS}; {_remedy(path.parent)}")
    return actual


def _remedy(folder: Path) -> str:
    return f"remove {folder} and run `actionbench repro`, or make it again with `dvc repro -f`"
