"""Outcomes of a row's test videos, kept with its predictions, so that a suite's tables need no logits."""

import json
from pathlib import Path
from typing import NoReturn

import polars as pl
import pyarrow.parquet

from pipeline.config.schema import Params, Protocol
from pipeline.digest import files
from pipeline.errors import UserError
from pipeline.evaluate.predictions import TEST, Predictions, expected, read_parquet
from pipeline.measure import accuracy
from pipeline.storage.atomic import writing

COLUMNS = [*TEST, "label", "predicted", "top5"]
OF = "predictions"  # metadata: the sha256 of the predictions' file


def file_of(predictions: Path) -> Path:
    """Return the file of the outcomes of a file of predictions."""
    return predictions.with_name(f"{predictions.stem}-outcomes.parquet")


def keep(path: Path, average: str) -> None:
    """Write the outcomes of single-label predictions that an evaluation has just written.

    Args:
        path: The predictions.
        average: The protocol's, "softmax" or "logits".
    """
    frame, written = read_parquet(path)
    frame, classes = frame.sort(*TEST, "view"), tuple(json.loads(written["classes"]))
    outcomes = accuracy.outcomes(Predictions(frame, classes, average, several=False))
    table = outcomes.select(COLUMNS).to_arrow(compat_level=pl.CompatLevel.oldest())
    table = table.replace_schema_metadata({**written, OF: files.sha256(path)})
    with writing(file_of(path)) as temporary:
        pyarrow.parquet.write_table(table, temporary, compression="zstd")


def read(path: Path, row: str, params: Params, splits: Path, protocol: Protocol) -> pl.DataFrame | None:
    """Read the outcomes of a row's predictions, as accuracy.outcomes() returns them.

    Args:
        path: The predictions, which must be whole. They are read only if they changed after their outcomes were kept.
        row: The row.
        params: The params.
        splits: The folder of its data set's splits.
        protocol: The row's, or a probe's.

    Returns:
        The outcomes; None if none were kept, or those of other predictions.

    Raises:
        UserError: Either file is damaged, or the outcomes are not those of params and splits.
    """
    kept = file_of(path)
    if kept.name not in files.sums(path.parent):
        return None
    files.verify(kept)
    frame, written = read_parquet(kept)
    if written.get(OF) != _sha256(path, kept):
        return None

    def refuse(reason: str) -> NoReturn:
        raise UserError(f"{kept}: {reason}; evaluate {row!r} again")

    tests, _ = expected(written, row, params, splits, protocol, refuse)
    if frame.columns != COLUMNS or not all(frame[column].equals(tests[column]) for column in TEST):
        refuse("its videos are not those of the splits")
    if not frame["label"].equals(tests["labels"].explode()):
        refuse("its labels are not those of the splits")
    return frame.with_columns(top1=(pl.col("predicted") == pl.col("label")).fill_null(False))


def _sha256(path: Path, kept: Path) -> str | None:
    """Return the sha256 of predictions: as listed, or checked if they are newer than their outcomes.

    A thousand rows have more predictions than a machine has memory, and reading them would take most of the time.
    """
    older = path.stat().st_mtime_ns < kept.stat().st_mtime_ns
    return files.sums(path.parent).get(path.name) if older else files.verify(path)
