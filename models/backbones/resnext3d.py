"""3D ResNeXt (Hara et al. 2018), with the names of its authors' weight files.

Hara, Kataoka and Satoh, "Can Spatiotemporal 3D CNNs Retrace the History of 2D CNNs and ImageNet?" (CVPR 2018), section
3: bottlenecks whose 3x3x3 convolution is in 32 groups and twice as wide as ResNet's, and which expand by 2. The rest is
their 3D ResNet, pixels included. The same net takes 16 or 64 frames. The authors' files load by name. Variant "tiny" is
for the CPU.
"""

from models.backbone import member
from models.layers.residual3d import Member, ResNet3D

MEMBERS = {
    "101": Member((3, 4, 23, 3), (128, 256, 512, 1024), expansion=2, groups=32),
    "tiny": Member((1, 1, 1, 1), (8, 16, 32, 64), expansion=2, groups=4, stem=8, kernel=(3, 3, 3)),
}
VARIANTS = tuple(MEMBERS)


def build(variant: str) -> ResNet3D:
    """Build the named 3D ResNeXt; ValueError for an unknown variant."""
    return ResNet3D(member("resnext3d", variant, MEMBERS))
