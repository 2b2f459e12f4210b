"""Test protocols as data: the clips x crops views of a video."""

from collections.abc import Callable, Sequence

import numpy as np

from pipeline.clips import sampling
from pipeline.clips.augmentation import SHARE, Box, centred, side
from pipeline.clips.loading import View
from pipeline.config.schema import Order, Protocol
from pipeline.decode.frame_store import Entry
from pipeline.direction import shown, source
from pipeline.errors import unknown

Crops = list[tuple[Box, bool]]


def views(protocol: Protocol, video: str, stored: Entry, frames: int) -> list[View]:
    """Return all views of a video under a protocol.

    View number = clip * crops + crop. Equal arguments give equal views: a sampling's draws are seeded by the video's
    name and the clip. Sampling "windows" takes as many clips as the video has windows, and ignores protocol.clips. A
    backward video's views are those of the forward one with the frames reversed, in any order of the protocol.

    Args:
        protocol: the protocol.
        video: its name in the split table.
        stored: its entry in the frame store.
        frames: T of each view.

    Raises:
        UserError: The sampling or crops are unknown.
    """
    if protocol.crops not in CROPS:
        raise unknown("crops", protocol.crops, CROPS)
    crops = CROPS[protocol.crops](stored.width, stored.height, protocol.size)
    clips, sample = protocol.clips, sampling.sampler(protocol.sampling)
    if sample is sampling.windows:
        clips = sampling.windows_in(stored.frames, frames, protocol.stride)
    name = source(video)
    return [
        View(shown(ordered(indices, protocol.order, name, clip), video), box, flip)
        for clip in range(clips)
        for indices in [sample(sampling.Clip(stored.frames, frames, protocol.stride, clip, clips, name))]
        for box, flip in crops
    ]


def ordered(indices: sampling.Indices, order: Order, video: str, clip: int) -> sampling.Indices:
    """Return frames in a probe's order; "shuffled" is seeded by video and clip."""
    match order:
        case "reversed":
            return indices[::-1]
        case "shuffled":
            return tuple(sampling.generator("order", clip, video).permutation(indices).tolist())
        case "static":
            return (indices[len(indices) // 2],) * len(indices)
    return indices


def swapped_back(logits: np.ndarray, views: Sequence[View], mirrored: Sequence[int]) -> np.ndarray:
    """Return the (V,K) logits of views as logits of their videos.

    A flipped view shows its video's mirror image: "left" where that has "right", the class mirrored[left]. So its
    scores belong to those classes. A class without a mirror image, -1, keeps its score.
    """
    flips = np.array([view.flip for view in views], bool)
    images = [label if image < 0 else image for label, image in enumerate(mirrored)]
    return np.where(flips[:, None], logits[:, images], logits)


def center(width: int, height: int, size: int) -> Crops:
    """Return augmentation.side()'s centered square, as 224 of 256 pixels (TSN, TSM)."""
    square = side(width, height, size)
    return [(centred(width, height, square, square), False)]


def whole(width: int, height: int, size: int) -> Crops:
    """Return the largest centered square (Hara et al.)."""
    square = min(width, height)
    return [(centred(width, height, square, square), False)]


def three(width: int, height: int, size: int) -> Crops:
    """Return the largest squares at the ends and the middle (TSM, ACTION-Net)."""
    square = min(width, height)
    return [(Box((width - square) * k // 2, (height - square) * k // 2, square, square), False) for k in range(3)]


def squash(width: int, height: int, size: int) -> Crops:
    """Return the whole frame, whose aspect is lost (ACTION-Net's code on EgoGesture)."""
    return [(Box(0, 0, width, height), False)]


def ten(width: int, height: int, size: int) -> Crops:
    """Return four corners and the center, each followed by its mirror image.

    TSN, section 3.3. Their side is center()'s, but at most 7/8 of the short side, so that all ten differ. The scores of
    a mirror image are swapped back: see swapped_back().
    """
    square = side(width, height, size)
    square = square if square < min(width, height) else max(1, round(square * SHARE))
    right, down = width - square, height - square
    boxes = [Box(x, y, square, square) for y in (0, down) for x in (0, right)]
    return [(box, flip) for box in (*boxes, centred(width, height, square, square)) for flip in (False, True)]


CROPS: dict[str, Callable[[int, int, int], Crops]] = {
    crops.__name__: crops for crops in (center, whole, three, ten, squash)
}
