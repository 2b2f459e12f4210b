"""Which frames of a video a clip takes: ints in, ints out."""

from collections.abc import Callable

import numpy as np

from pipeline.errors import UserError
from pipeline.params import alternatives

Indices = tuple[int, ...]


def segments(
    count: int,
    frames: int,
    *,
    stride: int = 1,
    rng: np.random.Generator | None = None,
    clip: int = 0,
    clips: int = 1,
) -> Indices:
    """One frame of each of `frames` equal parts of a video of `count` frames, ascending (TSN, section 3.1).

    With a generator a random frame of each part (training), else the same place in each: the middle for clip 0, and
    for the others of `clips` evenly further on, round the part's end. Two clips are thus the two samplings of TSM's
    "full resolution x 2": tick / 2 + tick * i and tick * i. A video shorter than `frames` repeats frames; TSN's code
    draws them unordered there, ACTION-Net's takes the first frame throughout. `stride` has no meaning here.
    """
    part = np.arange(frames)
    if rng is None:
        place = (2 * clip + clips) % (2 * clips)  # in units of half a part / clips: clips is the middle
        return _ints((2 * clips * part + place) * count // (2 * clips * frames))
    low = part * count // frames
    high = (part + 1) * count // frames
    return _ints(rng.integers(low, np.maximum(high, low + 1)))


def random_segments(
    count: int,
    frames: int,
    *,
    stride: int = 1,
    rng: np.random.Generator | None = None,
    clip: int = 0,
    clips: int = 1,
) -> Indices:
    """As segments(), with a random frame of each part in testing too: ACTION-Net's ten temporal samplings.

    Without a generator, `clip` alone seeds the draw.
    """
    return segments(count, frames, rng=rng or np.random.Generator(np.random.Philox(key=clip)))


def dense(
    count: int,
    frames: int,
    *,
    stride: int = 1,
    rng: np.random.Generator | None = None,
    clip: int = 0,
    clips: int = 1,
) -> Indices:
    """`frames` frames, each `stride` after the one before.

    With a generator the start is random (training), else the starts of `clips` clips are evenly spaced from the
    first possible to the last (TSM's dense sampling), a single clip lies in the middle. A video shorter than
    frames * stride starts again at its first frame: modulo as in TSM's dense sampling, which for stride 1 is Hara's
    LoopPadding.
    """
    last = max(0, count - frames * stride)  # the last possible start
    start = last // 2 if clips == 1 else last * clip // (clips - 1)
    if rng is not None:
        start = int(rng.integers(last + 1))
    return _ints((start + np.arange(frames) * stride) % count)


def windows(
    count: int,
    frames: int,
    *,
    stride: int = 1,
    rng: np.random.Generator | None = None,
    clip: int = 0,
    clips: int = 1,
) -> Indices:
    """Window `clip` of the video cut into pieces of frames * stride: Hara's non-overlapping clips.

    The last piece, if shorter, loops within itself (Hara's LoopPadding). windows_in() says how many there are. With
    a generator the start is random, as in dense().
    """
    if rng is not None:
        return dense(count, frames, stride=stride, rng=rng)
    start = clip % windows_in(count, frames, stride) * frames * stride
    length = min(frames * stride, count - start)
    return _ints(start + np.arange(frames) * stride % length)


def windows_in(count: int, frames: int, stride: int) -> int:
    """How many windows of frames * stride frames cover a video, the last one perhaps in part."""
    return max(1, -(-count // (frames * stride)))


SAMPLERS: dict[str, Callable[..., Indices]] = {
    "segments": segments,
    "random_segments": random_segments,
    "dense": dense,
    "windows": windows,
}


def sampler(name: str) -> Callable[..., Indices]:
    """The sampler of a name, called (count, frames, stride=, rng=, clip=, clips=); UserError names the known."""
    if name not in SAMPLERS:
        raise UserError(f"no sampling {name!r}; {alternatives(name, SAMPLERS)}")
    return SAMPLERS[name]


def _ints(indices: np.ndarray) -> Indices:
    return tuple(indices.tolist())
