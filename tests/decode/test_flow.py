"""Optical flow equals the motion of drawn frames, with and without the camera's motion."""

import subprocess
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.schema import Decode, Flow
from pipeline.decode import camera, flow
from pipeline.decode.frame_store import FrameStore
from pipeline.decode.integrity import Damaged
from pipeline.decode.layout import open_arrow
from pipeline.decode.shards import Source, Task, decode_shard, finish, plan
from pipeline.errors import UserError
from pipeline.executable import ffmpeg_exe

HEIGHT, WIDTH, EDGE = 96, 128, 12  # pixels; EDGE: what is new at the frame's edge has no flow
STEP = 40 / 255  # pixels of one of 8 bits, for a bound of 20
PLAIN = Decode(48, 90, "ffmpeg", 9, 1.0)
DIS, BOTH = Flow("dis"), Flow("dis", compensated=True)


def texture(seed: int = 0) -> np.ndarray:
    """Return (3*HEIGHT, 3*WIDTH) uint8: noise of several sizes, with features everywhere."""
    draws = np.random.default_rng(seed)
    layers = [cv2.GaussianBlur(draws.normal(size=(3 * HEIGHT, 3 * WIDTH)), (0, 0), s) * s for s in (1.5, 3, 6)]
    return cv2.normalize(sum(layers), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


TEXTURE = texture()


def seen(right: float = 0.0, down: float = 0.0, degrees: float = 0.0, zoom: float = 1.0) -> np.ndarray:
    """Return (HEIGHT, WIDTH): the texture moved, rotated counter-clockwise in degrees, and zoomed about the middle."""
    motion = cv2.getRotationMatrix2D((1.5 * WIDTH, 1.5 * HEIGHT), degrees, zoom)
    motion[:, 2] += right - WIDTH, down - HEIGHT
    return cv2.warpAffine(TEXTURE, motion, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC)


def jpeg(gray: np.ndarray) -> bytes:
    return simplejpeg.encode_jpeg(np.repeat(gray[..., None], 3, 2), 95, "RGB", "420")


def found(*frames: np.ndarray, settings: Flow = BOTH) -> dict[str, np.ndarray]:
    """Return column -> the first stored flow, (HEIGHT, WIDTH) in pixels."""
    stored = flow.planes([jpeg(frame) for frame in frames], settings, 95)
    return {name: (bits(jpegs[0]) - 127.5) * 2 * settings.bound / 255 for name, jpegs in stored.items()}


def bits(plane: bytes) -> np.ndarray:
    return simplejpeg.decode_jpeg(plane, "GRAY")[..., 0].astype(float)


def errors(plane: np.ndarray, expected: np.ndarray | float) -> float:
    """Return the median error inside the frame, in pixels."""
    return float(np.median(np.abs(plane - expected)[EDGE:-EDGE, EDGE:-EDGE]))


@pytest.mark.parametrize("algorithm", ["tvl1", "dis"])
@pytest.mark.parametrize("motion", [{"right": 3, "down": -2}, {"degrees": 2.0}, {"zoom": 1.04}])
def test_a_known_motion_is_found_and_the_cameras_taken_away(algorithm: str, motion: dict[str, float]) -> None:
    planes = found(seen(), seen(**motion), settings=Flow(algorithm, compensated=True))
    y, x = np.mgrid[:HEIGHT, :WIDTH] - np.array([HEIGHT / 2, WIDTH / 2])[:, None, None]
    turn, zoom = np.deg2rad(motion.get("degrees", 0)), motion.get("zoom", 1)
    wanted_x = zoom * (np.cos(turn) * x + np.sin(turn) * y) - x + motion.get("right", 0)
    wanted_y = zoom * (np.cos(turn) * y - np.sin(turn) * x) - y + motion.get("down", 0)
    assert max(errors(planes["x"], wanted_x), errors(planes["y"], wanted_y)) < 2 * STEP
    assert max(errors(planes["warped_x"], 0), errors(planes["warped_y"], 0)) < 1.5 * STEP


@pytest.mark.parametrize("algorithm", ["tvl1", "dis"])
def test_of_a_pan_over_a_moving_patch_the_patch_is_left(algorithm: str) -> None:
    before, after = seen(), seen(right=-4, down=1)
    patch, (top, left), side = texture(1)[:36, :36], (30, 50), 36
    before[top : top + side, left : left + side] = patch
    after[top : top + side, left - 1 : left - 1 + side] = patch  # of itself 3 to the right and 1 up
    planes = found(before, after, settings=Flow(algorithm, compensated=True))
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[top + 6 : top + side - 6, left + 6 : left + side - 6] = True
    around = np.ones((HEIGHT, WIDTH), bool)
    around[top - 8 : top + side + 8, left - 10 : left + side + 10] = False
    around[:EDGE], around[-EDGE:], around[:, :EDGE], around[:, -EDGE:] = (False,) * 4
    for name, own, other in (("x", -1, -4), ("y", 0, 1), ("warped_x", 3, 0), ("warped_y", -1, 0)):
        assert np.median(planes[name][inside]) == pytest.approx(own, abs=3 * STEP), name
        assert np.median(planes[name][around]) == pytest.approx(other, abs=1.5 * STEP), name


@pytest.mark.parametrize("algorithm", ["tvl1", "dis"])
def test_where_nothing_moves_every_plane_is_128(algorithm: str) -> None:
    still = jpeg(seen())
    for planes in flow.planes([still, still, still], Flow(algorithm, compensated=True), 90).values():
        assert len(planes) == 3
        assert np.abs(np.stack([bits(plane) for plane in planes]) - 128).max() <= 1


@given(st.floats(0.1, 500), st.lists(st.floats(-1000, 1000), min_size=1))
def test_eight_bits_are_the_fields(bound: float, motion: list[float]) -> None:
    plane = np.array([*motion, 0.0, bound, -bound], np.float32)
    stored = flow.quantised(plane, bound)
    exact = (plane.clip(-bound, bound).astype(float) + bound) * 255 / (2 * bound)
    assert np.abs(stored - exact).max() <= 0.501
    assert stored[-3:].tolist() == [128, 255, 0]


def test_the_last_frame_repeats_the_last_flow_and_one_frame_has_none() -> None:
    two = flow.planes([jpeg(seen()), jpeg(seen(right=2)), jpeg(seen(right=6))], DIS, 90)
    for planes in two.values():
        assert len(planes) == 3 and planes[1] == planes[2]
    assert two["x"][0] != two["x"][1]
    for planes in flow.planes([jpeg(seen())], BOTH, 90).values():
        assert len(planes) == 1 and (bits(planes[0]) == 128).all()


@pytest.mark.parametrize(
    "pair",
    [
        (np.full((HEIGHT, WIDTH), 90, np.uint8),) * 2,
        (np.full((HEIGHT, WIDTH), 90, np.uint8), np.full((HEIGHT, WIDTH), 200, np.uint8)),
        (np.tile(np.arange(WIDTH, dtype=np.uint8), (HEIGHT, 1)),) * 2,
    ],
    ids=["flat", "flash", "ramp"],
)
def test_frames_that_tell_nothing_of_the_camera_keep_their_plain_flow(pair: tuple[np.ndarray, np.ndarray]) -> None:
    planes = flow.planes([jpeg(frame) for frame in pair], BOTH, 90)
    assert planes["warped_x"] == planes["x"] and planes["warped_y"] == planes["y"]


def homography(points: np.ndarray, moved: np.ndarray) -> np.ndarray | None:
    """Estimate the camera's motion from numbered features; the frame itself has none."""
    own = np.eye(128, dtype=np.float32)[: len(points)]
    first, second = (camera.Features(at.astype(np.float32), own) for at in (points, moved))
    blank = np.zeros((HEIGHT, WIDTH), np.uint8)
    return camera.homography(blank, np.zeros((HEIGHT, WIDTH, 2), np.float32), first, second)


def test_a_camera_that_cannot_be_is_no_camera() -> None:
    points = np.random.default_rng(0).uniform((0, 0), (WIDTH, HEIGHT), (100, 2))
    pan = np.array([5, -3])
    np.testing.assert_allclose(homography(points, points + pan), [[1, 0, 5], [0, 1, -3], [0, 0, 1]], atol=1e-3)
    assert homography(points[:40], points[:40] + pan) is None  # too few matches
    assert homography(points, np.random.default_rng(1).permutation(points)) is None  # none agree
    line = np.column_stack([points[:, 0], points[:, 0] / 2])
    assert homography(line, line + pan) is None  # singular
    assert homography(points, points[:, ::-1] * (WIDTH / HEIGHT, HEIGHT / WIDTH)) is None  # turned over
    middle = np.array([WIDTH, HEIGHT]) / 2
    near = middle + (points - middle) * 0.3
    assert homography(near, middle + (near - middle) * 1.7) is None  # far too fast


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Source]]:
    """Return videos of 1 and of 5 frames, and an invalid one."""
    root = tmp_path_factory.mktemp("videos")
    for name, frames in (("one", 1), ("five", 5)):
        source = f"testsrc2=size=72x56:rate=10:duration={frames / 10}"
        subprocess.run([ffmpeg_exe()[0], "-v", "error", "-f", "lavfi", "-i", source, root / f"{name}.mp4"], check=True)
    (root / "bad.mp4").write_text("no video")
    digests = {path.name: sha256(path.read_bytes()).hexdigest() for path in sorted(root.iterdir())}
    return root, [Source(name.removesuffix(".mp4"), name, digest) for name, digest in digests.items()]


