"""SlowOnly: ResNet that keeps every frame, with time in res4 and res5.

Feichtenhofer et al., "SlowFast Networks for Video Recognition" (ICCV 2019), the slow pathway of table 1 alone, as
TPN's authors configure it (github.com/decisionforce/TPN): stem 1x7x7 and pooling 1x3x3 over single frames, no stride
in time, and the first convolution of res4's and res5's blocks 3x1x1 instead of 1x1x1. Variant "tiny" is for the CPU.

Weights of torchvision's 2D ResNet load by its names and are inflated.
"""

from collections.abc import Mapping

from torch import Tensor

from models.backbone import Backbone, member
from models.layers.inflation import inflate
from models.layers.residual3d import Member, ResNet3D

MEMBERS = {
    "50": Member((3, 4, 6, 3), kernel=(1, 7, 7), first=(1, 1, 3, 3), middle=1, stride=1),
    "101": Member((3, 4, 23, 3), kernel=(1, 7, 7), first=(1, 1, 3, 3), middle=1, stride=1),
    "tiny": Member((1, 1, 1, 1), (8, 16, 32, 64), stem=8, kernel=(1, 3, 3), first=(1, 1, 3, 3), middle=1, stride=1),
}
VARIANTS = tuple(MEMBERS)


class SlowOnly(ResNet3D):
    """Any (N, 3, T, H, W) -> (N, features, T, H/32, W/32), sizes rounded up."""

    mean, std = Backbone.mean, Backbone.std

    def fitted(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return inflate(state, {name: value.shape for name, value in self.state_dict().items()})


def build(variant: str) -> SlowOnly:
    """Build the named SlowOnly; ValueError for an unknown variant."""
    return SlowOnly(member("slowonly", variant, MEMBERS))
