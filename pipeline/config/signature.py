"""A test protocol as a short text, printed next to numbers measured under it."""

from dataclasses import replace

from pipeline.config.schema import Dataset, Order, Protocol, Recipe, Tier

PRETRAINED = ("imagenet", "kinetics400", "sports1m", "none")  # words in the names of weights' files
CROPS = {"center": 1, "whole": 1, "three": 3, "ten": 10, "squash": 1}


def views_per_video(protocol: Protocol) -> int | None:
    """Return the scored views per video, clips x crops; None if its length decides."""
    return None if protocol.sampling == "windows" else protocol.clips * CROPS[protocol.crops]


def protocol_signature(protocol: Protocol, recipe: Recipe) -> str:
    """Describe all of a protocol that can change a score, in one short line.

    Numbers with equal signatures are comparable. The recipe gives the frames per clip if the protocol doesn't, and the
    input if it isn't RGB alone. Examples:
    - "1 clip x center, 8f segments, 64 px, softmax"
    - "10 clips x three, 16f dense stride 2, 112 px, logits"
    - "all clips x center, 16f windows stride 1, 112 px, softmax"
    - "1 clip x center, 8f segments, 64 px, softmax, 5 flows", "5 warped flows" or "RGB + 5 flows"
    - "1 clip x center, 8f segments, 64 px, softmax, best epoch" of those that the recipe validates
    """
    every = protocol.sampling == "windows"  # as many clips as the video has windows
    clips = "all clips" if every else f"{protocol.clips} clip{'s' if protocol.clips > 1 else ''}"
    strided = not protocol.sampling.endswith("segments")  # segments have no stride
    sampling = f"{protocol.sampling} stride {protocol.stride}" if strided else protocol.sampling
    flows = f"{recipe.stack} flow{'s' if recipe.stack > 1 else ''}"
    inputs = {"rgb": [], "flow": [flows], "warped": [flows.replace(" ", " warped ")], "rgb+flow": [f"RGB + {flows}"]}
    frames = f"{protocol.frames or recipe.frames}f {sampling}"
    order = [f"frames {protocol.order}"] if protocol.order != "forward" else []
    best = ["best epoch"] if recipe.checkpoint == "best" else []
    return ", ".join(
        [
            f"{clips} x {protocol.crops}",
            frames,
            f"{protocol.size} px",
            protocol.average,
            *inputs[recipe.input],
            *order,
            *best,
        ]
    )


def in_order(protocol: Protocol, order: Order | None) -> Protocol:
    """Return the protocol in a probe's order, if one is named, and without probes."""
    return replace(protocol, order=order or protocol.order, probes=())


def pretrained(weights: str | None, otherwise: str = "") -> str:
    """Return the data set of weights, by the name of their file; "none" from scratch.

    A name that tells no data set is returned as it is, or as `otherwise`.
    """
    name = (weights or "none").partition("#")[0].rsplit("/", 1)[-1].lower()
    return next((word for word in PRETRAINED if word in name), otherwise or name)


def data_in_words(dataset: Dataset, tier: Tier) -> list[str]:
    """Describe what a data set is tested on, other than all of its videos in its own classes.

    It is printed with every data set and protocol, e.g. ["forward or backward", "mini 5 x (12 + 8)"]. A tier's part is
    its classes x (training + test videos of each).
    """
    part = tier.subset
    return [
        *(["forward or backward"] if dataset.direction else []),
        *([f"{tier.name} {part.classes} x ({part.train} + {part.test})"] if part else []),
    ]
