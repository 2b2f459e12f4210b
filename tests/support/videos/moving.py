"""Videos with a known motion."""

import cv2
import numpy as np


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return smooth noise (H, W) uint8, which flow can follow."""
    noise = np.random.default_rng(seed).random((height, width)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    return cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def moving(frames: int, speed: tuple[int, int], height: int = 160, width: int = 200) -> list[np.ndarray]:
    """Return a textured square that moves by `speed` pixels a frame over a still background."""
    back, front = texture(height, width), texture(48, 48, seed=1)
    made = []
    for at in range(frames):
        frame, (x, y) = back.copy(), (60 + speed[0] * at, 16 + speed[1] * at)
        frame[y : y + 48, x : x + 48] = front
        made.append(frame)
    return made
