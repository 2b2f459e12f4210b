"""Small versions of the ten data sets in their distributed layouts, with known pixels."""

import csv
import io
import json
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg

from pipeline.datasets import cifar100, hmdb51, jester, sthv1
from pipeline.executable import ffmpeg_exe
from tests.support.videos.packed import tarred, zipped

HEIGHT, WIDTH, FRAMES = 48, 64, 5
CODECS = {
    ".avi": ["-c:v", "libxvid", "-q:v", "1"],
    ".mp4": ["-c:v", "libx264", "-crf", "4", "-pix_fmt", "yuv420p"],
    ".webm": ["-c:v", "libvpx-vp9", "-crf", "4", "-b:v", "0", "-cpu-used", "8", "-deadline", "realtime"],
}
SOMETHING = [f"Doing something {number}" for number in range(174)]


@dataclass
class StandIn:
    """A small data set: its place, the contents of its lists, and the pixels of each present video."""

    source: Path | str
    lists: Path | None
    rows: dict[str, tuple[str, list[int]]]  # of split 1: video -> (part, labels)
    pixels: dict[str, np.ndarray]  # video that is there -> (T,H,W,3) RGB
    classes: int
    patches: dict[str, Any] = field(default_factory=dict)  # constants of the plug-in that such a small copy can't meet
    options: dict[str, Any] = field(default_factory=dict)
    fps: float = 10.0


