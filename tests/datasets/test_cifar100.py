"""CIFAR-100: a stand-in in the published binary layout becomes one-frame videos with equal pixels."""

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg

from pipeline import splits, subset
from pipeline.config import places
from pipeline.config.schema import Dataset, Decode, Subset
from pipeline.datasets import cifar100
from pipeline.decode.video import decode, opened
from pipeline.download import sources
from pipeline.errors import UserError
from tests.support.real_data import TEST_DATA

DECODE = Decode(short_side=32, quality=100, decoder="ffmpeg", videos_per_shard=64, max_failed=0.0)
NAMES = [f"thing_{number}" for number in range(100)]
LABELS = {"train": [19, 0, 99], "test": [4, 19]}


def image(seed: int) -> np.ndarray:
    """Return a smooth RGB image (3,32,32) without symmetries in space or color."""
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 3, 3)).astype(np.float32)
    smooth = cv2.resize(coarse, (32, 32), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(smooth.transpose(2, 0, 1)).astype(np.uint8)


@pytest.fixture
def binary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return three training and two test images, each with a coarse and a fine class byte."""
    folder = tmp_path / "cifar-100-binary"
    folder.mkdir()
    for part, labels in LABELS.items():
        records = [bytes([7, label]) + image(10 * label + n).tobytes() for n, label in enumerate(labels)]
        (folder / f"{part}.bin").write_bytes(b"".join(records))
    (folder / "fine_label_names.txt").write_text("\n".join(NAMES) + "\n")
    monkeypatch.setattr(cifar100, "COUNTS", {1: {"train": 3, "test": 2}})
    monkeypatch.setattr(cifar100, "IMAGES_PER_ITEM", 2)
    return folder


def dataset(binary: Path) -> Dataset:
    return Dataset(file="cifar100", source="generated", lists=None, options={"binary": str(binary)}, decode=DECODE)


def test_published_counts():
    assert cifar100.COUNTS == {1: {"train": 50_000, "test": 10_000}} and cifar100.RECORD == 3_074


def test_the_makers_files_are_as_published():
    binary = TEST_DATA / "data/cifar-100-binary"
    if not binary.is_dir():
        pytest.skip(f"no {binary}, so its 50,000 and 10,000 labels can't be counted")
    classes, rows = cifar100.splits(binary, {"binary": str(binary)})
    assert Counter((row.part, row.labels) for row in rows[1]) == {
        (part, (label,)): count for part, count in (("train", 500), ("test", 100)) for label in range(len(classes))
    }


def test_images_become_videos_and_splits(tmp_path, binary):
    given, root = dataset(binary), tmp_path / "videos"
    folder = sources.fetch("cifar100", given, tmp_path, root)
    entries = sources.manifest("cifar100", given, folder)
    built = splits.build("cifar100", given, entries, places.lists(given, tmp_path, root))
    assert built.tables[1].rows() == [
        ("train/00000", "train", [19]),
        ("train/00001", "train", [0]),
        ("train/00002", "train", [99]),
        ("test/00000", "test", [4]),
        ("test/00001", "test", [19]),
    ]
    assert built.classes == tuple(NAMES) and built.notes == ()
    with opened(DECODE) as decoder:
        video = decode(folder / "train/00002.avi", decoder)
    assert (video.width, video.height, len(video.jpegs)) == (32, 32, 1)
    seen = simplejpeg.decode_jpeg(video.jpegs[0]).astype(int)
    expected = image(10 * 99 + 2).transpose(1, 2, 0)
    assert np.abs(seen - expected).mean() < 3
    others = (expected[::-1], expected[:, ::-1], expected[..., ::-1], expected.transpose(1, 0, 2))
    assert all(np.abs(seen - other.astype(int)).mean() > 10 for other in others)


def test_what_is_there_is_not_made_again(tmp_path, binary):
    given, root = dataset(binary), tmp_path / "videos"
    sources.fetch("cifar100", given, tmp_path, root)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.avi")}
    (root / "train/00001.avi").unlink()
    sources.fetch("cifar100", given, tmp_path, root)
    after = {path: path.stat().st_mtime_ns for path in root.rglob("*.avi")}
    assert len(before) == 5 and after.keys() == before.keys()
    assert [path.stem for path in before if after[path] != before[path]] == ["00001"]


def test_a_tier_makes_the_images_that_it_takes_and_no_other(tmp_path, binary):
    given, root = dataset(binary), tmp_path / "videos"
    whole = cifar100.splits(root, given.options)
    wanted = subset.videos(whole, Subset(classes=100, train=1, test=0))  # one of each class that training has
    wanted -= {"train/00001"}
    folder = sources.fetch("cifar100", given, tmp_path, root, chosen=wanted)
    assert [entry.video for entry in sources.manifest("cifar100", given, folder, wanted)] == [
        "train/00000",
        "train/00002",
    ]
    assert sorted(path.stem for path in root.rglob("*.avi")) == ["00000", "00002"]
    alone = (root / "train/00002.avi").read_bytes()
    sources.fetch("cifar100", given, tmp_path, root)  # the rest
    assert len(list(root.rglob("*.avi"))) == 5
    (root / "train/00002.avi").unlink()
    sources.fetch("cifar100", given, tmp_path, root)
    assert (root / "train/00002.avi").read_bytes() == alone


def test_files_that_are_wrong_are_refused(tmp_path, binary):
    options = {"binary": str(binary)}
    (binary / "fine_label_names.txt").write_text("apple\n")
    with pytest.raises(UserError, match=r"fine_label_names\.txt has 1 classes; published are 100"):
        cifar100.splits(tmp_path, options)
    (binary / "fine_label_names.txt").unlink()
    with pytest.raises(UserError, match=r"has no fine_label_names\.txt\. Expected: the content of cifar-100-binary"):
        cifar100.splits(tmp_path, options)
    (binary / "test.bin").write_bytes(b"x" * 3_074)
    with pytest.raises(UserError, match=r"test\.bin has 3074 bytes; published are 2 images of 3074 bytes each"):
        cifar100.plan(options)
    (binary / "train.bin").unlink()
    with pytest.raises(UserError, match=r"cifar100: there is no .*train\.bin\. Expected: the content of cifar-100"):
        cifar100.plan(options)
    with pytest.raises(UserError, match=r"cifar100: option 'binary' is missing"):
        cifar100.plan({})


def test_a_label_that_is_no_class_is_refused(tmp_path, binary):
    damaged = bytearray((binary / "train.bin").read_bytes())
    damaged[1] = 100
    (binary / "train.bin").write_bytes(damaged)
    given = dataset(binary)
    folder = sources.fetch("cifar100", given, tmp_path, tmp_path / "videos")
    with pytest.raises(UserError, match=r"train/00000 has the labels \[100\]; there are 100 classes"):
        splits.build("cifar100", given, sources.manifest("cifar100", given, folder), folder)
