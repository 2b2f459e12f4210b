"""Predictions, checked against their split and turned into outcomes; every accuracy is computed from these.

Legend: R runs (split x seed), M videos of all runs, N their views, K classes.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import polars as pl

from pipeline.errors import UserError
from pipeline.params import named
from pipeline.protocol import protocol_signature, views_per_video
from pipeline.schema import Params

SCHEMA = {
    "experiment": pl.String(),
    "split": pl.Int32(),
    "seed": pl.Int32(),
    "video": pl.String(),
    "view": pl.Int32(),
    "labels": pl.List(pl.Int32()),
    "logits": pl.List(pl.Float32()),
}
TEST = ["split", "seed", "video"]
BEST = 5
BLOCK = 1 << 24  # scores averaged at once: bounds the memory used beside the predictions themselves


@dataclass(frozen=True)
class Predictions:
    """The checked predictions of one row: every split x seed x test video x view, once."""

    frame: pl.DataFrame  # split, seed, video, view, label, logits (null: not decoded); sorted by the first four
    classes: tuple[str, ...]
    average: str  # "softmax" or "logits", as schema.Protocol says


def read(path: Path, row: str, params: Params, splits: Path) -> Predictions:
    """The predictions of a row as its evaluation wrote them; `splits` is the folder of its data set's splits.

    Raises UserError, naming the file and the reason, unless columns, protocol and classes are what params and splits
    say, and every test video of every split and seed is there exactly once per view, with finite logits.
    """
    experiment = named(params, row)
    protocol = params.protocols[experiment.protocol]

    def refuse(reason: str) -> NoReturn:
        raise UserError(f"{path}: {reason}; evaluate {row!r} again")

    frame = _parquet(path)
    for column, dtype in SCHEMA.items():
        if frame.schema.get(column) != dtype:
            refuse(f"column {column!r} must be {dtype}, not {frame.schema.get(column, 'missing')}")
    written = pl.read_parquet_metadata(path)
    signature = protocol_signature(protocol, params.recipes[experiment.recipe].frames)
    if written.get("protocol") != signature:
        refuse(f"its protocol is {written.get('protocol', 'not given')!r}, but params say {signature!r}")
    if not (classes := _names(_text(splits / "classes.json"))):
        raise UserError(f"{splits / 'classes.json'} is not a list of class names")
    if _names(written.get("classes", "")) != classes:
        refuse(f"its classes are not the {len(classes)} of {splits / 'classes.json'}")
    if others := sorted(set(frame["experiment"].unique()) - {row}):
        refuse(f"it holds predictions of {others[0]!r}")

    tests = _tests(splits, experiment.splits, experiment.seeds, len(classes))
    views = views_per_video(protocol)
    count, finite = pl.col("logits").list.len(), pl.col("logits").list.eval(pl.element().is_finite().fill_null(False))
    for wrong, problem in (
        (tests.join(frame, on=TEST, how="anti"), "is missing"),
        (frame.join(tests, on=TEST, how="anti"), "is no test video"),
        (frame.join(tests, on=[*TEST, "labels"], how="anti"), "has other labels than its split says"),
        (_incomplete(frame, views), f"has not its {views or ''} view(s) once each"),
        (frame.filter(count != len(classes)), f"has not one logit for each of {len(classes)} classes"),
        (frame.filter(~finite.list.all()), "has a logit that is not finite"),
    ):
        if len(wrong):
            split, seed, video = wrong.select(TEST).sort(TEST).row(0)
            refuse(f"video {video!r} of split {split}, seed {seed} {problem}")
    frame = frame.select(*TEST, "view", pl.col("labels").list.first().alias("label"), "logits")
    return Predictions(frame.sort(*TEST, "view"), classes, protocol.average)


def outcomes(predictions: Predictions) -> pl.DataFrame:
    """A row a (split, seed, video), sorted: label, predicted (null where not decoded), top1 and top5 (bool).

    A video that was not decoded is wrong: the denominator is the split's. Where scores tie, the lowest class wins.
    """
    frame = predictions.frame
    decoded = frame.filter(pl.col("logits").is_not_null())
    begins = np.flatnonzero(decoded["view"].to_numpy() == 0)
    best = _best(decoded["logits"].explode().to_numpy(), begins, len(predictions.classes), predictions.average)
    scored = decoded.filter(view=0).select(*TEST, best=pl.Series(best, dtype=pl.List(pl.Int32)))
    return (
        frame.unique(TEST)
        .join(scored, on=TEST, how="left")
        .sort(TEST)
        .select(
            *TEST,
            "label",
            predicted=pl.col("best").list.first(),
            top1=(pl.col("best").list.first() == pl.col("label")).fill_null(False),
            top5=pl.col("best").list.contains(pl.col("label")).fill_null(False),
        )
    )


def accuracy(outcomes: pl.DataFrame, which: str = "top1") -> float:
    """The mean over runs (split x seed) of the share of a run's videos that are right; `which` is top1 or top5."""
    return float(outcomes.group_by("split", "seed").agg(pl.col(which).mean()).sort("split", "seed")[which].mean())  # type: ignore[arg-type]


