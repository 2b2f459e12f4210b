"""A checkpoint under a protocol: the logits of every view of every video.

Legend: V views, T frames, H, W pixels, K classes.
"""

import time
from dataclasses import dataclass

import numpy as np
import torch

from models import video
from pipeline import clips, views
from pipeline.cells import Cell, classes
from pipeline.frames import FrameStore
from pipeline.training import autocast, channels_last


@dataclass(frozen=True)
class Predicted:
    """Rows of predictions: one for each view, videos in the order asked, and what the forward passes took."""

    videos: list[str]  # V
    view: list[int]  # V
    logits: np.ndarray  # V,K float32
    forward_seconds: float


def load(cell: Cell, device: torch.device) -> video.VideoNet:
    """The trained net of a cell, in evaluation mode."""
    experiment = cell.experiment
    net = video.build(
        experiment.backbone,
        experiment.variant,
        experiment.attention,
        frames=cell.recipe.frames,
        classes=len(classes(cell)),
        dropout=cell.recipe.dropout,
        knobs=dict(experiment.knobs),
    )
    net.load_state_dict(torch.load(cell.weights, weights_only=True, map_location="cpu"))
    channels_last(net.to(device))
    return net.eval()


@torch.inference_mode()
def predict(net: video.VideoNet, cell: Cell, names: list[str], device: torch.device) -> Predicted:
    """Logits of the videos `names`, all in the frame store.

    Views are taken in order and forwarded in batches of protocol.batch, so the same names give the same bits.
    """
    torch.backends.cudnn.deterministic = True
    store = FrameStore(cell.frames)
    protocol, frames = cell.protocol, cell.recipe.frames
    wanted = []
    for name in names:
        entry = store.videos[name]
        wanted += [(name, n, view) for n, view in enumerate(views.views(protocol, entry, frames))]
    rows, seconds = [], 0.0
    for begin in range(0, len(wanted), protocol.batch):
        group = wanted[begin : begin + protocol.batch]
        # V,T,H,W,3 uint8
        batch = np.stack(
            [clips.load(store, name, view.indices, view.box, view.flip, protocol.size) for name, _, view in group]
        )
        begun = time.perf_counter()
        x = clips.normalise(torch.from_numpy(batch).to(device), net.mean, net.std, net.channels)
        with autocast(cell.recipe, device):
            rows.append(net(x).float().cpu().numpy())  # V,K
        seconds += time.perf_counter() - begun
    return Predicted([name for name, _, _ in wanted], [n for _, n, _ in wanted], np.concatenate(rows), seconds)
