"""A picture of the frames or regions that a trained network attended to."""

import errno
import pickle
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch

from models import explanations
from models.video import VideoNet
from pipeline.clips import loading, views
from pipeline.config import load
from pipeline.config.schema import Decode
from pipeline.decode import packing
from pipeline.decode.frame_store import FrameStore
from pipeline.decode.layout import shard_path
from pipeline.decode.video import Damaged, decode, opened
from pipeline.digest.files import sha256, verify
from pipeline.errors import SHOWN, UserError
from pipeline.evaluate import inference
from pipeline.report import film_strip
from pipeline.report.film_strip import Bars
from pipeline.train import rows
from pipeline.train.run import Run
from stages import DATA

Show = Literal["gradcam", "eam", "receptive"]
TITLES: dict[Show, str] = {
    "gradcam": "Grad-CAM of the predicted class",
    "eam": "EAM's weights",
    "receptive": "ISTPA's salient receptive fields",
}


@dataclass(frozen=True)
class Clip:
    """The middle view of a video under a protocol, with its labels."""

    pixels: np.ndarray  # (T, S, S, 3) uint8 RGB
    indices: Sequence[int]  # of the frames in the video
    part: str  # of the split; "" for other videos
    labels: Sequence[int]  # empty if unknown


def look(
    row: str, video: str, show: Show, stage: str | None, split: int | None, seed: int | None, path: Path | None
) -> tuple[Path, str]:
    """Write the picture; return its path and title.

    Args:
        row: A trained row.
        video: A video of the row's data set, or a file.
        show: The kind of explanation.
        stage: The stage of Grad-CAM's maps; default: the last.
        split: Of the run; default: the first.
        seed: Of the run; default: the first.
        path: The picture; default: below data/looks/.

    Raises:
        UserError: The row, its weights or the video is missing, or the net can't give this explanation.
    """
    params = load.load()
    run = _cell(rows.runs(params, row, DATA.absolute()), split, seed)
    kind = f"{show}-{stage}" if stage else show
    path = path or DATA / "looks" / f"{row}-{run.name}-{video.strip('/').replace('/', '-')}-{kind}.png"
    if path.suffix != ".png":
        raise UserError(f"{path}: a picture is written as .png")
    if run.recipe.input != "rgb":
        raise UserError(f"experiments.{row} sees {run.recipe.input}; explanations exist for frames only")
    net = _trained(run)
    known = explanations.available(net)
    if show not in known:
        raise UserError(
            f"experiments.{row}: attention {run.experiment.attention!r} has nothing for --show {show}; "
            f"known: {', '.join(known)}"
        )
    if stage and (show != "gradcam" or stage not in net.backbone.stages):
        raise UserError(f"--stage {stage}: only for Grad-CAM; stages: {', '.join(net.backbone.stages)}")
    clip = _clip(run, video, params.datasets[run.experiment.dataset].decode)
    x = loading.normalise(torch.from_numpy(clip.pixels[None]), net.mean, net.std, net.channels)
    verdict = _verdict(net, x[0], run.classes(), clip.labels)
    what = f"{TITLES[show]} in {stage}" if stage else TITLES[show]
    title = f"{row}, {run.name}: {what}\n{video}{f' ({clip.part})' if clip.part else ''}\n{verdict}"
    heat, bars = _explained(net, x[0], show, stage)
    try:
        film_strip.film(path, title, clip.pixels, [f"frame {index}" for index in clip.indices], heat, bars)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(f"{path} can't be written: {error.strerror}; choose another place with -o") from None
    return path, title


def _cell(runs: list[Run], split: int | None, seed: int | None) -> Run:
    """Return the first run with this split and seed; None means any."""
    for run in runs:
        if split in (None, run.split) and seed in (None, run.seed):
            return run
    raise UserError(
        f"experiments.{runs[0].row} has no run of "
        + " and ".join(f"{what} {n}" for what, n in (("split", split), ("seed", seed)) if n is not None)
        + f"; known: {', '.join(run.name for run in runs)}"
    )


