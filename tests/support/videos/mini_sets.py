"""Draw the papers' data sets for tier mini, in their published layouts.

    python -m tests.support.videos.mini_sets eam data/videos

The arguments are a suite or a data set, and a folder. Each data set gets a folder below it, with the official lists if
available, otherwise invented lists with the official counts. Only the videos that tier mini takes are drawn. Each class
has a motion and a tint, so that networks can learn something; results say nothing about the real videos.
"""

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from ruamel.yaml import YAML

from pipeline import datasets
from pipeline.config.schema import Subset
from pipeline.datasets import Splits, charades, cifar100, diving48, egogesture, kinetics400, shapes, sthv1, sthv2
from pipeline.subset import reduced
from tests.support.real_data import TEST_DATA
from tests.support.videos.stand_ins import json, lines, stills, video

ROOT = Path(__file__).parents[3]
LISTS = TEST_DATA / "data" / "annotations"
DRAWN = shapes.Options(train=8, test=8, frames=(24, 40))
TINTS = np.array([[1, 0.5, 0.5], [0.5, 1, 0.5], [0.5, 0.5, 1], [1, 1, 0.5], [0.5, 1, 1]], np.float32)


def clip(name: str, label: int, length: int | None = None) -> np.ndarray:
    """Return (T,96,96,3) RGB with a motion and a tint of the class; the rest follows from the video's name."""
    options = shapes.Options(8, 8, frames=(length, length)) if length and length > 1 else DRAWN
    rng = np.random.default_rng(list(name.encode()))
    return (shapes.clip(label % len(shapes.CLASSES), rng, options) * TINTS[label % len(TINTS)]).astype(np.uint8)


def subset() -> Subset:
    return Subset(**YAML(typ="safe").load(ROOT / "conf" / "tier" / "mini.yaml")["subset"])


