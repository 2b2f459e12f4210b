"""Files of predictions, checked against their split; no part may be missing."""

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
    """The checked predictions of a row: every split x seed x test video x view, once."""

    frame: pl.DataFrame  # split, seed, video, view, labels, logits (null: not decoded); sorted by the first four
    classes: tuple[str, ...]
    average: str  # "softmax", "logits" or "sigmoid", as in schema.Protocol; "none" if logits are scores already
    several: bool  # a video may have several labels, or none; otherwise it has one


def file_of(order: Order | None = None) -> str:
    """Return the name of a row's predictions under its protocol, or a probe's order."""
    return f"{order or 'predictions'}.parquet"


def read(path: Path, row: str, params: Params, splits: Path, protocol: Protocol | None = None) -> Predictions:
    """Read the predictions of a row, as its evaluation wrote them.

    Under a protocol that averages sigmoids a video may have any number of labels, under others it has one.

    Args:
        path: the file.
        row: the row.
        params: the params.
        splits: the folder of its data set's splits.
        protocol: a probe's; by default the row's.

    Raises:
        UserError: Columns, protocol or classes are not those of params and splits; or not every test video of every
            split and seed has each view once, with finite logits.
    """
    protocol = protocol or params.protocols[params.experiments[row].protocol]

    def refuse(reason: str) -> NoReturn:
        raise UserError(f"{path}: {reason}; evaluate {row!r} again")

    frame, written = _columns(path, refuse)
    tests, classes = expected(written, row, params, splits, protocol, refuse)
    if others := sorted(set(frame["experiment"].unique()) - {row}):
        refuse(f"it holds predictions of {others[0]!r}")
    whole = _whole(frame, tests, views_per_video(protocol), len(classes), refuse)
    return Predictions(whole, classes, protocol.average, protocol.average == "sigmoid")


