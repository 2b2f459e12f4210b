"""Time and memory of the last stage over many rows, compared with pandas.

    python -m bench.aggregate [--rows N] [--videos N] [--classes K] [--sample N]

The project is synthetic: each row has one split, three seeds and one view. The logits of eight nets, each with another
accuracy, serve all rows in turn, in one file per row as an evaluation writes it. All rows are in one comparison, and in
one ablation table against the first. So each has its crossed analysis of seeds and videos, its exact paired test, its
confusion matrix and the change of it; training logs are missing. `stages.aggregate` runs on a quarter, half and all of
the rows, and of the videos (with an eighth of the rows). Seconds are wall-clock time under other load; CPU seconds are
those of all threads, user and system; memory is the largest resident set.

In the same run, pandas computes a sample of rows, in turn with ours and on one thread. Both start from logits. Ours
is also measured from the outcomes that an evaluation keeps, since the stage starts from them. Pandas reads
Parquet and takes the softmax and its mean over views, top-1, top-5, accuracy by class and confusion. Of both accuracies
and of the difference to the first row it takes the mean squares of the two-way layout of seeds and videos. Both results
must be equal. The time of pandas for all rows is its median times their number. Tables and figures are part of the
stage's time alone.

By default the files take some 30 GB below TMPDIR.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import polars as pl
import pyarrow as pa

from bench import report
from bench.running import ROOT, child, machine, parser
from pipeline.config import load
from pipeline.config.schema import Params
from pipeline.config.signature import protocol_signature
from pipeline.digest import files
from pipeline.evaluate import inference, predictions
from pipeline.measure import outcomes, results
from pipeline.measure.accuracy import BEST
from pipeline.measure.crossed import Estimate
from pipeline.measure.results import Difference, Result
from tests.support import invented

NETS = 8
SEEDS = 3
KIN = 5  # mean number of classes that a class resembles
SIZES = (1, 2, 4)  # quarters
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "ARROW")} | {"POLARS_MAX_THREADS": "1"}


def main() -> None:
    command = parser(
        __doc__,
        rows=1000,
        videos=20_000,
        classes=101,
        sample=(NETS - 1, "rows that pandas computes too, none like the base"),
    )
    command.add_argument("--pandas", type=Path, help=argparse.SUPPRESS)  # the project of the sample, on one thread
    args = command.parse_args()
    if args.pandas:
        return print(json.dumps(sampled(args.pandas)))
    few, rows = args.rows // 8, []
    steps = {args.videos * part // 4: [few] for part in SIZES}
    steps[args.videos] += [args.rows * part // 4 for part in SIZES]
    with tempfile.TemporaryDirectory() as place:
        for videos, counts in steps.items():
            project = synthetic(Path(place) / str(videos), max(counts), videos, args.classes)
            for count in counts:
                (project / "params.yaml").write_text(json.dumps(settings(count)))
                rows.append({"what": "stage", "rows": count, "videos": videos, **staged(project)})
        (project / "params.yaml").write_text(json.dumps(settings(args.sample + 1)))
        turns = child("aggregate", "--pandas", str(project), **ONE_THREAD)
    save(rows, turns, args.classes)


def synthetic(project: Path, count: int, videos: int, classes: int) -> Path:
    """Write a project of so many rows as evaluations leave it."""
    names = named(count)
    project.mkdir()
    (project / "params.yaml").write_text(json.dumps(settings(count)))
    shutil.copytree(ROOT / "reports" / "templates", project / "reports" / "templates")
    splits = project / "data" / "splits" / "shapes"
    splits.mkdir(parents=True)
    (splits / "classes.json").write_text(json.dumps([f"class {k}" for k in range(classes)]))
    rng = np.random.default_rng(0)
    label = rng.integers(0, classes, videos)
    kin = 3 * (rng.random((classes, classes)) < KIN / classes)  # confusions of a net are not uniform
    order = rng.permutation(videos)  # lists are sorted by class, if at all
    tests = pl.DataFrame({"video": [f"video_{number:06d}" for number in order], "part": "test"}).with_columns(
        labels=pl.Series(label[:, None].astype(np.int32), dtype=pl.List(pl.Int32))
    )
    tests.write_parquet(splits / "split-1.parquet")
    params = load.load(project / "params.yaml")
    signature = protocol_signature(params.protocols["center"], params.recipes["quick"])
    metadata = {"protocol": signature, "classes": (splits / "classes.json").read_text()}
    for net in range(min(NETS, count)):
        parts = []
        for seed in range(SEEDS):
            logits = rng.normal(size=(videos, classes)).astype(np.float32) + kin[label]
            logits[np.arange(videos), label] += 4 + 0.1 * net
            cells = {"experiment": names[net], "split": 1, "seed": seed, "view": 0}
            part = tests.with_columns(pl.lit(value).alias(key) for key, value in cells.items())
            part = part.with_columns(logits=pl.Series(logits, dtype=pl.List(pl.Float32)))
            parts.append(part.select(pl.col(column).cast(dtype) for column, dtype in predictions.SCHEMA.items()))
        frame = pl.concat(parts)
        table = frame.to_arrow(compat_level=pl.CompatLevel.oldest()).replace_schema_metadata(metadata)
        for name in names[net::NETS]:
            table = table.set_column(0, "experiment", pa.array([name] * len(table)))
            predicted(project, name).parent.mkdir(parents=True)
            inference.save(predicted(project, name), table)
            outcomes.keep(predicted(project, name), "softmax")
            files.write_sums(predicted(project, name).parent)
    return project


def predicted(project: Path, name: str) -> Path:
    return project / "data" / "predictions" / name / "predictions.parquet"


def named(count: int) -> list[str]:
    return [f"row-{number:04d}" for number in range(count)]


def settings(count: int) -> dict[str, Any]:
    """Return the content of params.yaml for so many rows."""
    names = named(count)
    gains = {"title": "Gains", "rows": names[1:], "base": names[0]}
    tables = {"all": {"title": "All rows", "rows": names}, "gains": gains}
    return {**asdict(invented.params(names, seeds=range(SEEDS))), "suite": "bench", "tables": tables}


def staged(project: Path) -> dict[str, float]:
    """Return wall and CPU seconds and peak memory of the stage.

    Every row must have its result.
    """
    env, began = os.environ | {"PYTHONPATH": str(ROOT)}, time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "stages.aggregate"], cwd=project, env=env)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - began
    states = pl.read_csv(project / "reports" / "tables" / "bench" / "all.csv")["status"]
    assert process.returncode == 0 and set(states) == {"ok"}, set(states)
    return {"seconds": seconds, "cpu_seconds": used.ru_utime + used.ru_stime, "gib": used.ru_maxrss / 2**20}


def sampled(project: Path) -> list[dict[str, Any]]:
    """Return seconds per row of ours and of pandas, in turn.

    All rows count but the first, the base.
    """
    params = load.load(project / "params.yaml")
    first, *names = params.experiments
    base, other = ours(params, first, project, None)[0], by_pandas(predicted(project, first), None)
    turns = []
    for name in names:
        (result, less), our = timed(partial(ours, params, name, project, base))
        again, kept = timed(partial(from_outcomes, params, name, project, base))
        theirs, seconds = timed(partial(by_pandas, predicted(project, name), other))
        same(result, less, theirs)
        same(*again, theirs)
        turns.append({"row": name, "ours": our, "ours, from outcomes": kept, "pandas": seconds})
    return turns


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return work's result and CPU seconds, which exclude other load on the machine."""
    began = time.process_time()
    return work(), time.process_time() - began


