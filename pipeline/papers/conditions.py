"""Differences between the conditions of a row's measurement and of a paper's.

They are in data set, splits, training parts, frames, weights, views and tier. A data set's version counts: a paper's
`diving48-v1` is not our diving48. Protocols are compared by their settings, not by their names.
"""

from collections.abc import Iterator

from pipeline.config.schema import Experiment, Params, Protocol, Trajectories
from pipeline.config.signature import pretrained
from pipeline.papers.published import Conditions, Paper

SHARE = 7 / 8  # of the short side that a center crop, or one of ten, takes (224 of 256 pixels)
TOLERANCE = 0.1  # of that share, for frames stored a little smaller than the paper's


def differences(paper: Paper, under: Conditions, params: Params, system: str) -> list[str]:
    """Return each difference in words; of a fusion, those of all its rows.

    A condition that the paper doesn't state can't differ. Recipes are not compared, except for the parts of the split
    that train, because training is what a row is about. Weights are recognized by the name of their file. A name
    without a data set passes for the paper's weights.
    """
    part = params.tier.subset
    listed = [f"tier {params.tier.name}, not the whole data set and net"] if part or params.tier.name != "full" else []
    for member in params.fusions[system].rows if system in params.fusions else [system]:
        pairs = (
            _trained(paper, under, params, params.experiments[member])
            if member in params.experiments
            else _split(params, params.trajectories[member], under)
        )
        for what, ours, theirs in pairs:
            if theirs is not None and ours != theirs:
                listed.append(f"{what}: {_words(ours)}, not {_words(theirs)}")
    return list(dict.fromkeys(listed))


def _split(params: Params, row: Experiment | Trajectories, under: Conditions) -> Iterator[tuple[str, object, object]]:
    """Yield (condition, ours, the paper's), the last None if it is not stated."""
    dataset, its = params.datasets[row.dataset], "the data set's"
    yield "data set", dataset.file, under.dataset
    yield "classes", "forward and backward" if dataset.direction else its, its
    yield "splits", row.splits, under.splits


def _trained(paper: Paper, under: Conditions, params: Params, row: Experiment) -> Iterator[tuple[str, object, object]]:
    yield from _split(params, row, under)
    protocol, recipe = params.protocols[row.protocol], params.recipe(row)
    yield "trained on the parts", recipe.train, ("train",)
    yield "frames", protocol.frames or recipe.frames, under.frames
    if under.pretrained:
        yield "pre-trained on", pretrained(row.weights, under.pretrained), under.pretrained
    if under.protocol:
        views = paper.protocols[under.protocol]
        without = {"windows": ("clips",), "segments": ("stride",), "random_segments": ("stride",)}
        for key in ("clips", "crops", "sampling", "stride", "size", "average"):
            stated = key not in without.get(protocol.sampling, ())  # a setting that the sampling ignores can't differ
            yield key, getattr(protocol, key), getattr(views, key) if stated else None
        share = _share(protocol, params.datasets[row.dataset].decode.short_side)
        if views.crops == protocol.crops in ("center", "ten") and abs(share - SHARE) > TOLERANCE:
            yield "crop's share of the short side", f"{share:.0%}", f"{SHARE:.1%}"


def _share(protocol: Protocol, short: int) -> float:
    """Return the share of the stored short side that augmentation.side() crops."""
    share = max(protocol.size / short, SHARE) if protocol.size <= short else SHARE
    return SHARE if protocol.crops == "ten" and share == 1 else share


def _words(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
