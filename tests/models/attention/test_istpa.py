"""ISTPA's equations, one number at a time, and stored evaluations of our reading."""

import copy
import functools
import itertools
import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention import istpa
from models.layers.pyramid import InteractionPyramid, attention_loss, interaction_loss
from tests.support.nets.golden import stored
from tests.support.nets.istpa import build, clips, run, softmax

STAGES = ("res2", "res3", "res4", "res5")
FUSIONS = {"product": math.prod, "sum": sum, "max": max}
IN_GOLDEN = {"mul": "product", "sum": "sum", "max": "max"}


@pytest.mark.parametrize("path", stored("spec_istpa_*.npz"))
def test_the_stored_evaluation(path):
    data = np.load(path)
    maps = [torch.from_numpy(data[f"x{at}"]) for at in range(sum(name[0] == "x" for name in data.files))]
    names = STAGES[-len(maps) :]
    fusion = IN_GOLDEN[json.loads(str(data["meta"])).get("fusion", "mul")]
    channels = {name: x.shape[2] for name, x in zip(names, maps, strict=True)}
    neck = InteractionPyramid(maps[0].shape[1], channels, tuple(maps[-1].shape[3:]), fusion).double()
    for at, name in enumerate(names):
        state = {"weight": torch.from_numpy(data[f"W{at}"].T), "bias": torch.from_numpy(data[f"b{at}"][0])}
        neck.scores[name].load_state_dict(state)
    scores, attention, merged = run(neck, dict(zip(names, maps, strict=True)))
    x = maps[-1].flatten(3).transpose(2, 3).flatten(1, 2)  # (N, K*P, C)
    ours = {
        "A": attention,
        "M": merged,
        "L_interactive": interaction_loss(x, attention),
        "L_attn": attention_loss(attention, scores, neck.frames),
        **{f"Y{at}": score for at, score in enumerate(scores)},
    }
    for name, value in ours.items():
        np.testing.assert_allclose(value.detach().numpy(), data[name], rtol=0, atol=1e-10, err_msg=name)


