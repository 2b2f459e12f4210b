"""The direction of time as the two classes of a data set: each video forward, and its clips in reverse.

A backward video is the same frames under another name. Its clips, their frames, crops and mirroring are the forward
video's. Only the order of the frames differs, so a system that ignores order answers both alike: half of its answers
are right.
"""

CLASSES = ("forward", "backward")
SUFFIX = "//backward"  # of a name; video names are paths, and none of those has two slashes in a row
Frames = tuple[int, ...]


def names(video: str) -> tuple[str, str]:
    """Return the names under which a video is a row of the split tables, in the order of CLASSES."""
    return video, video + SUFFIX


def source(name: str) -> str:
    """Return the video that a name of the split tables shows."""
    return name.removesuffix(SUFFIX)


def shown(frames: Frames, name: str) -> Frames:
    """Return the frames of a clip of source(name) in the order that the name asks for."""
    return frames[::-1] if name.endswith(SUFFIX) else frames
