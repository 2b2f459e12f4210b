"""Changes to the bytes of a file: cut, a flipped bit, a hole of zeros."""

from collections.abc import Callable

Change = Callable[[bytes], bytes]


def cut(share: float, end: int = 1) -> Change:
    """Keep a share of the bytes, without at least `end` of the last."""
    return lambda content: content[: int(share * max(0, len(content) - end))]


def flip(share: float, bit: int) -> Change:
    """Flip a bit of the byte at a share of the length."""

    def change(content: bytes) -> bytes:
        changed = bytearray(content)
        if content:
            changed[int(share * (len(content) - 1))] ^= 1 << bit
        return bytes(changed)

    return change


def hole(share: float, size: int = 1024) -> Change:
    """Set bytes to zero, from a multiple of 512 at a share of the length on."""

    def change(content: bytes) -> bytes:
        begin = int(share * len(content)) // 512 * 512
        return content[:begin] + bytes(size) + content[begin + size :]

    return change


def empty(_: bytes) -> bytes:
    return b""
