"""Scoring the test videos of a row's cells, block by block, on Ray."""

from collections.abc import Sequence
from pathlib import Path

import torch

from cluster.fanout import fan_out
from cluster.fit import device
from pipeline import cells, predict
from pipeline.cells import Cell
from pipeline.schema import Cluster

_scorers: dict[str, predict.Scorer] = {}  # this process's last one, for the blocks of that cell that follow


def score(row: Sequence[Cell], cluster: Cluster) -> list[Path]:
    """Files of predictions, one a block; blocks that an earlier, killed call made are not made again."""
    items = blocks(row, cluster)
    missing = [item for item in items if not predict.done(item[3], item[1])]
    what = f"evaluate {row[0].row}, blocks"
    for _ in fan_out(
        block, missing, what, cluster.max_failures, cpus=cluster.cpus_per_worker, gpus=cluster.gpus_per_worker
    ):
        pass
    return [item[3] for item in items]


def blocks(row: Sequence[Cell], cluster: Cluster) -> list[tuple[Cell, str, list[tuple[str, list[int]]], Path, Cluster]]:
    """What block() takes, for all blocks of the cells' test videos."""
    return [
        (cell, mark, videos, cell.state(cluster) / f"block-{number:05d}.parquet", cluster)
        for cell in row
        for mark in [cells.evaluation_fingerprint(cell)]
        for number, videos in enumerate(predict.blocks(cell))
    ]


def block(cell: Cell, mark: str, videos: list[tuple[str, list[int]]], path: Path, cluster: Cluster) -> None:
    """The predictions of a block, by the net that this process has of the cell already, or loads now."""
    torch.set_num_threads(cluster.cpus_per_worker)
    key = f"{cell.weights} {mark}"
    if key not in _scorers:
        _scorers.clear()  # before the next is loaded: a GPU need not hold both
        _scorers[key] = predict.Scorer(cell, mark, device(cluster))
    _scorers[key].score(videos, path)
