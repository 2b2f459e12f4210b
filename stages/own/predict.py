"""Classes of new videos, from a row's trained networks.

Legend: R runs, V videos, K classes.
"""

import csv
import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import torch

from cluster.fanout import progress
from pipeline import datasets
from pipeline.config import load
from pipeline.config.schema import Decode
from pipeline.datasets import Video
from pipeline.decode import shards
from pipeline.decode.frame_store import FrameStore
from pipeline.digest.files import sha256, verify
from pipeline.errors import UserError
from pipeline.evaluate.inference import BLOCK, Scorer
from pipeline.evaluate.predictions import TEST, Predictions
from pipeline.measure.accuracy import scores
from pipeline.report.table import csv_text
from pipeline.storage.atomic import write
from pipeline.train import rows
from pipeline.train.run import Run
from stages import DATA
from stages.repro.estimate import cores

BEST = 5  # classes listed for each video
TOGETHER = 4  # videos that one thread decodes in turn


@dataclass(frozen=True)
class Answer:
    """The scores (K) of a video, or the reason for none."""

    video: str
    scores: np.ndarray | None
    problem: str = ""


def predict(row: str, folder: Path, out: Path | None) -> tuple[Path, list[Answer], int]:
    """Classify videos and write a CSV line for each; return its path, the answers and the number of networks.

    A video's score is the mean over all runs of what the protocol makes of its views. The project's results are only
    read: frames are decoded into a temporary folder.

    Args:
        row: A trained row of params.yaml.
        folder: Of videos, at any depth; or one video file.
        out: The CSV; by default in data/predicted/.

    Raises:
        UserError: The row is unknown or not trained, the folder has no videos, or `out` is no .csv.
    """
    params = load.load()
    runs = rows.runs(params, row, DATA.absolute())
    out = out or DATA / "predicted" / f"{row}-{folder.resolve().stem}.csv"
    if out.suffix != ".csv" or out.is_dir():
        raise UserError(f"{out}: --out is a file that ends in .csv")
    root, videos = (folder.parent, [Video(folder.stem, folder.name)]) if folder.is_file() else (folder, _videos(folder))
    if missing := [run.name for run in runs if not run.weights.is_file()]:
        raise UserError(
            f"experiments.{row} has no weights of {', '.join(missing)} yet; `actionbench repro {row}` trains it"
        )
    for run in runs:
        verify(run.weights)
    rows.verify(runs)
    answers = list(_answers(runs, root.absolute(), videos, params.datasets[runs[0].experiment.dataset].decode))
    write(out, _csv(answers, runs[0].classes()))
    return out, answers, len(runs)


def _videos(folder: Path) -> list[Video]:
    if not folder.is_dir():
        raise UserError(f"{folder} is neither a folder of videos nor a video file")
    if not (videos := datasets.found(folder)):
        raise UserError(f"{folder} has no video files; known suffixes: {', '.join(sorted(datasets.SUFFIXES))}")
    return videos


def _answers(runs: Sequence[Run], root: Path, videos: Sequence[Video], decode: Decode) -> Iterator[Answer]:
    """Decode and score BLOCK videos at a time, so that the disk need not hold the frames of all."""
    scorers: list[Scorer] = []
    with tempfile.TemporaryDirectory() as name, progress(f"predict {runs[0].row}, videos", len(videos)) as advance:
        copies = [replace(run, data=Path(name)) for run in runs]  # with the same networks and classes, and other frames
        for link in ("runs", "splits"):
            (Path(name) / link).symlink_to(runs[0].data / link)
        for begin in range(0, len(videos), BLOCK):
            block = videos[begin : begin + BLOCK]
            step = len(block) / (1 + len(runs))  # decoding counts as much as a network
            problems = _decoded(copies[0].frames, root, block, decode)
            advance(step)
            scorers = scorers or [_scorer(run) for run in copies]
            means = _scored(scorers, [video.id for video in block], partial(advance, step))
            for video in block:
                problem = problems.get(video.id, "")
                yield Answer(video.path, None if problem else means[video.id], problem)
            shutil.rmtree(copies[0].frames)


def _decoded(frames: Path, root: Path, videos: Sequence[Video], decode: Decode) -> dict[str, str]:
    """Decode videos into a frame store as stage decode does; return video -> reason for those that can't be."""
    sources = [shards.Source(video.id, video.path, _sha256(root / video.path)) for video in videos]
    with tempfile.TemporaryDirectory() as reports, ThreadPoolExecutor(cores()) as pool:
        tasks = shards.plan(frames, root, sources, replace(decode, videos_per_shard=TOGETHER), Path(reports))
        list(pool.map(shards.decode_shard, tasks))
        shards.finish(frames, tasks)
    with (frames / "failed.csv").open(encoding="utf-8", newline="") as file:
        return {line["video"]: line["reason"] for line in csv.DictReader(file)}


def _sha256(path: Path) -> str:
    with suppress(OSError):
        if path.is_file():  # reading a pipe may never end
            return sha256(path)
    return ""  # decoding gives the reason


def _scorer(run: Run) -> Scorer:
    try:
        return Scorer(run, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    except (RuntimeError, EOFError, pickle.UnpicklingError):
        raise UserError(
            f"the weights of {run.row}, {run.name}, don't fit the row as it is now; `actionbench repro {run.row}` "
            "trains it again"
        ) from None


def _scored(scorers: Sequence[Scorer], videos: Sequence[str], advance: Callable[[], None]) -> dict[str, np.ndarray]:
    """Return video -> scores, K: the mean over R networks, NaN if the video isn't decoded.

    `advance` is called after each network.
    """
    tables = []
    for scorer in scorers:
        scorer.store = FrameStore(scorer.run.frames)
        tables.append(pl.read_parquet(scorer.score([(video, []) for video in videos])))
        advance()
    frame = pl.concat(tables).sort(*TEST, "view")
    run = scorers[0].run
    tests, averaged = scores(Predictions(frame, tuple(run.classes()), run.protocol.average, several=False))
    means = averaged.reshape(len(scorers), len(videos), -1).mean(axis=0)  # V,K
    return dict(zip(tests["video"], means, strict=False))  # the first run's videos, in the order of all runs'


def _csv(answers: Sequence[Answer], classes: Sequence[str]) -> str:
    best = range(1, min(BEST, len(classes)) + 1)
    heads = [f"{what}_{place}" for place in best for what in ("class", "score")]
    lines = []
    for answer in answers:
        if answer.scores is None:
            lines.append([answer.video, "", "", answer.problem, *[""] * len(heads)])
            continue
        order = np.argsort(-answer.scores, kind="stable")[: len(best)]
        cells = [text for k in order for text in (classes[k], f"{answer.scores[k]:.4f}")]
        lines.append([answer.video, *cells[:2], "", *cells])
    return csv_text(["video", "class", "score", "problem", *heads], lines)
