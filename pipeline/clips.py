"""A video and frame indices -> a clip of pixels; clips -> the batch a network reads.

Legend: N clips, T frames, H, W pixels, C = 3 channels, K classes.
"""

import itertools
from collections.abc import Sequence
from hashlib import blake2b

import cv2
import numpy as np
import simplejpeg
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pipeline import augment, sampling
from pipeline.augment import Box
from pipeline.errors import UserError
from pipeline.frames import FrameStore
from pipeline.schema import Recipe
from pipeline.views import View


def rng(seed: int, epoch: int, video: str, view: int) -> np.random.Generator:
    """The generator of one clip, a function of these four alone: neither workers nor order nor restarts move it."""
    return np.random.Generator(np.random.Philox(key=_key("clip", seed, epoch, view, video)))


def seed_of(seed: int, epoch: int, step: int, micro: int) -> int:
    """A seed for what is drawn per micro batch (dropout, mixup), whichever worker has it."""
    return _key("batch", seed, epoch, step, micro) >> 65  # 63 bits: torch takes no more


def epoch_order(n: int, seed: int, epoch: int) -> list[int]:
    """The order of n clips in an epoch: a permutation, of (seed, epoch) alone."""
    return np.random.Generator(np.random.Philox(key=_key("order", seed, epoch))).permutation(n).tolist()


def steps(n: int, batch: int, micro_batch: int, seed: int, epoch: int) -> list[list[list[int]]]:
    """An epoch's steps: each a list of batch / micro_batch micro batches of positions among n clips.

    Worker r of w takes step[r::w]. The last, incomplete batch is dropped: other clips in every epoch.
    Raises UserError where there is not one batch.
    """
    if n < batch:
        raise UserError(f"{n} clips to train on are fewer than one batch of {batch}; choose a smaller recipes.*.batch")
    order = epoch_order(n, seed, epoch)
    return [
        [order[at : at + micro_batch] for at in range(begin, begin + batch, micro_batch)]
        for begin in range(0, n - n % batch, batch)
    ]


def load(store: FrameStore, video: str, indices: Sequence[int], box: Box, flip: bool, size: int) -> np.ndarray:
    """One clip, (T,size,size,3) uint8 RGB: load_views() of a single view."""
    return load_views(store, [(video, View(tuple(indices), box, flip))], size)[0]


def load_views(store: FrameStore, views: Sequence[tuple[str, View]], size: int) -> np.ndarray:
    """Clips of (video, view): frames `indices`, the part in `box`, resized bilinearly, perhaps mirrored.

    (N,T,size,size,3) uint8 RGB, for views of T frames each. Neighbours that differ in crop alone share the decoding,
    and a repeated index is decoded once. A box of at least 2 (4, 8) times `size` is decoded at 1/2 (1/4, 1/8) of its
    size, from the DCT's low frequencies alone, and its corner moves to a multiple of that: faster and, unlike
    bilinear sampling, without aliasing. Raises UserError for a damaged frame.
    """
    cv2.setNumThreads(0)  # frames are too small to share out, and a thread pool does not survive a loader's fork
    clips = np.empty((len(views), len(views[0][1].indices), size, size, 3), np.uint8)

    def decoding(n: int) -> tuple[str, sampling.Indices, int]:
        video, view = views[n]
        return video, view.indices, next(by for by in (8, 4, 2, 1) if by == 1 or min(view.box[2:]) >= by * size)

    for (video, indices, shrink), same in itertools.groupby(range(len(views)), decoding):
        crops = [(clips[n], views[n][1].box) for n in same]
        wanted = sorted(set(indices))
        jpegs = dict(zip(wanted, store.jpegs(video, wanted), strict=True))
        done: dict[int, int] = {}  # index -> its first place in the clip
        for place, index in enumerate(indices):
            if index in done:
                for clip, _ in crops:
                    clip[place] = clip[done[index]]
                continue
            done[index] = place
            try:
                frame = _decode(jpegs[index], shrink)
            except ValueError as error:
                raise UserError(f"{video}: frame {index} of the store is damaged ({error}); decode it again") from None
            for clip, box in crops:
                _cut(frame, box, shrink, clip[place])
    for clip, (_, view) in zip(clips, views, strict=True):
        if view.flip:
            rows = clip.reshape(-1, size, 3)  # all frames as one tall picture
            cv2.flip(rows, 1, dst=rows)
    return clips


