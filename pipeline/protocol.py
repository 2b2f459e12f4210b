"""A test protocol in words: the signature that stands beside every number measured under it."""

from pipeline.schema import Protocol, Tier

CROPS = {"center": 1, "whole": 1, "three": 3, "ten": 10, "squash": 1}


def views_per_video(protocol: Protocol) -> int | None:
    """How many views of a video are scored, clips x crops; None where that depends on the video's length."""
    return None if protocol.sampling == "windows" else protocol.clips * CROPS[protocol.crops]


def protocol_signature(protocol: Protocol, frames: int) -> str:
    """All of a protocol that can change a score, in one short line; numbers under equal signatures are comparable.

    `frames` is the number of frames of one clip. E.g. "1 clip x center, 8f segments, 64 px, softmax", "10 clips x
    three, 16f dense stride 2, 112 px, logits" or "all clips x center, 16f windows stride 1, 112 px, softmax".
    """
    every = protocol.sampling == "windows"  # as many clips as the video has windows, whatever the file says
    clips = "all clips" if every else f"{protocol.clips} clip{'s' if protocol.clips > 1 else ''}"
    strided = not protocol.sampling.endswith("segments")  # which have no stride
    sampling = f"{protocol.sampling} stride {protocol.stride}" if strided else protocol.sampling
    return f"{clips} x {protocol.crops}, {frames}f {sampling}, {protocol.size} px, {protocol.average}"


def subset_in_words(tier: Tier) -> list[str]:
    """What part of its data sets a suite of this tier takes, e.g. ["mini 5 x (12 + 8)"], or [] where it is all of them.

    Classes x (training + test videos of each). It stands beside every data set and protocol that is printed.
    """
    part = tier.subset
    return [f"{tier.name} {part.classes} x ({part.train} + {part.test})"] if part else []