def confusion(outcomes: pl.DataFrame, classes: int) -> np.ndarray:
    """How many videos of a class (second axis) were taken for which (third): R,K,K+1 int; the last is "not decoded"."""
    run = outcomes.select(pl.struct("split", "seed").rank("dense") - 1).to_series().to_numpy().astype(np.int64)
    label = outcomes["label"].to_numpy().astype(np.int64)
    taken = outcomes["predicted"].fill_null(classes).to_numpy()
    shape = (int(run.max()) + 1, classes, classes + 1)
    return np.bincount(np.ravel_multi_index((run, label, taken), shape), minlength=int(np.prod(shape))).reshape(shape)


def class_accuracy(confusion: np.ndarray) -> np.ndarray:
    """R,K,K+1 counts -> K: the share of a class's videos, over all runs, that are right; NaN where it has none."""
    counts = confusion.sum(axis=0)  # K,K+1
    videos = counts.sum(axis=1)
    return np.where(videos > 0, counts.diagonal() / np.maximum(videos, 1), np.nan)


def mean_class_accuracy(confusion: np.ndarray) -> float:
    """R,K,K+1 counts -> the mean over runs of the mean over the classes that the run's videos have."""
    return float(np.mean([np.nanmean(class_accuracy(run[None])) for run in confusion]))


def _best(logits: np.ndarray, begins: np.ndarray, classes: int, average: str) -> np.ndarray:
    """N*K logits of all views, a video's in a row beginning at begins (M) -> M,5: its best classes, best first."""
    scores = logits.reshape(-1, classes)  # N,K float32
    ends = np.append(begins[1:], len(scores))
    best = np.empty((len(begins), min(BEST, classes)), np.int32)
    step = max(1, BLOCK // (classes * int((ends - begins).max(initial=1))))
    for videos in (slice(begin, begin + step) for begin in range(0, len(begins), step)):
        own = begins[videos]
        block = scores[own[0] : ends[videos][-1]].astype(np.float64)
        if average == "softmax":
            block = _softmax(block)
        mean = np.add.reduceat(block, own - own[0]) / (ends - begins)[videos, None]  # m,K
        if average == "logits":
            mean = _softmax(mean)
        best[videos] = np.argsort(-mean, axis=1, kind="stable")[:, :BEST]
    return best


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def _parquet(path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(path)
    except FileNotFoundError:
        raise UserError(f"{path} is not there") from None
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(f"{path} is damaged: {str(error).splitlines()[0]}") from None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} is not there") from None


def _names(text: str) -> tuple[str, ...]:
    try:
        names: Any = json.loads(text)
    except ValueError:
        return ()
    return tuple(names) if isinstance(names, list) else ()


def _tests(splits: Path, numbers: Sequence[int], seeds: Sequence[int], classes: int) -> pl.DataFrame:
    """TEST and labels of every test video that a row must have predicted."""
    parts = []
    for number in numbers:
        path = splits / f"split-{number}.parquet"
        part = _parquet(path).filter(part="test").select("video", labels=pl.col("labels").cast(SCHEMA["labels"]))
        if not len(part):
            raise UserError(f"{path}: no video has part 'test'")
        one = (pl.col("labels").list.len() == 1) & pl.col("labels").list.first().is_between(0, classes - 1)
        if len(bad := part.filter(~one)):
            video, labels = bad.row(0)
            raise UserError(f"{path}: video {video!r} has labels {labels}, not one of the {classes} classes")
        parts.append(part.with_columns(split=pl.lit(number, pl.Int32)))
    return pl.concat(parts).join(pl.DataFrame({"seed": seeds}, {"seed": pl.Int32}), how="cross")


def _incomplete(frame: pl.DataFrame, views: int | None) -> pl.DataFrame:
    """The videos without views 0 to views - 1 (None: to any) once each; one that was not decoded has view 0 alone."""
    view, missing = pl.col("view"), pl.col("logits").is_null()
    expected = pl.when(missing.all()).then(1).otherwise(pl.len() if views is None else views)
    right = (pl.len() == expected) & (view.n_unique() == expected) & (view.min() == 0) & (view.max() == expected - 1)
    return frame.group_by(TEST).agg(right=right & (missing.all() | ~missing.any())).filter(~pl.col("right"))
