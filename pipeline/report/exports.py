"""What a suite leaves beside its tables: classes, confusions, measured speed, and a row's metrics file."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from pipeline.measure.results import Result, Row, by_class, common, confused, measure
from pipeline.measure.scores import Accuracy, Precision
from pipeline.report.table import ALWAYS, BLANK, Cell, Table, csv_text, save
from pipeline.storage.atomic import write
from pipeline.tracking.run_log import epochs

NOT_DECODED = "(not decoded)"


def summary(row: Result) -> dict[str, float]:
    """The row's accuracies, in %, and counts, for its metrics file; empty where there are none."""
    if isinstance(row.accuracy, str):
        return {}
    found = row.accuracy
    key = "map" if isinstance(found, Precision) else "top1"
    shares: dict[str, float | None] = {
        key: found.main.value,
        f"{key}_low": found.main.low,
        f"{key}_high": found.main.high,
    }
    if isinstance(found, Precision):
        shares |= {"wap": found.wap.value}
    else:
        shares |= {"top5": found.top5.value if found.top5 else None, "mean_class": found.mean_class}
    return {**_percents(shares), "n": found.videos, "decoded": found.decoded}


def points(row: Row) -> dict[str, float]:
    """The row's numbers as summary() has them, without the intervals."""
    numbers = summary(measure(row))
    return {name: number for name, number in numbers.items() if not name.endswith(("_low", "_high"))}


def _percents(shares: Mapping[str, float | None]) -> dict[str, float]:
    return {name: round(100 * share, 4) for name, share in shares.items() if share is not None}


def save_classes(path: Path, rows: Iterable[Result]) -> None:
    """A CSV line a row and class: the class's test videos and, in %, how many of them are right.

    Where videos have several labels: the videos that have this one, and its average precision.
    """
    lines = []
    for row in rows:
        if not isinstance(row.accuracy, str):
            for name, count, share in zip(row.accuracy.classes, *by_class(row, row.runs), strict=True):
                lines.append([row.name, name, str(count), f"{100 * share:.4f}" if count else ""])
    write(path, csv_text(["row", "class", "n", "accuracy"], lines))


def save_gains(path: Path, base: Result, rows: Iterable[Result]) -> None:
    """A CSV line a row and class, largest gain first: the class's accuracy as in save_classes(), the base's, the gain.

    Over the splits and seeds that both have; a row that can't be compared with its base has no line.
    """
    lines = []
    for row in rows:
        if isinstance(runs := common(row, base), str) or isinstance(row.accuracy, str):
            continue
        (counts, own), (_, other) = by_class(row, runs), by_class(base, runs)
        gains = 100 * (own - other)
        for k in np.argsort(-gains, kind="stable"):
            if counts[k]:
                values = (f"{100 * own[k]:.4f}", f"{100 * other[k]:.4f}", f"{gains[k] + 0.0:+.4f}")
                lines.append([row.name, row.accuracy.classes[k], str(counts[k]), *values])
    write(path, csv_text(["row", "class", "n", "accuracy", "base", "gain"], lines))


def save_confusion_change(path: Path, row: Result, base: Result, runs: Sequence[tuple[int, int]]) -> None:
    """A CSV line an actual and a predicted class, if row or base took one for the other: in % of the actual one, and
    the change from base to row, over the runs that both have.
    """
    assert isinstance(row.accuracy, Accuracy)
    own, other = 100 * confused(row, runs), 100 * confused(base, runs)
    names = [*row.accuracy.classes, NOT_DECODED]
    there = (own > 0) | (other > 0)
    columns = *np.nonzero(there), own[there], other[there], (own - other)[there] + 0.0
    lines = [
        [names[k], names[p], f"{one:.4f}", f"{two:.4f}", f"{change:+.4f}"]
        for k, p, one, two, change in zip(*(column.tolist() for column in columns), strict=True)
    ]
    write(path, csv_text(["actual", "predicted", "row", "base", "change"], lines))


def save_curve(path: Path, logs: Sequence[Path]) -> None:
    """A CSV line an epoch: the learning rate, and the loss as the mean over a row's runs."""
    by_epoch: dict[int, list[dict[str, float]]] = {}
    for log in logs:
        for line in epochs(log):
            by_epoch.setdefault(line["epoch"], []).append(line)
    lines = [
        [str(epoch), f"{sum(run['loss'] for run in runs) / len(runs):.6f}", f"{runs[0]['lr']:.6g}"]
        for epoch, runs in sorted(by_epoch.items())
    ]
    write(path, csv_text(["epoch", "loss", "lr"], lines))


def save_confusion(path: Path, row: Result) -> None:
    """A CSV line a test video of each run, actual and predicted class: what DVC's confusion template reads."""
    lines = []
    if isinstance(row.accuracy, Accuracy):
        names = [*row.accuracy.classes, NOT_DECODED]
        for actual, counts in zip(names, row.accuracy.confusion.sum(axis=0).tolist(), strict=False):
            for predicted, count in zip(names, counts, strict=True):
                lines += [[actual, predicted]] * count
    write(path, csv_text(["actual", "predicted"], lines))


def save_speed(folder: Path, found: Mapping[str, float], printed: Mapping[str, str] = MappingProxyType({})) -> None:
    """Table "speed": the measured throughput of the rows that have one, and what papers print of it.

    Apart from the others, because it is never twice the same, while their bytes follow from the predictions.
    """
    rows = tuple(
        (
            Cell("row", name, {"row": name}, ALWAYS),
            Cell("clips/s", f"{speed:.1f}", {"clips_per_second": f"{speed:.1f}"}, ALWAYS),
            Cell("printed", printed.get(name, BLANK), {"printed": printed.get(name, "")}),
        )
        for name, speed in found.items()
    )
    notes = ["Clips a second through the trained network where it was evaluated; varies from run to run."]
    if beside := printed.keys() & found.keys():
        notes.append(f"Printed speeds ({len(beside)}) are of other machines and work: compare rows, not columns.")
    save(folder, Table("speed", "Measured speed", rows, tuple(notes if rows else ["No row has been timed."])))
