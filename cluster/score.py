"""Scoring the test videos of a row's cells, block by block, on Ray."""

from collections.abc import Sequence
from pathlib import Path

import torch

from cluster.fanout import fan_out
from cluster.fit import device
from pipeline import predict
from pipeline.cells import Cell
from pipeline.schema import Cluster


def score(cells: Sequence[Cell], cluster: Cluster) -> list[Path]:
    """Files of predictions, one a block; blocks that an earlier, killed call made are not made again."""
    items = [
        (cell, number, cell.state(cluster) / f"block-{number:05d}.parquet", cluster)
        for cell in cells
        for number in range(len(predict.blocks(cell)))
    ]
    what = f"evaluate {cells[0].row}, blocks"
    for _ in fan_out(
        _block, items, what, cluster.max_failures, cpus=cluster.cpus_per_worker, gpus=cluster.gpus_per_worker
    ):
        pass
    return [path for _, _, path, _ in items]


def _block(cell: Cell, number: int, path: Path, cluster: Cluster) -> None:
    torch.set_num_threads(cluster.cpus_per_worker)
    predict.score(cell, number, path, device(cluster))
