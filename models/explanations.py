"""Explanations of a prediction: Grad-CAM, EAM's weights, ISTPA's attention.

- grad_cam: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization" (ICCV
  2017), equations 1 and 2, once per frame. The paper is about images. Read for clips: a backbone that takes frames has
  its channels' weights from each frame's gradients, averaged over space. One that takes volumes has one weight per
  channel, averaged over space and time. A clip has one scale, so that its frames can be compared.
- eam_weights: the weights in (0, 1) that EAM's gates give to frames and channels (models/attention/eam.py).
- salient_fields: ISTPA's "salient receptive field" (models/attention/istpa.py; figure 5, B and C). Equation 17 takes
  the positions of all frames with A > 0.5 for the merged map's position (1, 1). Equation 18 takes those of frame t = 1
  with A > 0.7 for all positions of the merged map. These are `first` and `start`. The `fields` need no threshold. Each
  position m of the merged map has one row of A with its largest weight, r(m) = argmax_r A[r, m]. Its receptive field is
  the pixels that change the features X there, by their gradient. The fields of all m are added up, weighted by
  A[r(m), m], and shown in cells, as many as X has in a frame.
"""

from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention.eam import Eam
from models.backbone import Neck, stage_blocks
from models.layers.pyramid import InteractionPyramid
from models.registry import unknown
from models.video import VideoNet

# Shapes: T frames, C channels, H, W pixels; A, the maps of a stage, (t, C, h, w) or (1, C, t, h, w).


def available(net: VideoNet) -> tuple[str, ...]:
    """Return those of "gradcam", "eam" and "receptive" that a net has."""
    supported = {
        "gradcam": True,
        "eam": bool(_eam(net)),
        "receptive": isinstance(net.backbone.neck, InteractionPyramid),
    }
    return tuple(name for name, has in supported.items() if has)


class Watch(Neck):
    """Keep each stage's maps before the net's neck sees them, and that neck's memory."""

    def __init__(self, inner: Neck | None) -> None:
        super().__init__()
        self.inner = inner
        self.maps: dict[str, Tensor] = {}
        self.seen: dict[str, Tensor] = {}

    def forward(self, stage: str, maps: Tensor, seen: dict[str, Tensor]) -> Tensor:
        self.maps[stage], self.seen = maps, seen
        return maps if self.inner is None else self.inner(stage, maps, seen)


class Salient(NamedTuple):
    """ISTPA's attention in a clip; a frame has h*w positions of X, the merged map P."""

    fields: Tensor  # (T, h, w), from 0 to 1: the salient receptive fields, in cells of H/h x W/w pixels
    places: Tensor  # (P, 2), int: frame and position with the largest weight for each position of the merged map
    shares: Tensor  # (T,), shares of the whole attention; their sum is 1
    first: Tensor  # (T, h, w), bool, equation 17: A > 0.5 for position (1, 1) of the merged map
    start: Tensor  # (P, h, w), bool, equation 18: A > 0.7 in frame t = 1, for each position of the merged map


def grad_cam(net: VideoNet, clip: Tensor, target: int | None = None, stage: str | None = None) -> Tensor:
    """Return the evidence for a class, (t, h, w), from 0 to 1.

    The largest value of the clip is 1; without any evidence, all are 0. upsampled() resizes the map to the clip.

    Args:
        net: in evaluation mode.
        clip: (T, C, H, W), normalized.
        target: the class; by default the predicted one.
        stage: the stage of the maps A, before a neck changes them; by default the last but `tail`.

    Returns:
        A map for each of t frames: T, or fewer where the net has merged frames by then.

    Raises:
        ValueError: The class or stage is unknown.
    """
    backbone = net.backbone
    stage = stage or [name for name in backbone.stages if name != "tail"][-1]
    if stage not in backbone.stages:
        raise unknown("stage", stage, backbone.stages)
    _, logits, watch = _watched(net, clip)
    if target is not None and not 0 <= target < len(logits):
        raise ValueError(f"no class {target}; the net tells apart 0 to {len(logits) - 1}")
    maps = watch.maps[stage]
    (slopes,) = torch.autograd.grad(logits[int(logits.argmax()) if target is None else target], maps)
    weights = slopes.mean(tuple(range(2, maps.ndim)), keepdim=True)  # equation 1: alpha
    heat = F.relu((weights * maps).sum(1)).detach()  # equation 2
    return _to_one(heat[0] if backbone.layout == "volume" else heat)


