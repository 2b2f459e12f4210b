"""Scoring of the test videos of a row's runs, block by block, on Ray."""

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from cluster.auto import Placed, placed
from cluster.fanout import fan_out
from cluster.fit import device
from pipeline.config.schema import Cluster
from pipeline.digest import state
from pipeline.digest.files import verify
from pipeline.errors import UserError
from pipeline.evaluate import inference
from pipeline.storage.remote import Place
from pipeline.train import keys, node_cache
from pipeline.train.run import Run

TRIES = 3  # of a damaged or missing block
THREADS = 8  # blocks read at once
Videos = list[tuple[str, list[int]]]  # name, labels
Block = tuple[Run, str, Videos, Place, Placed]  # block()'s arguments

scorers: dict[str, inference.Scorer] = {}  # this process's last one, for later blocks of that run


def score(row: Sequence[Run], cluster: Cluster) -> list[bytes]:
    """Return the predictions of a row's runs, a Parquet file for each block.

    Blocks that an earlier, killed call finished are not scored again. Every block is collected by its key and checksum.

    Raises:
        UserError: Weights differ from training's, or the storage keeps no results.
    """
    cluster = placed(cluster)
    for run in row:
        verify(run.weights)
    items = blocks(node_cache.sent(row, cluster, [run.weights for run in row]), cluster)
    contents: list[bytes | None] = [None] * len(items)
    what = f"evaluate {row[0].row}, blocks"
    for attempt in range(TRIES + 1):
        missing = [at for at, content in enumerate(contents) if content is None]
        with ThreadPoolExecutor(THREADS) as pool:
            for at, content in zip(missing, pool.map(_collect, [items[at] for at in missing]), strict=True):
                contents[at] = content
        if not (todo := [item for item, content in zip(items, contents, strict=True) if content is None]):
            break
        if attempt == TRIES:
            raise UserError(f"{todo[0][3]} loses the evaluation's files; check the disk or the store")
        if attempt:
            print(f"{what}: {len(todo)} damaged or missing; scoring them again", file=sys.stderr, flush=True)
        for _ in fan_out(
            block, todo, what, cluster.max_failures, cpus=cluster.cpus_per_worker, gpus=cluster.gpus_per_worker
        ):
            pass
    return [content for content in contents if content is not None]


def blocks(row: Sequence[Run], cluster: Placed) -> list[Block]:
    """Return block()'s arguments for all blocks of the runs' test videos."""
    return [
        (run, key, videos, keys.state(run, cluster, key) / f"block-{number:05d}.parquet", cluster)
        for run in row
        for key in [keys.evaluation(run)]
        for number, videos in enumerate(inference.blocks(run))
    ]


def block(run: Run, key: str, videos: Videos, target: Place, cluster: Placed) -> None:
    """Store the predictions of a block.

    This process loads the run's net unless it already has it.
    """
    torch.set_num_threads(run.recipe.threads)
    place = f"{run.weights} {key}"
    if place not in scorers:
        scorers.clear()  # before the next is loaded: a GPU need not hold both
        brought = node_cache.brought(run, cluster)[0]
        state.check(keys.evaluation(brought), key, "evaluate")
        scorers[place] = inference.Scorer(brought, device(cluster))
    scorer = scorers[place]
    node_cache.bring_frames(run, cluster, scorer.store, [name for name, _ in videos])
    state.put(target, scorer.score(videos), key)


def _collect(item: Block) -> bytes | None:
    _, key, _, place, _ = item
    return state.get(place, key)
