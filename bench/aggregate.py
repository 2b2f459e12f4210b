"""Time and memory of the last stage over many rows, compared with pandas.

    python -m bench.aggregate [--rows N] [--videos N] [--classes K] [--sample N]

The project is synthetic: each row has one split, one seed and one view. Eight nets' logits (each right on a different
share of videos) serve all rows in turn, in a separate file per row, packed as an evaluation packs it. All rows are in
one comparison, and in one ablation table against the first. So each has its interval, its exact paired test, its
confusion and the change of it; there are no training logs to draw. `stages.aggregate` runs on all of this, on a quarter
and half of the rows, and on a quarter and half of the videos (with an eighth of the rows). Seconds are wall-clock
seconds, which include other load. CPU seconds are those of all threads, user and system; memory is the largest resident
set.

In the same run, in turn and on one thread, pandas processes a sample of rows. It reads Parquet and computes the softmax
and its mean over views, top-1, top-5, accuracy by class and confusion. It draws 10,000 resamples of the videos for the
intervals of top-1, top-5 and the difference to the first row, and does the exact McNemar test against that row. Both
results are compared before any time is printed. The time of pandas for all rows is its median times their number, and
is labeled so. It excludes writing tables and drawing pictures, which the stage includes. pandas without the bootstrap
is listed separately: ours draws the counts that matter instead of videos, a better method rather than a faster library.

By default its files take some 10 GB below TMPDIR.
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
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import polars as pl
import pyarrow as pa
import pyarrow.parquet
from scipy.stats import binomtest

from bench import report
from pipeline.config import load
from pipeline.config.schema import Params
from pipeline.config.signature import protocol_signature
from pipeline.evaluate import predictions
from pipeline.measure import results
from pipeline.measure.accuracy import BEST
from pipeline.measure.results import Difference, Result
from pipeline.measure.uncertainty import LEVEL, RESAMPLES

ROOT = Path(__file__).parents[1]
NETS = 8
KIN = 5  # classes that a class resembles, on average
SIZES = (1, 2, 4)  # quarters
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "ARROW")} | {"POLARS_MAX_THREADS": "1"}


def main() -> None:
    parser = argparse.ArgumentParser(description="The last stage over many rows, and pandas")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--videos", type=int, default=20_000)
    parser.add_argument("--classes", type=int, default=101)
    parser.add_argument("--sample", type=int, default=NETS - 1, help="rows pandas does as well, none like the base")
    parser.add_argument("--pandas", type=Path, help=argparse.SUPPRESS)  # the project of the sample, on one thread
    given = parser.parse_args()
    if given.pandas:
        return print(json.dumps(sampled(given.pandas)))
    few, rows = given.rows // 8, []
    steps = {given.videos * part // 4: [few] for part in SIZES}
    steps[given.videos] += [given.rows * part // 4 for part in SIZES]
    with tempfile.TemporaryDirectory() as place:
        for videos, counts in steps.items():
            project = invented(Path(place) / str(videos), max(counts), videos, given.classes)
            for count in counts:
                (project / "params.yaml").write_text(json.dumps(settings(count)))
                rows.append({"what": "stage", "rows": count, "videos": videos, **staged(project)})
        (project / "params.yaml").write_text(json.dumps(settings(given.sample + 1)))
        command = [sys.executable, "-m", "bench.aggregate", "--pandas", str(project)]
        done = subprocess.run(command, env=os.environ | ONE_THREAD, check=True, stdout=subprocess.PIPE, text=True)
        turns = json.loads(done.stdout)
    save(rows, turns, given.classes)


def invented(project: Path, count: int, videos: int, classes: int) -> Path:
    """Write a project of so many rows as its evaluations leave it."""
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
    given = load.load(project / "params.yaml")
    signature = protocol_signature(given.protocols["center"], given.recipes["quick"])
    metadata = {"protocol": signature, "classes": (splits / "classes.json").read_text()}
    for net in range(min(NETS, count)):
        logits = rng.normal(size=(videos, classes)).astype(np.float32) + kin[label]
        logits[np.arange(videos), label] += 4 + 0.1 * net
        made = {"experiment": names[net], "split": 1, "seed": 0, "view": 0}
        frame = tests.with_columns(pl.lit(value).alias(key) for key, value in made.items())
        frame = frame.with_columns(logits=pl.Series(logits, dtype=pl.List(pl.Float32)))
        frame = frame.select(pl.col(column).cast(dtype) for column, dtype in predictions.SCHEMA.items())
        table = frame.to_arrow(compat_level=pl.CompatLevel.oldest()).replace_schema_metadata(metadata)
        for name in names[net::NETS]:
            table = table.set_column(0, "experiment", pa.array([name] * videos))
            predicted(project, name).parent.mkdir(parents=True)
            pyarrow.parquet.write_table(table, predicted(project, name), compression="zstd", write_page_checksum=True)
    return project


def predicted(project: Path, name: str) -> Path:
    return project / "data" / "predictions" / name / "predictions.parquet"


def named(count: int) -> list[str]:
    return [f"row-{number:04d}" for number in range(count)]


def settings(count: int) -> dict[str, Any]:
    """Return the content of params.yaml for so many rows."""
    names = named(count)
    clip = {"sampling": "segments", "size": 64}
    dataset: dict[str, Any] = {"file": "shapes", "source": "generated", "lists": None, "options": {}}
    decode = {"short_side": 72, "quality": 90, "decoder": "ffmpeg", "videos_per_shard": 8, "max_failed": 0.1}
    recipe = {"epochs": 2, "batch": 8, "micro_batch": 8, "frames": 8, "lr": 0.1, "momentum": 0.9, "weight_decay": 0.0}
    row = {"dataset": "shapes", "backbone": "resnet", "variant": "tiny", "recipe": "quick", "protocol": "center"}
    own: dict[str, Any] = {"attention": "none", "knobs": {}, "weights": None, "splits": [1], "seeds": [0]}
    return {
        "suite": "bench",
        "datasets": {"shapes": {**dataset, "decode": decode}},
        "recipes": {"quick": {**recipe, **clip, "augment": {"crop": "random"}}},
        "protocols": {"center": {"clips": 1, "crops": "center", "average": "softmax", "batch": 8, **clip}},
        "experiments": {name: {**row, **own} for name in names},
        "tables": {
            "all": {"title": "All rows", "rows": names},
            "gains": {"title": "Gains", "rows": names[1:], "base": names[0]},
        },
    }


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
    given = load.load(project / "params.yaml")
    first, *names = given.experiments
    base, other = ours(given, first, project, None)[0], by_pandas(predicted(project, first), None)
    turns = []
    for name in names:
        (result, less), our = timed(partial(ours, given, name, project, base))
        found, theirs = timed(partial(by_pandas, predicted(project, name), other))
        same(result, less, found)
        turns.append({"row": name, "ours": our, "pandas": theirs, "pandas without bootstrap": found["before"]})
    return turns


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return work's result and CPU seconds, which exclude other load on the machine."""
    began = time.process_time()
    return work(), time.process_time() - began


