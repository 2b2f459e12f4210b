"""Folders of numbered frames are copied or scaled; an invalid folder is named."""

import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg

from pipeline import datasets
from pipeline.config.schema import Decode
from pipeline.decode import image_folder
from pipeline.decode.integrity import Damaged
from pipeline.decode.shards import Source, decode_shard, plan
from pipeline.decode.video import decode, opened
from pipeline.executable import ffmpeg_exe
from tests.support.videos import against_ffmpeg
from tests.support.videos.stand_ins import drawn

PIXELS = drawn(3, 12)
DECODE = Decode(short_side=48, quality=90, decoder="ffmpeg", videos_per_shard=8, max_failed=0.0)


def folder(path: Path, form: str = "{:05d}.jpg", first: int = 1) -> Path:
    path.mkdir(parents=True)
    for number, frame in enumerate(PIXELS, first):
        (path / form.format(number)).write_bytes(simplejpeg.encode_jpeg(frame, 90))
    return path


def decoded(path: Path, settings: Decode = DECODE, **expected):
    with opened(settings) as decoder:
        return decode(path, decoder, **expected)


@pytest.mark.parametrize("form", ["{:05d}.jpg", "{}.jpeg", "{:09d}.JPG", "{:02d}.JpEg"])
def test_frames_are_kept_in_the_order_of_their_numbers(tmp_path, form):
    path = folder(tmp_path / "7", form)
    for other in ("notes.txt", "._00001.jpg", "flow_x_00001.jpg", "00001.png", "00001.jpg.part"):
        (path / other).write_bytes(b"no frame")
    actual = decoded(path, fps=12.0)
    assert actual.jpegs == [(path / form.format(number)).read_bytes() for number in range(1, 13)]
    assert (actual.width, actual.height, actual.fps, actual.decoder) == (64, 48, 12.0, "none")
    np.testing.assert_allclose(actual.timestamps, np.arange(12) / 12)
    part = decoded(path, first=9, last=10)
    assert part.jpegs == actual.jpegs[8:10] and part.fps == 0 and all(map(math.isnan, part.timestamps))


def test_numbers_may_begin_at_zero_but_no_later_than_one(tmp_path):
    assert len(decoded(folder(tmp_path / "zero", first=0)).jpegs) == 12
    with pytest.raises(Damaged, match=r"^frame 1 is missing, and 2 more of 1 to 15$"):
        decoded(folder(tmp_path / "four", first=4))
    assert len(decoded(tmp_path / "four", first=4, last=15).jpegs) == 12