class TrainClips(Dataset[tuple[np.ndarray, np.ndarray]]):
    """Micro batches of training clips, for DataLoader(..., sampler=micro batches, batch_size=None).

    `items` are (video, its labels); labels are single here. A key is a list of (epoch, position in items).
    """

    def __init__(self, store: FrameStore, items: list[tuple[str, list[int]]], recipe: Recipe, seed: int) -> None:
        self.store, self.items, self.recipe, self.seed = store, items, recipe, seed
        self.sample = sampling.sampler(recipe.sampling)

    def __getitem__(self, keys: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
        """((N,T,size,size,3) uint8 RGB, (N,) int64 labels): read into one piece of memory, not collated from clips."""
        views = [(self.items[position][0], self.view(epoch, position)) for epoch, position in keys]
        labels = [self.items[position][1][0] for _, position in keys]
        return load_views(self.store, views, self.recipe.size), np.array(labels, np.int64)

    def view(self, epoch: int, position: int) -> View:
        """What an epoch shows of a video."""
        recipe, video = self.recipe, self.items[position][0]
        stored, draws = self.store.videos[video], rng(self.seed, epoch, video, 0)
        indices = self.sample(stored.frames, recipe.frames, stride=recipe.stride, rng=draws)
        return View(indices, *augment.draw(recipe.augment, stored.width, stored.height, recipe.size, draws))


def normalise(
    batch: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    channels: str = "rgb",
    out: Tensor | None = None,
) -> Tensor:
    """(N,T,H,W,3) uint8 RGB -> (N,T,C,H,W) float, (x - mean) / std, on the batch's device.

    mean and std are in 0..255 units and in the order of `channels`, "rgb" or "bgr". The memory stays N,T,H,W,C, so
    that (N*T,C,H,W) is channels_last without a copy. `out`, a contiguous (N,T,H,W,C) float tensor, is reused where
    given: on a CPU, fresh pages cost several times the arithmetic.
    """
    n, t, h, w, c = batch.shape
    if out is None:
        out = torch.empty(batch.shape, dtype=torch.float32, device=batch.device)
    centre, spread = torch.tensor([mean, std], dtype=torch.float32).repeat(1, w).to(batch.device)  # W*C each
    if channels == "bgr":
        batch = batch.flip(-1)
    # Rows of W*C: one long loop, where a last dimension of 3 would be three steps at a time.
    rows = out.view(n, t, h, w * c)
    rows.copy_(batch.reshape(n, t, h, w * c))
    torch.addcmul(-centre / spread, rows, 1 / spread, out=rows)
    return out.permute(0, 1, 4, 2, 3)


def mixup(x: Tensor, labels: Tensor, classes: int, alpha: float, seed: int) -> tuple[Tensor, Tensor]:
    """Each clip mixed with another of its batch, and their labels likewise (Zhang et al., mixup, section 2).

    x (N,...) float, labels (N,) int or (N,K) float -> x (N,...), labels (N,K). One weight from beta(alpha, alpha) for
    the batch.
    """
    draws = np.random.Generator(np.random.Philox(key=seed))
    weight = float(draws.beta(alpha, alpha))
    partner = torch.from_numpy(draws.permutation(len(x))).to(x.device)
    one_hot = torch.nn.functional.one_hot
    wanted = (labels if labels.dim() == 2 else one_hot(labels, classes)).to(x.dtype)  # N,K
    return x.lerp(x[partner], 1 - weight), wanted.lerp(wanted[partner], 1 - weight)


def _decode(jpeg: np.ndarray, shrink: int) -> np.ndarray:
    """A JPEG's pixels (H,W,3) at 1 / shrink of its size."""
    if shrink == 1:
        return simplejpeg.decode_jpeg(jpeg)
    height, width, _, _ = simplejpeg.decode_jpeg_header(jpeg)
    return simplejpeg.decode_jpeg(jpeg, min_height=-(-height // shrink), min_width=-(-width // shrink))


def _cut(frame: np.ndarray, box: Box, shrink: int, out: np.ndarray) -> None:
    """The part in `box` of a frame decoded at 1 / shrink, into `out` (size,size,3)."""
    x, y, w, h = (length // shrink for length in box)
    part = frame[y : y + h, x : x + w]
    if part.shape == out.shape:
        out[...] = part
    else:
        cv2.resize(part, (out.shape[1], out.shape[0]), dst=out, interpolation=cv2.INTER_LINEAR)


def _key(*parts: int | str) -> int:
    """128 bits of the parts, the same on every machine (as hash() is not)."""
    return int.from_bytes(blake2b("/".join(map(str, parts)).encode(), digest_size=16).digest(), "little")