def ours(given: Params, name: str, project: Path, base: Result | None) -> tuple[Result, Difference | str | None]:
    result = results.measure(results.read(given, name, project / "data"))
    return result, results.difference(result, base) if base else None


def by_pandas(path: Path, base: dict[str, Any] | None) -> dict[str, Any]:
    """Return the same numbers as ours with plain pandas.

    The McNemar test if there is a base.
    """
    began = time.process_time()
    frame = pandas.read_parquet(path, columns=["split", "seed", "video", "view", "labels", "logits"])
    logits = np.stack(frame["logits"].to_numpy()).astype(np.float64)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    index = pandas.MultiIndex.from_frame(frame[["split", "seed", "video"]])
    scores = pandas.DataFrame(powers / powers.sum(axis=1, keepdims=True), index=index).groupby(level=[0, 1, 2]).mean()
    label = frame["labels"].str[0].set_axis(index)[~index.duplicated()].reindex(scores.index)
    guessed = scores.idxmax(axis=1)
    right = guessed == label
    own = np.take_along_axis(scores.to_numpy(), label.to_numpy()[:, None], axis=1)
    five = (scores > own).sum(axis=1) < BEST
    classes = right.groupby(label.to_numpy()).mean()
    table = pandas.crosstab(label, guessed)
    pair = pandas.concat([right, right if base is None else base["right"]], axis=1, keys=["row", "base"])
    won, lost = int((pair["row"] & ~pair["base"]).sum()), int((~pair["row"] & pair["base"]).sum())
    p = binomtest(won, won + lost).pvalue if won + lost else 1.0
    before = time.process_time() - began
    rng = np.random.default_rng(0)
    columns = [right.to_numpy(), five.to_numpy(), pair["row"].to_numpy(int) - pair["base"].to_numpy(int)]
    draws = (rng.integers(0, len(right), len(right)) for _ in range(RESAMPLES))
    means = [[column[drawn].mean() for column in columns] for drawn in draws]
    bounds = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0).T
    found = {"right": right, "top1": right.mean(), "top5": five.mean(), "classes": classes, "confusion": table}
    return found | {"p": p, "bounds": bounds, "before": before}


