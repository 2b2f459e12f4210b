"""Scoring the test videos of a row's cells, block by block, on Ray."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from cluster.fanout import fan_out
from cluster.fit import device
from pipeline import cells, copies, predict
from pipeline.cells import Cell
from pipeline.schema import Cluster
from pipeline.storage import Place

_scorers: dict[str, predict.Scorer] = {}  # this process's last one, for the blocks of that cell that follow


def score(row: Sequence[Cell], cluster: Cluster) -> list[Place]:
    """Files of predictions, one a block; blocks that an earlier, killed call made are not made again."""
    items = blocks(copies.sent(row, cluster, [cell.weights for cell in row]), cluster)
    with ThreadPoolExecutor(predict.THREADS) as pool:
        done = list(pool.map(lambda item: predict.done(item[3], item[1]), items))
    missing = [item for item, there in zip(items, done, strict=True) if not there]
    what = f"evaluate {row[0].row}, blocks"
    for _ in fan_out(
        block, missing, what, cluster.max_failures, cpus=cluster.cpus_per_worker, gpus=cluster.gpus_per_worker
    ):
        pass
    return [item[3] for item in items]


def blocks(
    row: Sequence[Cell], cluster: Cluster
) -> list[tuple[Cell, str, list[tuple[str, list[int]]], Place, Cluster]]:
    """What block() takes, for all blocks of the cells' test videos."""
    return [
        (cell, mark, videos, cell.state(cluster) / f"block-{number:05d}.parquet", cluster)
        for cell in row
        for mark in [cells.evaluation_fingerprint(cell)]
        for number, videos in enumerate(predict.blocks(cell))
    ]


def block(cell: Cell, mark: str, videos: list[tuple[str, list[int]]], target: Place, cluster: Cluster) -> None:
    """The predictions of a block, by the net that this process has of the cell already, or loads now."""
    torch.set_num_threads(cluster.cpus_per_worker)
    key = f"{cell.weights} {mark}"
    if key not in _scorers:
        _scorers.clear()  # before the next is loaded: a GPU need not hold both
        _scorers[key] = predict.Scorer(copies.brought(cell, cluster)[0], mark, device(cluster))
    scorer = _scorers[key]
    copies.bring_frames(cell, cluster, scorer.store, [name for name, _ in videos])
    scorer.score(videos, target)
