"""Invented rows for tests of results: params, splits and predictions, in the stages' files."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.config.load import parse
from pipeline.config.schema import Params
from pipeline.config.signature import protocol_signature
from pipeline.digest import files
from pipeline.evaluate.predictions import SCHEMA, Predictions, read
from pipeline.measure import results

CLASSES = ("clap", "jump", "run", "sit", "turn", "wave")


def params(rows: Sequence[str], splits: Sequence[int] = (1,), seeds: Sequence[int] = (0, 1), **protocol: Any) -> Params:
    """Return params with these rows, all with one data set and protocol."""
    clip = {"sampling": "segments", "size": 64}
    decode = {"short_side": 72, "quality": 90, "decoder": "ffmpeg", "videos_per_shard": 8, "max_failed": 0.1}
    recipe = {"epochs": 2, "batch": 8, "micro_batch": 8, "frames": 8, "lr": 0.1, "momentum": 0.9, "weight_decay": 0.0}
    row = {"dataset": "shapes", "backbone": "resnet", "variant": "tiny", "recipe": "quick", "protocol": "center"}
    own = {"attention": "none", "knobs": {}, "weights": None, "splits": list(splits), "seeds": list(seeds)}
    return parse(
        {
            "suite": "quick",
            "datasets": {
                "shapes": {"file": "shapes", "source": "generated", "lists": None, "options": {}, "decode": decode}
            },
            "recipes": {"quick": {**recipe, **clip, "augment": {"crop": "random"}}},
            "protocols": {
                "center": {"clips": 1, "crops": "center", "average": "softmax", "batch": 8, **clip, **protocol}
            },
            "experiments": {name: {**row, **own} for name in rows},
            "tables": {},
        }
    )


def splits(folder: Path, videos: int = 60, numbers: Sequence[int] = (1,)) -> Path:
    """Write splits with test videos test_000, ...; video i has class i modulo the number of classes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "classes.json").write_text(json.dumps(CLASSES))
    for number in numbers:
        names = [f"train_{index:03d}" for index in range(6)] + [f"test_{number}_{index:03d}" for index in range(videos)]
        labels = [[int(name[-3:]) % len(CLASSES)] for name in names]
        parts = [name.split("_")[0] for name in names]
        schema = {"video": pl.String, "part": pl.String, "labels": pl.List(pl.Int32)}
        pl.DataFrame([names, parts, labels], schema).write_parquet(folder / f"split-{number}.parquet")
    return folder


def predictions(
    given: Params, row: str, folder: Path, right: float = 0.7, views: int = 1, seed: int = 0
) -> pl.DataFrame:
    """Return predictions with a top-1 accuracy of about `right`; errors are independent in each cell."""
    rng, parts = np.random.default_rng(seed), []
    for split in given.experiments[row].splits:
        tests = pl.read_parquet(folder / f"split-{split}.parquet").filter(part="test").select("video", "labels")
        for number in given.experiments[row].seeds:
            logits = rng.normal(size=(len(tests), len(CLASSES)))
            label = tests["labels"].list.first().fill_null(0).to_numpy()
            best = np.where(rng.random(len(tests)) < right, label, (label + 1) % len(CLASSES))
            logits[np.arange(len(tests)), best] += 9
            for view in range(views):
                noisy = (logits + 0.1 * rng.normal(size=logits.shape)).astype(np.float32)
                own = {"experiment": row, "split": split, "seed": number, "view": view}
                parts.append(
                    tests.with_columns(pl.lit(value).alias(key) for key, value in own.items()).with_columns(
                        logits=pl.Series(noisy, dtype=pl.List(pl.Float32))
                    )
                )
    return pl.concat(parts).select(pl.col(column).cast(dtype) for column, dtype in SCHEMA.items())


def write(frame: pl.DataFrame, path: Path, given: Params, row: str, **facts: str) -> Path:
    """Write predictions as the evaluation does, with protocol, classes and `facts` as metadata."""
    experiment = given.experiments[row]
    signature = protocol_signature(given.protocols[experiment.protocol], given.recipes[experiment.recipe])
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(path, metadata={"protocol": signature, "classes": json.dumps(CLASSES), **facts})
    files.write_sums(path.parent)
    return path


def result(given: Params, row: str, folder: Path, right: float = 0.7, seed: int = 0, **costs: float) -> results.Result:
    """Return the measured result of an invented row; its predictions pass through a file in the splits' folder."""
    path = write(predictions(given, row, folder, right, seed=seed), folder / f"{row}.parquet", given, row)
    return measured(given, row, read(path, row, given, folder), **costs)


def measured(given: Params, row: str, actual: Any, **costs: float) -> results.Result:
    """Return the result of a row from its predictions, or from the reason why it has none."""
    made = results.read(given, row, Path("nowhere"))
    return results.measure(replace(made, predictions=actual, costs=costs))


def from_logits(logits: list[list[list[float]] | None], labels: list[int], average: str = "softmax") -> Predictions:
    """Return predictions of one run from logits[video][view][class]; None is a video that was not decoded."""
    rows = [
        (1, 0, f"v{video}", view, [labels[video]], scores)
        for video, views in enumerate(logits)
        for view, scores in enumerate(views or [None])
    ]
    schema = {"split": pl.Int32, "seed": pl.Int32, "video": pl.String, "view": pl.Int32, "labels": SCHEMA["labels"]}
    frame = pl.DataFrame(rows, schema={**schema, "logits": pl.List(pl.Float32)}, orient="row")
    classes = len(next(views for views in logits if views)[0])
    return Predictions(frame, tuple(f"c{index}" for index in range(classes)), average, False)
