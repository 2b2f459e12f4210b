"""3D ResNet (Hara et al. 2018), with the names of its authors' weight files.

Hara, Kataoka and Satoh, "Can Spatiotemporal 3D CNNs Retrace the History of 2D CNNs and ImageNet?" (CVPR 2018), section
3: ResNet's bottlenecks with 3x3x3 convolutions, halved in time and space from the stem's pooling on. Shortcuts that
change the shape are 1x1x1 convolutions (type B). Pixels are 0 to 255 minus the mean of ActivityNet. The authors' files
load by name. Variant "tiny" is for the CPU.
"""

from models.backbone import member
from models.layers.residual3d import Member, ResNet3D

MEMBERS = {
    "50": Member((3, 4, 6, 3)),
    "101": Member((3, 4, 23, 3)),
    "tiny": Member((1, 1, 1, 1), (8, 16, 32, 64), stem=8, kernel=(3, 3, 3)),
}
VARIANTS = tuple(MEMBERS)


def build(variant: str) -> ResNet3D:
    """Build the named 3D ResNet; ValueError for an unknown variant."""
    return ResNet3D(member("resnet3d", variant, MEMBERS))
