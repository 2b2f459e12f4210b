"""ST-MANet's equations, one number at a time, and stored evaluations of their cores."""

import json
import math
from itertools import permutations, product

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.layers.st_attention import Reading, SpatialAttention, TemporalDynamicAttention, TimeConv, likeness, pooled
from models.layers.st_attention import averaged as on_grid
from tests.support.nets.golden import stored


def close(ours: Tensor, golden: np.ndarray) -> None:
    np.testing.assert_allclose(ours.detach().numpy(), golden, rtol=0, atol=1e-10)


# They have identities for every convolution; that of now has no root of the length, as its numbers show.
@pytest.mark.parametrize("path", stored("spec_stmanet_attention*.npz"))
def test_the_cores_of_both_attentions(path):
    data = np.load(path)
    note = json.loads(str(data["meta"]))["note"]
    z, before = torch.from_numpy(data["Z"]), torch.from_numpy(data["Z_tda_prev"])
    reading = Reading(scaled="sqrt" in note, second_softmax="no second softmax" not in note)
    tda = TemporalDynamicAttention(z.shape[1], before.shape[1], z.shape[1], reading).double()
    tda.phi = tda.omega = nn.Identity()
    for aggregation in (tda.main, tda.branch):
        aggregation.value = aggregation.eps = nn.Identity()
    attention, z_t, branch = tda(z, before)
    close(attention, data["A_t"])
    close(z_t - z, data["agg_main"])
    close(branch, data["agg_cat"])
    attention, z_s = SpatialAttention(reading)(z, torch.zeros_like(z))
    close(attention, data["A_s"])
    close(z_s, data["Z_s"])


@pytest.mark.parametrize("path", stored("spec_stmanet_diversity*.npz"))
def test_likeness_of_two_stages(path):
    data = np.load(path)
    big, small = torch.from_numpy(data["A_big"]), torch.from_numpy(data["A_small"])
    for clip, cosine in enumerate(data["cos"]):
        close(likeness([big[clip : clip + 1], small[clip : clip + 1]]), 2 * cosine)  # two ordered pairs
    close(likeness([small, big]), 2 * data["cos"].mean())


def convolved(conv: TimeConv, z: Tensor) -> Tensor:
    """Apply a 3x1x1 convolution to one clip (C, T, H, W), zero-padded in time."""
    weight = conv.weight[..., 0]  # (outs, ins of a group, 3)
    outs, ins = weight.shape[:2]
    out = torch.zeros(outs, *z.shape[1:], dtype=z.dtype)
    for o, t, c, tap in product(range(outs), range(z.shape[1]), range(ins), range(3)):
        if 0 <= t + tap - 1 < z.shape[1]:
            first = o // (outs // conv.groups) * ins
            out[o, t] += weight[o, c, tap] * z[first + c, t + tap - 1]
    return out


def softmaxed(row: list[float]) -> list[float]:
    top = max(row)
    total = sum(math.exp(value - top) for value in row)
    return [math.exp(value - top) / total for value in row]


def attention_of(queries: list[Tensor], keys: list[Tensor], scaled: bool) -> list[list[float]]:
    """Return row i: the softmax over j of query i times key j."""
    root = math.sqrt(queries[0].numel()) if scaled else 1
    return [softmaxed([float((query * key).sum()) / root for key in keys]) for query in queries]


def mixed(attention: list[list[float]], values: list[Tensor], second_softmax: bool) -> list[Tensor]:
    """Return row i: the sum of the values, weighted by row i of the attention."""
    rows = [sum(much * value for much, value in zip(row, values, strict=True)) for row in attention]
    if second_softmax:
        rows = [torch.tensor(softmaxed(row.flatten().tolist()), dtype=row.dtype).view_as(row) for row in rows]
    return rows


READINGS = [
    Reading(),
    Reading(scaled=False),
    Reading(second_softmax=True),
    Reading(dense_maps=True),
    Reading(dense_branch=False),
]


