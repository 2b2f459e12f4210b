"""Two backbones as one net, for RGB and optical flow, joined at ISTPA's layer.

Du, Yuan, Li, Hu et al. (models/attention/istpa.py) name "attention fusion" and "motion reinforced RGB" in sections 1, 4
and 5.5 and table 11; the appendix that explains them is not available. Both are readings here, and so are their
numbers.

Attention fusion is one layer over both streams' maps of the same positions:
- X = [X_rgb, X_flow], C x 2K*R, of all positions of all frames of both streams. M = X A, C x P, feeds the rest of the
  RGB net; the rest of the flow net is removed.
- Each stream has separate W_j and b_j for each stage. The softmax is one, over all 2K*R scores, so the streams compete.
- The losses are equations 8, 14 and 15 with 2K for K: each stream's frames have separate deltas.
- There is one classification, of M, and none of either stream.

Motion reinforcement lets flow gate RGB: x_rgb + x_rgb * sigmoid(1x1 convolution of x_flow). Motion gates appearance so
in the multiplier network that the paper cites (Feichtenhofer, Pinz and Wildes, CVPR 2017):
- At each stage that the layer reads, before it reads it. The gated maps continue to the next stage; flow is unchanged.
- The convolution is C -> C with biases, in torch's initial weights; both maps are without activation where ISTPA's are.
- The layer is over RGB alone. Flow has no scores, and acts only through its gates. Table 11 adds flow's scores late.

Both nets are of one kind and start from the same weights, the flow net's first convolution adapted to its planes. Both
have the same widths: their maps of a stage are one tensor, RGB's channels first, so necks work as in any net.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from models.backbone import Backbone
from models.layers.pyramid import InteractionPyramid

# Shapes: B images (N clips * K frames), C channels of a stream's maps, R positions of a map, P of the merged one.

STREAMS = ("attention", "reinforced")


class TwoStreams(Backbone):
    """RGB and flow in parallel.

    (B, 3 + planes, H, W), RGB first -> (B, 2*features, h, w). Once merged(), it gives the RGB net's (N, features, h,
    w). Stages have twice a stream's channels, until the stage at which flow ends.
    """

    def __init__(self, rgb: Backbone, flow: Backbone) -> None:
        super().__init__()
        self.rgb, self.flow = rgb, flow
        self.layout, self.channels, self.pooling = rgb.layout, rgb.channels, rgb.pooling
        self.mean, self.std = (*rgb.mean, *flow.mean), (*rgb.std, *flow.std)
        self.stages = {stage: 2 * width for stage, width in rgb.stages.items()}
        self.features = 2 * rgb.features
        self.alone: frozenset[str] = frozenset()  # stages of RGB without flow
        self.parts = {
            stage: tuple(f"{stream}.{part}" for stream in ("rgb", "flow") for part in parts)
            for stage, parts in rgb.parts.items()
        }

    def streams(self) -> tuple[Backbone, ...]:
        return self.rgb, self.flow

    def merge(self, at: str) -> None:
        """Remove the flow net behind stage `at`, where a neck merges both streams."""
        names = list(self.stages)
        self.alone = frozenset(names[names.index(at) + 1 :])
        for stage in self.alone:
            for part in self.rgb.parts[stage]:
                delattr(self.flow, part)
            self.parts[stage] = tuple(f"rgb.{part}" for part in self.rgb.parts[stage])
            self.stages[stage] = self.rgb.stages[stage]
        self.features = self.rgb.features

    def stage(self, name: str, x: Tensor) -> Tensor:
        return self._stage(name, x, self.rgb.stage, self.flow.stage)

    def published_stage(self, name: str, x: Tensor) -> Tensor:
        return self._stage(name, x, self.rgb.published_stage, self.flow.published_stage)

    def _stage(
        self, name: str, x: Tensor, rgb: Callable[[str, Tensor], Tensor], flow: Callable[[str, Tensor], Tensor]
    ) -> Tensor:
        if name in self.alone:
            return rgb(name, x)
        first = 3 if name == next(iter(self.stages)) else x.shape[1] // 2
        return torch.cat([rgb(name, x[:, :first]), flow(name, x[:, first:])], 1)


def adapt(backbone: Backbone, planes: int) -> None:
    """Adapt a backbone for RGB to `planes` planes of optical flow.

    Each first convolution's kernels are averaged over RGB and repeated, and so are mean and std. 8-bit flow is 128
    where nothing moves (Wang et al. 2016, section 3.2, "cross modality pre-training"; ISTPA section 5).
    """
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d) and module.in_channels == 3 and module.groups == 1:
            mean = module.weight.detach().mean(1, keepdim=True)
            module.weight = nn.Parameter(mean.repeat_interleave(planes, 1))
            module.in_channels = planes
    backbone.mean, backbone.std = (128.0,) * planes, (sum(backbone.std) / 3,) * planes
    backbone.channels = "rgb"  # planes stay in their order


class FusedPyramid(InteractionPyramid):
    """Attention fusion: both streams' maps (N*K, 2C, H, W) -> one map (N, C, h, w).

    Rows of its attention, 2K*R, are RGB's, then flow's. Arguments are InteractionPyramid's, `channels` a stream's.
    """

    def __init__(self, frames: int, channels: Mapping[str, int], size: tuple[int, int], **options: Any) -> None:
        super().__init__(frames, channels, size, **options)
        self.flow_scores = nn.ModuleDict({stage: self._scorer(width) for stage, width in channels.items()})

    def _positions(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """Return x of both streams: (N*K, 2C, H, W) -> (N, 2K*R, C)."""
        return torch.cat([super(FusedPyramid, self)._positions(half, size) for half in halves(maps)], 1)

    def _maps(self) -> int:
        return 2 * self.frames

    def _scored(self, stage: str, x: Tensor) -> Tensor:
        rows = x.shape[1] // 2
        return torch.cat([self.scores[stage](x[:, :rows]), self.flow_scores[stage](x[:, rows:])], 1)


class ReinforcedPyramid(InteractionPyramid):
    """Motion reinforcement: the layer over RGB's maps, gated by flow's.

    (N*K, 2C, H, W) -> (N, C, h, w). Arguments are InteractionPyramid's, `channels` a stream's.
    """

    def __init__(self, frames: int, channels: Mapping[str, int], size: tuple[int, int], **options: Any) -> None:
        super().__init__(frames, channels, size, **options)
        self.gates = nn.ModuleDict({stage: nn.Conv2d(width, width, 1) for stage, width in channels.items()})

    def forward(self, stage: str, maps: Tensor, seen: dict[str, Tensor]) -> Tensor:
        if stage not in self.gates:
            return maps
        rgb, flow = halves(maps)
        rgb = super().forward(stage, rgb + rgb * torch.sigmoid(self.gates[stage](flow)), seen)
        if stage == self.top:
            return rgb
        return torch.cat([rgb, torch.relu(flow) if stage in self.bare else flow], 1)


def halves(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Split (B, 2C, H, W) into RGB's (B, C, H, W) and flow's."""
    width = maps.shape[1] // 2
    return maps[:, :width], maps[:, width:]
