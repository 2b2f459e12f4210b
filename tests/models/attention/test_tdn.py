"""TDN: equations by plain loops, costs against the printed ones, and placement."""

import pytest
import torch
from torch import nn

from models import costs, video
from models.attention import tdn
from models.layers.shift import TemporalShiftConv
from tests.support.nets.comparators import made, normed, scrambled, sigmoid


# D: I(t-1) - I(t-2), ..., I(t+2) - I(t+1) of frames pooled by 2, where those before the first are the first, and so on
@pytest.mark.parametrize("frames", [1, 2, 4])
def test_differences_are_those_of_a_frames_neighbours(frames):
    torch.manual_seed(0)
    module = tdn.ShortTerm(nn.Conv2d(3, 4, 3, 2, 1), nn.Identity(), frames, 0.5)
    x = torch.randn(2 * frames, 3, 5, 6, dtype=torch.double)
    actual = module.differences(x)
    assert actual.shape == (2 * frames, 12, 2, 3)
    for clip, t in ((clip, t) for clip in range(2) for t in range(frames)):
        near = [x[clip * frames + min(max(t + k, 0), frames - 1)] for k in range(-2, 3)]
        for at, plane, i, j in ((at, p, i, j) for at in range(4) for p in range(3) for i in range(2) for j in range(3)):
            step = (near[at + 1] - near[at])[plane, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
            assert actual[clip * frames + t, 3 * at + plane, i, j].item() == pytest.approx(step.mean().item())


# (1 - share)*F + share*Upsample(CNN(D)), at the stem and, with res2's copy over what CNN gave, at res2
def test_short_term_maps_are_added_at_the_stem_and_at_res2():
    torch.manual_seed(0)
    net = scrambled(video.build("resnet", "tiny", "tdn", 3, 5, knobs={"parts": ["short"], "share": 0.25}))
    backbone, neck = net.backbone, net.backbone.neck
    seen = []
    backbone.layer1.register_forward_hook(lambda module, given, out: seen.append((given[0], out)))
    backbone.layer2.register_forward_hook(lambda module, given, out: seen.append(given))
    x = torch.randn(3, 3, 37, 41, dtype=torch.double)

    def grown(maps: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """Enlarge maps by nearest neighbor."""
        h, w = maps.shape[2:]
        return maps[:, :, [i * h // height for i in range(height)]][..., [j * w // width for j in range(width)]]

    with torch.no_grad():
        backbone(x)
        stem = backbone.maxpool(torch.relu(backbone.bn1(backbone.conv1(x))))
        motion = backbone.maxpool(torch.relu(neck.norm(neck.conv(neck.differences(x)))))
        expected = 0.75 * stem + 0.25 * grown(motion, *stem.shape[2:])
        torch.testing.assert_close(seen[0][0], expected)
        res2 = seen[0][1]
        torch.testing.assert_close(seen[1][0], 0.75 * res2 + 0.25 * grown(neck.res2(motion), *res2.shape[2:]))


# X_t + X_t * (M(X_t, X_t+1) + M(X_t, X_t-1)) / 2, M(A, B) = sigmoid(Conv(mean of CNN_j(A - Conv(B)))) - 1/2
@pytest.mark.parametrize("frames,h,w", [(3, 3, 5), (1, 2, 2), (2, 1, 3)])
def test_long_terms_equations(frames, h, w):
    torch.manual_seed(0)
    n, c, r = 2, 4, 2
    module = scrambled(tdn.LongTerm(c, frames, 2))
    x = torch.randn(n * frames, c, h, w, dtype=torch.double)
    with torch.no_grad():
        out = module(x)
    Maps = list[list[list[float]]]  # [channel][row][column]

    def around(kernel: torch.Tensor, maps: list[list[float]], i: int, j: int) -> float:
        """Apply a 3x3 kernel at one position of one channel."""
        near = [(k, m) for k in (-1, 0, 1) for m in (-1, 0, 1) if 0 <= i + k < len(maps) and 0 <= j + m < len(maps[0])]
        return sum(kernel[k + 1, m + 1].item() * maps[i + k][j + m] for k, m in near)

    def convolved(conv: nn.Conv2d, norm: nn.BatchNorm2d, maps: Maps) -> Maps:
        rows, columns = range(len(maps[0])), range(len(maps[0][0]))

        def at(to: int, i: int, j: int) -> float:
            return normed(norm, sum(around(conv.weight[to, a], maps[a], i, j) for a in range(r)), to)

        return [[[at(to, i, j) for j in columns] for i in rows] for to in range(r)]

    def squeezed(row: int) -> Maps:
        def at(to: int, i: int, j: int) -> float:
            total = sum(module.squeeze.weight[to, a, 0, 0].item() * x[row, a, i, j].item() for a in range(c))
            return normed(module.squeeze_norm, total, to)

        return [[[at(to, i, j) for j in range(w)] for i in range(h)] for to in range(r)]

    def mask(clip: int, t: int, other: int) -> Maps:
        difference = [[[0.0] * w for _ in range(h)] for _ in range(r)]
        if 0 <= other < frames:
            a, b = squeezed(clip * frames + t), squeezed(clip * frames + other)
            for to, i, j in ((to, i, j) for to in range(r) for i in range(h) for j in range(w)):
                difference[to][i][j] = a[to][i][j] - around(module.align.weight[to, 0], b[to], i, j)
        tall, wide = min(2, h), min(2, w)
        pooled = torch.tensor(difference).unfold(1, tall, tall).unfold(2, wide, wide).mean((3, 4)).tolist()
        fine = convolved(module.fine, module.fine_norm, difference)
        coarse = convolved(module.coarse, module.coarse_norm, pooled)
        rows, columns = len(pooled[0]), len(pooled[0][0])

        def at(to: int, i: int, j: int) -> float:
            parts = [
                (difference[a][i][j] + fine[a][i][j] + coarse[a][i * rows // h][j * columns // w]) / 3 for a in range(r)
            ]
            total = sum(module.expand.weight[to, a, 0, 0].item() * parts[a] for a in range(r))
            return sigmoid(normed(module.expand_norm, total, to)) - 0.5

        return [[[at(to, i, j) for j in range(w)] for i in range(h)] for to in range(c)]

    for clip, t in ((clip, t) for clip in range(n) for t in range(frames)):
        both = torch.tensor(mask(clip, t, t + 1)) + torch.tensor(mask(clip, t, t - 1))
        now = x[clip * frames + t]
        torch.testing.assert_close(out[clip * frames + t], now + now * both.double() / 2, rtol=1e-5, atol=1e-6)


def test_its_convolution_over_time_is_one_and_starts_as_a_shift():
    torch.manual_seed(0)
    module = TemporalShiftConv(16, 3)
    x = torch.randn(2, 3, 16, 2, 3)
    shifted = module(x.flatten(0, 1)).unflatten(0, (2, 3))
    assert torch.equal(shifted[:, :-1, :2], x[:, 1:, :2]) and not shifted[:, -1, :2].any()
    assert torch.equal(shifted[:, 1:, 2:4], x[:, :-1, 2:4]) and not shifted[:, 0, 2:4].any()
    assert torch.equal(shifted[:, :, 4:], x[:, :, 4:])
    nn.init.normal_(module.weight)
    series = x.permute(0, 3, 4, 2, 1).reshape(-1, 16, 3)
    expected = nn.functional.conv1d(series, module.weight, padding=1, groups=16)
    torch.testing.assert_close(
        module(x.flatten(0, 1)).unflatten(0, (2, 3)).permute(0, 3, 4, 2, 1).flatten(0, 2), expected
    )


# A listing of benchmarks, not the paper, has 198 G for ResNet-101 over 8 and over 16 frames together.
def test_it_costs_what_is_printed():
    nets = {frames: made("resnet", "101", "tdn", frames, 174) for frames in (8, 16)}
    counted = {frames: costs.macs(net, (1, frames, 3, 224, 224)) / 1e9 for frames, net in nets.items()}
    assert sum(round(each) for each in counted.values()) == 198


def test_it_keeps_the_weights_and_names_that_it_stands_on():
    plain, net = made("resnet", "50", "none", 8, 5), made("resnet", "50", "tdn", 8, 5)
    brought = net.state_dict().keys() - plain.state_dict().keys()
    assert plain.state_dict().keys() < net.state_dict().keys()
    assert all(".conv2.t" in name or ".neck." in name for name in brought)
    masked = {name.split(".conv2.")[0] for name in brought if ".conv2.t" in name}
    assert len(masked) == 4 + 6 + 3 and not any(".layer1." in name for name in masked)


def test_new_parts_start_from_the_weights_of_the_first_stages():
    torch.manual_seed(0)
    backbone = video.build("resnet", "tiny", "tdn", 4, 5).backbone
    ours, theirs = backbone.neck.res2.state_dict(), backbone.layer1.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    for plane in range(12):
        torch.testing.assert_close(backbone.neck.conv.weight[:, plane], backbone.conv1.weight.mean(1))


@pytest.mark.parametrize(
    "knobs,message", [({"parts": ["wide"]}, "wide.*short, long"), ({"share": 1.0}, "share is 1.0")]
)
def test_invalid_knobs_are_named(knobs, message):
    with pytest.raises(ValueError, match=message):
        made("resnet", "18", "tdn", 4, 5, **knobs)
