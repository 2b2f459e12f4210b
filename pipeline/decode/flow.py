"""Optical flow from each frame to the next, as two planes of 8 bits.

It is stored as by TSN's tools: clipped to +-bound pixels and scaled so that -bound is 0 and bound is 255, in grayscale
JPEG. 128 is no motion, and a step is 2 * bound / 255, 0.16 pixels for 20. It is computed on the stored frames, at their
size, from their JPEGs' luma. T frames have T - 1 flows. The last frame repeats the flow before, so that flow n belongs
to frame n. A video of one frame has a flow without motion.

TV-L1 (Zach et al. 2007) runs with OpenCV's settings, DIS (Kroeger et al. 2016) with its preset "medium", the best of
the three. Flow without the camera's motion is computed again, on the second frame warped back by
pipeline/decode/camera.py's homography, as TSN's warped flow (section 3.1). Without a homography it is the plain flow.

Legend: H, W pixels.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import simplejpeg

from pipeline.config.schema import Flow
from pipeline.decode import camera
from pipeline.decode.integrity import Damaged
from pipeline.errors import UserError

ALGORITHMS: dict[str, Callable[[], cv2.DenseOpticalFlow]] = {
    "tvl1": cv2.optflow.DualTVL1OpticalFlow.create,
    "dis": lambda: cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM),
}
LEAST_SIDE = {"tvl1": 1, "dis": 12}  # pixels of the short side


def check(settings: Flow, short_side: int) -> None:
    """Raise UserError for an algorithm that can't process frames of a short side."""
    if short_side < (least := LEAST_SIDE[settings.algorithm]):
        raise UserError(f"decode.short_side: flow by {settings.algorithm!r} needs {least} pixels at least")


def columns(settings: Flow | None) -> tuple[str, ...]:
    """Return the names of the frame store's columns of flow."""
    if settings is None:
        return ()
    return ("x", "y", "warped_x", "warped_y") if settings.compensated else ("x", "y")


def planes(jpegs: Sequence[bytes], settings: Flow, quality: int) -> dict[str, list[bytes]]:
    """Return each of columns() -> a grayscale JPEG a frame.

    Raises:
        Damaged: OpenCV computes no flow of frames of this shape.
    """
    cv2.setNumThreads(1)  # tasks share the cores; and DIS splits its work, which sets its rounding, by threads
    algorithm = ALGORITHMS[settings.algorithm]()

    def between(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return the flow from the first frame to the second: (H, W, 2) float32, x and y."""
        try:
            return algorithm.calc(first, second, None)  # type: ignore[call-overload]  # None: no initial flow
        except cv2.error:
            size = "x".join(map(str, first.shape[::-1]))
            raise Damaged(f"OpenCV has no flow, by {settings.algorithm!r}, of frames of {size}") from None

    encoded: dict[str, list[bytes]] = {name: [] for name in columns(settings)}
    second = _gray(jpegs[0])
    seen = camera.features(second) if settings.compensated else None
    for jpeg in jpegs[1:]:
        first, second = second, _gray(jpeg)
        flow = between(first, second)
        flows = [flow]
        if seen is not None:
            before, seen = seen, camera.features(second)
            motion = camera.homography(first, flow, before, seen)
            still = None if motion is None else camera.held_still(first, second, motion)
            flows.append(flow if still is None else between(first, still))
        for name, plane in zip(encoded, (plane for flow in flows for plane in cv2.split(flow)), strict=True):
            encoded[name].append(_jpeg(quantised(plane, settings.bound), quality))
    for stored in encoded.values():
        stored.append(stored[-1] if stored else _jpeg(quantised(np.zeros(second.shape), settings.bound), quality))
    return encoded


def quantised(plane: np.ndarray, bound: float) -> np.ndarray:
    """Quantize motion in pixels to 8 bits: round((v + bound) * 255 / (2 * bound)).

    0 is 128 for every bound.
    """
    return np.rint(127.5 + plane.clip(-bound, bound) * (127.5 / bound)).astype(np.uint8)


def _gray(jpeg: bytes) -> np.ndarray:
    return simplejpeg.decode_jpeg(jpeg, "GRAY")[..., 0]


def _jpeg(plane: np.ndarray, quality: int) -> bytes:
    return simplejpeg.encode_jpeg(plane[..., None], quality, "GRAY", "Gray")
