"""Clips per second on one core, from storage to batch, of several loaders.

    python -m bench.loading

All loaders take the same clips: 8 random frames, one per segment, a corner crop of side 1, .875, .75 or .66 of the
short side, resized, normalized. They run in turns on one core, several times. A ratio is the median over turns, and
time is the process's CPU time, so that other load on the machine matters little. Files are in the page cache.

- store: this project's frame store, loading.TrainClips, loading.normalise() into a reused batch.
- store, uint8: the same without normalizing, which a GPU would do.
- store, OpenCV: the same with OpenCV's bilinear resize, which doesn't filter, as the store had it before.
- decord, mmaction2, torchcodec, PySlowFast: the 8 frames of the H.264 file, with x264's default key frames (250 apart)
  or one in 12, as bench/peers.py says; the same normalizing. PySlowFast reads every frame from the first to the last.
- Pillow: a folder of the same JPEG files as in the store, read as the code of TSN, TSM and ACTION-Net does: open,
  convert to RGB, crop, resize, concatenate along channels, to a float tensor by / 255, normalize by channel.
"""

import statistics
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bench import peers, report
from bench.decoding import decode, listed, pans
from bench.peers import MEAN, STD, Key, VideoClips, Way
from bench.report import column
from bench.running import one_core, options, timed
from pipeline.clips import loading
from pipeline.clips.augmentation import Box
from pipeline.clips.loading import View
from pipeline.config.schema import Augment, Decode
from pipeline.decode import frame_store, shards
from tests.support.recipes import recipe

VIDEOS, LENGTH, WIDTH, HEIGHT = 16, 240, 340, 256  # 8 s at 30 frames per second
CLIPS, TURNS = 32, 7
DECODE = Decode(short_side=HEIGHT, quality=90, decoder="ffmpeg", videos_per_shard=8, max_failed=0.0)
SCALES = (1.0, 0.875, 0.75, 0.66)
RECIPE = recipe(Augment("corner", scales=SCALES), epochs=1, batch=8, micro_batch=8, frames=8, size=224, lr=0.01)


def main() -> None:
    options(__doc__)
    one_core()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        size = prepare(root)
        store, items = frame_store.FrameStore(root / "store"), [(f"{n}.mp4", [0]) for n in range(VIDEOS)]
        recipes = [replace(RECIPE, size=pixels) for pixels in (224, 112)]
        plans = [loading.TrainClips(store, items, recipe, 0, mirrored=[0]) for recipe in recipes]
        rows = [row for plan in plans for row in race(root, plan)]
        errors = {plan.recipe.size: differences(root, plan) for plan in plans}
    save(rows, errors, size)


def prepare(root: Path) -> float:
    """Write videos, frame store and JPEG files below root.

    Return a frame's mean size in kB.
    """
    size, x264 = f"{WIDTH}x{HEIGHT}", ["-c:v", "libx264"]
    paths = pans(root / "default", VIDEOS, "mp4", size, LENGTH / 30, x264)
    pans(root / "short", VIDEOS, "mp4", size, LENGTH / 30, [*x264, "-g", "12"])
    decode(shards.plan(root / "store", root / "default", listed(paths, root / "default"), DECODE))
    store, stored = frame_store.FrameStore(root / "store"), 0
    for n in range(VIDEOS):
        folder = root / "jpegs" / str(n)
        folder.mkdir(parents=True)
        for index, jpeg in enumerate(store.jpegs(f"{n}.mp4", range(LENGTH))):
            stored += (folder / f"img_{index + 1:05d}.jpg").write_bytes(jpeg)
    return stored / VIDEOS / LENGTH / 1000


def race(root: Path, plan: loading.TrainClips) -> list[dict[str, Any]]:
    """Return a row for each turn and loader, after one warm-up turn."""
    rows = []
    racers, batch = loaders(root, plan), plan.recipe.micro_batch
    for turn in range(TURNS + 1):
        keys = [(turn, n % VIDEOS) for n in range(CLIPS)]
        micros = [keys[at : at + batch] for at in range(0, CLIPS, batch)]
        for name, batches in racers.items():
            timing = timed(lambda batches=batches, micros=micros: deque(batches(micros), maxlen=0))
            if turn:
                speeds = {"cpu_clips_s": CLIPS / timing.cpu, "wall_clips_s": CLIPS / timing.wall}
                rows.append({"size": plan.recipe.size, "turn": turn, "loader": name, **speeds})
    return rows


