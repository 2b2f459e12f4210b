"""Late fusion: a row whose scores are the weighted mean of other rows', made from their predictions alone.

Legend: M videos of all runs, K classes.
"""

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
    """The row of params.fusions of that name, from its rows' predictions and from the files outside.

    A video's score is sum(w x score) / sum(w) over the members, whose scores are those their own protocols make of all
    views: after the softmax, or the sigmoids. Rows are fused seed by seed, over the seeds that all of them have; an
    outside file counts for every seed. A video that a member could not decode is not decoded here either. Parameters
    and MACs are the rows' sums. The reason stands in place of predictions where a row has not run ("not run"), where a
    member's predictions are refused, or where rows differ in data set, splits or kind of labels, or share no seed.
    """
    fusion = params.fusions[name]
    rows = {member: results.read(params, member, data) for member in fusion.rows}
    first = next(iter(rows.values()))
    weights = {**fusion.rows, **fusion.outside}
    words = " + ".join(f"{_called(member)}*{weight:g}" for member, weight in weights.items())
    seeds = tuple(seed for seed in first.seeds if all(seed in row.seeds for row in rows.values()))
    frames = {row.frames for row in rows.values()}
    fused: Predictions | str
    if not (fused := _unfit(rows, seeds)):
        try:
            splits = data / "splits" / params.experiments[next(iter(rows))].dataset
            outside = {
                path: predictions.read_outside(Path(path), splits, first.splits, seeds, first.several)
                for path in fusion.outside
            }
            own = {member: row.predictions for member, row in rows.items() if isinstance(row.predictions, Predictions)}
            fused = fuse([(found, weights[member]) for member, found in {**own, **outside}.items()], seeds)
        except UserError as error:
            fused = f"failed: {error}"
    costs = ("parameters", "macs")
    return Row(
        name,
        first.file,
        first.dataset,
        "fusion",
        None,
        " + ".join(dict.fromkeys(row.pretrained for row in rows.values())),
        first.frames if len(frames) == 1 else None,
        f"{words}: {'; '.join(dict.fromkeys(row.protocol for row in rows.values()))}",
        first.splits,
        seeds,
        first.several,
        {
            cost: sum(row.costs[cost] for row in rows.values())
            for cost in costs
            if all(cost in row.costs for row in rows.values())
        },
        fused,
    )


def _called(member: str) -> str:
    """What stands for a member in the signature: a row's name; a file's own, or its folder's if that is a row's."""
    path = Path(member)
    return member if path.suffix != ".parquet" else path.parent.name if path.stem == "predictions" else path.stem


def fuse(members: list[tuple[Predictions, float]], seeds: tuple[int, ...]) -> Predictions:
    """Predictions whose one view a video is the members' weighted mean score, for the runs of these seeds.

    Raises UserError unless all members have the same videos with the same labels, and the same classes.
    """
    total, tests = np.zeros(()), pl.DataFrame()
    whole = sum(weight for _, weight in members)
    for found, weight in members:
        part = Predictions(found.frame.filter(pl.col("seed").is_in(seeds)), found.classes, found.average, found.several)
        own, scores = accuracy.scores(part)  # M,K
        if tests.is_empty():
            tests = own
        if not own.equals(tests) or found.classes != members[0][0].classes:
            raise UserError("its members have not the same test videos, labels and classes")
        total = total + weight / whole * scores
    scored = pl.Series(total, dtype=pl.List(pl.Float64))
    decoded = pl.Series(~np.isnan(total).any(axis=1))
    frame = tests.select(*TEST, pl.lit(0, pl.Int32).alias("view"), "labels", logits=pl.when(decoded).then(scored))
    return Predictions(frame, members[0][0].classes, "none", members[0][0].several)


def _unfit(rows: dict[str, Row], seeds: tuple[int, ...]) -> str:
    """Why these rows can't be fused, or nothing."""
    for member, row in rows.items():
        if row.predictions == "not run":
            return "not run"
        if isinstance(row.predictions, str):
            return f"failed: {member}: {row.predictions.removeprefix('failed: ')}"
    (one, first), *others = rows.items()
    for member, row in others:
        if row.dataset != first.dataset:
            return f"failed: {one} is on {first.dataset}, {member} on {row.dataset}"
        if set(row.splits) != set(first.splits):
            return f"failed: {one} has splits {list(first.splits)}, {member} {list(row.splits)}"
        if row.several != first.several:
            return (
                f"failed: of {one} and {member}, one averages sigmoids, for several labels a video, the other does not"
            )
    return "" if seeds else f"failed: {', '.join(rows)} share no seed"