def expected(
    written: Mapping[str, str],
    row: str,
    params: Params,
    splits: Path,
    protocol: Protocol,
    refuse: Callable[[str], NoReturn],
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Return TEST and labels of every test video of a row, sorted, and its classes.

    Refuse a file whose metadata names another protocol or other classes.
    """
    experiment = params.experiments[row]
    signature = protocol_signature(protocol, params.recipe(experiment))
    if written.get("protocol") != signature:
        refuse(f"its protocol is {written.get('protocol', 'not given')!r}, but params say {signature!r}")
    classes = class_names(splits)
    if _names(written.get("classes", "")) != classes:
        refuse(f"its classes are not the {len(classes)} of {splits / 'classes.json'}")
    several = protocol.average == "sigmoid"
    return _tests(splits, experiment.splits, experiment.seeds, len(classes), several), classes


def read_outside(path: Path, splits: Path, numbers: Sequence[int], seeds: Sequence[int], several: bool) -> Predictions:
    """Read predictions from outside for splits `numbers`, equal for each seed.

    The file has the columns of predictions; experiment and seed are ignored. A video has any number of views, usually
    one. Its logits become scores by a softmax, or by sigmoids if videos may have several labels, and scores of views
    are averaged. Logarithms of probabilities (or log-odds) give these probabilities. Classes are compared if the file's
    metadata names them, otherwise counted.

    Raises:
        UserError: As read().
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
    """Write predictions of one view, seed 0: (split, video, labels, logits or None)."""
    rows = [(row, split, 0, video, 0, labels, logits) for split, video, labels, logits in scores]
    with writing(path) as temporary:
        table = pl.DataFrame(rows, SCHEMA, orient="row").to_arrow(compat_level=pl.CompatLevel.oldest())
        table = table.replace_schema_metadata({"classes": json.dumps(classes)})
        pyarrow.parquet.write_table(table, temporary, compression="zstd", write_page_checksum=True)


def parts(splits: Path, number: int) -> dict[str, list[tuple[str, list[int]]]]:
    """Return part -> (video, labels), in order; UserError for an absent split."""
    table, _ = read_parquet(splits / f"split-{number}.parquet")
    by_part: dict[str, list[tuple[str, list[int]]]] = {}
    for part, video, labels in table.select("part", "video", "labels").iter_rows():
        by_part.setdefault(part, []).append((video, labels))
    return by_part


def class_names(splits: Path) -> tuple[str, ...]:
    """Return a data set's classes in official order; UserError if there are none."""
    if not (classes := _names(_text(splits / "classes.json"))):
        raise UserError(f"{splits / 'classes.json'} is not a list of class names")
    return classes


def _columns(path: Path, refuse: Callable[[str], NoReturn]) -> tuple[pl.DataFrame, Mapping[str, str]]:
    frame, written = read_parquet(path)
    for column, dtype in SCHEMA.items():
        if frame.schema.get(column) != dtype:
            refuse(f"column {column!r} must be {dtype}, not {frame.schema.get(column, 'missing')}")
    # The number of views may depend on the video: a copy may lack the last ones.
    if written.get("rows", str(len(frame))) != str(len(frame)):
        refuse(f"it holds {len(frame)} rows of the {written['rows']} that were written")
    return frame, written


def _whole(
    frame: pl.DataFrame, tests: pl.DataFrame, views: int | None, classes: int, refuse: Callable[[str], NoReturn]
) -> pl.DataFrame:
    """Return the predictions, sorted, after checking them against the tests.

    Each video has `views` views, or any number for None.
    """
    ordered = frame.select(*TEST, "view", "labels", "logits")
    if _plainly_whole(ordered, tests, views, classes):  # sorted already: sorting moves all logits
        return ordered
    ordered = ordered.sort(*TEST, "view")
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
    """Return true if sorted predictions are whole and all decoded, as most are, fast."""
    logits = frame["logits"]
    if views is None or len(frame) != views * len(tests) or logits.has_nulls():
        return False
    expected = tests[np.repeat(np.arange(len(tests)), views)] if views > 1 else tests
    scores = logits.explode().to_numpy()  # NaN for null
    return (
        bool((logits.list.len() == classes).all())
        and bool(np.isfinite([scores.min(), scores.max()]).all())
        and bool((frame["view"].to_numpy() == np.tile(np.arange(views), len(tests))).all())
        and all(frame[column].equals(expected[column]) for column in TEST)
        and frame["labels"].list.len().equals(expected["labels"].list.len())
        and frame["labels"].explode().equals(expected["labels"].explode())
    )


def read_parquet(path: Path) -> tuple[pl.DataFrame, Mapping[str, str]]:
    """Read a file's columns and its metadata."""
    try:
        with pyarrow.parquet.ParquetFile(
            path, page_checksum_verification=True
        ) as file:  # reads lists in two thirds of the time that polars takes
            table = file.read(use_threads=False)
        table.validate(full=True)  # Arrow accepts text that is no UTF-8
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
    """Return TEST and labels of every test video of a row, sorted."""
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
    """Return _tests() of tables with these times: a table that changes is read again."""
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
            video, wrong = bad.row(0)
            kind = "indices of" if several else "one of"
            raise UserError(f"{path}: video {video!r} has labels {wrong}, not {kind} the {classes} classes")
        parts.append(part.with_columns(split=pl.lit(number, pl.Int32)))
    tests = pl.concat(parts).join(pl.DataFrame({"seed": seeds}, {"seed": pl.Int32}), how="cross")
    return tests.select(*TEST, "labels").sort(TEST)


def _incomplete(frame: pl.DataFrame, views: int | None) -> pl.DataFrame:
    """Return the videos that lack one of the views from 0 on, or have one twice.

    The last view is views - 1, or any for None. A video that was not decoded has view 0 alone.
    """
    view, missing = pl.col("view"), pl.col("logits").is_null()
    expected = pl.when(missing.all()).then(1).otherwise(pl.len() if views is None else views)
    right = (pl.len() == expected) & (view.n_unique() == expected) & (view.min() == 0) & (view.max() == expected - 1)
    return frame.group_by(TEST).agg(right=right & (missing.all() | ~missing.any())).filter(~pl.col("right"))