def official(name: str, folder: Path, pattern: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    actual = list((LISTS / name).glob(pattern))
    if not actual:
        sys.exit(f"no lists of {name} in {LISTS / name}")
    for path in actual:
        shutil.copy(path, folder)


def ucf101(folder: Path) -> None:
    official("ucf101", folder / "ucfTrainTestlist", "*list0*.txt")


def hmdb51(folder: Path) -> None:
    official("hmdb51", folder / "testTrainMulti_7030_splits", "testTrainMulti_7030_splits/*_split?.txt")


def jester_(folder: Path) -> None:
    official("jester", folder, "jester-v1-*.csv")


def egogesture_(folder: Path) -> None:
    official("egogesture", folder / "annotation_EgoGesture", "*listall_but_None.txt")


def kinetics400_(folder: Path) -> None:
    heads = ("label", "youtube_id", "time_start", "time_end", "split")
    for part, count in zip(("train", "val"), kinetics400.COUNTS[1].values(), strict=True):
        rows = [(f"class {n % 400:03d}", f"{part[0]}{n:010d}", n % 60, n % 60 + 10, part) for n in range(count)]
        write(folder / "annotations" / f"{part}.csv", lines(heads, rows))


def sthv1_(folder: Path) -> None:
    pairs = [name for pair in sthv1.MIRRORED for name in pair]
    names = pairs + [f"Doing something {number}" for number in range(174 - len(pairs))]
    write(folder / "something-something-v1-labels.csv", "\n".join(names) + "\n")
    first = 1
    for part, count in zip(("train", "validation"), sthv1.COUNTS[1].values(), strict=True):
        text = "".join(f"{n};{names[n % 174]}\n" for n in range(first, first + count))
        write(folder / f"something-something-v1-{part}.csv", text)
        first += count


def sthv2_(folder: Path) -> None:
    """Write lists with the official templates and invented clips; the official training list is not available."""
    official("sthv2", folder, "something-something-v2-*.json")
    names = list(json.loads((folder / "something-something-v2-labels.json").read_text()))
    train = [{"id": str(10**6 + n), "template": names[n % 174]} for n in range(sthv2.COUNTS[1]["train"])]
    write(folder / "something-something-v2-train.json", json.dumps(train))


def diving48_(folder: Path) -> None:
    for part, count in diving48.COUNTS[1].items():
        entries = [{"vid_name": f"{part:_<11}_{n:05d}", "label": n % 48} for n in range(count)]
        write(folder / f"Diving48_V2_{part}.json", json.dumps(entries))


def charades_(folder: Path) -> None:
    """Draw one to three actions for each video, and none for one in fifty."""
    official("charades", folder, "Charades_v1_classes.txt")
    for part, count in charades.COUNTS[1].items():
        rows = []
        for n in range(count):
            actions = [f"c{(n * step) % 157:03d} 0.00 5.00" for step in (1, 2, 3)[: n % 50 and n % 3 + 1]]
            rows.append(
                (
                    f"{part[:2].upper()}{n:03X}"[:5].ljust(5, "0") if n < 4096 else f"{part[0].upper()}{n:04X}",
                    ";".join(actions),
                )
            )
        write(folder / f"Charades_v1_{part}.csv", lines(("id", "actions"), rows))


def cifar100_(folder: Path) -> None:
    """Write all images; those that the tier doesn't take are black."""
    write(folder / "fine_label_names.txt", "".join(f"thing_{number:02d}\n" for number in range(100)))
    for part, count in cifar100.COUNTS[1].items():
        images = np.zeros((count, cifar100.RECORD), np.uint8)
        images[:, 1] = np.arange(count) % 100
        images.tofile(folder / f"{part}.bin")
    few = reduced(whole("cifar100", folder), subset()).rows[1]
    for part, count in cifar100.COUNTS[1].items():
        images = np.fromfile(folder / f"{part}.bin", np.uint8).reshape(count, -1)
        for row in few:
            if row.part == part:
                images[int(row.video.rpartition("/")[2]), 2:] = (
                    clip(row.video, row.labels[0])[0, ::3, ::3].transpose(2, 0, 1).ravel()
                )
        images.tofile(folder / f"{part}.bin")


SETS: dict[str, tuple[Callable[[Path], None], str]] = {  # the lists, and how a video lies
    "ucf101": (ucf101, "UCF-101/{}.avi"),
    "hmdb51": (hmdb51, "{}.avi"),
    "kinetics400": (kinetics400_, "{part}/{}.mp4"),
    "sthv1": (sthv1_, "20bn-something-something-v1/{}/"),
    "sthv2": (sthv2_, "20bn-something-something-v2/{}.webm"),
    "jester": (jester_, "20bn-jester-v1/{}/"),
    "egogesture": (egogesture_, "images/{}/"),
    "diving48": (diving48_, "rgb/{}.mp4"),
    "charades": (charades_, "Charades_v1_480/{}.mp4"),
    "cifar100": (cifar100_, ""),
}


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def whole(name: str, folder: Path) -> Splits:
    options = {"binary": str(folder)} if name == "cifar100" else {}
    return datasets.loaded(name).splits(folder, options)


def draw(name: str, folder: Path) -> None:
    """Write the lists and videos of a data set."""
    make, place = SETS[name]
    folder.mkdir(parents=True, exist_ok=True)
    make(folder)
    few = reduced(whole(name, folder), subset())
    rows = {row.video: row for each in few.rows.values() for row in each} if place else {}
    for row in rows.values():
        for path, content in files(row.video, place.format(row.video, part=row.part), row.labels[0]):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
    print(f"{name}: {len(rows)} videos of {', '.join(few.classes)}")


def files(name: str, path: str, label: int) -> Iterator[tuple[str, bytes]]:
    if not path.endswith("/"):
        yield path, video(Path(path).suffix, clip(name, label))
    elif gesture := egogesture.VIDEO.match(name):  # a range of a longer video's frames
        first, last = map(int, name.rpartition("/")[2].split("-"))
        yield from stills(
            f"images/{gesture[0]}", 6, clip(name, label, last - first + 1)[: last - first + 1], first
        ).items()
    else:
        yield from stills(path.rstrip("/"), 5, clip(name, label)).items()


def main(target: str, folder: str) -> None:
    suite = ROOT / "conf" / "suite" / f"{target}.yaml"
    names = [name for name in SETS if name == target or (suite.is_file() and f"datasets.{name}:" in suite.read_text())]
    if not names:
        sys.exit(f"no suite or data set {target!r}; data sets: {', '.join(SETS)}")
    for name in names:
        draw(name, Path(folder) / ("cifar-100-binary" if name == "cifar100" else name))


if __name__ == "__main__":
    main(*sys.argv[1:])
