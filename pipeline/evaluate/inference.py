"""Inference: a checkpoint's logits of every view of every test video, in blocks.

Legend: V views, T frames, H, W pixels, K classes.
"""

import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import torch

from models.costs import macs, parameters
from models.memory_format import channels_last
from models.video import VideoNet
from pipeline.clips import loading, views
from pipeline.config.signature import protocol_signature
from pipeline.decode.frame_store import FrameStore
from pipeline.errors import UserError
from pipeline.storage.atomic import writing
from pipeline.train.numerics import autocast
from pipeline.train.run import Run

BLOCK = 64  # videos scored by one task; fixed, so that forward batches don't depend on the number of tasks
SCHEMA = pyarrow.schema(
    {
        "experiment": pyarrow.string(),
        "split": pyarrow.int32(),
        "seed": pyarrow.int32(),
        "video": pyarrow.string(),
        "view": pyarrow.int32(),
        "labels": pyarrow.list_(pyarrow.int32()),
        "logits": pyarrow.list_(pyarrow.float32()),
    }
)
LOGITS = pyarrow.list_(pyarrow.field("element", pyarrow.float32(), nullable=False))  # as they are saved


def load(run: Run, device: torch.device) -> VideoNet:
    """Load the trained net of a run, in evaluation mode."""
    net = _retimed(run)
    net.load_state_dict(torch.load(run.weights, weights_only=True, map_location="cpu"))
    channels_last(net.to(device))
    return net.eval()


def blocks(run: Run) -> list[list[tuple[str, list[int]]]]:
    """List the test videos of a run, (video, labels), BLOCK at a time."""
    videos = run.part("test")
    return [videos[begin : begin + BLOCK] for begin in range(0, len(videos), BLOCK)]


class Scorer:
    """A run's trained net and frames, read once per process for all blocks.

    Reading takes time in proportion to the data set. For every block again, evaluation would take the square of the
    number of videos.
    """

    def __init__(self, run: Run, device: torch.device) -> None:
        self.run, self.device = run, device
        self.store, self.net = FrameStore(run.frames), load(run, device)

    def score(self, block: list[tuple[str, list[int]]]) -> bytes:
        """Return the predictions of a block of (video, labels), as a Parquet file.

        There is a row for each (video, view), views in order. A video that could not be decoded has one row, its logits
        null. Views are forwarded in batches of protocol.batch, so the same checkpoint gives the same bits.

        Raises:
            UserError: A logit isn't finite.
        """
        run, store = self.run, self.store
        rows: list[tuple[str, list[int], int, loading.View | None]] = []  # video, labels, number of the view, view
        for name, labels in block:
            if name in store:
                rows += [
                    (name, labels, n, view)
                    for n, view in enumerate(views.views(run.protocol, name, store.entry(name), run.test_frames))
                ]
            else:
                rows.append((name, labels, 0, None))
        shown = [(name, view) for name, _, _, view in rows if view]
        logits, seconds = _forward(self.net, run, store, shown, self.device)
        for (name, _), scores in zip(shown, logits, strict=True):
            if not np.isfinite(scores).all():
                raise UserError(
                    f"experiments.{run.row}, {run.name}: {name} has logits that aren't finite; try "
                    f"recipes.{run.experiment.recipe}.precision fp32, or train again with a lower lr"
                )
        logits = views.swapped_back(logits, [view for _, view in shown], run.mirrored())
        scored = iter(logits.tolist())
        table = pyarrow.table(
            {
                "experiment": [run.row] * len(rows),
                "split": [run.split] * len(rows),
                "seed": [run.seed] * len(rows),
                "video": [name for name, _, _, _ in rows],
                "view": [n for _, _, n, _ in rows],
                "labels": [labels for _, labels, _, _ in rows],
                "logits": [next(scored) if view else None for _, _, _, view in rows],
            },
            schema=SCHEMA.with_metadata({"views": str(len(shown)), "seconds": str(seconds)}),
        )
        buffer = pyarrow.BufferOutputStream()
        pyarrow.parquet.write_table(table, buffer)
        return buffer.getvalue().to_pybytes()


def gather(row: Sequence[Run], blocks: Iterable[bytes], target: Path) -> float:
    """Write the blocks of a row's runs as one file; return views forwarded a second."""
    signature = protocol_signature(row[0].protocol, row[0].recipe)
    tables = [pyarrow.parquet.read_table(pyarrow.BufferReader(block)) for block in blocks]
    facts = [table.schema.metadata for table in tables]
    names = json.dumps(row[0].classes(), ensure_ascii=False)
    table = pyarrow.concat_tables([table.replace_schema_metadata(None) for table in tables])
    about = {"protocol": signature, "classes": names, "rows": str(len(table))}
    save(target, table.replace_schema_metadata(about))
    seconds = sum(float(fact[b"seconds"]) for fact in facts)
    return sum(int(fact[b"views"]) for fact in facts) / seconds if seconds else 0.0


def save(path: Path, table: pyarrow.Table) -> None:
    """Write an evaluation's predictions, sorted by split, seed, video and view.

    Logits are neither compressed nor coded by a dictionary: that takes half of the time of reading them and saves a
    tenth of the size. SHA256SUMS covers the file, so that pages need no checksums.
    """
    table = table.sort_by([(column, "ascending") for column in ("split", "seed", "video", "view")])
    at = table.schema.get_field_index("logits")
    table = table.set_column(at, pyarrow.field("logits", LOGITS), table["logits"].cast(LOGITS))
    others = [name for name in table.column_names if name != "logits"]
    codecs = {name: "zstd" for name in [*others, "labels.list.element"] if name != "labels"}
    codecs |= {"logits.list.element": "none"}
    with writing(path) as temporary:
        pyarrow.parquet.write_table(table, temporary, compression=codecs, use_dictionary=others)


@torch.inference_mode()
def _forward(
    net: VideoNet, run: Run, store: FrameStore, shown: list[tuple[str, loading.View]], device: torch.device
) -> tuple[np.ndarray, float]:
    """Return the views' logits (V, K) float32, and seconds of forward passes."""
    torch.backends.cudnn.deterministic = True
    recipe, protocol = run.recipe, run.protocol
    rows, seconds = [np.empty((0, net.head.out_features), np.float32)], 0.0
    pixels = torch.empty(protocol.batch, run.test_frames, protocol.size, protocol.size, recipe.planes, device=device)
    for begin in range(0, len(shown), protocol.batch):
        group = shown[begin : begin + protocol.batch]
        # (V, T, H, W, C) uint8
        batch = loading.load_views(store, group, protocol.size, recipe.input, recipe.stack)
        begun = time.perf_counter()
        x = loading.normalise(torch.from_numpy(batch).to(device), net.mean, net.std, net.channels, pixels[: len(batch)])
        with autocast(recipe, device):
            rows.append(net(x).float().cpu().numpy())  # (V, K)
        seconds += time.perf_counter() - begun
    return np.concatenate(rows), seconds


def costs(run: Run) -> dict[str, int]:
    """Count the net's parameters, and multiply-accumulates of a test view."""
    net, size = _retimed(run), run.protocol.size
    return {"parameters": parameters(net), "macs": macs(net, (1, run.test_frames, run.recipe.planes, size, size))}


def _retimed(run: Run) -> VideoNet:
    """Build the run's net for its protocol's T; UserError if weights don't allow it."""
    net = run.net()
    try:
        net.retime(run.test_frames)
    except ValueError as error:
        raise UserError(f"protocols.{run.experiment.protocol}.frames: {error}") from None
    return net
