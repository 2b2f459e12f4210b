"""Ten crops with mirrored views against one crop, on classes that a mirror changes.

    python -m bench.views [--rows tsm action]

Tests the trained networks of suite quick, so run `actionbench repro` first. Half of the ten crops are mirrored. The
scores of a mirrored view go back to the classes of its video: "moves left" for "moves right". Directional classes have
a mirror image of another class. If scores weren't swapped back, mirrored views would vote for the wrong direction.
"""

import argparse
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import torch
from scipy.special import softmax

from bench.report import save
from pipeline.config import load
from pipeline.evaluate.inference import Scorer, blocks
from pipeline.measure import crossed
from pipeline.train import rows
from pipeline.train.run import Run

CROPS = ("center", "ten")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="+", default=["tsm", "action"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    params, lines, measured = load.load(), list[list[str]](), list[dict[str, Any]]()
    for row in args.rows:
        runs = rows.runs(params, row, Path("data").absolute())
        labels = np.array([label for _, (label,) in runs[0].part("test")])
        directional = np.array([image not in (-1, label) for label, image in enumerate(runs[0].mirrored())])
        right = {crops: np.stack([correct(run, crops, labels) for run in runs]) for crops in CROPS}
        for kind, kept in (("directional", directional[labels]), ("others", ~directional[labels])):
            one, many = (right[crops][:, kept] for crops in CROPS)
            less = crossed.difference(many, one)
            texts = [f"{100 * values.mean():.1f}" for values in (one, many)]
            interval = f"{100 * less.value:+.1f} [{100 * less.low:+.1f}, {100 * less.high:+.1f}]"
            lines.append([row, kind, str(kept.sum()), str(len(runs)), *texts, interval])
            for run, *shares in zip(runs, one.mean(axis=1), many.mean(axis=1), strict=True):
                about = {"row": row, "classes": kind, "n": int(kept.sum()), "seed": run.seed}
                measured.append(about | dict(zip(CROPS, (round(share, 6) for share in shares), strict=True)))
    head = ["row", "classes", "n", "seeds", "one crop %", "ten crops %", "difference, points"]
    save("views", "Ten crops with mirrored views, and one crop", "", head, lines, measured)


def correct(run: Run, crops: str, labels: np.ndarray) -> np.ndarray:
    """Return whether a run is right on each test video (1 or 0) under other crops of its protocol."""
    scorer = Scorer(replace(run, protocol=replace(run.protocol, crops=crops)), torch.device("cpu"))
    tables = [pyarrow.parquet.read_table(io.BytesIO(scorer.score(block))) for block in blocks(run)]
    logits = np.concatenate([np.array(table["logits"].to_pylist(), np.float64) for table in tables])
    scores = softmax(logits, axis=1).reshape(len(labels), -1, logits.shape[1]).mean(axis=1)
    return (scores.argmax(axis=1) == labels).astype(float)


if __name__ == "__main__":
    main()
