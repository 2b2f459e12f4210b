"""Improved dense trajectories: points followed for 15 frames, described.

Wang, Klaeser, Schmid and Liu, "Dense Trajectories and Motion Boundary Descriptors for Action Recognition" (IJCV 2013),
sections 2 and 3. Wang and Schmid, "Action Recognition with Improved Trajectories" (ICCV 2013), section 3.

- Points lie on a grid of 5 pixels, on scales 1 / sqrt(2) apart. No followed point is near, and the smaller eigenvalue
  of the autocorrelation is more than 0.001 of the frame's largest. They follow the median, 3x3, of flow.
- pipeline/decode/camera.py's homography removes the camera's motion, and flow is computed again. A trajectory has its
  shape, 15 displacements divided by their summed length (30), and histograms over 32x32 pixels along the path in 2x2x3
  cells. They are of gradients (HOG, 96), of flow (HOF, 108), and of the gradients of each flow component (MBHx, MBHy,
  96 each). HOF's ninth bin counts motion of 0.4 pixels or less. Each histogram is the root of its share ("RootSIFT").
- Trajectories that stay, wander or jump are dropped, and those that move with the camera.

Our reading where the texts leave it open: flow is computed on each scale's frames. A patch that would stick out is
moved into the frame. Bounds of motion are pixels of the first scale: 1 pixel for the camera, sqrt(3) and 50 for the
deviation, 70 % of the length and 20 for a jump, as in the authors' code. There is no detector of people.

Legend: T frames, H, W pixels, P trajectories, L = 15.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.decode import camera

LENGTH, GRID, PATCH, CELLS, TIMES = 15, 5, 32, 2, 3
QUALITY, STILL = 0.001, 0.4
BINS = (8, 9, 8, 8)  # orientations of HOG, HOF, MBHx, MBHy
SIZES = {"trajectory": 2 * LENGTH, "hog": 96, "hof": 108, "mbhx": 96, "mbhy": 96}
FLOWS: dict[str, Callable[[], cv2.DenseOpticalFlow]] = {
    "farneback": lambda: cv2.FarnebackOpticalFlow.create(5, 0.5, False, 10, 2, 7, 1.5),
    "dis": lambda: cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM),
}


@dataclass
class _Tracks:
    """The points that are followed on one scale."""

    places: np.ndarray  # (P, L + 1, 2): x, y at each step so far
    moves: np.ndarray  # (P, L, 2): without the camera
    histograms: np.ndarray  # (P, TIMES, CELLS, CELLS, bins)
    age: np.ndarray  # (P,) steps so far

    def kept(self, which: np.ndarray) -> "_Tracks":
        return _Tracks(*(array[which] for array in vars(self).values()))

    def joined(self, points: np.ndarray) -> "_Tracks":
        """Return the tracks with new points (Q, 2)."""
        fresh = _tracks(points, self.histograms.shape[-1])
        return _Tracks(*map(np.concatenate, zip(vars(self).values(), vars(fresh).values(), strict=True)))


def describe(frames: Sequence[np.ndarray], flow: str, scales: int) -> np.ndarray:
    """Compute the descriptors of a video: (P, 426) float32.

    Those of SIZES are concatenated. Videos of 15 frames or fewer have none. The same frames give the same bits.

    Args:
        frames: gray, (H, W) uint8, of one size.
        flow: one of FLOWS.
        scales: the largest number of scales; patches have to fit.
    """
    cv2.setNumThreads(1)  # DIS splits its work by the number of threads, which changes its rounding
    parts = _described(frames, flow, scales) if len(frames) > LENGTH else ()
    return np.concatenate([np.empty((0, sum(SIZES.values())), np.float32), *parts])


def grid(gray: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """Return new points (P, 2): centers of textured grid cells with none `taken`."""
    height, width = gray.shape
    texture = cv2.cornerMinEigenVal(gray, 3, ksize=3)
    y, x = np.mgrid[0 : height // GRID, 0 : width // GRID]
    free = np.ones(x.shape, bool)
    cells = (taken / GRID).astype(int)
    inside = (cells[:, 0] < x.shape[1]) & (cells[:, 1] < x.shape[0])
    free[cells[inside, 1], cells[inside, 0]] = False
    x, y = x * GRID + GRID // 2, y * GRID + GRID // 2
    free &= texture[y, x] > QUALITY * texture.max()
    return np.stack([x[free], y[free]], 1).astype(np.float32)


def oriented(x: np.ndarray, y: np.ndarray, still: float | None = None) -> np.ndarray:
    """Return the lengths of vectors (H, W) in 8 orientations (H, W, 8).

    Each is split between the two nearest. With `still`, there is a ninth: 1 for a vector no longer than that, whose
    eight are 0.
    """
    length, angle = cv2.cartToPolar(x, y)
    turns = angle * np.float32(8 / (2 * np.pi))
    lower = turns.astype(int)
    bins = np.zeros((*x.shape, 8 if still is None else 9), np.float32)
    slow = np.zeros(x.shape, bool) if still is None else length <= still
    for at, share in ((lower, 1 - (turns - lower)), (lower + 1, turns - lower)):
        np.put_along_axis(bins, at[..., None] % 8, np.where(slow, 0, share * length)[..., None], 2)
    if still is not None:
        bins[..., 8] = slow
    return bins


def valid(places: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """Return a mask (P,) of trajectories to keep.

    Args:
        places: (P, L + 1, 2), in pixels.
        moves: (P, L, 2) without the camera, in pixels.
    """
    spread = places.std(1)  # (P, 2)
    steps = np.linalg.norm(np.diff(places, axis=1), axis=2)  # (P, L)
    jumps = (steps.max(1) > 20) & (steps.max(1) > 0.7 * steps.sum(1))
    with_camera = np.linalg.norm(moves, axis=2).max(1) <= 1
    return (spread >= np.sqrt(3)).any(1) & (spread <= 50).all(1) & ~jumps & ~with_camera


def _described(frames: Sequence[np.ndarray], flow: str, scales: int) -> Iterator[np.ndarray]:
    """Yield describe()'s descriptors, by frame and scale."""
    algorithm, second = FLOWS[flow](), frames[0]
    sizes = _sizes(second.shape[0], second.shape[1], scales)
    tracks = [_tracks(np.empty((0, 2), np.float32), sum(BINS)) for _ in sizes]
    seen = camera.features(second)
    for frame in frames[1:]:
        first, second = second, frame
        before, seen = seen, camera.features(second)
        moved = algorithm.calc(first, second, None)  # type: ignore[call-overload]  # None: no initial flow
        motion = camera.homography(first, moved, before, seen)
        for at, (width, height) in enumerate(sizes):
            scaled, scaled_next = (
                cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA) for image in (first, second)
            )
            factor = first.shape[1] / width
            flows = [algorithm.calc(scaled, scaled_next, None) if at else moved]  # type: ignore[call-overload]
            if motion is None:
                flows.append(flows[0])
            else:
                down, up = np.diag([1 / factor, 1 / factor, 1.0]), np.diag([factor, factor, 1.0])
                flows.append(algorithm.calc(scaled, camera.held_still(scaled, scaled_next, down @ motion @ up), None))  # type: ignore[call-overload]
            tracks[at] = _followed(tracks[at], scaled, *flows)
            whole = tracks[at].age == LENGTH
            done = tracks[at].kept(whole)
            tracks[at] = tracks[at].kept(~whole)
            kept = valid(done.places * factor, done.moves * factor)
            if kept.any():
                yield _vectors(done.kept(kept))