@torch.no_grad()
@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("frames,h,w", [(3, 2, 3), (1, 2, 1)])
def test_the_equations_of_tda(reading, frames, h, w):
    torch.manual_seed(0)
    module = TemporalDynamicAttention(4, 2, 8, reading).double()
    z = torch.randn(2, 4, frames, h, w, dtype=torch.double)
    before = torch.randn(2, 2, frames, h, w, dtype=torch.double)
    for clip, carried, *ours in zip(z, before, *module(z, before), strict=True):
        both = torch.stack([*clip, *carried])  # Z_c
        phi, omega, tau = (convolved(conv, both) for conv in (module.phi, module.omega, module.branch.value))
        sigma = convolved(module.main.value, clip)
        attention = attention_of(list(phi.unbind(1)), list(omega.unbind(1)), reading.scaled)  # rows are frames
        main = torch.stack(mixed(attention, list(sigma.unbind(1)), reading.second_softmax), 1)
        branch = torch.stack(mixed(attention, list(tau.unbind(1)), reading.second_softmax), 1)
        expected = (
            torch.tensor(attention, dtype=torch.double),
            clip + convolved(module.main.eps, main),
            convolved(module.branch.eps, branch),
        )
        for mine, theirs in zip(ours, expected, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)
    groups = {"dense": 6 * 8 * 3, "grouped": 3 * 8 * 3}
    assert module.branch.eps.weight.numel() == groups["dense" if reading.dense_branch else "grouped"]
    assert module.phi.weight.numel() == (6 * 6 * 3 if reading.dense_maps else 6 * 3)


@pytest.mark.parametrize("reading", READINGS)
def test_the_cheaper_order_has_the_published_gradients(reading):
    torch.manual_seed(0)
    tda, sda = TemporalDynamicAttention(4, 2, 8, reading).double(), SpatialAttention(reading)
    maps = [torch.randn(2, c, 3, 2, 3, dtype=torch.double, requires_grad=True) for c in (4, 2)]
    gradients = []
    for how in ("forward", "published"):
        for module in (tda.main, tda.branch):
            module.forward = getattr(module, how)
        outs = [*getattr(tda, how)(*maps), *getattr(sda, how)(maps[0], maps[0])]
        total = sum((out.cos() * torch.arange(1.0, 1 + out.numel()).view_as(out)).sum() for out in outs)
        gradients.append(torch.autograd.grad(total, [*maps, *tda.parameters()]))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("reading", [Reading(normed=True), Reading(normed=True, dense_maps=True)])
def test_epsilon_with_a_norm(reading):
    torch.manual_seed(0)
    module = TemporalDynamicAttention(4, 2, 8, reading).double()
    z, before = torch.randn(2, 4, 3, 2, 3, dtype=torch.double), torch.randn(2, 2, 3, 2, 3, dtype=torch.double)
    _, z_t, branch = module(z, before)
    for maps in (z_t - z, branch):  # epsilon's, by channel
        rows = maps.transpose(0, 1).flatten(1)
        assert rows.mean(1).tolist() == pytest.approx([0.0] * len(rows), abs=1e-9)
        assert rows.var(1, correction=0).tolist() == pytest.approx([1.0] * len(rows), abs=0.01)


@torch.no_grad()
def test_sda_with_convolutions():
    torch.manual_seed(0)
    module = SpatialAttention(Reading(convolved=True), 4).double()
    z, onto = torch.randn(2, 2, 4, 3, 2, 3, dtype=torch.double)
    actual, sums = module(z, onto)
    weights = {name: conv.weight[..., 0, 0, 0] for name, conv in module.convolutions.items()}
    for clip, base, ours, out in zip(z, onto, actual, sums, strict=True):
        alpha, beta, eta = (torch.einsum("oc,cthw->othw", weights[name], clip) for name in ("alpha", "beta", "eta"))
        at = [(slice(None), slice(None), y, x) for y in range(2) for x in range(3)]
        attention = attention_of([alpha[p] for p in at], [beta[p] for p in at], True)
        z_s = mixed(attention, [eta[p] for p in at], False)
        torch.testing.assert_close(ours, torch.tensor(attention, dtype=torch.double), rtol=0, atol=1e-12)
        for p, value in zip(at, z_s, strict=True):
            torch.testing.assert_close(out[p], base[p] + weights["pi"] @ value, rtol=0, atol=1e-12)


