"""How a row's measurement differs from a paper's: data set, splits, training parts, frames, weights, views, tier.

A data set's version counts: a paper's `diving48-v1` is not our diving48. Protocols are compared by what they do.
"""

from collections.abc import Iterator

from pipeline.config.schema import Experiment, Params, Protocol, Trajectories
from pipeline.config.signature import pretrained
from pipeline.papers.published import Conditions, Paper

SHARE = 7 / 8  # of the short side that a center crop, or one of ten, takes (224 of 256 pixels)
TOLERANCE = 0.1  # of that share, for frames that are stored a little smaller than the paper's


def differences(paper: Paper, under: Conditions, given: Params, system: str) -> list[str]:
    """Each difference in words, [] where there is none; of a fusion, those of all its rows.

    What the paper does not state can't differ. Recipes are not compared: how a net was trained is what a row is about.
    Only the parts of the split that trained it are. Weights are told by the name of their file; one that names no data
    set is taken for what the paper used.
    """
    part = given.tier.subset
    found = [f"tier {given.tier.name}, not the whole data set and net"] if part or given.tier.name != "full" else []
    for member in given.fusions[system].rows if system in given.fusions else [system]:
        pairs = (
            _trained(paper, under, given, given.experiments[member])
            if member in given.experiments
            else _split(given, given.trajectories[member], under)
        )
        for what, ours, theirs in pairs:
            if theirs is not None and ours != theirs:
                found.append(f"{what}: {_words(ours)}, not {_words(theirs)}")
    return list(dict.fromkeys(found))


def _split(given: Params, own: Experiment | Trajectories, under: Conditions) -> Iterator[tuple[str, object, object]]:
    """(what, ours, the paper's), the last None where it is not stated."""
    yield "data set", given.datasets[own.dataset].file, under.dataset
    yield "splits", own.splits, under.splits


def _trained(paper: Paper, under: Conditions, given: Params, own: Experiment) -> Iterator[tuple[str, object, object]]:
    yield from _split(given, own, under)
    protocol, recipe = given.protocols[own.protocol], given.recipe(own)
    yield "trained on the parts", recipe.train, ("train",)
    yield "frames", protocol.frames or recipe.frames, under.frames
    if under.pretrained:
        yield "pre-trained on", pretrained(own.weights, under.pretrained), under.pretrained
    if under.protocol:
        views = paper.protocols[under.protocol]
        without = {"windows": ("clips",), "segments": ("stride",), "random_segments": ("stride",)}
        for key in ("clips", "crops", "sampling", "stride", "size", "average"):
            stated = key not in without.get(protocol.sampling, ())  # what a sampling has not, changes nothing
            yield key, getattr(protocol, key), getattr(views, key) if stated else None
        share = _share(protocol, given.datasets[own.dataset].decode.short_side)
        if views.crops == protocol.crops in ("center", "ten") and abs(share - SHARE) > TOLERANCE:
            yield "crop's share of the short side", f"{share:.0%}", f"{SHARE:.1%}"


def _share(protocol: Protocol, short: int) -> float:
    """Return the share of the stored short side that a crop takes, as side() in pipeline/clips/augmentation.py."""
    share = max(protocol.size / short, SHARE) if protocol.size <= short else SHARE
    return SHARE if protocol.crops == "ten" and share == 1 else share


def _words(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
