"""Files of a suite other than its tables: classes, confusions, speed, metrics."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np

from pipeline.measure.results import Result, Row, by_class, common, confused, measure
from pipeline.measure.scores import Accuracy
from pipeline.report.table import ALWAYS, BLANK, Cell, Table, csv_text, save
from pipeline.storage.atomic import write
from pipeline.tracking.run_log import VALIDATION, epochs

NOT_DECODED = "(not decoded)"


def summary(row: Result) -> dict[str, float]:
    """Return a row's accuracies, in %, and counts; empty without a result."""
    accuracy = row.accuracy
    if isinstance(accuracy, str):
        return {}
    key, main = "map" if row.several else "top1", accuracy.main
    shares = {key: main.value, f"{key}_low": main.low, f"{key}_high": main.high}
    if not isinstance(accuracy, Accuracy):
        shares |= {"wap": accuracy.wap.value}
    else:
        shares |= ({"top5": accuracy.top5.value} if accuracy.top5 else {}) | {"mean_class": accuracy.mean_class}
    percents = {name: round(100 * share, 4) for name, share in shares.items()}
    return {**percents, "n": accuracy.videos, "decoded": accuracy.decoded}


def points(row: Row) -> dict[str, float]:
    """Return the row's numbers as summary() does, without the intervals."""
    numbers = summary(measure(row))
    return {name: number for name, number in numbers.items() if not name.endswith(("_low", "_high"))}


def save_classes(path: Path, rows: Iterable[Result]) -> None:
    """Write a CSV line a row and class: its test videos, and its accuracy in %.

    Multi-label data have the videos with this label, and its average precision.
    """
    lines = []
    for row in rows:
        if not isinstance(row.accuracy, str):
            for name, count, share in zip(row.accuracy.classes, *by_class(row, row.runs), strict=True):
                lines.append([row.name, name, str(count), f"{100 * share:.4f}" if count else ""])
    write(path, csv_text(["row", "class", "n", "accuracy"], lines))


def save_gains(path: Path, base: Result, rows: Iterable[Result]) -> None:
    """Write a CSV line a row and class: accuracy, the base's, and the gain.

    The largest gain comes first. Accuracies are over the splits and seeds that both have. A row that can't be compared
    with its base has no line.
    """
    lines = []
    for row in rows:
        if isinstance(runs := common(row, base), str) or isinstance(row.accuracy, str):
            continue
        (counts, shares), (_, base_shares) = by_class(row, runs), by_class(base, runs)
        gains = 100 * (shares - base_shares)
        for k in np.argsort(-gains, kind="stable"):
            if counts[k]:
                values = (f"{100 * shares[k]:.4f}", f"{100 * base_shares[k]:.4f}", f"{gains[k] + 0.0:+.4f}")
                lines.append([row.name, row.accuracy.classes[k], str(counts[k]), *values])
    write(path, csv_text(["row", "class", "n", "accuracy", "base", "gain"], lines))


def save_confusion_change(path: Path, row: Result, base: Result, runs: Sequence[tuple[int, int]]) -> None:
    """Write a CSV line a pair of classes: row's share, base's, and the change.

    Shares are in % of the actual class, over the runs that both have. Pairs are of an actual and a predicted class; one
    without a video has no line.
    """
    assert isinstance(row.accuracy, Accuracy)
    shares, base_shares = 100 * confused(row, runs), 100 * confused(base, runs)
    names = _names(row.accuracy)
    actual, predicted = np.nonzero((shares > 0) | (base_shares > 0))
    ours, bases = shares[actual, predicted], base_shares[actual, predicted]
    cells = zip(*(each.tolist() for each in (actual, predicted, ours, bases, ours - bases + 0.0)), strict=True)
    lines = [f"{names[k]},{names[p]},{our:.4f},{other:.4f},{change:+.4f}\n" for k, p, our, other, change in cells]
    write(path, "".join([csv_text(["actual", "predicted", "row", "base", "change"], []), *lines]))


def save_curve(path: Path, logs: Sequence[Path]) -> None:
    """Write a CSV line an epoch: mean loss over a row's runs, learning rate, and mean validation scores if any."""
    by_epoch = _by_epoch(logs)
    scores = sorted({name for runs in by_epoch.values() for run in runs for name in run if name in VALIDATION})
    lines = [
        [str(epoch), _mean(runs, "loss"), f"{runs[0]['lr']:.6g}", *(_mean(runs, name) for name in scores)]
        for epoch, runs in sorted(by_epoch.items())
    ]
    write(path, csv_text(["epoch", "loss", "lr", *scores], lines))


def save_losses(path: Path, curves: Mapping[str, Sequence[Path]]) -> None:
    """Write a CSV line a row and epoch: mean loss over the row's runs, for one plot of all rows."""
    lines = [
        [row, str(epoch), _mean(runs, "loss")]
        for row, logs in curves.items()
        for epoch, runs in sorted(_by_epoch(logs).items())
    ]
    write(path, csv_text(["row", "epoch", "loss"], lines))


def save_accuracies(path: Path, rows: Mapping[str, Result]) -> None:
    """Write JSON of each row's main accuracy in %, for `dvc exp show`: a column a row."""
    summaries = {name: summary(row) for name, row in rows.items()}
    main = {name: dict([next(iter(numbers.items()))]) for name, numbers in summaries.items() if numbers}
    write(path, json.dumps(main, indent=2) + "\n")


def _by_epoch(logs: Sequence[Path]) -> dict[int, list[dict[str, float]]]:
    by_epoch: dict[int, list[dict[str, float]]] = {}
    for log in logs:
        for line in epochs(log):
            by_epoch.setdefault(line["epoch"], []).append(line)
    return by_epoch


def _mean(runs: Sequence[Mapping[str, float]], name: str) -> str:
    values = [run[name] for run in runs if name in run]
    return f"{fmean(values):.6f}" if values else ""


def save_confusion(path: Path, row: Result) -> None:
    """Write a CSV line a pair of classes: actual, predicted, and the videos of all runs, for DVC's template counts."""
    lines = [csv_text(["actual", "predicted", "n"], [])]
    if isinstance(row.accuracy, Accuracy):
        names = _names(row.accuracy)
        counts = row.accuracy.confusion.sum(axis=0)
        lines += [f"{names[k]},{names[p]},{counts[k, p]}\n" for k, p in np.argwhere(counts).tolist()]
    write(path, "".join(lines))


def _names(accuracy: Accuracy) -> list[str]:
    """Return the classes, and NOT_DECODED, as cells of CSV."""
    return [csv_text([name], []).removesuffix("\n") for name in (*accuracy.classes, NOT_DECODED)]


def save_speed(folder: Path, speeds: Mapping[str, float], printed: Mapping[str, str]) -> None:
    """Write table "speed": measured throughput, and that printed by papers.

    It is a table apart, because no other run repeats it, while the other tables follow from the predictions.
    """
    rows = tuple(
        (
            Cell("row", name, {"row": name}, ALWAYS),
            Cell("clips/s", f"{speed:.1f}", {"clips_per_second": f"{speed:.1f}"}, ALWAYS),
            Cell("printed", printed.get(name, BLANK), {"printed": printed.get(name, "")}),
        )
        for name, speed in speeds.items()
    )
    notes = ["Clips a second through the trained network where it was evaluated; varies from run to run."]
    if both := printed.keys() & speeds.keys():
        notes.append(f"Printed speeds ({len(both)}) are of other machines and work: compare rows, not columns.")
    save(folder, Table("speed", "Measured speed", rows, tuple(notes if rows else ["No row has been timed."])))
