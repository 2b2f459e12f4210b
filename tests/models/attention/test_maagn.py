"""MAAGN's modules against loops over the paper's equations."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention import maagn
from models.attention.maagn import Agm, Mtam, Sdm
from tests.support.nets.golden import stored
from tests.support.nets.maagn import modules, tiny


# No authors' code: an evaluation in double precision of the same reading of the paper.
@pytest.mark.parametrize("path", stored("spec_maagn_sdm*.npz"))
def test_sdm_as_stored(path):
    data = np.load(path)
    x = torch.from_numpy(data["x"])
    module = Sdm(x.shape[1]).double()
    module.load_state_dict({f"mlp.{2 * at}.weight": torch.from_numpy(data[f"W{at}"]) for at in range(2)})
    out = module(x).detach().numpy()
    np.testing.assert_allclose(out, data["out"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(out, data["x"] * (1 + data["mask"][..., None, None, None]), rtol=0, atol=1e-10)


@pytest.mark.parametrize("path", stored("spec_maagn_mtam*.npz"))
def test_mtam_as_stored(path):
    data = np.load(path)
    x = torch.from_numpy(data["x"])
    state = {"mlp.0.weight": data["M0"], "mlp.2.weight": data["M1"], "iso.weight": data["K1"]}
    masks = {"max": ["mask1"], "avg": ["mask2"], "both": ["mask1", "mask2"], "both+ISO": ["mask1", "mask2", "mask3"]}
    for pooling, used in masks.items():
        module = Mtam(x.shape[1], pooling).double()
        module.load_state_dict({name: torch.from_numpy(state[name]) for name in module.state_dict()})
        expected = data["x"] * (1 + sum(data[key] for key in used))[..., None, None, None]
        np.testing.assert_allclose(module(x).detach().numpy(), expected, rtol=0, atol=1e-10)
        if pooling == "both+ISO":
            np.testing.assert_allclose(module(x).detach().numpy(), data["out"], rtol=0, atol=1e-10)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def perceptron(layers: nn.Sequential, v: list[float]) -> list[float]:
    """Apply two matrices with a ReLU between them, unit by unit."""
    first, second = layers[0].weight.tolist(), layers[2].weight.tolist()
    hidden = [max(0.0, sum(w * value for w, value in zip(row, v, strict=True))) for row in first]
    return [sum(w * value for w, value in zip(row, hidden, strict=True)) for row in second]


def plane(x: Tensor) -> list[float]:
    """Return all values at one position of the weighted axis."""
    return x.flatten().tolist()


def sdm_weights(module: Sdm, x: Tensor) -> list[float]:
    """Equations 1 to 5 of one clip x (D, A, H, W): late less early half, maximum, two layers, sigmoid."""
    half = len(x) // 2
    late = range(len(x) - half, len(x))
    pooled = [
        max(b - a for a, b in zip(plane(x[early]), plane(x[later]), strict=True)) for early, later in enumerate(late)
    ]
    return [sigmoid(value) for value in perceptron(module.mlp, pooled)]


def mtam_weights(module: Mtam, x: Tensor) -> list[float]:
    """Equations 7 to 12 of one clip x (D, A, H, W): m1 + m2 + m3 for each position on D."""
    average = perceptron(module.mlp, [sum(plane(part)) / len(plane(part)) for part in x])
    maximum = perceptron(module.mlp, [max(plane(part)) for part in x])
    dim, weights, taps = len(x), [], module.iso.weight.detach()
    for out in range(dim):
        both = 0.0
        for at in range(dim):
            if module.iso.groups == 1:  # (D, 2D, 3); the sequence is one value long, so taps 0 and 2 meet the padding
                both += float(taps[out, at, 1]) * average[at]
                both += float(taps[out, dim + at, 1]) * maximum[at]
            elif at == out:
                both += float(taps[out, 0, 1]) * average[at]
                both += float(taps[out, 1, 1]) * maximum[at]
        weights.append(sigmoid(maximum[out]) + sigmoid(average[out]) + sigmoid(both))
    return weights


@pytest.mark.parametrize("mask", maagn.MASKS)
@pytest.mark.parametrize("dim,reduction", [(8, 16), (8, 2), (5, 1), (2, 16)])
def test_sdm_equations_1_to_6(dim, reduction, mask):
    torch.manual_seed(dim)
    x = torch.randn(2, dim, 3, 4, 2, dtype=torch.double)
    module = Sdm(dim, mask, reduction).double()
    assert module.mlp[0].out_features == max(1, (dim // 2) // reduction)
    out = module(x)
    combined = {"F*H": lambda f, h: f * h, "F+H": lambda f, h: f + h, "F-H": lambda f, h: f - h}
    combine = combined.get(mask, lambda f, h: f + f * h)
    for clip in range(2):
        for at, weight in enumerate(sdm_weights(module, x[clip])):
            torch.testing.assert_close(out[clip, at], combine(x[clip, at], weight))


@pytest.mark.parametrize("groups", ["dense", "apart"])
@pytest.mark.parametrize("dim,reduction", [(8, 16), (6, 2), (1, 16)])
def test_mtam_equations_7_to_13(dim, reduction, groups):
    torch.manual_seed(dim)
    x = torch.randn(2, dim, 3, 4, 2, dtype=torch.double)
    module = Mtam(dim, reduction=reduction, groups=1 if groups == "dense" else dim).double()
    assert module.mlp[0].out_features == max(1, dim // reduction)
    out = module(x)
    for clip in range(2):
        for at, weight in enumerate(mtam_weights(module, x[clip])):
            torch.testing.assert_close(out[clip, at], x[clip, at] * (1 + weight))


def convolved(weight: Tensor, parts: list[Tensor]) -> list[Tensor]:
    """Apply 1x3x3 kernels (outs, ins, 1, 3, 3) to parts (A, H, W), with zero padding."""
    outs = []
    for kernel in weight:
        out = torch.zeros_like(parts[0])
        for part, taps in zip(parts, kernel, strict=True):
            padded = F.pad(part, (1, 1, 1, 1))
            for i, j in itertools.product(range(3), range(3)):
                out += taps[0, i, j] * padded[:, i : i + out.shape[1], j : j + out.shape[2]]
        outs.append(out)
    return outs


@pytest.mark.parametrize("gated", maagn.GATED)
@pytest.mark.parametrize("alpha", [0.0, 0.7])
def test_agm_gates_as_the_paper_says(alpha, gated):
    torch.manual_seed(0)
    dim = 4
    module = Agm(dim, start="xavier", gated=gated).double()
    nn.init.constant_(module.alpha, alpha)
    s, t, whole = torch.randn(3, 2, dim, 3, 4, 5, dtype=torch.double)
    out = module(s, t, whole)
    for clip in range(2):
        merged = convolved(module.merge.weight, [*s[clip], *t[clip]])
        total = sum(part.exp() for part in merged)
        x = [part.exp() / total for part in merged]
        inner = convolved(module.gate_in.weight, x if gated == "softmax" else list(whole[clip]))
        y0 = convolved(module.gate_out.weight, [part * alpha * gate for part, gate in zip(x, inner, strict=True)])
        inner = convolved(module.conv2.weight, [gate + part for gate, part in zip(y0, t[clip], strict=True)])
        y = convolved(module.conv3.weight, [part + more for part, more in zip(s[clip], inner, strict=True)])
        torch.testing.assert_close(out[clip], torch.stack(y))
        assert bool(torch.stack(y0).any()) == bool(alpha)


def test_the_gate_is_shut_when_training_starts_and_can_open():
    agm = modules(tiny())[0].agm
    s, t, x = torch.randn(3, 2, 8, 6, 4, 4)
    assert not agm.gated(s, t, x).any()
    agm(s, t, x).square().sum().backward()
    assert agm.alpha.grad != 0
    assert not agm.gate_out.weight.grad.any()


@pytest.mark.parametrize("axis,groups", [("T", 1), ("C", 8)])
def test_at_the_beginning_agm_sums(axis, groups):
    s, t, x = torch.randn(3, 2, 8, 6, 4, 4)
    torch.testing.assert_close(Agm(8, groups)(s, t, x), s + t)
    assert not torch.allclose(Agm(8, groups, start="xavier")(s, t, x), s + t, atol=0.1)


def test_the_gate_of_the_input_is_of_the_maps_size():
    """A gate on the softmax alone is much smaller than the maps and stays shut."""
    shares = {}
    for gated in maagn.GATED:
        torch.manual_seed(0)
        agm = Agm(8, gated=gated)
        nn.init.ones_(agm.alpha)
        s, t, x = 100 * torch.randn(3, 2, 8, 6, 7, 7).abs()
        shares[gated] = float((agm.gated(s, t, x).norm() / (s + t).norm()).detach())
    assert shares["softmax"] < 1e-3 < 1e-2 < shares["input"]


def test_with_axis_c_each_channel_has_convolutions_of_its_own():
    torch.manual_seed(0)
    agm = Agm(6, groups=6).double()
    nn.init.ones_(agm.alpha)
    s, t = torch.randn(2, 1, 6, 3, 4, 4, dtype=torch.double)
    before = agm.conv2(agm.merge(maagn.paired(s, t, 6)))
    s[:, 2] += 1
    t[:, 4] += 1
    moved = (agm.conv2(agm.merge(maagn.paired(s, t, 6))) - before).flatten(2).abs().amax((0, 2))
    assert [at for at in range(6) if moved[at]] == [2, 4]