def same(result: Result, less: Difference | str | None, found: dict[str, Any]) -> None:
    """Fail if ours and pandas' numbers differ.

    Two bootstraps by at most a 20th of their width.
    """
    accuracy = result.accuracy
    assert isinstance(accuracy, results.Accuracy) and isinstance(less, Difference) and accuracy.top5
    pairs = [
        (accuracy.top1.value, found["top1"]), (accuracy.top5.value, found["top5"]), (less.p, found["p"]),
        (accuracy.by_class([0])[1][found["classes"].index], found["classes"]),
        (accuracy.mean_class, found["classes"].mean()),
    ]  # fmt: skip
    for one, other in pairs:
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-300)
    kept = accuracy.confusion[0][np.ix_(found["confusion"].index, found["confusion"].columns)]
    assert (kept == found["confusion"].to_numpy()).all() and kept.sum() == accuracy.videos
    for interval, bounds in zip((accuracy.top1, accuracy.top5, less.less), found["bounds"], strict=True):
        near = (interval.high - interval.low) / 20 + 1 / accuracy.videos
        np.testing.assert_allclose([interval.low, interval.high], bounds, atol=near)


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
    for name in ("pandas", "pandas without bootstrap"):
        whole = medians[name] * most["rows"]
        scaled = f"{name}, {most['rows']:,} rows: {len(turns)} of them, scaled linearly"
        lines.append([scaled, "", f"{whole:.0f}", f"{1000 * medians[name]:.0f}", ""])
    ratios = [medians[key] * most["rows"] / most["cpu_seconds"] for key in ("pandas", "pandas without bootstrap")]
    text = (
        f"{classes} classes, one view, one seed; {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[1]:.1f} "
        f"at the end; all in one run. For {most['rows']:,} rows pandas takes {ratios[0]:.1f} times the CPU of the "
        f"whole stage, {ratios[1]:.1f} times without its bootstrap: {len(turns)} rows (medians; the numbers are the "
        "same) scaled linearly, without the tables and pictures that the stage's time has in it."
    )
    head = ["what", "seconds", "CPU s", "CPU ms a row", "GiB"]
    every = [*rows, *({"what": "sample", **turn} for turn in turns)]
    columns = dict.fromkeys(key for row in every for key in row)
    every = [{column: row.get(column, "") for column in columns} for row in every]
    report.save("aggregate", "The last stage over many rows", text, head, lines, every)


if __name__ == "__main__":
    main()
