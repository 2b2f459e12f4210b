"""TSM's temporal shift, also as a convolution that starts as the shift.

Lin, Gan and Han, "TSM: Temporal Shift Module for Efficient Video Understanding" (ICCV 2019), sections 3.1 to 3.3 and
equation 1's shift with zeros filled in. It is bi-directional, 1/8 of the channels each way, on the residual branch only
("blockres"): the input of each block's first convolution. Other systems build on it.

As in the authors' code, and not in the paper:
- A net with a stage of 23 blocks or more (ResNet-101) is shifted at every second block of each stage.
- Channels [0, C//fold) take the next frame, [C//fold, 2*(C//fold)) the previous one.
- For long clips there is a maximum over time before res3 (`temporal_pool` there), which leaves half the frames.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone import Backbone, Neck, check_least, every, frame_blocks


class TemporalShift(nn.Module):
    """Shift two folds of C//fold channels by one frame each way: (N*T, C, H, W)."""

    def __init__(self, frames: int, fold: int) -> None:
        super().__init__()
        self.frames, self.fold = frames, fold

    def forward(self, x: Tensor) -> Tensor:
        return Shift.apply(x, self.frames, x.shape[1] // self.fold, False)

    def extra_repr(self) -> str:
        return f"frames={self.frames}, fold={self.fold}"


class Shift(torch.autograd.Function):
    """The shift as one copy; its gradient is the shift in reverse.

    Autograd on the same slice assignments gives the same and takes five times as long.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, frames: int, width: int, back: bool) -> Tensor:
        ctx.frames, ctx.width, ctx.back = frames, width, back
        first, second = slice(0, width), slice(width, 2 * width)
        take_next, take_last = (second, first) if back else (first, second)
        out = x.clone()  # all channels: in channels-last the others are many short runs, which take longer
        old, new = x.unflatten(0, (-1, frames)), out.unflatten(0, (-1, frames))  # (N, T, C, H, W)
        new[:, :-1, take_next] = old[:, 1:, take_next]
        new[:, -1, take_next] = 0
        new[:, 1:, take_last] = old[:, :-1, take_last]
        new[:, 0, take_last] = 0
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        return Shift.apply(grads[0], ctx.frames, ctx.width, not ctx.back), None, None, None


def keep_unshifted(conv: nn.Module, seen: tuple[Tensor], out: Tensor) -> None:
    """Keep autograd from copying shifted maps for a convolution's gradient.

    A forward hook of the convolution. Where a ReLU gave the maps, autograd already stores its output for the ReLU's
    gradient, and that is shifted again. A compiler handles this by itself.
    """
    if torch.compiler.is_compiling() or out.grad_fn is None:
        return
    node: Any = seen[0].grad_fn
    convolution: Any = out.grad_fn
    # _saved_* and _raw_saved_* are torch's documented access to the tensors that a graph node keeps.
    if getattr(node, "_forward_cls", None) is not Shift or not hasattr(node.next_functions[0][0], "_saved_result"):
        return
    if convolution._saved_input.dtype == seen[0].dtype:  # under autocast it may be a rounded copy
        convolution._raw_saved_input.register_hooks(lambda _: node, _shifted_again)


def _shifted_again(node: Any) -> Tensor:
    """Recompute the output of a Shift in autograd's graph."""
    with torch.no_grad():
        return Shift.apply(node.next_functions[0][0]._saved_result, node.frames, node.width, node.back)


class TemporalShiftConv(nn.Module):
    """Depthwise convolution over time, kernel 3, that starts as the shift.

    (N*T, C, H, W) -> the same shape. Channels outside both folds of C//fold start as the identity; with fold None all
    channels are.
    """

    def __init__(self, channels: int, frames: int, fold: int | None = 8) -> None:
        super().__init__()
        self.frames = frames
        width = channels // fold if fold else 0
        weight = torch.zeros(channels, 1, 3)
        weight[:width, 0, 2] = 1  # from the next frame
        weight[width : 2 * width, 0, 0] = 1  # from the previous one
        weight[2 * width :, 0, 1] = 1
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return self.summed(x)
        # As a 2D convolution with kernel (3, 1) over (T, H*W), which costs a channels-last x no copy.
        volume = x.unflatten(0, (-1, self.frames)).transpose(1, 2).flatten(3)  # (N, C, T, H*W)
        shifted = F.conv2d(volume, self.weight.unsqueeze(3), padding=(1, 0), groups=x.shape[1])
        return shifted.transpose(1, 2).reshape(x.shape)

    def summed(self, x: Tensor) -> Tensor:
        """Return the same as a sum over three frames, which compilers fuse.

        The convolution fails there: the memory order of its maps of a single pixel may differ between tracing and
        running. Other sums fail too: torch's compiler miscompiles additions to slices in place, and products before the
        zeros.
        """
        last, now, following = self.weight.unsqueeze(3).unbind(2)  # (C, 1, 1) each
        frames = x.unflatten(0, (-1, self.frames))  # (N, T, C, H, W)
        before = F.pad(frames[:, :-1], (0,) * 6 + (1, 0))
        after = F.pad(frames[:, 1:], (0,) * 6 + (0, 1))
        return (frames * now + before * last + after * following).flatten(0, 1)


class TemporalMaxPool(Neck):
    """The maximum over 3 frames at every second frame, after one stage.

    (N*T, C, H, W) -> (N*ceil(T/2), C, H, W).
    """

    retimable = False  # modules behind it have half its frames

    def __init__(self, frames: int, after: str) -> None:
        super().__init__()
        self.frames, self.after = frames, after

    def forward(self, stage: str, maps: Tensor, seen: dict[str, Tensor]) -> Tensor:
        if stage != self.after:
            return maps
        volume = maps.unflatten(0, (-1, self.frames)).transpose(1, 2)  # (N, C, T, H, W)
        pooled = F.max_pool3d(volume, (3, 1, 1), (2, 1, 1), (1, 0, 0))  # (N, C, ceil(T/2), H, W)
        return pooled.transpose(1, 2).flatten(0, 1)


def shift_blocks(net: Backbone, frames: int, fold: int, attention: str, pooled: bool = False) -> None:
    """Shift 1/fold of the channels each way at the entry of the residual blocks.

    Args:
        net: a backbone that takes frames.
        frames: T.
        fold: 2 or more.
        attention: name for the errors.
        pooled: a TemporalMaxPool after res2 leaves half of the frames to the rest of the net.

    Raises:
        ValueError: The backbone takes volumes, the fold is below 2, or there is no res2 to pool after.
    """
    check_least(attention, 2, fold=fold)
    stages = frame_blocks(net, attention)
    if pooled and "res2" not in net.stages:
        raise ValueError(f"attention {attention!r}: pool needs a res2 to pool after; there is {', '.join(net.stages)}")
    for stage, blocks in stages.items():
        left = (frames + 1) // 2 if pooled and stage not in ("stem", "res2") else frames
        for block in blocks[:: every(stages)]:
            block.entry = TemporalShift(left, fold)
            if isinstance(conv := getattr(block, "conv1", None), nn.Conv2d):
                conv.register_forward_hook(keep_unshifted)
    if pooled:
        net.neck = TemporalMaxPool(frames, "res2")
