"""Damage as a disk does it."""

from pathlib import Path


def flip(path: Path, at: int = -1) -> None:
    """Flip a bit of a file's byte."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
