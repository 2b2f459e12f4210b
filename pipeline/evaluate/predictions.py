"""Predictions as files hold them, checked against their split; what is not whole is refused."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import polars as pl
import pyarrow
import pyarrow.parquet

from pipeline.config.load import named
from pipeline.config.schema import Order, Params, Protocol
from pipeline.config.signature import protocol_signature, views_per_video
from pipeline.errors import UserError
from pipeline.storage.atomic import writing

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


@dataclass(frozen=True)
class Predictions:
    """The checked predictions of one row: every split x seed x test video x view, once."""

    frame: pl.DataFrame  # split, seed, video, view, labels, logits (null: not decoded); sorted by the first four
    classes: tuple[str, ...]
    average: str  # "softmax", "logits" or "sigmoid", as schema.Protocol says; "none" where logits are scores already
    several: bool  # whether a video may have several labels, or none; else it has one


def file_of(order: Order | None = None) -> str:
    """The file of a row's predictions under its protocol, or under a probe's order."""
    return f"{order or 'predictions'}.parquet"


def read(path: Path, row: str, params: Params, splits: Path, protocol: Protocol | None = None) -> Predictions:
    """The predictions of a row as its evaluation wrote them; `splits` is the folder of its data set's splits.

    `protocol` is the row's by default, else a probe's.

    Raises UserError, naming the file and the reason, unless columns, protocol and classes are what params and splits
    say, and every test video of every split and seed is there exactly once per view, with finite logits. Under a
    protocol that averages sigmoids a video may have any number of labels, under others it has one.
    """
    experiment = named(params, row)
    protocol = protocol or params.protocols[experiment.protocol]

    def refuse(reason: str) -> NoReturn:
        raise UserError(f"{path}: {reason}; evaluate {row!r} again")

    frame, written = _columns(path, refuse)
    signature = protocol_signature(protocol, params.recipe(experiment))
    if written.get("protocol") != signature:
        refuse(f"its protocol is {written.get('protocol', 'not given')!r}, but params say {signature!r}")
    classes = class_names(splits)
    if _names(written.get("classes", "")) != classes:
        refuse(f"its classes are not the {len(classes)} of {splits / 'classes.json'}")
    if others := sorted(set(frame["experiment"].unique()) - {row}):
        refuse(f"it holds predictions of {others[0]!r}")

    several = protocol.average == "sigmoid"
    tests = _tests(splits, experiment.splits, experiment.seeds, len(classes), several)
    return Predictions(
        _whole(frame, tests, views_per_video(protocol), len(classes), refuse), classes, protocol.average, several
    )


def read_outside(path: Path, splits: Path, numbers: Sequence[int], seeds: Sequence[int], several: bool) -> Predictions:
    """Predictions that were not made here, for splits `numbers`, as if every seed had made them.

    The file has the columns of predictions; experiment and seed are passed over. A video has any number of views, one
    as a rule. Its logits become scores by a softmax, or by sigmoids where videos may have several labels, and scores of
    views are averaged; who has probabilities gives their logarithms (or log-odds), which come out as they went in.
    Raises UserError as read() does; classes are compared where the file's metadata names them, else counted.
    """

    def refuse(reason: str) -> NoReturn:
        raise UserError(f"{path}: {reason}")

    frame, written = _columns(path, refuse)
    classes = class_names(splits)
    if "classes" in written and _names(written["classes"]) != classes:
        refuse(f"its classes are not the {len(classes)} of {splits / 'classes.json'}")
    frame = frame.drop("seed").join(pl.DataFrame({"seed": seeds}, {"seed": pl.Int32}), how="cross")
    tests = _tests(splits, numbers, seeds, len(classes), several)
    average = "sigmoid" if several else "softmax"
    return Predictions(_whole(frame, tests, None, len(classes), refuse), classes, average, several)


def write_outside(
    path: Path,
    row: str,
    scores: Sequence[tuple[int, str, list[int], list[float] | None]],
    classes: Sequence[str],
) -> None:
    """Predictions that no net made: of each (split, video, labels, its logits or None), one view, under seed 0."""
    rows = [(row, split, 0, video, 0, labels, logits) for split, video, labels, logits in scores]
    with writing(path) as temporary:
        table = pl.DataFrame(rows, SCHEMA, orient="row").to_arrow(compat_level=pl.CompatLevel.oldest())
        table = table.replace_schema_metadata({"classes": json.dumps(classes)})
        pyarrow.parquet.write_table(table, temporary, compression="zstd", write_page_checksum=True)


def parts(splits: Path, number: int) -> dict[str, list[tuple[str, list[int]]]]:
    """Return part -> (video, labels) in the table's order; UserError where there is no such split."""
    table, _ = read_parquet(splits / f"split-{number}.parquet")
    found: dict[str, list[tuple[str, list[int]]]] = {}
    for part, video, labels in table.select("part", "video", "labels").iter_rows():
        found.setdefault(part, []).append((video, labels))
    return found


def class_names(splits: Path) -> tuple[str, ...]:
    """A data set's classes in official order; UserError where the folder of its splits has none."""
    if not (classes := _names(_text(splits / "classes.json"))):
        raise UserError(f"{splits / 'classes.json'} is not a list of class names")
    return classes


def _columns(path: Path, refuse: Callable[[str], NoReturn]) -> tuple[pl.DataFrame, Mapping[str, str]]:
    frame, written = read_parquet(path)
    for column, dtype in SCHEMA.items():
        if frame.schema.get(column) != dtype:
            refuse(f"column {column!r} must be {dtype}, not {frame.schema.get(column, 'missing')}")
    # Not every protocol says how many views a video has: a copy may lack the last of one's clips.
    if written.get("rows", str(len(frame))) != str(len(frame)):
        refuse(f"it holds {len(frame)} rows of the {written['rows']} that were written")
    return frame, written