def ours(params: Params, name: str, project: Path, base: Result | None) -> tuple[Result, Difference | str | None]:
    result = results.measure(results.read(params, name, project / "data"))
    return result, results.difference(result, base) if base else None


def from_outcomes(params: Params, name: str, project: Path, base: Result) -> tuple[Result, Difference | str]:
    """Return the same numbers as the stage computes them."""
    result = results.measured(params, name, project / "data")
    return result, results.difference(result, base)


def by_pandas(path: Path, base: dict[str, Any] | None) -> dict[str, Any]:
    """Compute the same numbers with pandas, and the difference if there is a base."""
    frame = pandas.read_parquet(path, columns=["split", "seed", "video", "view", "labels", "logits"])
    logits = np.stack(frame["logits"].to_numpy()).astype(np.float64)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    index = pandas.MultiIndex.from_frame(frame[["split", "seed", "video"]])
    scores = pandas.DataFrame(powers / powers.sum(axis=1, keepdims=True), index=index).groupby(level=[0, 1, 2]).mean()
    label = frame["labels"].str[0].set_axis(index)[~index.duplicated()].reindex(scores.index)
    guessed = scores.idxmax(axis=1)
    right = guessed == label
    true_scores = np.take_along_axis(scores.to_numpy(), label.to_numpy()[:, None], axis=1)
    five = pandas.Series((scores.to_numpy() > true_scores).sum(axis=1) < BEST, index=scores.index)
    classes = right.groupby(label.to_numpy()).mean()
    table = pandas.crosstab(label, guessed)
    less = right.astype(int) - (right if base is None else base["right"]).astype(int)
    columns = {"top1": right, "top5": five, "less": less}
    spreads = {name: mean_squares(column.astype(float).unstack("seed")) for name, column in columns.items()}
    return {"right": right, "classes": classes, "confusion": table, "spreads": spreads}


