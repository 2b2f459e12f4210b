"""TPN's neck, auxiliary loss and shift against the authors' numbers and a plain rewriting."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models import weights
from models.backbones.resnet import Bottleneck, Member, ResNet
from models.layers import tpn
from models.layers.shift import shift_blocks
from tests.support.nets.golden import close, stored
from tests.support.nets.tpn import filled


def official(name: str) -> str:
    return "sd/" + weights.neck_by_tpn(name)


@pytest.mark.parametrize("path", stored("tpn_neck_*.npz"))
def test_the_authors_neck(path):
    data = np.load(path)
    meta = json.loads(str(data["meta"]))
    levels = [torch.from_numpy(data[f"x{at}"]) for at in range(len(meta["in_channels"]))]
    pyramid = tpn.TemporalPyramid(
        meta["in_channels"],
        meta["out_channels"],
        meta["mid_channels"],
        meta["level_fusion_out"],
        data["out"].shape[1],
        meta["temporal_scales"],
    )
    aux = tpn.AuxiliaryHead(meta["in_channels"][-2], meta["aux_classes"], meta["aux_loss_weight"])
    stages = [f"level{at}" for at in range(len(levels))]
    neck = tpn.PyramidNeck(stages, levels[0].shape[2], pyramid, aux).eval()
    names = {name: official(name) for name in neck.state_dict()}
    assert set(names.values()) == {name for name in data.files if name.startswith("sd/")}
    neck.load_state_dict({name: torch.from_numpy(data[theirs]) for name, theirs in names.items()})

    aux.training = True  # as its flag alone: its norm and dropout stay in eval mode, as in the file
    for folded in (False, True):
        for flow, key in (("cascade", "out"), ("parallel", "out_parallel")):
            pyramid.flow = flow
            seen: dict[str, Tensor] = {}
            for stage, level in zip(stages, levels, strict=True):
                out = neck(stage, level.transpose(1, 2).flatten(0, 1) if folded else level, seen)
            golden = data[key].swapaxes(1, 2).reshape(-1, *np.delete(data[key].shape, [0, 2])) if folded else data[key]
            close(out, golden)
        loss = neck.aux.penalty(lambda logits: F.cross_entropy(logits, torch.from_numpy(data["target"])))
        close(loss, data["loss_aux"])
    for at, level in enumerate(pyramid.modulated(levels)):
        close(level, data[f"tm{at}"])


@pytest.mark.parametrize("path", stored("tpn_tsm_bottleneck_*.npz"))
def test_the_authors_shift(path):
    data = np.load(path)
    meta = json.loads(str(data["meta"]))
    ins, width = data["x"].shape[1], data["sd/0.conv1.weight"].shape[0]
    net = ResNet(Member(Bottleneck, (1, 2, 1, 1), (ins // 4, width, width, width)))
    place = {"inplace": tpn.shift_in_place, "residual": shift_blocks}[meta["tsm_position"]]
    place(net, meta["nsegments"], 8, "tpn")
    blocks = net.layer2.eval()
    blocks.load_state_dict({name: torch.from_numpy(data[f"sd/{name}"]) for name in blocks.state_dict()})
    close(blocks[0](torch.from_numpy(data["x"])), data["out_block0"])
    close(blocks(torch.from_numpy(data["x"])), data["out"])


def rewritten(state: dict[str, Tensor], levels: list[Tensor], scale: int, cascade: bool) -> Tensor:
    """Compute the neck from its description: one clip's levels (C, T, H, W) -> (features, T/scale, H, W)."""

    def norm(name: str, x: Tensor) -> Tensor:
        mean, var, weight, bias = (
            state[f"{name}.{key}"][:, None, None, None] for key in ("running_mean", "running_var", "weight", "bias")
        )
        return torch.relu((x - mean) / (var + 1e-5).sqrt() * weight + bias)

    def pointwise(weight: Tensor, x: Tensor) -> Tensor:
        """Apply a 1x1x1 convolution group by group."""
        outs, ins = weight.shape[:2]
        groups = len(x) // ins
        parts = [
            torch.einsum("oi,ithw->othw", weight[g * outs // groups : (g + 1) * outs // groups, :, 0, 0, 0], part)
            for g, part in enumerate(x.split(ins))
        ]
        return torch.cat(parts)

    def in_time(weight: Tensor, x: Tensor) -> Tensor:
        """Apply a 3x1x1 convolution over frames t-1, t and t+1, zero-padded."""
        zero = torch.zeros_like(x[:, :1])
        around = (torch.cat([zero, x[:, :-1]], 1), x, torch.cat([x[:, 1:], zero], 1))
        return sum(pointwise(weight[:, :, k : k + 1], part) for k, part in enumerate(around))

    modulated = []
    for at, x in enumerate(levels):
        for step in range(len(levels) - 1 - at):
            name = f"spatial.{at}.{step}"
            frames = [F.conv2d(x[:, t], state[f"{name}.0.weight"][:, :, 0], None, 2, 1) for t in range(x.shape[1])]
            x = norm(f"{name}.1", torch.stack(frames, 1))
        x = in_time(state[f"temporal.{at}.conv.weight"], x)
        modulated.append(torch.stack([part.amax(1) for part in x.split(scale, 1)], 1))

    def fused(name: str, levels: list[Tensor]) -> Tensor:
        branches = []
        for at, x in enumerate(levels):
            branches.append(norm(f"{name}.levels.{at}.1", pointwise(state[f"{name}.levels.{at}.0.weight"], x)))
        return norm(f"{name}.fuse.1", pointwise(state[f"{name}.fuse.0.weight"], torch.cat(branches)))

    # Level at of the top-down flow is the sum of all modulated levels from it up.
    down = [sum(modulated[at:]) for at in range(len(levels))]
    start = down if cascade else modulated
    up = [start[0]]
    for at in range(1, len(levels)):
        up.append(start[at] + in_time(state[f"up.{at - 1}.weight"], up[-1]))
    both = torch.cat([fused("top_down", down), fused("bottom_up", up)])
    return norm("fuse.1", pointwise(state["fuse.0.weight"], both))


@pytest.mark.parametrize("flow", ["cascade", "parallel"])
@pytest.mark.parametrize("channels,frames,scale", [((8, 16), 5, None), ((4, 8, 16), 4, 2), ((6, 10, 24), 3, 1)])
def test_the_neck_is_what_its_description_says(channels, frames, scale, flow):
    scales = scale and [scale] * len(channels)
    pyramid = tpn.TemporalPyramid(channels, 8, 12, 16, 20, scales, flow)
    pyramid = filled(pyramid).double().eval()
    if channels[0] == 6:  # no power of two times the first: only the last step need end at 24
        assert [conv[0].out_channels for conv in pyramid.spatial[0]] == [12, 24]
    levels = [
        torch.randn(2, width, frames, 5 * 2**at, 3 * 2**at, dtype=torch.double)
        for at, width in zip(reversed(range(len(channels))), channels, strict=True)
    ]
    out = pyramid(levels)
    assert out.shape == (2, 20, -(-frames // (scale or frames)), 5, 3)
    for clip in range(2):
        expected = rewritten(pyramid.state_dict(), [x[clip] for x in levels], scale or frames, flow == "cascade")
        torch.testing.assert_close(out[clip], expected, rtol=1e-9, atol=1e-9)
