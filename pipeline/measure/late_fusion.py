"""Late fusion: a row whose scores are the weighted mean of other rows' scores.

Legend: M videos of all runs, K classes.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.config.schema import Params
from pipeline.errors import UserError
from pipeline.evaluate import predictions
from pipeline.evaluate.predictions import TEST, Predictions
from pipeline.measure import accuracy, results
from pipeline.measure.results import Row


def read(params: Params, name: str, data: Path) -> Row:
    """Fuse the rows of params.fusions[name], and its files from outside.

    A video's score is sum(w x score) / sum(w) over the members. Their scores are averaged over views as their own
    protocols say, after the softmax or the sigmoids. Fusion is seed by seed, over the seeds that all rows have; an
    outside file counts for every seed. A video is decoded if every member decoded it. Parameters and MACs are the rows'
    sums.

    Returns:
        The row. A reason replaces its predictions if a member has not run, or if its predictions are refused. It also
        does if rows differ in data set, splits or kind of labels, or share no seed.
    """
    fusion = params.fusions[name]
    rows = {member: results.read(params, member, data) for member in fusion.rows}
    first, *_ = rows.values()
    weights = {**fusion.rows, **fusion.outside}
    words = " + ".join(f"{_called(member)}*{weight:g}" for member, weight in weights.items())
    seeds = tuple(seed for seed in first.seeds if all(seed in row.seeds for row in rows.values()))
    fused: Predictions | str
    if not (fused := _unfit(rows, seeds)):
        try:
            splits = data / "splits" / params.experiments[next(iter(rows))].dataset
            members = {member: row.predictions for member, row in rows.items()}
            members |= {
                path: predictions.read_outside(Path(path), splits, first.splits, seeds, first.several)
                for path in fusion.outside
            }
            fused = fuse([(part, weights[key]) for key, part in members.items() if not isinstance(part, str)], seeds)
        except UserError as error:
            fused = f"failed: {error}"
    costs = [row.costs for row in rows.values()]
    return Row(
        name,
        first.file,
        first.dataset,
        "fusion",
        None,
        " + ".join(dict.fromkeys(row.pretrained for row in rows.values())),
        first.frames if len({row.frames for row in rows.values()}) == 1 else None,
        f"{words}: {'; '.join(dict.fromkeys(row.protocol for row in rows.values()))}",
        first.splits,
        seeds,
        first.several,
        {cost: sum(row[cost] for row in costs) for cost in first.costs if all(cost in row for row in costs)},
        fused,
    )


def _called(member: str) -> str:
    """Return a member's name in the signature.

    It is a row's name, or an outside file's stem, or its folder's name if the file is a row's predictions.
    """
    path = Path(member)
    return member if path.suffix != ".parquet" else path.parent.name if path.stem == "predictions" else path.stem


def fuse(members: list[tuple[Predictions, float]], seeds: tuple[int, ...]) -> Predictions:
    """Return the weighted mean of the members' scores, as one view a video.

    Args:
        members: Predictions and their weights.
        seeds: The seeds to fuse.

    Raises:
        UserError: The members differ in test videos, labels or classes.
    """
    total, tests = np.zeros(()), pl.DataFrame()
    whole = sum(weight for _, weight in members)
    for member, weight in members:
        part = replace(member, frame=member.frame.filter(pl.col("seed").is_in(seeds)))
        videos, scores = accuracy.scores(part)  # M,K
        if tests.is_empty():
            tests = videos
        if not videos.equals(tests) or member.classes != members[0][0].classes:
            raise UserError("its members differ in test videos, labels or classes")
        total = total + weight / whole * scores
    scored = pl.Series(total, dtype=pl.List(pl.Float64))
    decoded = pl.Series(~np.isnan(total).any(axis=1))
    frame = tests.select(*TEST, pl.lit(0, pl.Int32).alias("view"), "labels", logits=pl.when(decoded).then(scored))
    return replace(members[0][0], frame=frame, average="none")


def _unfit(rows: dict[str, Row], seeds: tuple[int, ...]) -> str:
    """Return the reason why these rows can't be fused, or nothing."""
    for member, row in rows.items():
        if row.predictions == "not run":
            return "not run"
        if isinstance(row.predictions, str):
            return f"failed: {member}: {row.predictions.removeprefix('failed: ')}"
    (name, first), *others = rows.items()
    for member, row in others:
        if row.dataset != first.dataset:
            return f"failed: {name} is on {first.dataset}, {member} on {row.dataset}"
        if set(row.splits) != set(first.splits):
            return f"failed: {name} has splits {list(first.splits)}, {member} {list(row.splits)}"
        if row.several != first.several:
            return f"failed: one of {name} and {member} averages sigmoids, for multi-label videos, the other does not"
    return "" if seeds else f"failed: {', '.join(rows)} share no seed"
