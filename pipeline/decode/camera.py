"""The camera's motion between two frames, and the second frame without it.

It follows improved trajectories (Wang and Schmid 2013, section 3.1) without their detector of people, and TSN's flow
tool. Features of both frames are matched within 25 pixels, and corners follow the flow. RANSAC fits a homography to
these matches with 1 pixel of tolerance. It needs 50 matches at least, of which 25 agree. SIFT replaces SURF, which
OpenCV's packages are built without.

Legend: H, W pixels, P points as (x, y), M (3, 3) a homography from the first frame's pixels to the second's.
"""

from typing import NamedTuple

import cv2
import numpy as np

WINDOW = 25.0  # pixels, in x and in y, that a feature may move
CORNERS = 1000  # points followed by the flow, at most
MATCHES, INLIERS = 50, 25  # fewer give no homography
FURTHEST = 0.25  # of the short side; a homography that moves a corner further is wrong


class Features(NamedTuple):
    points: np.ndarray  # (P, 2) float32
    descriptors: np.ndarray | None  # (P, 128); None where P is 0


def features(gray: np.ndarray) -> Features:
    """Compute SIFT's features of a frame (H, W) uint8."""
    points, descriptors = cv2.SIFT.create().detectAndCompute(gray, None)
    return Features(np.array([point.pt for point in points], np.float32).reshape(-1, 2), descriptors)


def homography(gray: np.ndarray, flow: np.ndarray, first: Features, second: Features) -> np.ndarray | None:
    """Return M, or None if matches are too few or M moves more than a camera does.

    `gray` (H, W) uint8 is the first frame, `flow` (H, W, 2) leads from it to the second.
    """
    pairs = [np.hstack(pair) for pair in (_matched(first, second), _followed(gray, flow))]
    matches = np.concatenate(pairs)  # (P, 4): x, y in the first frame, x, y in the second
    if len(matches) < MATCHES:
        return None
    motion, agreed = cv2.findHomography(matches[:, :2], matches[:, 2:], cv2.RANSAC, 1.0)
    if motion is None or np.count_nonzero(agreed) < INLIERS or not _plausible(motion, *gray.shape):
        return None
    return motion


def held_still(first: np.ndarray, second: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """Return the second frame (H, W) as a still camera sees it, over the first."""
    return cv2.warpPerspective(
        second,
        motion,
        (first.shape[1], first.shape[0]),
        dst=first.copy(),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_TRANSPARENT,
    )


def _matched(first: Features, second: Features) -> tuple[np.ndarray, np.ndarray]:
    """Match features of the first frame (P, 2) to the most similar near ones."""
    if first.descriptors is None or second.descriptors is None:
        return first.points[:0], second.points[:0]
    near = (np.abs(first.points[:, None] - second.points) < WINDOW).all(2)
    matches = cv2.BFMatcher(cv2.NORM_L2).match(first.descriptors, second.descriptors, near.astype(np.uint8))
    return (
        first.points[[match.queryIdx for match in matches]],
        second.points[[match.trainIdx for match in matches]],
    )


def _followed(gray: np.ndarray, flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return corners of the first frame (P, 2), and their places by the flow."""
    corners = cv2.goodFeaturesToTrack(gray, CORNERS, 0.001, 3)
    points = np.empty((0, 2), np.float32) if corners is None else corners.reshape(-1, 2)
    x, y = points.astype(int).T
    return points, points + flow[y, x]


def _plausible(motion: np.ndarray, height: int, width: int) -> bool:
    """Return true if all corners stay before the camera and move FURTHEST at most."""
    corners = np.array([(x, y, 1) for x in (0, width) for y in (0, height)], float)
    moved = corners @ motion.T
    if not np.isfinite(moved).all() or (moved[:, 2] <= 0).any():
        return False
    return bool(np.abs(moved[:, :2] / moved[:, 2:] - corners[:, :2]).max() <= FURTHEST * min(height, width))