def upsampled(maps: Tensor, frames: int, height: int, width: int) -> Tensor:
    """Resize maps linearly in time and space: (t, h, w) -> (frames, height, width)."""
    return F.interpolate(maps[None, None], (frames, height, width), mode="trilinear")[0, 0]


def eam_weights(net: VideoNet, clip: Tensor) -> dict[str, dict[str, Tensor]]:
    """Return the weights that EAM's gates give to channels and frames.

    Args:
        net: with EAM.
        clip: (T, C, H, W), normalized.

    Returns:
        stage -> {"S": weights of its channels (C,), "T": weights of its frames (t,)}, those of EAM's mode. t is T, or
        fewer where the backbone takes volumes and has merged frames by then.

    Raises:
        ValueError: The net has no EAM.
    """
    modules = _eam(net)
    if not modules:
        raise ValueError("this net has no EAM")
    by_stage: dict[str, dict[str, Tensor]] = {stage: {} for stage in modules}

    def keep(stage: str, axis: str, gate: nn.Module, inputs: tuple[Tensor, ...], weights: Tensor) -> None:
        by_stage[stage][axis] = weights[0]

    hooks = [
        gate.register_forward_hook(partial(keep, stage, axis))
        for stage, module in modules.items()
        for axis, gate in module.gates.items()
    ]
    try:
        with torch.no_grad():
            net(clip[None])
    finally:
        for hook in hooks:
            hook.remove()
    return by_stage


def salient_fields(net: VideoNet, clip: Tensor) -> Salient:
    """Return ISTPA's attention in a clip (T, C, H, W), normalized.

    Raises:
        ValueError: The net has no ISTPA.
    """
    neck = net.backbone.neck
    if not isinstance(neck, InteractionPyramid):
        raise ValueError("this net has no ISTPA")
    attentions: list[Tensor] = []
    hook = neck.attention.register_forward_hook(
        lambda module, inputs, attention: attentions.append(attention.detach()[0])
    )
    try:
        pixels, _, watch = _watched(net, clip)
    finally:
        hook.remove()
    attention, x = attentions[0], watch.seen[neck.top][0]  # (T*R, P), (T*R, C) with R = h*w
    weights, rows = attention.max(0)  # (P,) each
    (slopes,) = torch.autograd.grad((weights[:, None] * x[rows]).sum(), pixels)  # (1, T, C, H, W)
    frames = len(clip)
    height, width = (1, 1) if neck.average else watch.maps[neck.top].shape[2:]
    fields = F.adaptive_avg_pool2d(slopes[0].abs().sum(1), (height, width))  # (T, h, w)
    cells = height * width
    # Where RGB and flow are fused there are twice the rows; a frame takes the larger of both.
    by_frame = attention.unflatten(0, (-1, frames, cells))  # (1 or 2, T, R, P)
    shares, most = by_frame.sum((0, 2, 3)) / attention.sum(), by_frame.amax(0)
    first = (most[:, :, 0] > 0.5).unflatten(1, (height, width))
    start = (most[0].T > 0.7).unflatten(1, (height, width))
    places = torch.stack([rows // cells % frames, rows % cells], 1)
    return Salient(_to_one(fields), places, shares, first, start)


def _watched(net: VideoNet, clip: Tensor) -> tuple[Tensor, Tensor, Watch]:
    """Run the net on the clip (T, C, H, W).

    Returns:
        The pixels (1, T, C, H, W), the logits (classes,), and the maps seen.
    """
    pixels, watch = clip.detach()[None].requires_grad_(), Watch(net.backbone.neck)
    net.backbone.neck = watch
    try:
        with torch.enable_grad():
            return pixels, net(pixels)[0], watch
    finally:
        net.backbone.neck = watch.inner


def _eam(net: VideoNet) -> dict[str, Eam]:
    """Return stage -> its EAM."""
    return {
        stage: module
        for stage, blocks in stage_blocks(net.backbone).items()
        for block in blocks
        for module in block.modules()
        if isinstance(module, Eam)
    }


def _to_one(maps: Tensor) -> Tensor:
    """Divide non-negative maps by their maximum."""
    peak = maps.max()
    return maps / peak if peak > 0 else maps