def store(folder: Path, videos: tuple[Path, list[Source]], settings: Flow | None) -> tuple[FrameStore, Task]:
    (task,) = plan(folder, *videos, replace(PLAIN, flow=settings))
    assert decode_shard(task).failed == 1
    finish(folder, [task])
    return FrameStore(folder), task


@pytest.mark.parametrize("settings", [DIS, BOTH])
def test_a_store_holds_flow_beside_the_same_frames(tmp_path: Path, videos: tuple[Path, list[Source]], settings) -> None:
    plain, with_flow = store(tmp_path / "plain", videos, None)[0], store(tmp_path / "flow", videos, settings)[0]
    assert with_flow.videos == plain.videos and set(plain.videos) == {"one", "five"}
    for video, entry in plain.videos.items():
        every = range(entry.frames)
        frames = [bytes(view) for view in with_flow.jpegs(video, every)]
        assert frames == [bytes(view) for view in plain.jpegs(video, every)]
        for name, planes in flow.planes(frames, settings, PLAIN.quality).items():
            assert [bytes(view) for view in with_flow.jpegs(video, every, name)] == planes


def test_a_store_without_flow_is_as_it_was(tmp_path: Path, videos: tuple[Path, list[Source]]) -> None:
    plain, task = store(tmp_path, videos, None)
    assert open_arrow(task.path).schema.names == ["jpeg"]
    with pytest.raises(UserError, match="holds no 'x', only jpeg; run the decode stage again"):
        plain.jpegs("five", [0], "x")
    others = [DIS, BOTH, replace(DIS, bound=15.0), replace(DIS, algorithm="tvl1")]
    prints = {replace(task, decode=replace(PLAIN, flow=other)).key for other in others}
    assert len(prints) == 4 and task.key not in prints


