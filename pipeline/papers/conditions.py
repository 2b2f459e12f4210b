"""In what a row of ours was not measured as a paper's number: data set, splits, frames, pre-training, views, tier."""

from collections.abc import Iterator

from pipeline.config.schema import Experiment, Params, Trajectories
from pipeline.config.signature import pretrained
from pipeline.papers.published import Conditions, Paper


def differences(paper: Paper, under: Conditions, given: Params, system: str) -> list[str]:
    """Each difference in words, [] where there is none; of a fusion, those of all its rows.

    What the paper does not state can't differ. Recipes are not compared: how a net was trained is what a row is about.
    Weights are told by the name of their file; one that names no data set is taken for what the paper used.
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
    protocol = given.protocols[own.protocol]
    yield "frames", protocol.frames or given.recipe(own).frames, under.frames
    if under.pretrained:
        yield "pre-trained on", pretrained(own.weights, under.pretrained), under.pretrained
    if under.protocol:
        views = paper.protocols[under.protocol]
        for key in ("clips", "crops", "sampling", "stride", "size", "average"):
            yield key, getattr(protocol, key), getattr(views, key)


def _words(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
