"""Bit flips, as a faulty disk makes them."""

from pathlib import Path


def flip(path: Path, at: int = -1) -> None:
    """Flip a bit of a byte of a file."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