def _trained(run: Run) -> VideoNet:
    if not run.weights.is_file():
        trained = sorted({path.parent.name for path in (run.data / "runs").glob("*/*.pt")})
        more = f" and {len(trained) - SHOWN} more" if len(trained) > SHOWN else ""
        raise UserError(
            f"experiments.{run.row} has no weights of {run.name} yet, `actionbench repro {run.row}` trains it; "
            f"trained: {', '.join(trained[:SHOWN]) or 'none'}{more}"
        )
    verify(run.weights)
    try:
        return inference.load(run, torch.device("cpu"))
    except (RuntimeError, EOFError, pickle.UnpicklingError):
        raise UserError(
            f"{run.weights} doesn't fit the row as it is now; `actionbench repro {run.row}` trains it again"
        ) from None


def _clip(run: Run, video: str, settings: Decode) -> Clip:
    """Return the clip of a listed video, or otherwise of a file."""
    verify(run.split_table)
    table = pyarrow.parquet.read_table(run.split_table, columns=["video", "part", "labels"])
    listed = {row["video"]: row for row in table.to_pylist()}
    if video in listed:
        store = FrameStore(run.frames)
        return Clip(*_middle(run, store, video), listed[video]["part"], listed[video]["labels"])
    if Path(video).is_file():
        with tempfile.TemporaryDirectory() as folder:
            return Clip(*_middle(run, _store(Path(video), settings, Path(folder)), video), "", ())
    near = get_close_matches(video, listed, n=3) or list(listed)[:3]
    raise UserError(
        f"no video {video!r} in split {run.split} of {run.experiment.dataset}, and no such file; "
        f"of the {len(listed)} there: {', '.join(near)}"
    )


def _store(path: Path, settings: Decode, folder: Path) -> FrameStore:
    """Write a frame store of one video file, decoded as the row's data set."""
    try:
        with opened(settings) as decoder:
            video = decode(path, decoder)
    except Damaged as damage:
        raise UserError(f"{path} can't be decoded: {damage}") from None
    facts = {name: value for name, value in vars(video).items() if name != "jpegs"}
    row = facts | {"video": str(path), "shard": 0, "batch": 0, "frames": len(video.jpegs)}
    shard = shard_path(folder, 0)
    packing.write_shard(shard, [{"jpeg": video.jpegs}])
    packing.write_index(folder, pa.Table.from_pylist([row], packing.INDEX), [sha256(shard)])
    return FrameStore(folder)


def _middle(run: Run, store: FrameStore, video: str) -> tuple[np.ndarray, Sequence[int]]:
    """Return pixels (T, S, S, 3) and frame numbers of the protocol's middle view."""
    all_views = views.views(run.protocol, video, store.entry(video), run.test_frames)
    view = all_views[len(all_views) // 2]
    return loading.load_views(store, [(video, view)], run.protocol.size)[0], view.indices


def _verdict(net: VideoNet, clip: torch.Tensor, names: Sequence[str], labels: Sequence[int]) -> str:
    """Describe the prediction for a clip (T, C, H, W), and the true label."""
    with torch.no_grad():
        shares = net(clip[None])[0].softmax(0)
    truth = f"true: {', '.join(names[label] for label in labels)}" if labels else "true label unknown"
    return f"predicted: {names[int(shares.argmax())]} ({100 * float(shares.max()):.0f} %); {truth}"


def _explained(
    net: VideoNet, clip: torch.Tensor, show: Show, stage: str | None
) -> tuple[np.ndarray | None, list[Bars]]:
    """Return heat (T, S, S) in [0, 1] or None, and bars, of a clip (T, C, S, S)."""
    size = (len(clip), *clip.shape[-2:])
    if show == "gradcam":
        heat = explanations.upsampled(explanations.grad_cam(net, clip, stage=stage), *size).numpy()
        return heat, [Bars("mean heat", heat.mean((1, 2)).tolist())]
    if show == "receptive":
        fields, _, shares, *_ = explanations.salient_fields(net, clip)
        return explanations.upsampled(fields, *size).numpy(), [Bars("share of the\nattention", shares.tolist())]
    weights = explanations.eam_weights(net, clip)
    return None, [
        Bars(f"{stage}: weights\nof {what}", of_stage[axis].tolist(), 1.0)
        for axis, what in (("T", "frames"), ("S", "channels"))
        for stage, of_stage in weights.items()
        if axis in of_stage
    ]
