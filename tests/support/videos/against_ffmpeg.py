"""Stored frames compared with ffmpeg's RGB."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import simplejpeg

from pipeline.decode.ffmpeg import FFmpegRun
from pipeline.decode.video import TIMEOUT


def error(path: Path, jpegs: Sequence[np.ndarray | bytes], width: int, height: int, whole: bool = True) -> float:
    """Return the largest mean absolute error of stored frames against ffmpeg's RGB.

    ffmpeg scales the same video to width x height by the same filter. The rest is JPEG's loss, about 2 of 255 at
    quality 90. No frame may be missing, unless `whole` is false.
    """
    worst, expected = 0.0, np.empty((height, width, 3), np.uint8)
    filters = f"scale={width}:{height}:flags=bilinear"
    with FFmpegRun(path, filters, "rawvideo", TIMEOUT, pix_fmt="rgb24") as run:
        for index in itertools.count():
            if not run.read(expected.reshape(-1)):
                break
            if index < len(jpegs):
                stored = simplejpeg.decode_jpeg(jpegs[index])
                worst = max(worst, float(np.abs(stored.astype(np.int16) - expected).mean()))
    assert index == len(jpegs) or not whole, f"{len(jpegs)} frames are stored, ffmpeg decodes {index}"
    return worst
