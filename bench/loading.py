"""Clips per second on one core, from storage to batch, of three loaders.

    python -m bench.loading

All loaders take the same clips: 8 random frames, one per segment, a corner crop of side 1, .875, .75 or .66 of the
short side, resized, normalized. They run in turns on one core, several times. A ratio is the median over turns, and
time is the process's CPU time, so that other load on the machine matters little. Files are in the page cache.

- store: this project's frame store, loading.TrainClips, loading.normalise() into a reused batch.
- store, uint8: the same without normalizing, which a GPU would do.
- decord: get_batch() of the 8 frames of the H.264 file, x264's default key frames (250 apart) or one in 12; the same
  crop and resize by OpenCV, the same normalizing.
- Pillow: a folder of the same JPEG files as in the store, read as the code of TSN, TSM and ACTION-Net does: open,
  convert to RGB, crop, resize, concatenate along channels, to a float tensor by / 255, normalize by channel.
"""

import argparse
import csv
import hashlib
import io
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import decord
import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline import executable
from pipeline.clips import loading
from pipeline.clips.augmentation import Box
from pipeline.clips.loading import View
from pipeline.config.schema import Augment, Decode
from pipeline.decode import frame_store, shards
from pipeline.storage import atomic
from tests.support.recipes import recipe

RESULTS = Path(__file__).parent / "results"
VIDEOS, LENGTH, WIDTH, HEIGHT = 16, 240, 340, 256  # 8 s at 30 frames per second
CLIPS, TURNS = 32, 7
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
DECODE = Decode(short_side=HEIGHT, quality=90, decoder="ffmpeg", videos_per_shard=8, max_failed=0.0)
SCALES = (1.0, 0.875, 0.75, 0.66)
RECIPE = recipe(Augment("corner", scales=SCALES), epochs=1, batch=8, micro_batch=8, frames=8, size=224, lr=0.01)
Key = tuple[int, int]


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        size = prepare(root)
        store, items = frame_store.FrameStore(root / "store"), [(str(n), [0]) for n in range(VIDEOS)]
        plans = [
            loading.TrainClips(store, items, replace(RECIPE, size=pixels), 0, mirrored=[0]) for pixels in (224, 112)
        ]
        rows = [row for plan in plans for row in race(root, plan)]
        errors = {plan.recipe.size: differences(root, plan) for plan in plans}
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic.write(RESULTS / "loading.csv", table.getvalue())
    report = written(rows, errors, size)
    atomic.write(RESULTS / "loading.md", report)
    print(report)


def prepare(root: Path) -> float:
    """Write videos, frame store and JPEG files below root.

    Return a frame's mean size in kB.
    """
    for n in range(VIDEOS):
        pixels = pan(n)
        for folder, options in (("default", []), ("short", ["-g", "12"])):
            encode(pixels, root / folder / f"{n}.mp4", options)
    sources = []
    for n in range(VIDEOS):
        path = root / "default" / f"{n}.mp4"
        sources.append(shards.Source(str(n), path.name, hashlib.sha256(path.read_bytes()).hexdigest()))
    task = shards.Task(root / "store", 0, root / "default", tuple(sources), DECODE)
    shards.decode_shard(task)
    shards.finish(task.folder, [task])
    store, size = frame_store.FrameStore(task.folder), 0
    for n in range(VIDEOS):
        folder = root / "jpegs" / str(n)
        folder.mkdir(parents=True)
        for index, jpeg in enumerate(store.jpegs(str(n), range(LENGTH))):
            size += (folder / f"img_{index + 1:05d}.jpg").write_bytes(jpeg)
    return size / VIDEOS / LENGTH / 1000


def pan(n: int) -> np.ndarray:
    """Draw a camera pan over a photograph, (LENGTH,HEIGHT,WIDTH,3) uint8 RGB."""
    photo = load_sample_image(("china.jpg", "flower.jpg")[n % 2])
    height, width = photo.shape[:2]
    pixels = np.empty((LENGTH, HEIGHT, WIDTH, 3), np.uint8)
    for frame, at in zip(pixels, np.linspace(0, 1, LENGTH), strict=True):
        zoom = 1 + 0.12 * np.sin(6 * at + n)
        x = (width - WIDTH * zoom) * (0.5 + 0.5 * np.sin(9 * at + n))
        y = (height - HEIGHT * zoom) * (0.5 + 0.5 * np.cos(7 * at + n))
        window = np.array([[zoom, 0, x], [0, zoom, y]])
        mode = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        cv2.warpAffine(photo, window, (WIDTH, HEIGHT), frame, mode, cv2.BORDER_REFLECT)
    return pixels


def encode(pixels: np.ndarray, path: Path, options: list[str]) -> None:
    path.parent.mkdir(exist_ok=True)
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}", "-r", "30", "-i", "-"]
    x264 = ["-c:v", "libx264", "-pix_fmt", "yuv420p", *options]
    command = [executable.ffmpeg_exe()[0], "-v", "error", "-y", *raw, *x264, str(path)]
    subprocess.run(command, input=pixels.tobytes(), check=True)