def drawn(seed: int, frames: int = FRAMES, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Return (T,H,W,3) RGB: smooth colors by seed, which slide to the left."""
    coarse = np.random.default_rng(seed).integers(30, 226, (3, 5, 3)).astype(np.float32)
    wide = cv2.resize(coarse, (width + 6 * frames, height), interpolation=cv2.INTER_LINEAR)
    return np.stack([wide[:, 6 * t : 6 * t + width] for t in range(frames)]).astype(np.uint8)


def video(suffix: str, pixels: np.ndarray) -> bytes:
    """Return a video file of ten frames a second."""
    _, height, width, _ = pixels.shape
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", "10", "-i", "pipe:"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"video{suffix}"
        command = [ffmpeg_exe()[0], "-v", "error", *raw, *CODECS[suffix], str(path)]
        subprocess.run(command, input=pixels.tobytes(), check=True)
        return path.read_bytes()


def stills(folder: str, width: int, pixels: np.ndarray, first: int = 1) -> dict[str, bytes]:
    """Return numbered frames, such as <folder>/00001.jpg."""
    return {
        f"{folder}/{number:0{width}d}.jpg": simplejpeg.encode_jpeg(frame, 95)
        for number, frame in enumerate(pixels, first)
    }


def written(root: Path, files: dict[str, bytes | str]) -> Path:
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def packed(path: Path, files: dict[str, bytes]) -> Path:
    return tarred(path, *((tarfile.TarInfo(name), content) for name, content in files.items()), mode="w:gz")


def lines(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([heads, *rows])
    return text.getvalue()


def ucf101(root: Path) -> StandIn:
    clips = {"Archery/v_Archery_g08_c01": 2, "YoYo/v_YoYo_g25_c05": 100, "Archery/v_Archery_g01_c02": 2}
    pixels = {clip: drawn(seed) for seed, clip in enumerate(clips)}
    source = zipped(root / "UCF101.zip", {f"UCF-101/{clip}.avi": video(".avi", pixels[clip]) for clip in clips})
    *train, test = clips
    texts = {f"trainlist0{k}.txt": "".join(f"{clip}.avi {clips[clip] + 1}\r\n" for clip in train) for k in (1, 2, 3)}
    lists = written(root / "lists", texts | {f"testlist0{k}.txt": f"{test}.avi\r\n" for k in (1, 2, 3)})
    rows = {clip: ("test" if clip == test else "train", [label]) for clip, label in clips.items()}
    counts = {split: {"train": 2, "test": 1} for split in (1, 2, 3)}
    return StandIn(source, lists, rows, pixels, 101, {"COUNTS": counts})


def hmdb51_(root: Path) -> StandIn:
    clips = {"brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0": 1, "wave/#122(g)_wave_f_cm_np1_ba_med_1": 2}
    pixels = {clip: drawn(seed) for seed, clip in enumerate(clips)}
    inner = {}
    for clip in clips:
        name = clip.partition("/")[0]
        inner[f"{name}.zip"] = zipped(root / "c.zip", {f"{clip}.avi": video(".avi", pixels[clip])}).read_bytes()
    source = zipped(root / "hmdb51_org.zip", inner)
    texts = {f"{name}_test_split{split}.txt": "" for name in hmdb51.CLASSES for split in (1, 2, 3)}
    for clip, part in clips.items():
        name, _, file = clip.partition("/")
        texts |= {f"{name}_test_split{split}.txt": f"{file}.avi {part} \nunused.avi 0 \n" for split in (1, 2, 3)}
    first, second = clips
    counts = {split: {"train": 1, "test": 1} for split in (1, 2, 3)}
    rows = {first: ("train", [0]), second: ("test", [50])}
    return StandIn(source, written(root / "lists", texts), rows, pixels, 51, {"COUNTS": counts})


def kinetics400(root: Path) -> StandIn:
    """Most clips are missing, and a damaged one has a replacement."""
    names = [f"class {number:03d}" for number in range(400)]
    listed = {"train": [(names[n], f"-{n:010d}", 7, 17) for n in range(400)]}
    listed["val"] = [(names[n], f"_{n:010d}", 1200, 1210) for n in range(400)]
    parts = {"train": "train", "val": "test"}
    rows = {
        f"{clip}_{start:06d}_{end:06d}": (parts[part], [names.index(name)])
        for part, each in listed.items()
        for name, clip, start, end in each
    }
    there = ["-0000000000_000007_000017", "_0000000001_001200_001210", "-0000000399_000007_000017"]
    pixels = {clip: drawn(seed) for seed, clip in enumerate(there)}
    files: dict[str, bytes | str] = {
        f"{'val' if rows[clip][0] == 'test' else 'train'}/{clip}.mp4": video(".mp4", pixels[clip]) for clip in there
    }
    files[f"replacement/replacement_for_corrupted_k400/{there[2]}.mp4"] = files[f"train/{there[2]}.mp4"]
    files[f"train/{there[2]}.mp4"] = b"damaged"
    heads = ("label", "youtube_id", "time_start", "time_end", "split")
    for part, each in listed.items():
        files[f"annotations/{part}.csv"] = lines(heads, [(*row, part) for row in each])
    counts = {1: {"train": 400, "test": 400}}
    return StandIn(written(root / "k400", files), None, rows, pixels, 400, {"COUNTS": counts})


def something_v1(root: Path) -> StandIn:
    return _twenty_bn(root, "something-something-v1", SOMETHING)


def jester_(root: Path) -> StandIn:
    return _twenty_bn(root, "jester-v1", jester.CLASSES)


def _twenty_bn(root: Path, name: str, classes: Sequence[str]) -> StandIn:
    """Pack folders of frames, and write CSV lists; clip 9 is in the official test list, which has no labels."""
    pixels = {clip: drawn(int(clip)) for clip in ("7", "11", "12", "9")}
    source = packed(
        root / f"20bn-{name}.tar.gz",
        {path: jpeg for clip in pixels for path, jpeg in stills(f"20bn-{name}/{clip}", 5, pixels[clip]).items()},
    )
    texts = {"train": f"11;{classes[0]}\n12;{classes[-1]}\n", "validation": f"7;{classes[1]}\n", "test": "9\n"}
    lists = written(root / "lists", {f"{name}-{kind}.csv": text for kind, text in texts.items()})
    (lists / f"{name}-labels.csv").write_text("\n".join(classes) + "\n")
    rows = {"11": ("train", [0]), "12": ("train", [len(classes) - 1]), "7": ("test", [1])}
    patches = {"COUNTS": {1: {"train": 2, "test": 1}}, "UNLABELLED": 1}
    return StandIn(source, lists, rows, pixels, len(classes), patches, fps=12.0)


def sthv2(root: Path) -> StandIn:
    pixels = {clip: drawn(int(clip)) for clip in ("7", "11", "12")}
    files: dict[str, bytes | str] = {
        f"20bn-something-something-v2/{clip}.webm": video(".webm", pixels[clip]) for clip in pixels
    }
    labels = {"11": 0, "12": 173, "7": 1}
    entries = {c: {"id": c, "template": SOMETHING[n].replace("something", "[something]")} for c, n in labels.items()}
    contents = {
        "labels": {name: str(number) for number, name in enumerate(SOMETHING)},
        "train": [entries["11"], entries["12"]],
        "validation": [entries["7"]],
    }
    files |= {f"something-something-v2-{kind}.json": json.dumps(content) for kind, content in contents.items()}
    rows = {clip: ("test" if clip == "7" else "train", [label]) for clip, label in labels.items()}
    counts = {1: {"train": 2, "test": 1}}
    return StandIn(written(root / "sthv2", files), None, rows, pixels, 174, {"COUNTS": counts})


def egogesture(root: Path) -> StandIn:
    """Two gestures are ranges of one video of twelve frames."""
    long, other = "Subject03/Scene1/Color/rgb1", "Subject02/Scene6/Color/rgb9"
    third = "Subject01/Scene2/Color/rgb2"
    whole = {video: drawn(seed, 12) for seed, video in enumerate((long, other, third))}
    files: dict[str, bytes | str] = {
        f"images/{path}": jpeg for video in whole for path, jpeg in stills(video, 6, whole[video]).items()
    }
    texts = {"train": f"{long} 7 2 5\n{long} 83 6.0 12.0\n", "val": f"{third} 1 1 3\n", "test": f"{other} 2 5 8\n"}
    files |= {f"annotation_EgoGesture/{part}listall_but_None.txt": text for part, text in texts.items()}
    rows = {f"{long}/2-5": ("train", [6]), f"{long}/6-12": ("train", [82])}
    rows |= {f"{third}/1-3": ("val", [0]), f"{other}/5-8": ("test", [1])}
    ranges = {(video, row): tuple(map(int, row.rpartition("/")[2].split("-"))) for row in rows for video in whole}
    pixels = {row: whole[v][a - 1 : b] for (v, row), (a, b) in ranges.items() if row.startswith(v)}
    counts = {1: {"train": 2, "val": 1, "test": 1}}
    return StandIn(written(root / "ego", files), None, rows, pixels, 83, {"COUNTS": counts}, fps=30.0)


def diving48(root: Path) -> StandIn:
    labels = {"-A1gsa6UqhU_00001": 0, "-A1gsa6UqhU_00002": 47, "zzzzzzzzzzz_00003": 5}
    pixels = {clip: drawn(seed) for seed, clip in enumerate(labels)}
    source = packed(root / "Diving48_rgb.tar.gz", {f"rgb/{clip}.mp4": video(".mp4", pixels[clip]) for clip in labels})
    entries = [{"vid_name": c, "label": n, "start_frame": 0, "end_frame": FRAMES} for c, n in labels.items()]
    parts = {"train": entries[:2], "test": entries[2:]}
    lists = written(root / "lists", {f"Diving48_V2_{part}.json": json.dumps(each) for part, each in parts.items()})
    rows = {each["vid_name"]: (part, [each["label"]]) for part in parts for each in parts[part]}
    return StandIn(source, lists, rows, pixels, 48, {"COUNTS": {1: {"train": 2, "test": 1}}})


def charades(root: Path) -> StandIn:
    """One video has two actions, one has none."""
    pixels = {name: drawn(seed) for seed, name in enumerate(("46GP8", "N11GT", "0BH84"))}
    source = zipped(root / "v.zip", {f"Charades_v1_480/{n}.mp4": video(".mp4", p) for n, p in pixels.items()})
    texts = {"classes.txt": "".join(f"c{number:03d} Action {number}\n" for number in range(157))}
    actions = {"train": [("46GP8", "c092 11.90 21.20;c147 0.00 12.60;c092 1 2"), ("N11GT", "")]}
    for part, listed in (actions | {"test": [("0BH84", "c001 1 2.5")]}).items():
        texts[f"{part}.csv"] = lines(("id", "script", "actions"), [(n, 'says "hi", goes', text) for n, text in listed])
    lists = written(root / "lists", {f"Charades_v1_{name}": text for name, text in texts.items()})
    rows = {"46GP8": ("train", [92, 147]), "N11GT": ("train", list[int]()), "0BH84": ("test", [1])}
    return StandIn(source, lists, rows, pixels, 157, {"COUNTS": {1: {"train": 2, "test": 1}}})


def cifar100_(root: Path) -> StandIn:
    labels = {"train/00000": 19, "train/00001": 99, "test/00000": 4}
    side = cifar100.SIDE
    pixels = {name: drawn(seed, 1, side, side) for seed, name in enumerate(labels)}
    records = {name: bytes([7, labels[name]]) + pixels[name][0].transpose(2, 0, 1).tobytes() for name in labels}
    files: dict[str, bytes | str] = {
        f"{part}.bin": b"".join(record for name, record in records.items() if name.startswith(part))
        for part in ("train", "test")
    }
    files["fine_label_names.txt"] = "\n".join(f"thing_{number}" for number in range(100)) + "\n"
    binary = written(root / "cifar-100-binary", files)
    rows = {name: (name.partition("/")[0], [label]) for name, label in labels.items()}
    patches = {"COUNTS": {1: {"train": 2, "test": 1}}}
    return StandIn("generated", None, rows, pixels, 100, patches, {"binary": str(binary)}, fps=1.0)


STAND_INS: dict[str, Callable[[Path], StandIn]] = {
    **{"ucf101": ucf101, "hmdb51": hmdb51_, "kinetics400": kinetics400, "sthv1": something_v1, "sthv2": sthv2},
    **{"jester": jester_, "egogesture": egogesture, "diving48": diving48, "charades": charades, "cifar100": cifar100_},
}


# 174 classes as the labels' list has them, but that most have no meaning here.
NAMES = [f"Doing something {number}" for number in range(168)] + [name for pair in sthv1.MIRRORED for name in pair]