@pytest.mark.parametrize("reading", READINGS[:3])
@pytest.mark.parametrize("frames,h,w", [(3, 2, 3), (2, 1, 1)])
def test_the_equations_of_sda(reading, frames, h, w):
    torch.manual_seed(0)
    z, onto = torch.randn(2, 2, 4, frames, h, w, dtype=torch.double)
    actual, sums = SpatialAttention(reading)(z, onto)
    for clip, base, ours, out in zip(z, onto, actual, sums, strict=True):
        rows = [clip[:, :, y, x] for y in range(h) for x in range(w)]  # pixels, of C*T features
        attention = attention_of(rows, rows, reading.scaled)
        z_s = mixed(attention, rows, reading.second_softmax)
        torch.testing.assert_close(ours, torch.tensor(attention, dtype=torch.double), rtol=0, atol=1e-12)
        for y, x in product(range(h), range(w)):
            torch.testing.assert_close(out[:, :, y, x], base[:, :, y, x] + z_s[y * w + x], rtol=0, atol=1e-12)


def averaged(matrix: Tensor, size: int) -> list[float]:
    """Adaptive average pooling to size x size; bin i covers floor(i*L/size) to ceil((i+1)*L/size)."""
    length = len(matrix)
    bins = [range(i * length // size, -(-(i + 1) * length // size)) for i in range(size)]
    return [float(torch.stack([matrix[a, b] for a in ys for b in xs]).mean()) for ys in bins for xs in bins]


def test_equal_regions_of_two_stages_are_alike():
    """Attention over 8x8 pixels that are constant on 4x4 regions equals attention over the regions."""
    torch.manual_seed(0)
    small = torch.rand(1, 16, 16, dtype=torch.double)
    region = torch.arange(64).view(8, 8) // 16 * 4 + torch.arange(64).view(8, 8) % 8 // 2  # of each pixel
    big = small[:, region.flatten()][:, :, region.flatten()]
    close(likeness([big, small], [(8, 8), (4, 4)]), np.array(2.0))
    assert likeness([big, small]) < 1.95  # as squares of numbers they are not


@pytest.mark.parametrize("old,new", [((4, 6), (2, 3)), ((7, 5), (4, 3)), ((3, 3), (3, 3))])
def test_places_are_averaged_axis_by_axis(old, new):
    torch.manual_seed(0)
    matrix = torch.rand(1, math.prod(old), math.prod(old), dtype=torch.double)
    bins = [
        [range(i * o // n, -(-(i + 1) * o // n)) for i in range(n)] for o, n in zip(old, new, strict=True)
    ]  # of each axis

    def places(y: int, x: int) -> list[int]:
        return [a * old[1] + b for a in bins[0][y] for b in bins[1][x]]

    expected = [
        [float(matrix[0][places(*q)][:, places(*k)].mean()) for k in product(range(new[0]), range(new[1]))]
        for q in product(range(new[0]), range(new[1]))
    ]
    torch.testing.assert_close(on_grid(matrix, old, new)[0], torch.tensor(expected, dtype=torch.double))


def test_the_equation_of_likeness():
    torch.manual_seed(0)
    matrices = [torch.randn(2, n, n, dtype=torch.double).softmax(2) for n in (8, 4, 3, 3)]  # 8 and 4 are no multiple
    total = 0.0
    for clip in range(2):
        small = [averaged(matrix[clip], 3) for matrix in matrices]
        for one, other in permutations(small, 2):
            dot = sum(a * b for a, b in zip(one, other, strict=True))
            total += dot / math.hypot(*one) / math.hypot(*other) / 2  # the mean over the clips
    torch.testing.assert_close(likeness(matrices), torch.tensor(total, dtype=torch.double), rtol=0, atol=1e-12)
    assert likeness(matrices[:1]) == 0  # there is no pair


@pytest.mark.parametrize(
    "old,new", [((4, 6, 8), (2, 3, 4)), ((3, 7, 1), (2, 4, 1)), ((1, 1, 5), (1, 1, 3)), ((8, 6, 5), (8, 3, 3))]
)
def test_the_branch_is_pooled_to_the_next_stages_size(old, new):
    torch.manual_seed(0)
    branch = torch.randn(2, 3, *old)
    out = pooled(branch, new)
    assert out.shape[2:] == new
    steps = [1 if a == b else 2 for a, b in zip(old, new, strict=True)]
    for t, h, w in product(*map(range, new)):
        window = branch
        for axis, (at, step) in enumerate(zip((t, h, w), steps, strict=True), 2):
            window = window.narrow(axis, at * step, min(step, window.shape[axis] - at * step))
        assert torch.equal(out[:, :, t, h, w], window.amax((2, 3, 4)))