def test_only_another_flow_is_decoded_again(tmp_path: Path, videos: tuple[Path, list[Source]]) -> None:
    _, task = store(tmp_path, videos, DIS)
    assert decode_shard(task).seconds == 0
    assert decode_shard(replace(task, decode=replace(PLAIN, flow=BOTH))).seconds > 0


def test_impossible_flow_is_an_error_before_anything_starts() -> None:
    with pytest.raises(UserError, match="needs 12 pixels at least"):
        plan(Path("a"), Path("b"), [], replace(PLAIN, short_side=11, flow=DIS))


@pytest.mark.parametrize("algorithm", ["tvl1", "dis"])
def test_the_smallest_frames_have_flow(algorithm: str) -> None:
    side = flow.LEAST_SIDE[algorithm]
    frames = np.random.default_rng(0).integers(0, 255, (3, side, side), np.uint8)
    planes = flow.planes([jpeg(frame) for frame in frames], Flow(algorithm, compensated=True), 90)
    assert {name: len(jpegs) for name, jpegs in planes.items()} == dict.fromkeys(flow.columns(BOTH), 3)


def test_a_shape_that_has_no_flow_is_a_damaged_video() -> None:
    with pytest.raises(Damaged, match="no flow, by 'dis', of frames of 3600x12"):
        flow.planes([jpeg(np.zeros((12, 3600), np.uint8))] * 2, DIS, 90)


@pytest.mark.parametrize(("algorithm", "least"), [("dis", 12), ("tvl1", 1)])
def test_frames_must_be_as_large_as_the_algorithm_needs(algorithm, least):
    flow.check(Flow(algorithm), least)
    with pytest.raises(UserError, match=f"{least} pixels at least"):
        flow.check(Flow(algorithm), least - 1)