def pooled(image: Tensor, h: int, w: int) -> list[float]:
    """Return the h*w maxima of overlapping windows of one channel of a frame (H, W), row by row."""
    height, width = image.shape
    rows = [(i * height // h, -(-(i + 1) * height // h)) for i in range(h)]
    columns = [(j * width // w, -(-(j + 1) * width // w)) for j in range(w)]
    return [
        max(float(image[y, x]) for y in range(*row) for x in range(*column))
        for row, column in itertools.product(rows, columns)
    ]


def by_hand(maps: list[Tensor], weights: list[Tensor], biases: list[Tensor], fusion: str):
    """Maps (K, C, H, W) of each scale of a clip, W_j (C, P), b_j (P) -> X_i[c][r], Y_j[m][r], a_m[r], M[c][m].

    r counts positions of all frames, frame by frame, at the size of the last scale; m counts those of the merged map.
    Columns of Y_j and A are lists here.
    """
    size = tuple(maps[-1].shape[2:])
    xs = [[[value for frame in x for value in pooled(frame[c], *size)] for c in range(x.shape[1])] for x in maps]
    scores = []
    for x, weight, bias in zip(xs, weights, biases, strict=True):
        columns = range(weight.shape[1])
        scores.append(
            [
                [
                    sum(x[c][r] * float(weight[c, m]) for c in range(len(x))) + float(bias[m])  # equation 2
                    for r in range(len(x[0]))
                ]
                for m in columns
            ]
        )
    attention = []
    for columns in zip(*scores, strict=True):  # each scale's column m
        a = softmax([FUSIONS[fusion](values) for values in zip(*columns, strict=True)])
        length = math.sqrt(sum(value * value for value in a))
        attention.append([value / length for value in a])
    merged = [[sum(x * a for x, a in zip(row, column, strict=True)) for column in attention] for row in xs[-1]]
    return xs[-1], scores, attention, merged


def interaction_by_hand(x: list[list[float]], attention: list[list[float]]) -> float:
    """Return equation 8 of one clip."""
    total = 0.0
    for m, a in enumerate(attention):
        total -= sum(sum(value * weight for value, weight in zip(row, a, strict=True)) ** 2 for row in x)
        for n, other in enumerate(attention):
            if n != m:
                total += sum(one * two for one, two in zip(a, other, strict=True)) ** 2
    return total


def attention_by_hand(attention: list[list[float]], scores: list[list[list[float]]], frames: int) -> float:
    """Return equations 14 and 15 of one clip."""
    radicand = 0.0
    for columns in scores:
        for a, column in zip(attention, columns, strict=True):
            alone = softmax(column)
            positions = len(a) // frames
            for t in range(frames):
                rows = range(t * positions, (t + 1) * positions)
                delta = math.sqrt(sum((a[r] - alone[r]) ** 2 for r in rows))
                radicand += 1 - delta**2
    return math.sqrt(max(1e-12, radicand))


@pytest.mark.parametrize(
    "sizes,size,frames",
    [([(7, 5), (4, 3)], (2, 2), 3), ([(2, 3)], (2, 3), 2), ([(8, 8), (4, 4), (1, 1), (3, 2)], (2, 2), 1)],
)
@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("shared", [False, True])
def test_the_equations(fusion, shared, sizes, size, frames):
    generator = torch.Generator().manual_seed(0)
    names = STAGES[-len(sizes) :]
    maps = {
        name: torch.randn(2, frames, 3 + at, *side, dtype=torch.double, generator=generator)
        for at, (name, side) in enumerate(zip(names, sizes, strict=True))
    }
    neck = InteractionPyramid(frames, {name: x.shape[2] for name, x in maps.items()}, size, fusion, shared).double()
    for parameter in neck.parameters():
        nn.init.normal_(parameter, generator=generator)
    scores, attention, merged = run(neck, maps)
    x = neck._positions(maps[names[-1]].flatten(0, 1), maps[names[-1]].shape[3:])
    losses = interaction_loss(x, attention), attention_loss(attention, scores, frames)
    positions = size[0] * size[1]
    for clip in range(2):
        weights = [layer.weight.detach().T.expand(-1, positions) for layer in neck.scores.values()]
        biases = [layer.bias.detach().expand(positions) for layer in neck.scores.values()]
        hand_x, hand_y, hand_a, hand_m = by_hand([x[clip] for x in maps.values()], weights, biases, fusion)
        close = functools.partial(torch.testing.assert_close, rtol=1e-10, atol=1e-10)
        close(attention[clip].T, torch.tensor(hand_a, dtype=torch.double))
        close(merged[clip].flatten(1), torch.tensor(hand_m, dtype=torch.double))
        for score, columns in zip(scores, hand_y, strict=True):
            close(score[clip].T, torch.tensor(columns, dtype=torch.double))
        assert losses[0][clip].item() == pytest.approx(interaction_by_hand(hand_x, hand_a), rel=1e-10)
        assert losses[1][clip].item() == pytest.approx(attention_by_hand(hand_a, hand_y, frames), rel=1e-10)
    if shared:  # one attention for all positions; a matrix product may be summed otherwise at a block's end
        close(merged, merged[..., :1, :1].expand_as(merged))


# Equations 12 and 16: what is added to the classification loss of a clip.
@pytest.mark.parametrize("interaction,attention", [(1e-4, 1e-4), (0.5, 0.0), (0.0, 2.0)])
def test_the_penalty_is_both_losses_by_their_weights(interaction, attention):
    net = build(interaction=interaction, attention=attention).double()
    neck, caught = net.backbone.neck, []
    neck.attention.register_forward_hook(lambda m, inputs, out: caught.extend((inputs[0], out)))
    tops: list[Tensor] = []
    neck.register_forward_hook(lambda m, inputs, out: tops.append(inputs[1]))
    net(clips().double())
    scores, a = caught
    x = F.adaptive_max_pool2d(tops[-1], 2).unflatten(0, (2, 3)).flatten(3)  # (N, K, C, P)
    expected = 0.0
    for clip in range(2):
        columns = a[clip].T.tolist()
        rows = [[value for frame in x[clip] for value in frame[c].tolist()] for c in range(x.shape[2])]
        expected += interaction * interaction_by_hand(rows, columns) / 2
        expected += attention * attention_by_hand(columns, [score[clip].T.tolist() for score in scores], 3) / 2
    penalty = net.penalty(torch.sum)
    assert penalty.item() == pytest.approx(expected, rel=1e-9)
    assert penalty.requires_grad


def test_a_penalty_is_of_the_last_clips_and_once():
    net = build(interaction=0.0, attention=1.0)
    net(clips())
    first = net.penalty(torch.sum)
    assert first > 0 and net.penalty(torch.sum) == 0
    net(clips(seed=2))
    net(clips())
    assert net.penalty(torch.sum) == first
    net(clips())
    net.eval()(clips())
    assert net.penalty(torch.sum) == 0
    copy.deepcopy(net)


def test_without_losses_there_is_no_penalty():
    net = build(interaction=0.0, attention=0.0)
    net(clips())
    copy.deepcopy(net)  # nothing of the graph is kept
    assert net.penalty(torch.sum) == 0


def test_the_interaction_loss_holds_the_maps_fixed():
    x = torch.randn(2, 6, 4, requires_grad=True)
    attention = torch.rand(2, 6, 2, requires_grad=True)
    interaction_loss(x, attention).sum().backward()
    assert x.grad is None and attention.grad.any()


def test_the_attention_loss_of_an_image_cannot_be_the_root_of_less_than_nothing():
    attention = torch.eye(4, 2).unsqueeze(0)
    far = torch.zeros(1, 4, 2)
    far[:, 3] = 100.0
    far.requires_grad_()
    loss = attention_loss(attention, [far], frames=1)  # both deltas' squares are 2
    loss.sum().backward()
    assert loss.item() == pytest.approx(1e-6, rel=1e-3)
    assert far.grad.isfinite().all()


def test_the_attention_loss_falls_as_the_attentions_part():
    """Equations 9 to 15 maximize the distance between the merged attention and that of each stage."""
    attention = torch.eye(4, 2).unsqueeze(0)
    losses = [attention_loss(attention, [near * attention], 2) for near in (100.0, 1.0, -100.0)]
    assert losses[0] > losses[1] > losses[2]
    assert "maximize" in istpa.__doc__ and "near what each stage" not in istpa.__doc__
