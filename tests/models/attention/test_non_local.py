"""Non-local blocks: equations, one number at a time, and placement."""

import math

import pytest
import torch

from models.attention import non_local
from tests.support.nets.comparators import made, normed, scrambled


# y_i = 1/C(x) sum_j f(x_i, x_j) g(x_j) (equation 1), z_i = W_z y_i + x_i (equation 6), f by equations 2 to 5
@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("mode", non_local.MODES)
def test_non_locals_equations(mode, folded):
    torch.manual_seed(0)
    n, c, t, h, w = 2, 4, 2, 1, 2
    block = scrambled(non_local.NonLocal(c, t, mode, subsample=False))
    x = torch.randn(n, c, t, h, w, dtype=torch.double)
    with torch.no_grad():
        z = block(x.transpose(1, 2).flatten(0, 1) if folded else x)
    z = z.unflatten(0, (n, t)).transpose(1, 2) if folded else z
    block.requires_grad_(False)
    embed = {name: (conv.weight.flatten(1), conv.bias) for name, conv in block.embed.items()}

    def embedded(name: str, point: torch.Tensor) -> torch.Tensor:
        matrix, bias = embed[name]
        return torch.stack([row @ point for row in matrix]) + bias

    for clip in range(n):
        points = [x[clip, :, i, j, k] for i in range(t) for j in range(h) for k in range(w)]
        outs = [z[clip, :, i, j, k] for i in range(t) for j in range(h) for k in range(w)]
        for xi, zi in zip(points, outs, strict=True):
            f = []
            for xj in points:
                if mode == "gaussian":
                    f.append(math.exp(xi @ xj))
                elif mode == "embedded_gaussian":
                    f.append(math.exp(embedded("theta", xi) @ embedded("phi", xj)))
                elif mode == "dot_product":
                    f.append((embedded("theta", xi) @ embedded("phi", xj)).item())
                else:
                    both = torch.cat((embedded("theta", xi), embedded("phi", xj)))
                    f.append(max(0.0, (torch.cat([block.weigh[k].weight[0] for k in ("theta", "phi")]) @ both).item()))
            total = sum(f) if "gaussian" in mode else len(points)
            y = sum((value * embedded("g", xj) for value, xj in zip(f, points, strict=True)), torch.zeros(2).double())
            for channel in range(c):
                expected = normed(block.norm, (block.out.weight[channel].flatten() @ y / total).item(), channel)
                assert zi[channel].item() == pytest.approx(expected + xi[channel].item(), abs=1e-9)


def test_a_fresh_non_local_block_changes_nothing():
    x = torch.randn(2, 6, 3, 5, 4)
    assert torch.equal(non_local.NonLocal(6)(x), x)


def test_non_local_pools_what_it_gathers_from():
    block = non_local.NonLocal(6)
    assert block.likeness(torch.randn(2, 6, 3, 5, 4)).shape == (2, 3 * 5 * 4, 3 * 3 * 2)


@pytest.mark.parametrize(
    "backbone,variant,blocks,places",
    [
        ("resnet", "50", 5, {"layer2": [1, 3], "layer3": [1, 3, 5]}),
        ("i3d", "50", 5, {"layer2": [1, 3], "layer3": [1, 3, 5]}),
        ("resnet", "101", 5, {"layer2": [1, 3], "layer3": [6, 14, 22]}),
        ("resnet", "18", 5, {"layer2": [0, 1], "layer3": [0, 1]}),
        ("resnet", "50", 1, {"layer3": [4]}),
        ("resnet", "50", 10, {"layer2": [0, 1, 2, 3], "layer3": [0, 1, 2, 3, 4, 5]}),
    ],
)
def test_non_local_blocks_stand_where_the_paper_has_them(backbone, variant, blocks, places):
    net = made(backbone, variant, "non_local", 8, 5, blocks=blocks).backbone
    actual = [name for name, block in net.blocks() if isinstance(block.after, non_local.NonLocal)]
    assert actual == [f"{layer}.{at}" for layer, which in places.items() for at in which]
