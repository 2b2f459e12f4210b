"""SlowFast: a slow pathway with many channels, a fast one with many frames.

Feichtenhofer, Fan, Malik and He, "SlowFast Networks for Video Recognition" (ICCV 2019), section 3 and table 1. The fast
pathway sees all T frames of a clip; the slow one sees every alpha-th, with eight times the channels. After the stem and
res2 to res4 the fast maps join the slow ones' channels. A 5x1x1 convolution with stride alpha in time makes them twice
as many (section 3.4, "T-conv"). Both pathways' maps are averaged and concatenated: that is the stage `tail`.

"4x16" takes 32 frames, 2 apart, of which the slow pathway sees 4 (alpha = 8). In "8x8" and "101-8x8" it sees 8 of them
(alpha = 4); both pathways of the latter are as deep as ResNet-101. As in mmaction2, whose parameters are printed:
- The lateral convolutions have neither norm nor ReLU; PySlowFast's have both.
- Those of "8x8" are 7x1x1, as PySlowFast's too.
Where the paper leaves a choice:
- Attention has its places in the slow pathway's blocks, and a neck sees its maps, before the fast ones join; `stages`
  has their channels. The fast pathway stays plain.
- The slow pathway's frames are 0, alpha, 2*alpha, ..., so that any T works.

The slow pathway's parameters have the names of torchvision's ResNet, the fast one's the same after "fast_"; lateral1 to
lateral4 follow the stem and res2 to res4. Both train from scratch, as in the paper. Variant "tiny" is for the CPU.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone import Backbone, Block, member
from models.layers.residual import initialize
from models.layers.residual3d import Bottleneck3D, Four, Member

# Shapes: N clips, T frames, S = T/alpha slow frames, rounded up; slow (N, C, S, H, W), fast (N, C/beta, T, H, W).


@dataclass(frozen=True)
class Pair:
    """Two pathways: depths of both, widths of the slow one, and their connections."""

    depths: Four = (3, 4, 6, 3)
    widths: Four = (64, 128, 256, 512)
    kernel: int = 7  # of the stems, in space
    alpha: int = 8  # fast frames for a slow one
    beta: int = 8  # slow channels for a fast one
    lateral: int = 5  # frames that a lateral convolution sees


MEMBERS = {
    "4x16": Pair(),
    "8x8": Pair(alpha=4, lateral=7),
    "101-8x8": Pair((3, 4, 23, 3), alpha=4, lateral=7),
    "tiny": Pair((1, 1, 1, 1), (16, 32, 64, 128), kernel=3, alpha=2, beta=4),
}
VARIANTS = tuple(MEMBERS)


class SlowFast(Backbone):
    """Averages of both pathways: (N, 3, T, H, W) -> (N, features, 1, 1, 1), any size."""

    layout, pooling = "volume", "unseen"

    def __init__(self, pair: Pair) -> None:
        super().__init__()
        self.alpha = pair.alpha
        width, fast_width = pair.widths[0], pair.widths[0] // pair.beta
        self.conv1, self.bn1 = _stem(width, (1, pair.kernel, pair.kernel))
        self.fast_conv1, self.fast_bn1 = _stem(fast_width, (5, pair.kernel, pair.kernel))
        self.maxpool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
        outs = [Member.expansion * width for width in pair.widths]
        for at, ins in enumerate((width, *outs[:-1])):
            fast_ins = ins // pair.beta
            lateral = nn.Conv3d(
                fast_ins, 2 * fast_ins, (pair.lateral, 1, 1), (pair.alpha, 1, 1), (pair.lateral // 2, 0, 0), bias=False
            )
            depth, width, first = pair.depths[at], pair.widths[at], 3 if at >= 2 else 1
            stride = 1 if at == 0 else 2
            self.add_module(f"lateral{at + 1}", lateral)
            self.add_module(f"layer{at + 1}", _stage(ins + 2 * fast_ins, width, depth, first, stride))
            self.add_module(f"fast_layer{at + 1}", _stage(fast_ins, width // pair.beta, depth, 3, stride))
        # A lateral convolution is part of the stage that it follows.
        self.parts = {"stem": ("conv1", "bn1", "fast_conv1", "fast_bn1", "lateral1")} | {
            f"res{at + 1}": (f"layer{at}", f"fast_layer{at}", *((f"lateral{at + 1}",) if at < 4 else ()))
            for at in range(1, 5)
        }
        self.parts["tail"] = ()
        self.stages = dict(zip(self.parts, (pair.widths[0], *outs, outs[-1] + outs[-1] // pair.beta), strict=True))
        self.slow_features, self.fast_features = outs[-1], outs[-1] // pair.beta
        initialize(self)

    @property
    def features(self) -> int:
        """Channels of both pathways' maps; a neck sets those of the slow pathway's maps."""
        return self.slow_features + self.fast_features

    @features.setter
    def features(self, slow_features: int) -> None:
        self.slow_features = slow_features

    def blocks(self) -> Iterator[tuple[str, Block]]:
        yield from ((name, block) for name, block in super().blocks() if not name.startswith("fast_"))

    def stage(self, name: str, x: Tensor) -> Tensor:
        raise ValueError("backbone 'slowfast' runs two pathways side by side: its stages do not run one by one")

    def _through(self, stage: Callable[[str, Tensor], Tensor], x: Tensor) -> Tensor:
        seen: dict[str, Tensor] = {}
        slow, fast = x[:, :, :: self.alpha], x
        for at, name in enumerate(self.stages):
            if at == 0:
                slow = self.maxpool(F.relu(self.bn1(self.conv1(slow)), inplace=True))
                fast = self.maxpool(F.relu(self.fast_bn1(self.fast_conv1(fast)), inplace=True))
            elif name == "tail":
                slow = torch.cat([maps.mean((2, 3, 4), keepdim=True) for maps in (slow, fast)], 1)
            else:
                joined = torch.cat((slow, self.get_submodule(f"lateral{at}")(fast)), 1)
                slow = self.get_submodule(f"layer{at}")(joined)
                fast = self.get_submodule(f"fast_layer{at}")(fast)
            if self.neck is not None:
                slow = self.neck(name, slow, seen)
        return slow


def build(variant: str) -> SlowFast:
    """Build the named SlowFast; ValueError for an unknown variant."""
    return SlowFast(member("slowfast", variant, MEMBERS))


def _stem(outs: int, kernel: tuple[int, int, int]) -> tuple[nn.Conv3d, nn.BatchNorm3d]:
    """Build convolution and norm: (N, 3, T, H, W) -> (N, outs, T, H/2, W/2)."""
    t, h, w = kernel
    return nn.Conv3d(3, outs, kernel, (1, 2, 2), (t // 2, h // 2, w // 2), bias=False), nn.BatchNorm3d(outs)


def _stage(ins: int, width: int, depth: int, first: int, stride: int) -> nn.Sequential:
    """Build `depth` blocks, whose first convolutions see `first` frames each.

    (N, ins, T, H, W) -> (N, 4*width, T, H', W').
    """
    member, outs = Member((1, 1, 1, 1), middle=1), Member.expansion * width
    entrance = Bottleneck3D(ins, width, first, (1, stride, stride), member)
    return nn.Sequential(entrance, *(Bottleneck3D(outs, width, first, (1, 1, 1), member) for _ in range(depth - 1)))
