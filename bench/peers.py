"""Other ways to read a video file, for bench/loading and bench/decoding.

Toolboxes' loaders are re-enacted from their documentation. Each takes the frames and the crop of a view
(pipeline.clips.loading.View) and gives (T,size,size,3) uint8, or floats where its toolbox normalizes in the loader.
None of these toolboxes is a dependency. Packages are imported where they are used: some platforms lack them.
"""

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.clips import loading
from pipeline.clips.loading import View

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
Key = tuple[int, int]  # epoch, position of the video
BLOCK = 64  # frames decoded at once
Way = Callable[[Path, View, int], Any]  # video, view, size -> clip


def lack(package: str) -> str:
    """Return why a package can't be imported, or ""."""
    try:
        import_module(package)
    except (ImportError, RuntimeError, OSError) as error:  # torchcodec needs FFmpeg's shared libraries
        return str(error).strip().splitlines()[0]
    return ""


def lacks(*packages: str) -> list[str]:
    """Return a line for each package that can't be imported."""
    return [f"Not measured: {package}: {why}.\n" for package in packages if (why := lack(package))]


class VideoClips(Dataset):
    """Clips of a folder's videos `<position>.mp4`, each read by a way."""

    def __init__(self, folder: Path, plan: loading.TrainClips, way: Way) -> None:
        self.folder, self.plan, self.way = folder, plan, way

    def __getitem__(self, key: Key) -> Any:
        return self.way(self.folder / f"{key[1]}.mp4", self.plan.view(*key), self.plan.recipe.size)


def by_decord(path: Path, view: View, size: int) -> np.ndarray:
    """The least that decord needs: the view's frames, cropped, then resized by OpenCV."""
    import decord

    x, y, w, h = view.box
    reader = decord.VideoReader(str(path), num_threads=1)
    part = reader.get_batch(list(view.indices)).asnumpy()[:, y : y + h, x : x + w]
    return np.stack([cv2.resize(frame, (size, size), interpolation=cv2.INTER_LINEAR) for frame in part])


def by_mmaction2(path: Path, view: View, size: int) -> np.ndarray:
    """mmaction2's TSM pipeline: DecordInit, DecordDecode, Resize, MultiScaleCrop, Resize, FormatShape.

    Its decoder gives whole frames, which are resized to a short side of 256 before they are cropped. The data
    preprocessor normalizes the batch. (mmaction2, docs/en/advanced_guides/customize_pipeline.md and configs/tsm)
    """
    import decord

    x, y, w, h = view.box
    reader = decord.VideoReader(str(path), num_threads=1)
    frames = reader.get_batch(list(view.indices)).asnumpy()
    height, width = frames.shape[1:3]
    short = 256 / min(height, width)
    whole = [cv2.resize(frame, (round(width * short), round(height * short))) for frame in frames]
    return np.stack([cv2.resize(frame[y : y + h, x : x + w], (size, size)) for frame in whole])


def by_pyslowfast(path: Path, view: View, size: int) -> Tensor:
    """PySlowFast's loader: PyAV decodes from the first frame on, then torch samples, normalizes, scales and crops.

    The scale is that of its short-side jitter for which a crop of `size` covers the view's box.
    (PySlowFast, slowfast/datasets/DATASET.md, and DATA in its configs)
    """
    import av

    last = max(view.indices)
    with av.open(str(path)) as container:
        container.streams.video[0].thread_count = 1
        frames = []
        for index, frame in enumerate(container.decode(video=0)):
            frames.append(frame)
            if index == last:
                break
    clip = torch.as_tensor(np.stack([frames[index].to_rgb().to_ndarray() for index in view.indices]))
    values = (clip.float() / 255 - torch.tensor(MEAN) / 255) / (torch.tensor(STD) / 255)
    x, y, w, h = view.box
    height, width = clip.shape[1:3]
    to = round(height * size / h), round(width * size / w)
    scaled = F.interpolate(values.permute(0, 3, 1, 2), to, mode="bilinear", align_corners=False)
    top, left = (min(round(at * size / side), most - size) for at, side, most in ((y, h, to[0]), (x, w, to[1])))
    return scaled[:, :, top : top + size, left : left + size]  # (T,C,size,size)


def by_torchcodec(path: Path, view: View, size: int) -> Tensor:
    """Torchcodec's batch call, then a crop and torch's antialiased resize of uint8."""
    from torchcodec.decoders import VideoDecoder

    x, y, w, h = view.box
    reader = VideoDecoder(str(path), num_ffmpeg_threads=1, seek_mode="approximate")
    part = reader.get_frames_at(list(view.indices)).data[:, :, y : y + h, x : x + w]
    return F.interpolate(part, (size, size), mode="bilinear", antialias=True).permute(0, 2, 3, 1)


def torchcodec_frames(path: Path, short_side: int) -> Iterator[np.ndarray]:
    """Yield frames, (H,W,3) uint8, decoded by torchcodec and resized by torch, up to the first that it can't read."""
    from torchcodec.decoders import VideoDecoder

    reader = VideoDecoder(str(path), num_ffmpeg_threads=1)
    for frames in _blocks(reader):
        height, width = frames.shape[2:]
        scale = short_side / min(height, width)
        to = tuple(2 * round(side * scale / 2) for side in (height, width))
        if to != (height, width):
            frames = F.interpolate(frames, to, mode="bilinear", antialias=True)
        yield from frames.permute(0, 2, 3, 1).contiguous().numpy()


def _blocks(reader: Any) -> Iterator[Tensor]:
    """Yield the frames (N,3,H,W) that a VideoDecoder can read."""
    for start in range(0, len(reader), BLOCK):
        try:
            yield reader[start : start + BLOCK]
        except RuntimeError:  # its message differs between versions
            for at in range(start, min(start + BLOCK, len(reader))):
                try:
                    frame = reader[at]
                except RuntimeError:
                    return
                yield frame[None]
