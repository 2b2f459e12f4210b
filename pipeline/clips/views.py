"""Test protocols as data: the clips x crops views of a video."""

from collections.abc import Callable, Sequence

import numpy as np

from pipeline.clips import sampling
from pipeline.clips.augmentation import SHARE, Box, centred, side
from pipeline.clips.loading import View
from pipeline.config.schema import Protocol
from pipeline.decode.frame_store import Entry
from pipeline.errors import unknown

Crops = list[tuple[Box, bool]]


def views(protocol: Protocol, video: str, stored: Entry, frames: int) -> list[View]:
    """All views of a video under a protocol, `frames` frames each; view number = clip * crops + crop.

    Equal arguments give equal views: what a sampling draws is seeded by the video's name and the clip. Sampling
    "windows" takes as many clips as the video has windows, whatever protocol.clips says. Raises UserError for a
    sampling or crops that are not known.
    """
    if protocol.crops not in CROPS:
        raise unknown("crops", protocol.crops, CROPS)
    crops = CROPS[protocol.crops](stored.width, stored.height, protocol.size)
    clips, sample = protocol.clips, sampling.sampler(protocol.sampling)
    if sample is sampling.windows:
        clips = sampling.windows_in(stored.frames, frames, protocol.stride)
    return [
        View(sample(sampling.Clip(stored.frames, frames, protocol.stride, clip, clips, video)), box, flip)
        for clip in range(clips)
        for box, flip in crops
    ]


def swapped_back(logits: np.ndarray, views: Sequence[View], mirrored: Sequence[int]) -> np.ndarray:
    """(V,K) logits of these views, of what they show -> of the videos.

    A mirrored view shows its video's mirror image: "left" where that has "right", the class mirrored[left]. So its
    scores are those classes'. A class without a mirror image, -1, keeps its score.
    """
    flips = np.array([view.flip for view in views], bool)
    images = [label if image < 0 else image for label, image in enumerate(mirrored)]
    return np.where(flips[:, None], logits[:, images], logits)


def center(width: int, height: int, size: int) -> Crops:
    """The centred square of 7/8 of the short side (224 of 256 pixels: TSN, TSM), or more: see augment.side()."""
    square = side(width, height, size)
    return [(centred(width, height, square, square), False)]


def whole(width: int, height: int, size: int) -> Crops:
    """The largest centred square (Hara et al.)."""
    square = min(width, height)
    return [(centred(width, height, square, square), False)]


def three(width: int, height: int, size: int) -> Crops:
    """The largest squares at both ends of the long side and in its middle (256 of 256 pixels: TSM, ACTION-Net)."""
    square = min(width, height)
    return [(Box((width - square) * k // 2, (height - square) * k // 2, square, square), False) for k in range(3)]


def squash(width: int, height: int, size: int) -> Crops:
    """The whole frame, whose aspect the square input loses (ACTION-Net's code on EgoGesture)."""
    return [(Box(0, 0, width, height), False)]


def ten(width: int, height: int, size: int) -> Crops:
    """Four corners and the centre, of the side of center(), each followed by its mirror image (TSN, section 3.3).

    Of at most 7/8 of the short side where that of center() would be all of it, so that they are ten. The scores of a
    mirror image are swapped back: see swapped_back().
    """
    square = side(width, height, size)
    square = square if square < min(width, height) else max(1, round(square * SHARE))
    right, down = width - square, height - square
    boxes = [Box(x, y, square, square) for y in (0, down) for x in (0, right)]
    return [(box, flip) for box in (*boxes, centred(width, height, square, square)) for flip in (False, True)]


CROPS: dict[str, Callable[[int, int, int], Crops]] = {
    crops.__name__: crops for crops in (center, whole, three, ten, squash)
}
