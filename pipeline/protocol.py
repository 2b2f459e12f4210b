"""A test protocol in words: the signature that stands beside every number measured under it."""

from pipeline.params import Protocol

CROPS = {"center": 1, "three": 3, "ten": 10}


def views_per_video(protocol: Protocol) -> int:
    """How many views of a video are scored: clips x crops."""
    return protocol.clips * CROPS[protocol.crops]


def protocol_signature(protocol: Protocol, frames: int) -> str:
    """All of a protocol that can change a score, in one short line; equal signatures are comparable numbers.

    `frames` is the number of frames of one clip. E.g. "1 clip x center, 8f segments, 64 px, softmax" or
    "10 clips x three, 16f dense stride 2, 112 px, logits".
    """
    clips = f"{protocol.clips} clip{'s' if protocol.clips > 1 else ''}"
    # The stride is the distance of dense frames; segments have none, whatever the file says.
    sampling = f"dense stride {protocol.stride}" if protocol.sampling == "dense" else protocol.sampling
    return f"{clips} x {protocol.crops}, {frames}f {sampling}, {protocol.size} px, {protocol.average}"