@pytest.mark.parametrize("decoder", ["ffmpeg", "decord"])
@pytest.mark.parametrize("short_side", [24, 36, 96])
def test_frames_of_another_size_are_scaled_as_videos_are(tmp_path, short_side, decoder):
    path = folder(tmp_path / "7")
    actual = decoded(path, replace(DECODE, short_side=short_side, decoder=decoder), fps=12.0)
    assert (actual.height, actual.width) == (short_side, short_side * 4 // 3) and len(actual.jpegs) == 12
    assert {simplejpeg.decode_jpeg_header(jpeg)[:2] for jpeg in actual.jpegs} == {(actual.height, actual.width)}
    assert (actual.decoder, actual.decoder_version) == ("ffmpeg", ffmpeg_exe()[1])
    np.testing.assert_allclose(actual.timestamps, np.arange(12) / 12)
    as_video = tmp_path / "7.mjpeg"
    as_video.write_bytes(b"".join(file.read_bytes() for file in sorted(path.iterdir())))
    assert against_ffmpeg.error(as_video, actual.jpegs, actual.width, actual.height) < 3


def test_jpegs_that_are_not_baseline_are_made_so(tmp_path):
    path = folder(tmp_path / "7")
    progressive = cv2.imencode(".jpg", PIXELS[4][..., ::-1], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    (path / "00005.jpg").write_bytes(progressive)
    assert not image_folder.baseline(progressive) and image_folder.baseline((path / "00004.jpg").read_bytes())
    actual = decoded(path)
    assert all(map(image_folder.baseline, actual.jpegs)) and actual.decoder == "ffmpeg"
    seen = np.stack([simplejpeg.decode_jpeg(jpeg) for jpeg in actual.jpegs]).astype(int)
    assert np.abs(seen - PIXELS).mean() < 4


@pytest.mark.parametrize("marker", range(0xC0, 0xD0))
def test_only_baseline_frames_are_baseline(marker):
    """Of ITU-T T.81, table B.1: C4, C8 and CC begin no frame, so the search goes on behind them."""
    segments = [(marker, b"\x08"), (0xC0, b"\x08")]
    jpeg = b"\xff\xd8" + b"".join(bytes([0xFF, kind, 0, 3]) + content for kind, content in segments) + b"\xff\xd9"
    assert image_folder.baseline(jpeg) == (marker in (0xC0, 0xC4, 0xC8, 0xCC))


def test_grey_frames_are_read_as_colour(tmp_path):
    path = tmp_path / "7"
    path.mkdir()
    (path / "1.jpg").write_bytes(simplejpeg.encode_jpeg(PIXELS[0][..., :1].copy(), 90, "GRAY", "Gray"))
    (jpeg,) = decoded(path).jpegs
    assert simplejpeg.decode_jpeg(jpeg).shape == (48, 64, 3)


@pytest.mark.parametrize("short_side", [48, 24])
def test_an_orientation_in_exif_turns_neither_kept_nor_scaled_frames(tmp_path, short_side):
    turned = bytes.fromhex("ffe1 0022 457869660000 4d4d002a00000008 0001 0112 0003 00000001 00060000 00000000")
    path, settings = folder(tmp_path / "7"), replace(DECODE, short_side=short_side)
    plain = decoded(path, settings)
    for file in path.iterdir():
        jpeg = file.read_bytes()
        file.write_bytes(jpeg[:2] + turned + jpeg[2:])
    assert cv2.imread(str(path / "00001.jpg")).shape == (64, 48, 3)  # who heeds it sees it upright
    actual = decoded(path, settings)
    assert (actual.width, actual.height) == (plain.width, plain.height)
    for one, other in zip(actual.jpegs, plain.jpegs, strict=True):
        np.testing.assert_array_equal(simplejpeg.decode_jpeg(one), simplejpeg.decode_jpeg(other))


def cut(path: Path) -> None:
    (path / "00004.jpg").write_bytes((path / "00004.jpg").read_bytes()[:-200])


def resized(path: Path) -> None:
    (path / "00004.jpg").write_bytes(simplejpeg.encode_jpeg(drawn(1, 1, 48, 60)[0], 90))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: (path / "00004.jpg").unlink(), r"^frame 4 is missing$"),
        (lambda path: [(path / f"{n:05d}.jpg").unlink() for n in (4, 6)], r"^frame 4 is missing, and 1 more of 1 to"),
        (cut, r"^frame 00004\.jpg is damaged: "),
        (lambda path: (path / "00004.jpg").write_bytes(b""), r"^frame 00004\.jpg is damaged: "),
        (lambda path: (path / "00004.jpg").write_text("<html>"), r"^frame 00004\.jpg is damaged: "),
        (lambda path: (path / "4.JPG").write_bytes(b"x"), r"^frame 4 is there twice, as (00004\.jpg|4\.JPG) and "),
        (resized, r"^frame 00004\.jpg has 60x48 pixels, 00001\.jpg 64x48$"),
        (lambda path: [file.unlink() for file in path.iterdir()], r"^the folder holds no numbered JPEG frames$"),
    ],
)
def test_a_frame_that_is_wrong_is_named(tmp_path, damage, message):
    path = folder(tmp_path / "7")
    damage(path)
    with pytest.raises(Damaged, match=message) as error:
        decoded(path)
    assert "\n" not in str(error.value)
    if list(path.iterdir()):
        assert len(decoded(path, first=7, last=9).jpegs) == 3  # what lies outside of a range does no harm


def test_a_range_that_ends_after_its_folder_lacks_frames(tmp_path):
    with pytest.raises(Damaged, match=r"^frame 13 is missing, and 1 more of 11 to 14$"):
        decoded(folder(tmp_path / "7"), first=11, last=14)


def test_a_range_is_known_by_its_own_frames_alone(tmp_path):
    path = folder(tmp_path / "7")

    def digest(first: int | None, last: int | None) -> str:
        return datasets.digest((file.name, file.read_bytes()) for _, file in datasets.frames(path, first, last))

    known = digest(2, 5)
    assert decoded(path, first=2, last=5, sha256=known).sha256 == known
    (path / "00009.jpg").write_bytes((path / "00008.jpg").read_bytes())
    assert decoded(path, first=2, last=5, sha256=known).sha256 == known
    (path / "00003.jpg").write_bytes((path / "00002.jpg").read_bytes())
    with pytest.raises(Damaged, match="changed since download"):
        decoded(path, first=2, last=5, sha256=known)


def test_shards_of_ranges_are_resumed_and_follow_their_range(tmp_path):
    folder(tmp_path / "videos/7")
    store = tmp_path / "store"

    def report(first: int, last: int, fps: float = 30.0):
        files = datasets.frames(tmp_path / "videos/7", first, last)
        sha256 = datasets.digest((file.name, file.read_bytes()) for _, file in files)
        (task,) = plan(store, tmp_path / "videos", [Source("g", "7", sha256, first, last, fps)], DECODE)
        return decode_shard(task)

    assert (report(1, 4).frames, report(1, 4).seconds) == (4, 0.0)
    assert report(2, 7).frames == 6 and report(2, 7).seconds == 0
    assert report(2, 7, fps=25.0).seconds > 0
