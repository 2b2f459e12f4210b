"""Non-local blocks: each position gathers from all positions of all frames.

Wang, Girshick, Gupta and He, "Non-local Neural Networks" (CVPR 2018), section 3: y_i = 1/C(x) sum_j f(x_i, x_j) g(x_j)
(equation 1), z_i = W_z y_i + x_i (equation 6). f is Gaussian (equation 2), embedded Gaussian (3), a dot product (4) or
a concatenation (5). Five blocks, two in res3 and three in res4, spread evenly: after every other residual block of a
ResNet-50. `mode` and `blocks` (1: before the last block of res4; 10: after all blocks of res3 and res4) are the
ablations of tables 2a and 2c; with `subsample` phi and g are pooled 1x2x2 (section 3.3).

- W_z is followed by a norm whose scale starts at zero, so that the block starts as the identity (section 4.1).
- The similarity is not divided by the square root of its length, as printed; the authors' code has a switch.
- theta, phi and g have biases, and W_z has none, as in mmaction2, whose parameters and FLOPs are printed. Under a
  softmax phi's bias cancels out.
- Maps of odd size are pooled to half of it, rounded up.
Beyond the paper: on a backbone that takes frames, a clip's frames are unfolded first (its 2D baseline, "C2D").
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone import Backbone, Block, check_known, check_subset, stage_blocks

# Shapes: N clips, T frames, C channels, D = C/2, P = T*H*W positions, Q of them after pooling;
# x (N, C, T, H, W), or (N*T, C, H, W) on a backbone that takes frames.

MODES = ("embedded_gaussian", "gaussian", "dot_product", "concatenation")
BLOCKS = {1: {"res4": 1}, 5: {"res3": 2, "res4": 3}, 10: {"res3": 4, "res4": 6}}  # blocks per stage


class NonLocal(nn.Module):
    """A non-local block: x -> z, of the same shape.

    Args:
        channels: C.
        frames: T of the maps (N*T, C, H, W) that are unfolded; not used for volumes.
        mode: f, one of MODES.
        subsample: pool phi and g.
    """

    def __init__(self, channels: int, frames: int = 1, mode: str = MODES[0], subsample: bool = True) -> None:
        super().__init__()
        self.frames, self.mode, self.subsample = frames, mode, subsample
        inner = max(1, channels // 2)
        names = ("g",) if mode == "gaussian" else ("g", "theta", "phi")
        self.embed = nn.ModuleDict({name: nn.Conv3d(channels, inner, 1) for name in names})
        self.weigh = nn.ModuleDict({name: nn.Linear(inner, 1, bias=False) for name in names[1:]})
        if mode != "concatenation":
            self.weigh = nn.ModuleDict()
        self.out = nn.Conv3d(inner, channels, 1, bias=False)
        self.norm = nn.BatchNorm3d(channels)
        for module in self.embed.modules():
            if isinstance(module, nn.Conv3d) and module.bias is not None:
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        folded = x.ndim == 4
        x = x.unflatten(0, (-1, self.frames)).transpose(1, 2) if folded else x  # (N, C, T, H, W)
        y = self.likeness(x) @ self._gathered("g", x)  # (N, P, D)
        y = y.transpose(1, 2).unflatten(2, x.shape[2:])  # (N, D, T, H, W)
        z = x + self.norm(self.out(y))
        return z.transpose(1, 2).flatten(0, 1) if folded else z

    def likeness(self, x: Tensor) -> Tensor:
        """Return f(x_i, x_j)/C(x): (N, C, T, H, W) -> (N, P, Q)."""
        theta, phi = self._positions(self._embedded("theta", x)), self._gathered("phi", x)  # (N, P, D), (N, Q, D)
        if self.mode == "concatenation":
            # w [theta, phi] is the sum of two products; C(x) is the number of positions.
            return torch.relu(self.weigh["theta"](theta) + self.weigh["phi"](phi).transpose(1, 2)) / phi.shape[1]
        products = theta @ phi.transpose(1, 2)
        return products / phi.shape[1] if self.mode == "dot_product" else products.softmax(2)

    def _embedded(self, name: str, x: Tensor) -> Tensor:
        """Return the named embedding of x, or x itself where the mode has none."""
        return self.embed[name](x) if name in self.embed else x

    def _gathered(self, name: str, x: Tensor) -> Tensor:
        """Return the positions that are gathered from: (N, C, T, H, W) -> (N, Q, D)."""
        x = self._embedded(name, x)
        return self._positions(F.max_pool3d(x, (1, 2, 2), ceil_mode=True) if self.subsample else x)

    @staticmethod
    def _positions(x: Tensor) -> Tensor:
        """Flatten maps to positions: (N, D, T, H, W) -> (N, P, D)."""
        return x.flatten(2).transpose(1, 2)


def attach(net: Backbone, frames: int, *, mode: str = MODES[0], blocks: int = 5, subsample: bool = True) -> Backbone:
    """Add non-local blocks after blocks of res3 and res4, spread evenly.

    A stage with fewer blocks takes fewer.

    Raises:
        ValueError: The mode is unknown, `blocks` is not 1, 5 or 10, or the backbone has no blocks in these stages.
    """
    check_known("non_local", mode=(mode, MODES), blocks=(blocks, BLOCKS))
    by_stage = stage_blocks(net)
    present = [stage for stage in BLOCKS[blocks] if stage in by_stage]
    check_subset("non_local", "stages", present or list(BLOCKS[blocks]), tuple(by_stage))
    for stage in present:
        for block in spread(by_stage[stage], len(by_stage[stage]) if blocks == 10 else BLOCKS[blocks][stage]):
            block.after = NonLocal(block.out_channels, frames, mode, subsample)
    return net


def spread(blocks: list[Block], count: int) -> list[Block]:
    """Pick `count` blocks, evenly from the last back, or for 1 the last but one."""
    if count == 1:
        return blocks[-2:][:1]
    count = min(count, len(blocks))
    return [blocks[len(blocks) * (at + 1) // count - 1] for at in range(count)]