def race(root: Path, plan: loading.TrainClips) -> list[dict[str, str | int | float]]:
    """Return a row for each turn and loader, after one warm-up turn."""
    rows: list[dict[str, str | int | float]] = []
    racers, batch = loaders(root, plan), plan.recipe.micro_batch
    for turn in range(TURNS + 1):
        keys = [(turn, n % VIDEOS) for n in range(CLIPS)]
        micros = [keys[at : at + batch] for at in range(0, CLIPS, batch)]
        for name, batches in racers.items():
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in batches(micros):
                pass
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            if turn:
                per_second = {"cpu_clips_s": round(CLIPS / cpu, 2), "wall_clips_s": round(CLIPS / wall, 2)}
                rows.append({"size": plan.recipe.size, "turn": turn, "loader": name, **per_second})
    return rows


def written(rows: list[dict], errors: dict[int, dict[str, float]], size: float) -> str:
    """Return the report, in Markdown."""
    lines = [
        "# Loading clips on one core",
        "",
        f"{VIDEOS} H.264 videos of {LENGTH} frames, {WIDTH}x{HEIGHT}; JPEG quality {DECODE.quality}, {size:.1f} kB a "
        f"frame; 8 frames a clip, batches of {RECIPE.micro_batch}; {TURNS} turns of {CLIPS} clips each. "
        "How: the docstring of `bench/loading.py`; every turn: `loading.csv`.",
        "",
        "| input | loader | clips/s of CPU time | store is faster by (least to most of the turns) |",
        "|---|---|---|---|",
    ]
    for pixels in dict.fromkeys(row["size"] for row in rows):
        own = [row for row in rows if row["size"] == pixels]
        speeds = {name: [r["cpu_clips_s"] for r in own if r["loader"] == name] for name in {r["loader"] for r in own}}
        for name in dict.fromkeys(row["loader"] for row in own):
            ratios = [store / other for store, other in zip(speeds["store"], speeds[name], strict=True)]
            gain = f"{statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"
            lines.append(f"| {pixels} | {name} | {statistics.median(speeds[name]):.0f} | {gain} |")
    lines += ["", "Mean absolute difference of store's pixels from Pillow's, in 0..255, by the side of the crop:", ""]
    for pixels, found in errors.items():
        lines.append(f"- {pixels}: " + ", ".join(f"{side} {error:.2f}" for side, error in found.items()))
    lines += [
        "",
        "Without a resize they are the same bits. Enlarging differs by rounding alone. Pillow's resize averages over "
        "more pixels the more it shrinks, OpenCV's does not; from half on down the store shrinks within the JPEG.",
        "",
    ]
    return "\n".join(lines)


def differences(root: Path, plan: loading.TrainClips) -> dict[str, float]:
    """Return crop's side -> mean absolute pixel difference from Pillow."""
    files, found = PillowClips(root / "jpegs", plan), {}
    for side in (256, 224, 192, 168):
        view = View((3, 77, 151, 230), Box(42, (HEIGHT - side) // 4 * 2, side, side), False)
        ours = loading.load_views(plan.store, [("0", view)], plan.recipe.size)[0].astype(float)
        theirs = np.stack([np.asarray(image) for image in files.images(0, view)])
        found[str(side)] = float(np.abs(ours - theirs).mean())
    return found


class DecordClips(Dataset):
    """(T,size,size,3) uint8 read from the video file."""

    def __init__(self, folder: Path, plan: loading.TrainClips) -> None:
        self.folder, self.plan = folder, plan

    def __getitem__(self, key: Key) -> np.ndarray:
        view, size = self.plan.view(*key), self.plan.recipe.size
        reader = decord.VideoReader(str(self.folder / f"{key[1]}.mp4"), num_threads=1)
        x, y, w, h = view.box
        part = reader.get_batch(list(view.indices)).asnumpy()[:, y : y + h, x : x + w]
        return np.stack([cv2.resize(frame, (size, size), interpolation=cv2.INTER_LINEAR) for frame in part])


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


def loaders(root: Path, plan: loading.TrainClips) -> dict[str, Callable[[list[list[Key]]], Iterator[Tensor]]]:
    """Return name -> function from micro batches of keys to batches.

    Batches are (N,T,C,H,W) float, except for "store, uint8".
    """
    size = plan.recipe.size
    again = torch.empty(plan.recipe.micro_batch, plan.recipe.frames, size, size, 3)

    def store(micros: list[list[Key]]) -> Iterator[Tensor]:
        return (x for x, _ in DataLoader(plan, sampler=micros, batch_size=None))

    def from_video(folder: str, micros: list[list[Key]]) -> Iterator[Tensor]:
        return (normalised(x) for x in DataLoader(DecordClips(root / folder, plan), batch_sampler=micros))

    def from_files(micros: list[list[Key]]) -> Iterator[Tensor]:
        return (x.unflatten(1, (-1, 3)) for x in DataLoader(PillowClips(root / "jpegs", plan), batch_sampler=micros))

    def normalised(x: Tensor) -> Tensor:
        return loading.normalise(x, MEAN, STD, out=again)

    return {
        "store": lambda micros: map(normalised, store(micros)),
        "store, uint8": store,
        "decord": partial(from_video, "default"),
        "decord, key frame in 12": partial(from_video, "short"),
        "Pillow": from_files,
    }


if __name__ == "__main__":
    main()
