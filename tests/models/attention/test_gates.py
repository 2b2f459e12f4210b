"""The equations of SE, ECA and CBAM, one number at a time, on frames and on volumes."""

import math
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from models.attention.cbam import Cbam
from models.attention.eca import EfficientChannelAttention
from models.attention.se import SqueezeExcitation

SHAPES = [(6, 4, 3), (6, 2, 4, 3)]  # (C, H, W) and (C, T, H, W)


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def dense(layer: nn.Linear, values: list[float]) -> list[float]:
    bias = [0.0] * layer.out_features if layer.bias is None else layer.bias.tolist()
    rows = zip(layer.weight.tolist(), bias, strict=True)
    return [sum(w * value for w, value in zip(row, values, strict=True)) + b for row, b in rows]


def relu(values: list[float]) -> list[float]:
    return [max(0.0, value) for value in values]


def means(x: Tensor) -> list[float]:
    return [sum(channel.flatten().tolist()) / channel.numel() for channel in x]


def maxima(x: Tensor) -> list[float]:
    return [max(channel.flatten().tolist()) for channel in x]


def scaled(x: Tensor, weights: list[float]) -> Tensor:
    return torch.stack([channel * weight for channel, weight in zip(x, weights, strict=True)])


@pytest.fixture(params=SHAPES, ids=["frames", "volume"])
def x(request: pytest.FixtureRequest) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(2, *request.param, dtype=torch.double)


def test_se_equations_2_to_4(x):
    module = SqueezeExcitation(6, 3).double()
    for one, out in zip(x, module(x), strict=True):
        z = means(one)  # equation 2
        s = [sigmoid(value) for value in dense(module.expand, relu(dense(module.squeeze, z)))]  # 3
        torch.testing.assert_close(out, scaled(one, s), rtol=0, atol=1e-12)  # 4


@pytest.mark.parametrize("k", [1, 3, 5])
def test_eca_equations_7_and_8(x, k):
    """w_i = sigmoid(sum_j w^j y_i^j) over the k nearest channels; all share the k weights."""
    module = EfficientChannelAttention(k).double()
    kernel = module.conv.weight.flatten().tolist()
    for one, out in zip(x, module(x), strict=True):
        y = means(one)
        near = [[(kernel[j], i + j - k // 2) for j in range(k)] for i in range(len(y))]
        weights = [sigmoid(sum(w * y[at] for w, at in row if 0 <= at < len(y))) for row in near]
        torch.testing.assert_close(out, scaled(one, weights), rtol=0, atol=1e-12)


@pytest.mark.parametrize("spatial", [True, False])
def test_cbam_equations_1_to_3(x, spatial):
    module = Cbam(6, 2, spatial).double().eval()
    first, _, second = module.channel.mlp
    for one, out in zip(x, module(x), strict=True):
        branches = [dense(second, relu(dense(first, pooled(one)))) for pooled in (means, maxima)]
        refined = scaled(one, [sigmoid(a + b) for a, b in zip(*branches, strict=True)])  # equation 2
        expected = refined.clone()
        if spatial:
            height, width = one.shape[-2:]
            flat = refined.reshape(-1, height, width)  # over C, or over C and T
            kernel = module.spatial.conv.weight[0].tolist()  # maximum first, then average
            for h, w in product(range(height), range(width)):
                total = 0.0
                for i, j in product(range(7), repeat=2):
                    row, column = h + i - 3, w + j - 3
                    if 0 <= row < height and 0 <= column < width:
                        values = flat[:, row, column].tolist()
                        total += kernel[0][i][j] * max(values) + kernel[1][i][j] * sum(values) / len(values)
                norm = module.spatial.norm
                total = (total - norm.running_mean.item()) / math.sqrt(norm.running_var.item() + norm.eps)
                gate = sigmoid(total * norm.weight.item() + norm.bias.item())
                expected[..., h, w] = refined[..., h, w] * gate  # equation 3
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
