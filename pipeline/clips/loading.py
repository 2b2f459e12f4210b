"""Reading clips from the frame store and batching them for a network.

Legend: N clips, T frames, H, W pixels, C channels (3 of RGB, 2 for each flow of a stack, or all of these), K classes.
"""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.clips import augmentation, sampling
from pipeline.clips.augmentation import Box, Color
from pipeline.config.schema import Recipe
from pipeline.decode.frame_store import FrameStore
from pipeline.direction import shown, source
from pipeline.errors import UserError

TOGETHER = 8  # frames that are resized at once: half of the time of one after the other
# recipe.input -> columns of the frame store, see pipeline/decode/flow.py.
INPUTS = {"rgb": ("jpeg",), "flow": ("x", "y"), "warped": ("warped_x", "warped_y"), "rgb+flow": ("jpeg", "x", "y")}


@dataclass(frozen=True)
class View:
    """One clip and crop of a video."""

    indices: sampling.Indices
    box: Box
    flip: bool
    color: Color | None = None  # training only


def rng(seed: int, epoch: int, video: str, view: int) -> np.random.Generator:
    """Return a clip's generator, which no worker, order or restart changes."""
    return sampling.generator("clip", seed, epoch, view, video)


def seed_of(seed: int, epoch: int, step: int, micro: int) -> int:
    """Return a seed for draws per micro batch (dropout, mixup), on any worker."""
    return sampling.key("batch", seed, epoch, step, micro) >> 65  # 63 bits: torch takes no more


def epoch_order(n: int, seed: int, epoch: int) -> list[int]:
    """Return the order of n clips in an epoch, a permutation by (seed, epoch)."""
    return sampling.generator("order", seed, epoch).permutation(n).tolist()


def steps(n: int, batch: int, micro_batch: int, seed: int, epoch: int) -> list[list[list[int]]]:
    """Return an epoch's steps, as lists of micro batches of clip positions.

    A step has batch / micro_batch micro batches. Worker r of w takes step[r::w]. The last, incomplete batch is dropped:
    different clips in every epoch.

    Raises:
        UserError: There are fewer clips than one batch.
    """
    if n < batch:
        raise UserError(f"{n} clips to train on are fewer than a batch of {batch}; choose a smaller recipes.*.batch")
    order = epoch_order(n, seed, epoch)
    return [
        [order[at : at + micro_batch] for at in range(begin, begin + batch, micro_batch)]
        for begin in range(0, n - n % batch, batch)
    ]


def load_views(
    store: FrameStore, views: Sequence[tuple[str, View]], size: int, input: str = "rgb", stack: int = 0
) -> np.ndarray:
    """Return the clips of (video, view): cropped, resized and flipped frames.

    With flow, each frame has the `stack` flows that start there, x1, y1, x2, y2, ..., after its RGB if the input has
    both. At a video's end the last flow is repeated, as in TSN's reader. Frames are resized bilinearly as in PIL.
    Resizing keeps flow's values, as usual. Flipping maps x to 255 - x: 128, no motion, becomes 127.

    Neighbors that differ only in the crop share the decoding, and a repeated index is decoded once. A box of at least 2
    (4, 8) times `size` is decoded at 1/2 (1/4, 1/8) of its size, from the DCT's low frequencies only. Its corner moves
    to a multiple of that.

    Args:
        store: the frame store.
        views: (video, view), with T frames each.
        size: side of the output, in pixels.
        input: as in schema.Recipe.
        stack: flows per frame.

    Returns:
        (N, T, size, size, C) uint8.

    Raises:
        UserError: A frame is damaged, or the store lacks the flow.
    """
    cv2.setNumThreads(0)  # frames are too small to split
    colours = 3 if "jpeg" in INPUTS[input] else 0
    channels = colours + (0 if input == "rgb" else 2 * stack)
    clips = np.empty((len(views), len(views[0][1].indices), size, size, channels), np.uint8)

    def decoding(n: int) -> tuple[str, sampling.Indices, int]:
        video, view = views[n]
        return video, view.indices, next(by for by in (8, 4, 2, 1) if by == 1 or min(view.box[2:]) >= by * size)

    for (video, indices, shrink), same in itertools.groupby(range(len(views)), decoding):
        crops = [(clips[n], views[n][1].box) for n in same]
        last = store.entry(video).frames - 1
        for column in INPUTS[input]:
            places = _places(column, indices, last, stack, colours)
            kind = "RGB" if column == "jpeg" else "GRAY"
            jpegs = zip(places, store.jpegs(video, places, column), strict=True)
            while some := list(itertools.islice(jpegs, TOGETHER)):
                frames = [_decode(video, index, jpeg, shrink, kind) for index, jpeg in some]
                for clip, box in crops:
                    for (index, _), cut in zip(some, _cut(frames, box, shrink, size), strict=True):
                        for place, planes in places[index]:
                            clip[place][..., planes] = cut
    for clip, (_, view) in zip(clips, views, strict=True):
        if view.flip:
            rows = clip.reshape(-1, size, channels)  # all frames as one tall image
            cv2.flip(rows, 1, dst=rows)
            x = clip[..., colours::2]
            np.subtract(255, x, out=x)
        if view.color and colours:
            rgb = np.ascontiguousarray(clip[..., :colours]).reshape(-1, size, colours)
            clip[..., :colours] = cv2.transform(rgb, np.array(view.color)).reshape(*clip.shape[:-1], colours)
    return clips