def mean_squares(table: pandas.DataFrame) -> tuple[float, float, float, float]:
    """Return the mean of videos x seeds, and its variance from seeds, videos and rest."""
    videos, seeds = table.shape
    mean, by_seed, by_video = table.to_numpy().mean(), table.mean(axis=0), table.mean(axis=1)
    rest = table.sub(by_video, axis=0).sub(by_seed, axis=1) + mean
    of_rest = (rest**2).to_numpy().sum() / (videos - 1) / (seeds - 1) / videos / seeds
    return mean, by_seed.var() / seeds, by_video.var() / videos, of_rest


def same(result: Result, less: Difference | str | None, theirs: dict[str, Any]) -> None:
    """Raise an error if our numbers and pandas' differ."""
    accuracy = result.accuracy
    assert isinstance(accuracy, results.Accuracy) and isinstance(less, Difference) and accuracy.top5
    ours: dict[str, Estimate] = {"top1": accuracy.top1, "top5": accuracy.top5, "less": less.less}
    for name, estimate in ours.items():
        expected = (estimate.value, estimate.spread.of_seeds, estimate.spread.of_units, estimate.spread.of_rest)
        np.testing.assert_allclose(expected, theirs["spreads"][name], rtol=1e-6, atol=1e-12)
    shares = accuracy.by_class(list(range(SEEDS)))[1][theirs["classes"].index]
    np.testing.assert_allclose(shares, theirs["classes"], rtol=1e-9)
    kept = accuracy.confusion.sum(axis=0)[np.ix_(theirs["confusion"].index, theirs["confusion"].columns)]
    assert (kept == theirs["confusion"].to_numpy()).all() and kept.sum() == SEEDS * accuracy.videos


def save(rows: list[dict[str, Any]], turns: list[dict[str, Any]], classes: int) -> None:
    lines = [
        [
            f"the stage, {row['rows']:,} rows x {row['videos']:,} videos", f"{row['seconds']:.1f}",
            f"{row['cpu_seconds']:.1f}", f"{1000 * row['cpu_seconds'] / row['rows']:.0f}", f"{row['gib']:.2f}",
        ]
        for row in rows
    ]  # fmt: skip
    medians = {key: statistics.median(turn[key] for turn in turns) for key in list(turns[0])[1:]}
    for name, cpu in medians.items():
        lines.append([f"{name}, a row on one thread", "", f"{cpu:.3f}", f"{1000 * cpu:.0f}", ""])
    most = rows[-1]
    whole = medians["pandas"] * most["rows"]
    scaled = f"pandas, {most['rows']:,} rows: {len(turns)} of them, scaled linearly"
    lines.append([scaled, "", f"{whole:.0f}", f"{1000 * medians['pandas']:.0f}", ""])
    times = {key: medians["pandas"] / medians[key] for key in ("ours", "ours, from outcomes")}
    text = (
        f"{classes} classes, one view, {SEEDS} seeds; {machine()}; all in one run. For {most['rows']:,} rows pandas "
        f"takes {whole / most['cpu_seconds']:.1f} times the CPU of the whole stage, with tables and pictures. "
        f"For a row's numbers alone it takes {times['ours, from outcomes']:.1f} times the CPU of the stage, and "
        f"{times['ours']:.1f} times that of ours from logits ({len(turns)} rows, medians; all numbers are the same)."
    )
    head = ["what", "seconds", "CPU s", "CPU ms a row", "GiB"]
    every = [*rows, *({"what": "sample", **turn} for turn in turns)]
    report.save("aggregate", "The last stage over many rows", text, head, lines, every)


if __name__ == "__main__":
    main()
