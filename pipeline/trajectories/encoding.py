"""Improved dense trajectories of a data set, computed by shards.

Files hold descriptors, codebooks, Fisher vectors. Wang and Schmid (ICCV 2013), sections 2.2 and 2.3. Every file is one
task's, sealed under the work's key and written once; that key names their folder. Descriptors are kept in 16 bits: they
are shares.

Legend: N videos.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import simplejpeg

from pipeline.clips import sampling
from pipeline.config.schema import Trajectories
from pipeline.decode.frame_store import FrameStore
from pipeline.digest import state
from pipeline.errors import UserError
from pipeline.trajectories import dense, fisher

SHARD = 8  # videos


@dataclass(frozen=True)
class Work:
    """Facts shared by all tasks of a row; videos are in the frame store's order."""

    settings: Trajectories
    frames: Path
    folder: Path
    videos: tuple[str, ...]
    key: str
    code: str  # digest of the code that computes it

    @property
    def shards(self) -> int:
        return math.ceil(len(self.videos) / SHARD)

    def shard(self, number: int) -> tuple[str, ...]:
        return self.videos[number * SHARD : (number + 1) * SHARD]

    def described(self, number: int) -> Path:
        return self.folder / f"described-{number:05d}.npz"

    def codebook(self, split: int, kind: str) -> Path:
        return self.folder / f"split{split}-{kind}.npz"

    def vectors(self, split: int, number: int) -> Path:
        return self.folder / f"split{split}-{number:05d}.npz"


def work(settings: Trajectories, frames: Path, storage: Path, key: str) -> Work:
    """Return a row's work, whose files are in a folder of `storage` named by the key."""
    return Work(
        settings, frames, storage / key[:16], tuple(FrameStore(frames).videos), key, state.running("trajectories")
    )


def describe(work: Work, number: int) -> None:
    """Compute the descriptors of a shard's videos, unless they exist.

    Raises:
        UserError: A frame is damaged.
    """
    if _done(work, work.described(number)):
        return
    store, descriptors = FrameStore(work.frames), {}
    for at, video in enumerate(work.shard(number)):
        jpegs = store.jpegs(video, range(store.videos[video].frames))
        try:
            frames = [simplejpeg.decode_jpeg(jpeg, "GRAY")[..., 0] for jpeg in jpegs]
        except ValueError as error:
            raise UserError(f"{video}: a frame of the store is damaged ({error}); decode it again") from None
        vectors = dense.describe(frames, work.settings.flow, work.settings.scales)
        descriptors[str(at)] = vectors.astype(np.float16)
    _put(work, work.described(number), descriptors)


def learn(work: Work, split: int, kind: str, train: frozenset[str]) -> None:
    """Learn a split's codebook of one kind of descriptor, unless it exists.

    It uses a sample: equally many descriptors of each training video, if it has as many.

    Raises:
        UserError: No training video could be decoded.
    """
    path, settings = work.codebook(split, kind), work.settings
    if _done(work, path):
        return
    each, sample = math.ceil(settings.samples / max(1, len(train))), []
    for number in range(work.shards):
        for video, described in _read(work, number):
            if video in train:
                rows = sampling.generator("trajectories", settings.seed, video).permutation(len(described))[:each]
                sample.append(described[np.sort(rows)][:, _columns(kind)].astype(np.float32))
    if not sample:
        raise UserError(f"split {split} has no training video that could be decoded")
    book = fisher.learn(np.concatenate(sample), settings.gaussians, settings.seed)
    _put(work, path, asdict(book))


def encode(work: Work, split: int, number: int) -> None:
    """Compute the Fisher vectors (N, numbers) of a shard's videos, unless they exist."""
    if _done(work, work.vectors(split, number)):
        return
    books = {kind: fisher.Codebook(**_needed(work, work.codebook(split, kind))) for kind in dense.SIZES}
    vectors = [
        np.concatenate(
            [fisher.vector(described[:, _columns(kind)].astype(np.float32), book) for kind, book in books.items()]
        )
        for _, described in _read(work, number)
    ]
    _put(work, work.vectors(split, number), {"vectors": np.stack(vectors)})


def scores(
    work: Work,
    split: int,
    train: Sequence[tuple[str, list[int]]],
    test: Sequence[tuple[str, list[int]]],
    classes: int,
) -> list[list[float] | None]:
    """Return each test video's decision values, one per class.

    None if it isn't in the store. Values are the SVM's margins times fisher.scale(). As logits they can be fused with a
    net's. Unscaled margins of about 1 can't: their softmax is almost uniform.

    Args:
        work: the row's work.
        split: its number.
        train: (video, its labels).
        test: (video, its labels).
        classes: their number.
    """
    place = {video: at for at, video in enumerate(work.videos)}
    vectors = np.concatenate([_needed(work, work.vectors(split, number))["vectors"] for number in range(work.shards)])
    known = [(place[video], labels) for video, labels in train if video in place]
    tested = [place[video] for video, _ in test if video in place]
    trained, labels = vectors[[at for at, _ in known]], [labels for _, labels in known]
    decisions = fisher.margins(trained, labels, vectors[tested], classes) * fisher.scale(trained, labels, classes)
    values = iter(decisions.tolist())
    return [next(values) if video in place else None for video, _ in test]


def _read(work: Work, number: int) -> list[tuple[str, np.ndarray]]:
    """Return (video, its descriptors (P, 426)) of a shard."""
    arrays = _needed(work, work.described(number))
    return [(video, arrays[str(at)]) for at, video in enumerate(work.shard(number))]


def _done(work: Work, path: Path) -> bool:
    state.check(state.running("trajectories"), work.code, "trajectories")
    return _get(work, path) is not None


def _put(work: Work, path: Path, arrays: dict[str, np.ndarray]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # its stub takes `arrays` for allow_pickle
    state.put(path, buffer.getvalue(), work.key)


def _get(work: Work, path: Path) -> dict[str, np.ndarray] | None:
    if (content := state.get(path, work.key)) is None:
        return None
    with np.load(io.BytesIO(content)) as arrays:
        return dict(arrays)


def _needed(work: Work, path: Path) -> dict[str, np.ndarray]:
    if (arrays := _get(work, path)) is None:
        raise UserError(f"{path} is gone or damaged; run the stage again, which makes it again")
    return arrays


def _columns(kind: str) -> slice:
    """Return the columns of a kind of descriptor among the 426 numbers."""
    kinds = list(dense.SIZES)
    begin = sum(dense.SIZES[name] for name in kinds[: kinds.index(kind)])
    return slice(begin, begin + dense.SIZES[kind])