class TrainClips:
    """Micro batches of training clips; a key is a list of (epoch, position in items).

    A flipped clip has the labels of its mirror image: "left" becomes "right". mmaction2 trains TPN, TSM and TSN on
    Something-Something in this way. The authors' code differs. ACTION-Net's never flips, and TSM's does not flip
    Something-Something and Jester (set augment.flip to false for either). TPN's flips and keeps the label. A clip
    of a class without a mirror image is never flipped.

    Args:
        store: the frame store.
        items: (video, its labels), one label each unless recipe.loss is "sigmoid".
        recipe: the recipe.
        seed: of the run.
        mirrored: for each of the K classes, the class of its mirror image, or -1 where there is none.
    """

    def __init__(
        self,
        store: FrameStore,
        items: list[tuple[str, list[int]]],
        recipe: Recipe,
        seed: int,
        mirrored: Sequence[int],
    ) -> None:
        self.store, self.items, self.recipe, self.seed, self.mirrored = store, items, recipe, seed, mirrored
        self.sample = sampling.sampler(recipe.sampling)

    def __getitem__(self, keys: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
        """Return ((N, T, size, size, C) uint8, targets), read into one piece of memory.

        Targets are (N,) int64 labels. For sigmoid losses they are (N, K) float32, 1 for each of a clip's labels, all 0
        for none.
        """
        views = [(self.items[position][0], self.view(epoch, position)) for epoch, position in keys]
        labels = [self.labels(position, view) for (_, position), (_, view) in zip(keys, views, strict=True)]
        recipe = self.recipe
        return load_views(self.store, views, recipe.size, recipe.input, recipe.stack), self.targets(labels)

    def view(self, epoch: int, position: int) -> View:
        """Return an epoch's view of a video: for a backward one that of the forward one, its frames reversed."""
        recipe, video = self.recipe, self.items[position][0]
        stored, draws = self.store.entry(video), rng(self.seed, epoch, source(video), 0)
        indices = self.sample(sampling.Clip(stored.frames, recipe.frames, recipe.stride, rng=draws))
        box, flip = augmentation.draw(recipe.augment, stored.width, stored.height, recipe.size, draws)
        flip = flip and all(self.mirrored[label] >= 0 for label in self.items[position][1])
        return View(shown(indices, video), box, flip, augmentation.color(recipe.augment, draws))

    def labels(self, position: int, view: View) -> list[int]:
        """Return the labels of a view of a video."""
        labels = self.items[position][1]
        return [self.mirrored[label] for label in labels] if view.flip else labels

    def targets(self, labels: Sequence[Sequence[int]]) -> np.ndarray:
        """Return the labels of N clips in the form that the recipe's loss takes."""
        if self.recipe.loss == "softmax":
            return np.array([label for (label,) in labels], np.int64)
        encoded = np.zeros((len(labels), len(self.mirrored)), np.float32)
        for row, classes in zip(encoded, labels, strict=True):
            row[list(classes)] = 1
        return encoded


def read_ahead(
    clips: TrainClips, micros: Iterable[list[tuple[int, int]]], threads: int, pinned: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield micro batches in order; their bytes are the same with any number of threads.

    Decoding, resizing and flipping release the interpreter's lock, so threads read as fast as processes do or faster
    (bench/loaders.py). They need neither shared memory nor a fork.

    Args:
        clips: the training clips.
        micros: keys of `clips`.
        threads: that read up to two micro batches each ahead of the caller; 0 reads each when it is asked for.
        pinned: whether to copy them into memory that a GPU reads directly.
    """

    def read(keys: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        batch, targets = (torch.from_numpy(each) for each in clips[keys])
        return (batch.pin_memory(), targets.pin_memory()) if pinned else (batch, targets)

    if not threads:
        yield from map(read, micros)
        return
    ahead = deque[Future[tuple[Tensor, Tensor]]]()
    with ThreadPoolExecutor(threads, thread_name_prefix="clips") as pool:
        try:
            for keys in micros:
                ahead.append(pool.submit(read, keys))
                if len(ahead) > 2 * threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:  # the caller has stopped early, or a clip is damaged
            for future in ahead:
                future.cancel()


def normalise(
    batch: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    channels: str = "rgb",
    out: Tensor | None = None,
) -> Tensor:
    """Normalize clips: (N,T,H,W,C) uint8 -> (N,T,C,H,W) float, (x - mean) / std.

    The memory stays N,T,H,W,C, so that (N*T,C,H,W) is channels_last without a copy.

    Args:
        batch: RGB, flow or both, on any device, which is also the output's.
        mean: in 0..255; RGB's three in the order of `channels`.
        std: in 0..255; RGB's three in the order of `channels`.
        channels: "rgb" or "bgr".
        out: a contiguous (N,T,H,W,C) float tensor to reuse: on a CPU, fresh pages cost several times the arithmetic.
    """
    n, t, h, w, c = batch.shape
    if out is None:
        out = torch.empty(batch.shape, dtype=torch.float32, device=batch.device)
    centre, spread = torch.tensor([mean, std], dtype=torch.float32).repeat(1, w).to(batch.device)  # W*C each
    if channels == "bgr":
        colours = batch[..., :3].flip(-1)
        batch = colours if c == 3 else torch.cat([colours, batch[..., 3:]], -1)
    # Rows of W*C: one long loop, where a last dimension of 3 would be three steps at a time.
    rows = out.view(n, t, h, w * c)
    rows.copy_(batch.reshape(n, t, h, w * c))
    torch.addcmul(-centre / spread, rows, 1 / spread, out=rows)
    return out.permute(0, 1, 4, 2, 3)


def mixup(x: Tensor, labels: Tensor, classes: int, alpha: float, seed: int) -> tuple[Tensor, Tensor]:
    """Mix each clip and its labels with another of its batch (Zhang et al. 2018).

    Args:
        x: (N,...) float.
        labels: (N,) int or (N,K) float.
        classes: K.
        alpha: of beta(alpha, alpha), from which one weight for the batch is drawn.
        seed: of the draws.

    Returns:
        x (N,...), labels (N,K).
    """
    draws = np.random.Generator(np.random.Philox(key=seed))
    weight = float(draws.beta(alpha, alpha))
    partner = torch.from_numpy(draws.permutation(len(x))).to(x.device)
    one_hot = torch.nn.functional.one_hot
    targets = (labels if labels.dim() == 2 else one_hot(labels, classes)).to(x.dtype)  # N,K
    return x.lerp(x[partner], 1 - weight), targets.lerp(targets[partner], 1 - weight)


def _places(
    column: str, indices: Sequence[int], last: int, stack: int, colours: int
) -> dict[int, list[tuple[int, slice | int]]]:
    """Return frame of a column -> its places in the clip, (frame of T, channels)."""
    by_frame: dict[int, list[tuple[int, slice | int]]] = {}
    for place, index in enumerate(indices):
        if column == "jpeg":
            by_frame.setdefault(index, []).append((place, slice(colours)))
            continue
        for n in range(stack):
            by_frame.setdefault(min(index + n, last), []).append((place, colours + 2 * n + column.endswith("y")))
    return dict(sorted(by_frame.items()))


def _decode(video: str, index: int, jpeg: np.ndarray, shrink: int, kind: str) -> np.ndarray:
    """Decode a frame's JPEG at 1 / shrink of its size: (H,W,3) for "RGB", (H,W) for "GRAY"."""
    least = {}
    try:
        if shrink > 1:
            height, width, _, _ = simplejpeg.decode_jpeg_header(jpeg)
            least = {"min_height": -(-height // shrink), "min_width": -(-width // shrink)}
        frame = simplejpeg.decode_jpeg(jpeg, kind, **least)
    except ValueError as error:
        raise UserError(f"{video}: frame {index} of the store is damaged ({error}); decode it again") from None
    return frame if kind == "RGB" else frame[..., 0]


def _cut(frames: Sequence[np.ndarray], box: Box, shrink: int, size: int) -> Iterable[np.ndarray]:
    """Cut `box` from n frames decoded at 1 / shrink: n times (size,size[,3])."""
    x, y, w, h = (length // shrink for length in box)
    parts = [_part(frame, x, y, w, h) for frame in frames]
    return parts if (h, w) == (size, size) else resized(np.stack(parts), size, size)


def _part(frame: np.ndarray, x: int, y: int, w: int, h: int) -> np.ndarray:
    """Return a box of a frame, black outside the frame."""
    if x < 0 or y < 0 or y + h > frame.shape[0] or x + w > frame.shape[1]:
        edges = [(max(0, -y), max(0, y + h - frame.shape[0])), (max(0, -x), max(0, x + w - frame.shape[1]))]
        frame = np.pad(frame, [*edges, *[(0, 0)] * (frame.ndim - 2)])
        x, y = max(0, x), max(0, y)
    return frame[y : y + h, x : x + w]


def resized(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize (n,H,W,3) or (n,H,W) uint8 bilinearly, with a filter when smaller.

    It is within 1 of 255 of PIL, which the papers' code uses. OpenCV's bilinear skips pixels instead: crops twice as
    large have 14 to 31 % more gradient.
    """
    planes = torch.from_numpy(frames).view(*frames.shape[:3], -1).permute(0, 3, 1, 2)
    out = F.interpolate(planes, (height, width), mode="bilinear", antialias=True).permute(0, 2, 3, 1).numpy()
    return out if frames.ndim == 4 else out[..., 0]
