"""Frame sampling: the frames of a clip, and the generators for training.

| method | training | testing |
|---|---|---|
| TSN; ISTPA, TSN's sampling | segments, 3 frames | segments (uniform), 25 frames |
| TSM; TPN and MAAGN on Something-Something | segments, 8 frames | segments, 1 or 2 clips |
| ACTION-Net | segments, 8 or 16 frames | random_segments, 10 clips |
| TSM on Kinetics | dense, 8 frames of 64, stride 8 | dense, 10 clips |
| ISTPA on Kinetics and, from Kinetics, Charades | dense, 8 frames of 64, stride 8 | parts, 10 clips |
| MAAGN and TPN on Kinetics | dense, 32 frames of 64, stride 2 | uniform_clips, 10 clips |
| Hara et al.; EAM | dense, 16 or 64 frames, stride 1 | windows, stride 1 |
| ST-MANet | dense, 32 frames of 64, stride 2 | windows, stride 2 |
| MAAGN, figure 1 | multirate | multirate |
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import blake2b

import numpy as np

from pipeline.errors import unknown

RATES = (1, 2, 4)  # of multirate
Indices = tuple[int, ...]


@dataclass(frozen=True)
class Clip:
    """Arguments of a sampling: T = `frames` indices into a video's `count` frames."""

    count: int
    frames: int
    stride: int = 1  # frames from one index to the next
    number: int = 0  # index of this clip among the `of` clips tested
    of: int = 1
    video: str = ""  # its name
    rng: np.random.Generator | None = None  # draws a training clip; None for testing


def key(*parts: int | str) -> int:
    """Return a 128-bit hash of the parts, equal on every machine (unlike hash())."""
    return int.from_bytes(blake2b("/".join(map(str, parts)).encode(), digest_size=16).digest(), "little")


def generator(*parts: int | str) -> np.random.Generator:
    """Return a generator seeded by the parts."""
    return np.random.Generator(np.random.Philox(key=key(*parts)))


def segments(clip: Clip) -> Indices:
    """Take one frame from each of T equal parts of the video, ascending.

    TSN, section 3.1; TSM and ACTION-Net do the same. The frame is random in its part in training, uniform() in testing.
    A video of fewer than T frames repeats frames; TSN's code draws them unordered there, ACTION-Net's takes only the
    first frame.
    """
    if clip.rng is None:
        return uniform(clip)
    part = np.arange(clip.frames)
    low = part * clip.count // clip.frames
    high = (part + 1) * clip.count // clip.frames
    return _ints(clip.rng.integers(low, np.maximum(high, low + 1)))


def uniform(clip: Clip) -> Indices:
    """Take the same position in each of T equal parts.

    25 such frames are the test of TSN (section 3.3) and of ISTPA. Clip 0 takes the middle, other clips evenly spaced
    later positions, with wrap-around at the part's end. So two clips are the two samplings of TSM's "full resolution x
    2": tick / 2 + tick * i and tick * i.
    """
    place = (2 * clip.number + clip.of) % (2 * clip.of)  # in units of half a part / clips: `of` is the middle
    return _ints((2 * clip.of * np.arange(clip.frames) + place) * clip.count // (2 * clip.of * clip.frames))


def random_segments(clip: Clip) -> Indices:
    """Take segments() at random in testing too, seeded by video and clip.

    ACTION-Net, implementation details: ten clips.
    """
    return segments(clip if clip.rng else replace(clip, rng=generator("view", clip.number, clip.video)))


def dense(clip: Clip) -> Indices:
    """Take T frames, each `stride` after the last.

    8, 32 or all of 64 frames, or Hara's 16. In training the start is random (Hara et al., implementation; ST-MANet and
    MAAGN, implementation details). In testing starts are evenly spaced from the first possible to the last (TSM's dense
    sampling), and a single clip is in the middle. A video shorter than T * stride starts over at its first frame:
    modulo as in TSM's dense sampling, which for stride 1 is Hara's LoopPadding.
    """
    last = _last_start(clip)
    if clip.rng is not None:
        return _from(clip, int(clip.rng.integers(last + 1)))
    return _from(clip, last // 2 if clip.of == 1 else last * clip.number // (clip.of - 1))


def uniform_clips(clip: Clip) -> Indices:
    """Take dense() clips, tested at the middle of parts of the possible starts.

    There are `of` equal parts. TPN (implementation details, inference) and MAAGN (section 4.1.3) spread 10 clips
    uniformly; the exact starts are those of TPN's code, mmaction's SampleFrames.
    """
    if clip.rng is not None:
        return dense(clip)
    return _from(clip, (_last_start(clip) + 1) * (2 * clip.number + 1) // (2 * clip.of))


def parts(clip: Clip) -> Indices:
    """Take dense()'s frames, tested from the start of one of `of` equal parts on.

    This is ISTPA's protocol: the first 64 frames of each tenth. Frames may be of the next part too. The last parts of a
    short video start where T * stride frames are left.
    """
    if clip.rng is not None:
        return dense(clip)
    return _from(clip, min(_last_start(clip), clip.count * clip.number // clip.of))


def windows(clip: Clip) -> Indices:
    """Take window `number` of the video cut into pieces of T * stride frames.

    `of` is not used. Hara's non-overlapping 16-frame clips (implementation, recognition), EAM's of 16 or 64; with
    stride 2 all 64-frame segments of ST-MANet (implementation details). windows_in() counts them. The last piece, if
    shorter, loops within itself (Hara's LoopPadding). Training is dense()'s.
    """
    if clip.rng is not None:
        return dense(clip)
    start = clip.number % windows_in(clip.count, clip.frames, clip.stride) * clip.frames * clip.stride
    length = min(clip.frames * clip.stride, clip.count - start)
    return _ints(start + np.arange(clip.frames) * clip.stride % length)


def windows_in(count: int, frames: int, stride: int) -> int:
    """Return the windows of frames * stride in a video; the last may be cut."""
    return max(1, -(-count // (frames * stride)))


def multirate(clip: Clip) -> Indices:
    """Take dense() at several rates: `stride` times 1, 2 or 4.

    This is an input pyramid as in MAAGN's figure 1. In training rate and start are random. In testing clips take the
    rates in turn, those of one rate are placed as dense()'s, and averaging their scores joins the rates. Our reading:
    the figure shows inputs at several rates, while the text builds the pyramid from one input's features, as TPN and
    the nets here do. A net that uses several rates of one clip, as SlowFast (section 3), takes the slower ones from a
    dense() clip: x[:, ::rate].
    """
    turn = clip.number if clip.rng is None else int(clip.rng.integers(len(RATES)))
    stride = clip.stride * RATES[turn % len(RATES)]
    of_a_rate = -(-clip.of // len(RATES))
    return dense(replace(clip, stride=stride, number=clip.number // len(RATES), of=of_a_rate))


SAMPLERS: dict[str, Callable[[Clip], Indices]] = {
    sample.__name__: sample for sample in (segments, random_segments, dense, uniform_clips, parts, windows, multirate)
}


def sampler(name: str) -> Callable[[Clip], Indices]:
    """Return the sampling of a name; UserError lists the known ones."""
    if name not in SAMPLERS:
        raise unknown("sampling", name, SAMPLERS)
    return SAMPLERS[name]


def _last_start(clip: Clip) -> int:
    """Return the last frame at which T * stride frames may start."""
    return max(0, clip.count - clip.frames * clip.stride)


def _from(clip: Clip, start: int) -> Indices:
    return _ints((start + np.arange(clip.frames) * clip.stride) % clip.count)


def _ints(indices: np.ndarray) -> Indices:
    return tuple(indices.tolist())
