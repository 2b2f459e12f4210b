"""Small networks for tests of explanations."""

import torch
from torch import Tensor, nn

from models.backbone import Backbone
from models.video import VideoNet

FRAMES = 3


class Tiny(Backbone):
    """A network of two convolutions, 3 -> 2 -> `features` channels, each a stage; the second halves the size."""

    mean, std, channels = (0.0,) * 3, (1.0,) * 3, "rgb"

    def __init__(self, layout: str, features: int = 3) -> None:
        super().__init__()
        self.layout = layout  # type: ignore[assignment]
        conv = nn.Conv2d if layout == "frames" else nn.Conv3d
        self.first, self.second = conv(3, 2, 3, padding=1), conv(2, features, 3, stride=2, padding=1)
        self.parts = {"res2": ("first",), "res3": ("second",)}
        self.stages = {"res2": 2, "res3": features}
        self.features = features

    def stage(self, name: str, x: Tensor) -> Tensor:
        return torch.relu(self.get_submodule(self.parts[name][0])(x))


def tiny(layout: str) -> VideoNet:
    torch.manual_seed(3)
    made = VideoNet(Tiny(layout), FRAMES, classes=4).double().eval()
    nn.init.normal_(made.head.weight)
    return made


class Bright(Backbone):
    """A network whose maps are the pixels' first plane, averaged over 2x2 cells."""

    layout, mean, std, channels = "frames", (0.0,) * 3, (1.0,) * 3, "rgb"

    def __init__(self) -> None:
        super().__init__()
        self.parts, self.stages, self.features = {"res2": ()}, {"res2": 1}, 1

    def stage(self, name: str, x: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(x[:, :1], 2)


def bright(frame: int, row: int, column: int) -> tuple[VideoNet, Tensor]:
    """Return a network whose class 1 is brightness, and a clip with one bright cell."""
    made = VideoNet(Bright(), FRAMES, classes=2).eval()
    made.head.weight.data.copy_(torch.tensor([[0.0], [1.0]]))
    clip = torch.zeros(FRAMES, 3, 8, 8)
    clip[frame, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = 5.0
    return made, clip
