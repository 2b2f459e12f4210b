"""Improved dense trajectories on known motions, and the sizes of their descriptors."""

import numpy as np
import pytest

from pipeline.trajectories import dense
from pipeline.trajectories.dense import SIZES, describe, grid, oriented, valid
from tests.support.videos.moving import moving, texture


def parts(described: np.ndarray) -> dict[str, np.ndarray]:
    ends = np.cumsum(list(SIZES.values()))
    return dict(zip(SIZES, np.split(described, ends[:-1], axis=1), strict=True))


@pytest.mark.parametrize("flow", dense.FLOWS)
@pytest.mark.parametrize("speed", [(3, 0), (0, 3), (-2, 3)])
def test_trajectories_go_where_the_texture_goes(flow, speed):
    described = parts(describe(moving(17, speed), flow, scales=1))
    shapes = described["trajectory"].reshape(-1, 15, 2)
    assert len(shapes) > 20
    # Displacements are by their summed length: those of a straight way add up to a unit vector.
    expected = np.array(speed) / np.linalg.norm(speed)
    np.testing.assert_allclose(np.median(shapes.sum(1), axis=0), expected, atol=0.1)
    np.testing.assert_allclose(np.median(shapes[:, 5:10], axis=0), np.tile(expected / 15, (5, 1)), atol=0.02)
    # HOF: (time, y, x, 9 bins), the root of shares.
    shares = np.square(described["hof"]).reshape(-1, 12, 9)
    np.testing.assert_allclose(shares.sum((1, 2)), 1, rtol=1e-5)
    orientation = np.arctan2(speed[1], speed[0]) / (np.pi / 4) % 8
    moved = np.median(shares.sum(1), axis=0)[:8]
    assert abs(np.argmax(moved) - orientation) <= 0.5


def test_numbers_of_each_kind():
    described = describe(moving(17, (2, 0)), "dis", scales=2)
    assert {name: part.shape[1] for name, part in parts(described).items()} == {
        "trajectory": 30,
        "hog": 96,
        "hof": 108,
        "mbhx": 96,
        "mbhy": 96,
    }
    assert described.dtype == np.float32 and np.isfinite(described).all()
    for name in ("hog", "hof", "mbhx", "mbhy"):
        np.testing.assert_allclose(np.square(parts(described)[name]).sum(1), 1, rtol=1e-4)
    np.testing.assert_array_equal(described, describe(moving(17, (2, 0)), "dis", scales=2))


def test_what_stands_still_is_dropped_and_so_is_a_camera_that_pans():
    still = [texture(96, 128)] * 17
    assert len(describe(still, "dis", 2)) == 0
    large = texture(200, 260)
    panned = [large[at : at + 128, 2 * at : 2 * at + 160].copy() for at in range(17)]
    moved = describe(panned, "dis", 1)
    without = dense.camera.homography
    dense.camera.homography = lambda *given: None
    try:
        assert len(describe(panned, "dis", 1)) > 10 * max(1, len(moved))
    finally:
        dense.camera.homography = without


@pytest.mark.parametrize("frames,height,width", [(15, 96, 128), (1, 96, 128), (0, 96, 128), (17, 32, 128)])
def test_too_short_or_too_small_for_a_trajectory(frames, height, width):
    described = describe([texture(height, width)] * frames, "farneback", 8)
    assert described.shape == (0, 426)


def test_new_points_lie_on_the_grid_where_there_is_texture_and_no_other_point():
    gray = np.full((40, 60), 90, np.uint8)
    gray[:, 30:] = texture(40, 30)
    points = grid(gray, np.empty((0, 2), np.float32))
    assert len(points) and (points % 5 == 2).all() and (points[:, 0] > 25).all()
    fewer = grid(gray, points[:3] + 2)  # within the same cells
    assert set(map(tuple, points.tolist())) - set(map(tuple, fewer.tolist())) == set(map(tuple, points[:3].tolist()))


def test_a_vector_is_shared_between_the_nearest_orientations():
    angles = np.array([[0, np.pi / 4, np.pi / 8, 2 * np.pi - np.pi / 16]], np.float32)
    bins = oriented(3 * np.cos(angles), 3 * np.sin(angles))
    expected = np.zeros((1, 4, 8))
    expected[0, 0, 0], expected[0, 1, 1] = 3, 3
    expected[0, 2, :2] = 1.5
    expected[0, 3, 7], expected[0, 3, 0] = 0.75, 2.25
    np.testing.assert_allclose(bins, expected, atol=0.02)
    slow = oriented(np.array([[0.3, 0.5]], np.float32), np.zeros((1, 2), np.float32), still=0.4)
    np.testing.assert_allclose(slow, [[[0] * 8 + [1], [0.5] + [0] * 8]], atol=1e-5)


def test_which_trajectories_count():
    steps = np.ones((6, 15, 2), np.float32)  # steady
    steps[1] = 0.1  # hardly moves
    steps[2] = 0.1
    steps[2, 7] = (40, 0)  # jumps
    steps[3] = 20  # wanders off
    steps[5] = (2, 0)  # along one axis
    moves = steps.copy()
    moves[4] = 0.5  # with the camera
    places = np.concatenate([np.zeros((6, 1, 2), np.float32), steps.cumsum(1)], 1)
    assert valid(places, moves).tolist() == [True, False, False, False, False, True]