def _sizes(height: int, width: int, scales: int) -> list[tuple[int, int]]:
    """Return (width, height) of each scale that a patch fits."""
    sizes = [(round(width / 2 ** (at / 2)), round(height / 2 ** (at / 2))) for at in range(scales)]
    return [size for size in sizes if min(size) > PATCH]


def _tracks(points: np.ndarray, bins: int) -> _Tracks:
    places = np.zeros((len(points), LENGTH + 1, 2), np.float32)
    places[:, 0] = points
    moves = np.zeros((len(points), LENGTH, 2), np.float32)
    histograms = np.zeros((len(points), TIMES, CELLS, CELLS, bins), np.float32)
    return _Tracks(places, moves, histograms, np.zeros(len(points), int))


def _followed(tracks: _Tracks, gray: np.ndarray, flow: np.ndarray, still: np.ndarray) -> _Tracks:
    """Follow points to the next frame: add new points and drop those that leave.

    Args:
        tracks: the points.
        gray: (H, W), their frame.
        flow: (H, W, 2), to the next frame.
        still: (H, W, 2), the same without the camera.
    """
    height, width = gray.shape
    at = np.arange(len(tracks.age))
    tracks = tracks.joined(grid(gray, tracks.places[at, tracks.age]))
    at = np.arange(len(tracks.age))
    here = tracks.places[at, tracks.age]
    x, y = (np.rint(here[:, axis]).astype(int).clip(0, side - 1) for axis, side in ((0, width), (1, height)))

    image = gray.astype(np.float32)
    maps = [
        oriented(*_gradient(image)),
        oriented(still[..., 0], still[..., 1], STILL),
        oriented(*_gradient(np.ascontiguousarray(still[..., 0]))),
        oriented(*_gradient(np.ascontiguousarray(still[..., 1]))),
    ]
    cell = PATCH // CELLS
    left, top = (x - cell).clip(0, width - PATCH), (y - cell).clip(0, height - PATCH)
    rows, columns = (start[:, None] + cell * np.arange(CELLS) for start in (top, left))  # (P, CELLS) each
    sums = np.concatenate([_boxes(each, cell)[rows[:, :, None], columns[:, None]] for each in maps], 3)
    tracks.histograms[at, tracks.age * TIMES // LENGTH] += sums

    tracks.moves[at, tracks.age] = still[y, x]
    smooth = np.stack([cv2.medianBlur(np.ascontiguousarray(flow[..., axis]), 3) for axis in (0, 1)], 2)
    moved = here + smooth[y, x]
    tracks.age += 1
    tracks.places[at, tracks.age] = moved
    return tracks.kept(((moved >= 0) & (moved <= (width - 1, height - 1))).all(1))


def _gradient(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the differences of an image's (H, W) neighbors, along x and y."""
    return cv2.Sobel(image, cv2.CV_32F, 1, 0, ksize=1), cv2.Sobel(image, cv2.CV_32F, 0, 1, ksize=1)


def _boxes(maps: np.ndarray, side: int) -> np.ndarray:
    """Return sums (H, W, bins) over the square from each pixel on, cut at the border."""
    return cv2.boxFilter(maps, -1, (side, side), anchor=(0, 0), normalize=False, borderType=cv2.BORDER_CONSTANT)


def _vectors(tracks: _Tracks) -> np.ndarray:
    """Return (P, 426) of complete trajectories."""
    lengths = np.linalg.norm(tracks.moves, axis=2).sum(1)[:, None, None]
    parts = [(tracks.moves / lengths).reshape(len(tracks.age), -1)]
    for maps in np.split(tracks.histograms, np.cumsum(BINS)[:-1], axis=4):
        flat = maps.reshape(len(maps), -1)
        parts.append(np.sqrt(flat / np.maximum(flat.sum(1, keepdims=True), 1e-12)))
    return np.concatenate(parts, 1)