def _whole(
    frame: pl.DataFrame, tests: pl.DataFrame, views: int | None, classes: int, refuse: Callable[[str], NoReturn]
) -> pl.DataFrame:
    """The predictions, sorted, if they are those of the tests and have `views` (None: any) views each."""
    ordered = frame.select(*TEST, "view", "labels", "logits")
    order = frame.select(pl.arg_sort_by(*TEST, "view")).to_series()
    if not order.is_sorted():  # sorting moves all logits
        ordered = ordered[order]
    if _plainly_whole(ordered, tests, views, classes):
        return ordered
    count, finite = pl.col("logits").list.len(), pl.col("logits").list.eval(pl.element().is_finite().fill_null(False))
    for wrong, problem in (
        (tests.join(frame, on=TEST, how="anti"), "is missing"),
        (frame.join(tests, on=TEST, how="anti"), "is no test video"),
        (frame.join(tests, on=[*TEST, "labels"], how="anti"), "has other labels than its split says"),
        (_incomplete(frame, views), f"has not its {f'{views} view(s)' if views else 'views'} once each"),
        (frame.filter(count != classes), f"has not one logit for each of {classes} classes"),
        (frame.filter(~finite.list.all()), "has a logit that is not finite"),
    ):
        if len(wrong):
            split, seed, video = wrong.select(TEST).sort(TEST).row(0)
            refuse(f"video {video!r} of split {split}, seed {seed} {problem}")
    return ordered


def _plainly_whole(frame: pl.DataFrame, tests: pl.DataFrame, views: int | None, classes: int) -> bool:
    """Whether sorted predictions are those of the tests, all decoded: most are, and no join need look for more."""
    logits = frame["logits"]
    if views is None or len(frame) != views * len(tests) or logits.has_nulls():
        return False
    expected = tests[np.repeat(np.arange(len(tests)), views)] if views > 1 else tests
    scores = logits.explode().to_numpy()  # NaN for what is null
    return (
        bool((logits.list.len() == classes).all())
        and bool(np.isfinite([scores.min(), scores.max()]).all())
        and bool((frame["view"].to_numpy() == np.tile(np.arange(views), len(tests))).all())
        and all(frame[column].equals(expected[column]) for column in TEST)
        and frame["labels"].list.len().equals(expected["labels"].list.len())
        and frame["labels"].explode().equals(expected["labels"].explode())
    )


def read_parquet(path: Path) -> tuple[pl.DataFrame, Mapping[str, str]]:
    """The file's columns and its metadata."""
    try:
        with pyarrow.parquet.ParquetFile(
            path, page_checksum_verification=True
        ) as file:  # reads lists in two thirds of the time that polars takes
            table = file.read(use_threads=False)
        table.validate(full=True)  # for text that is no UTF-8, which Arrow takes as it comes
        written = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        return pl.DataFrame(table), written
    except FileNotFoundError:
        raise UserError(f"{path} is not there") from None
    except (pyarrow.ArrowException, pl.exceptions.PolarsError, OSError, ValueError) as error:
        raise UserError(f"{path} is damaged: {(str(error).splitlines() or ['no Parquet'])[0]}") from None


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


def _tests(splits: Path, numbers: Sequence[int], seeds: Sequence[int], classes: int, several: bool) -> pl.DataFrame:
    """TEST and labels of every test video that a row must have predicted, sorted."""
    paths = tuple(splits / f"split-{number}.parquet" for number in numbers)
    stats = [path.stat() for path in paths if path.exists()]
    written = tuple((stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in stats)
    return _tests_as_written(written, paths, tuple(numbers), tuple(seeds), classes, several)


@lru_cache(maxsize=8)  # a thousand rows share a few tables
def _tests_as_written(
    _: tuple[object, ...],
    paths: tuple[Path, ...],
    numbers: tuple[int, ...],
    seeds: tuple[int, ...],
    classes: int,
    several: bool,
) -> pl.DataFrame:
    """As _tests(), for tables that were written at some time: one that is written anew is read anew."""
    parts = []
    for number, path in zip(numbers, paths, strict=True):
        part = read_parquet(path)[0].filter(part="test").select("video", labels=pl.col("labels").cast(SCHEMA["labels"]))
        if not len(part):
            raise UserError(f"{path}: no video has part 'test'")
        labels = pl.col("labels")
        right = labels.list.eval(pl.element().is_between(0, classes - 1).fill_null(False)).list.all()
        if not several:
            right &= labels.list.len() == 1
        if len(bad := part.filter(~right.fill_null(False))):
            video, found = bad.row(0)
            wanted = "indices of" if several else "one of"
            raise UserError(f"{path}: video {video!r} has labels {found}, not {wanted} the {classes} classes")
        parts.append(part.with_columns(split=pl.lit(number, pl.Int32)))
    tests = pl.concat(parts).join(pl.DataFrame({"seed": seeds}, {"seed": pl.Int32}), how="cross")
    return tests.select(*TEST, "labels").sort(TEST)


def _incomplete(frame: pl.DataFrame, views: int | None) -> pl.DataFrame:
    """The videos without views 0 to views - 1 (None: to any) once each; one that was not decoded has view 0 alone."""
    view, missing = pl.col("view"), pl.col("logits").is_null()
    expected = pl.when(missing.all()).then(1).otherwise(pl.len() if views is None else views)
    right = (pl.len() == expected) & (view.n_unique() == expected) & (view.min() == 0) & (view.max() == expected - 1)
    return frame.group_by(TEST).agg(right=right & (missing.all() | ~missing.any())).filter(~pl.col("right"))
