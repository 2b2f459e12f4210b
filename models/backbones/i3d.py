"""I3D: ResNet inflated into time, with torchvision's names, and a tiny variant.

Carreira and Zisserman, "Quo Vadis, Action Recognition?" (CVPR 2017), section 2.4. On ResNet it is the "inflated 3D
ConvNet" of Wang et al., "Non-local Neural Networks" (CVPR 2018), section 4.1, in its 3x1x1 form. The first convolution
of every second block sees three frames, that of the others one frame.

The papers leave open the inflated blocks and the stem. They are those of mmaction2's i3d_r50, as are its parameters
and FLOPs:
- The stem is 5x7x7 with stride 2 in time, its pooling 1x3x3 with stride 2 in time; a pooling 2x1x1 follows res2. So 32
  frames are 4 from there on, an eighth.
- Inflated are all blocks of res2, the first, third, ... of res3 and res4, and the second, fourth, ... of res5.
Beyond them: the pooling after res2 keeps a last frame without a partner, so that any T works.

Weights of torchvision's 2D ResNet load by name and are inflated.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from models.backbone import member
from models.layers.inflation import inflate
from models.layers.residual import Residual
from models.layers.residual3d import Bottleneck3D, Member

MEMBERS = {
    "50": Member((3, 4, 6, 3), kernel=(5, 7, 7), middle=1),
    "101": Member((3, 4, 23, 3), kernel=(5, 7, 7), middle=1),
    "tiny": Member((1, 1, 1, 2), (8, 16, 32, 64), stem=8, kernel=(5, 3, 3), middle=1),
}
VARIANTS = tuple(MEMBERS)
INFLATED = (slice(None), slice(None, None, 2), slice(None, None, 2), slice(1, None, 2))  # blocks of res2..res5


class I3D(Residual):
    """Any (N, 3, T, H, W) -> (N, features, T/8, H/32, W/32), sizes rounded up."""

    layout = "volume"

    def __init__(self, member: Member) -> None:
        super().__init__()
        t, h, w = member.kernel
        self.conv1 = nn.Conv3d(3, member.stem, member.kernel, 2, (t // 2, h // 2, w // 2), bias=False)
        self.bn1 = nn.BatchNorm3d(member.stem)
        self.maxpool = nn.MaxPool3d((1, 3, 3), 2, (0, 1, 1))
        self.pool2 = nn.MaxPool3d((2, 1, 1), ceil_mode=True)

        def block(ins: int, at: int, number: int, stride: int) -> Bottleneck3D:
            first = 3 if number in range(member.depths[at])[INFLATED[at]] else 1
            return Bottleneck3D(ins, member.widths[at], first, (1, stride, stride), member)

        self.complete(member.stem, member.depths, block)

    def fitted(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return inflate(state, {name: value.shape for name, value in self.state_dict().items()})

    def stage(self, name: str, x: Tensor) -> Tensor:
        x = super().stage(name, x)
        return self.pool2(x) if name == "res2" else x


def build(variant: str) -> I3D:
    """Build the named I3D; ValueError for an unknown variant."""
    return I3D(member("i3d", variant, MEMBERS))