def save(rows: list[dict[str, Any]], errors: dict[int, dict[str, float]], size: float) -> None:
    lines = []
    for pixels, name in dict.fromkeys((row["size"], row["loader"]) for row in rows):
        ours, speeds = (column(rows, "cpu_clips_s", size=pixels, loader=each) for each in ("store", name))
        gain = report.spread(report.ratios(ours, speeds))
        lines.append([pixels, name, f"{statistics.median(speeds):.0f}", gain])
    listed_errors = [
        f"- {pixels}: " + ", ".join(f"{side} {error:.2f}" for side, error in sides.items())
        for pixels, sides in errors.items()
    ]
    text = "\n".join([
        f"{VIDEOS} H.264 videos of {LENGTH} frames, {WIDTH}x{HEIGHT}; JPEG quality {DECODE.quality}, {size:.1f} kB a "
        f"frame; 8 frames a clip, batches of {RECIPE.micro_batch}; {TURNS} turns of {CLIPS} clips each.",
        "",
        "Mean absolute difference of store's pixels from Pillow's, in 0..255, by the side of the crop:",
        "",
        *listed_errors,
        "",
        *peers.lacks("decord", "torchcodec", "av"),
        "Without a resize they are the same bits, and a resize differs by rounding alone, because both average over "
        "more pixels the more they shrink. From half on down the store shrinks within the JPEG first.",
        "\n",
    ])  # fmt: skip
    head = ["input", "loader", "clips/s of CPU time", "store is faster by (least to most of the turns)"]
    report.save("loading", "Loading clips on one core", text, head, lines, rows)


def differences(root: Path, plan: loading.TrainClips) -> dict[str, float]:
    """Return crop's side -> mean absolute pixel difference from Pillow."""
    files, errors = PillowClips(root / "jpegs", plan), {}
    for side in (256, 224, 192, 168):
        view = View((3, 77, 151, 230), Box(42, (HEIGHT - side) // 4 * 2, side, side), False)
        ours = loading.load_views(plan.store, [("0.mp4", view)], plan.recipe.size)[0].astype(float)
        theirs = np.stack([np.asarray(image) for image in files.images(0, view)])
        errors[str(side)] = float(np.abs(ours - theirs).mean())
    return errors


class PillowClips(Dataset):
    """(3T,size,size) float, from a folder of JPEG files for each video."""

    def __init__(self, folder: Path, plan: loading.TrainClips) -> None:
        self.folder, self.plan = folder, plan

    def images(self, position: int, view: View) -> list[Image.Image]:
        x, y, w, h = view.box
        size = self.plan.recipe.size
        paths = [self.folder / str(position) / f"img_{index + 1:05d}.jpg" for index in view.indices]
        cut = [Image.open(path).convert("RGB").crop((x, y, x + w, y + h)) for path in paths]
        return [image.resize((size, size), Image.Resampling.BILINEAR) for image in cut]

    def __getitem__(self, key: Key) -> Tensor:
        images = [np.asarray(image) for image in self.images(key[1], self.plan.view(*key))]
        x = torch.from_numpy(np.concatenate(images, axis=2)).permute(2, 0, 1).contiguous().float().div(255)
        for channel, mean, std in zip(x, MEAN * len(images), STD * len(images), strict=True):
            channel.sub_(mean / 255).div_(std / 255)
        return x


def unfiltered(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize (n,H,W,3) uint8 by OpenCV."""
    return np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR) for frame in frames])


def ways() -> dict[str, Way]:
    """Return name -> way from a video file to a clip, of the packages that can be imported."""
    every = {
        "decord": ("decord", peers.by_decord),
        "mmaction2": ("decord", peers.by_mmaction2),
        "torchcodec": ("torchcodec", peers.by_torchcodec),
        "PySlowFast": ("av", peers.by_pyslowfast),
    }
    return {name: way for name, (package, way) in every.items() if not peers.lack(package)}


def loaders(root: Path, plan: loading.TrainClips) -> dict[str, Callable[[list[list[Key]]], Iterator[Tensor]]]:
    """Return name -> function from micro batches of keys to batches.

    Batches are (N,T,C,H,W) float, except for "store, uint8".
    """
    size = plan.recipe.size
    again = torch.empty(plan.recipe.micro_batch, plan.recipe.frames, size, size, 3)

    def store(micros: list[list[Key]]) -> Iterator[Tensor]:
        return (x for x, _ in DataLoader(plan, sampler=micros, batch_size=None))

    def by_opencv(micros: list[list[Key]]) -> Iterator[Tensor]:
        with patch.object(loading, "resized", unfiltered):
            yield from map(normalised, store(micros))

    def from_video(way: Way, folder: str, micros: list[list[Key]]) -> Iterator[Tensor]:
        batches = DataLoader(VideoClips(root / folder, plan, way), batch_sampler=micros)
        return map(normalised, batches) if way is not peers.by_pyslowfast else iter(batches)

    def from_files(micros: list[list[Key]]) -> Iterator[Tensor]:
        return (x.unflatten(1, (-1, 3)) for x in DataLoader(PillowClips(root / "jpegs", plan), batch_sampler=micros))

    def normalised(x: Tensor) -> Tensor:
        return loading.normalise(x, MEAN, STD, out=again)

    return {
        "store": lambda micros: map(normalised, store(micros)),
        "store, uint8": store,
        "store, OpenCV": by_opencv,
        **{
            f"{name}{key_frames}": partial(from_video, way, folder)
            for name, way in ways().items()
            for folder, key_frames in (("default", ""), ("short", ", key frame in 12"))
        },
        "Pillow": from_files,
    }


if __name__ == "__main__":
    main()
