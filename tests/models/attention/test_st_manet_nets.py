"""ST-MANet in its networks: links between stages, penalties, the paper's rows, and costs."""

from functools import cache

import pytest
import torch
from ruamel.yaml import YAML
from torch import Tensor, nn

from models import costs, video
from models.attention.st_manet import PARTS
from models.layers.st_attention import Gram, likeness
from tests.support.real_data import TEST_DATA

SHARED = TEST_DATA
CLIP = (1, 32, 3, 112, 112)  # the paper's, (N, T, C, H, W)
COMBINATIONS = (["tda"], ["sda"], ["tda", "sda"], ["mf"], ["tda", "sda", "mf"])  # of table 4


def tiny(frames: int = 8, **knobs) -> video.VideoNet:
    torch.manual_seed(0)
    return video.build("resnet3d", "tiny", "st_manet", frames, classes=5, knobs=knobs)


def clips(n: int, frames: int, h: int = 64, w: int = 64) -> Tensor:
    return torch.randn(n, frames, 3, h, w, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@pytest.mark.parametrize(
    "knobs",
    [{}, {"feed": False}, {"joined": "sum"}, {"once": True}, {"branch": "apart"}, {"convolved": True}],
    ids=str,
)
@pytest.mark.parametrize("parts", COMBINATIONS, ids="-".join)
@pytest.mark.parametrize("frames,h,w", [(8, 64, 64), (5, 45, 37)])
def test_what_goes_from_stage_to_stage(parts, knobs, frames, h, w):
    net = tiny(frames, parts=parts, **knobs).eval().double()
    backbone, neck = net.backbone, net.backbone.neck
    volumes = clips(2, frames, h, w).transpose(1, 2).double()
    x = backbone.stage("stem", volumes)
    branch = neck.start(x) if "tda" in parts else None
    means = []
    for stage in ("res2", "res3", "res4", "res5"):
        z = x = backbone.stage(stage, x)
        terms = [z]
        if "tda" in parts:
            branch = branch if stage == "res2" else nn.functional.max_pool3d(branch, 2, ceil_mode=True)
            _, z_t, branch = neck.tda[stage](z, branch)
            if z_t is not None:
                terms.append(z_t - z if knobs.get("once") else z_t)
            x = z_t
        if "sda" in parts:
            terms.append(neck.sda[stage](z, torch.zeros_like(z))[1])
        if stage == "res5" and "tda" in parts and knobs.get("branch") != "apart":
            assert branch.shape == z.shape
            terms.append(branch)
        zhat = sum(terms) / (1 if knobs.get("joined") == "sum" else len(terms))
        x = zhat if "sda" in parts else x
        x = x if knobs.get("feed", True) else z
        means.append(zhat.mean((2, 3, 4)))
    wanted = torch.cat(means, 1) if "mf" in parts else means[-1]
    torch.testing.assert_close(backbone(volumes).mean((2, 3, 4)), wanted)
    assert net.head.in_features == wanted.shape[1] == (32 + 64 + 128 + 256 if "mf" in parts else 256)


@torch.no_grad()
def test_the_readout_is_as_long_as_the_baselines():
    """The sum of the readouts is longer, and diverges at the published rate."""
    lengths = {}
    for name, knobs in (("none", None), ("mean", {}), ("sum", {"joined": "sum"})):
        torch.manual_seed(0)
        attention = "none" if knobs is None else "st_manet"
        net = video.build("resnet3d", "tiny", attention, 8, classes=5, knobs=knobs)
        seen: list[Tensor] = []
        net.head.register_forward_pre_hook(lambda m, given, seen=seen: seen.append(given[0]))
        net(clips(4, 8))
        lengths[name] = float(seen[0].square().sum(1).mean())
    assert lengths["mean"] < 4 * lengths["none"] < lengths["sum"]


@torch.no_grad()
@pytest.mark.parametrize("readout,channels", [("res2", 32), ("res3", 64), ("res4", 128), ("res5", 256)])
def test_an_early_readout_is_the_whole_nets_stage(readout, channels):
    whole, early = tiny().eval(), tiny(parts=["tda", "sda"], readout=readout).eval()
    assert early.head.in_features == channels
    state = whole.backbone.state_dict()
    early.backbone.load_state_dict({name: state[name] for name in early.backbone.state_dict()})
    seen: dict[str, Tensor] = {}
    x = clips(2, 8).transpose(1, 2)
    for stage in list(early.backbone.stages):
        x = whole.backbone.neck(stage, whole.backbone.stage(stage, x), seen)
    zhat = early.backbone(clips(2, 8).transpose(1, 2))
    if readout == "res5":
        means = x[:, -channels:]
        torch.testing.assert_close(zhat.mean((2, 3, 4), keepdim=True), means)
    else:
        torch.testing.assert_close(zhat, x)


@pytest.mark.parametrize(
    "knobs",
    [
        *({"parts": parts} for parts in COMBINATIONS),
        {"parts": ["tda", "sda"], "readout": "res2"},
        {"parts": ["tda"], "readout": "res4"},
        {"parts": ["tda"], "feed": False},
        {"feed": False},
        {"second_softmax": True, "dense_maps": True},
        {"dense_branch": False},
        {"joined": "sum", "once": True, "branch": "apart"},
        {"convolved": True, "normed": True},
    ],
    ids=str,
)
def test_gradient_reaches_every_parameter(knobs):
    net = tiny(32, **knobs)  # two frames are left in res5: attention of one frame to itself is 1, whatever its weights
    nn.init.normal_(net.head.weight)
    ((net(clips(2, 32)) * torch.randn(2, 5)).sum() + net.penalty(torch.sum)).backward()
    assert [name for name, value in net.named_parameters() if value.grad is None or not value.grad.any()] == []


@pytest.mark.parametrize("parts", COMBINATIONS, ids="-".join)
def test_penalties(parts):
    net = tiny(32, parts=parts, lambda1=0.3, lambda2=2.0)
    net.eval()(clips(2, 32))
    assert net.penalty(torch.sum) == 0
    net.train()(clips(2, 32))
    kept = net.backbone.neck.kept
    assert set(kept) == {name for name, part in (("A_s", "sda"), ("A_t", "tda")) if part in parts}
    grids = {"A_s": [(16, 16), (8, 8), (4, 4), (2, 2)], "A_t": None}
    weights = {"A_s": 0.3, "A_t": 2.0}
    wanted = sum((weights[name] * likeness(kept[name], grids[name]) for name in kept), start=torch.zeros(()))
    sizes = {name: [len(matrix[0]) for matrix in kept[name]] for name in kept}
    assert sizes == {name: {"A_s": [256, 64, 16, 4], "A_t": [16, 8, 4, 2]}[name] for name in kept}
    penalty = net.penalty(torch.sum)
    torch.testing.assert_close(penalty, wanted)
    assert bool(penalty) == penalty.requires_grad == bool(kept)
    assert net.penalty(torch.sum) == 0  # asked for once
    net(clips(2, 32))
    assert net.eval().penalty(torch.sum) == 0


def test_the_penalty_compares_the_same_places_of_all_stages():
    """Spatial attention that is constant on quarters of the frame is the same attention at each stage."""
    net = tiny(32, parts=["sda"], lambda1=1.0)
    net(clips(1, 32))
    quarters = torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(0))
    matrices = []
    for side in (16, 8, 4, 2):
        half = torch.arange(side) // (side // 2)
        place = (2 * half[:, None] + half).flatten()  # the quarter of each pixel
        matrices.append(quarters[:, place][:, :, place])
    assert [kept.shape for kept in net.backbone.neck.kept["A_s"]] == [matrix.shape for matrix in matrices]
    net.backbone.neck.kept["A_s"] = matrices
    assert float(net.penalty(torch.sum)) == pytest.approx(4 * 3)  # each ordered pair of stages has cosine 1


def test_a_penalty_of_no_weight_keeps_nothing():
    net = tiny(lambda1=0.0)
    net(clips(2, 8))
    assert set(net.backbone.neck.kept) == {"A_t"}


def published() -> list[dict]:
    path = SHARED / "published" / "st_manet.yaml"
    return YAML(typ="safe").load(path.read_text())["tables"] if path.exists() else []


def own_rows() -> list:
    """Return (table and row, attention, knobs) of every row that the authors ran."""
    rows = []
    for table in published():
        for row in table["rows"]:
            parts = [part for part in PARTS if row.get(part)]
            if not row["own"]:
                continue
            if table["table"] == "F4" and row["method"].startswith("stage"):
                knobs = {"parts": ["tda", "sda"], "readout": "res" + row["method"].split()[1]}
            else:
                knobs = {"parts": parts} if parts else {}
            plain = table["table"] == "T4" and not parts
            rows.append(pytest.param("none" if plain else "st_manet", knobs, id=f"{table['table']} {row['method']}"))
        for weight in ("lambda1", "lambda2"):
            for value in table.get("grid", {}).get(weight, []):
                rows.append(pytest.param("st_manet", {weight: float(value)}, id=f"{table['table']} {weight} {value}"))
    return rows or [pytest.param("", {}, marks=pytest.mark.skip(reason=f"no published/st_manet.yaml in {SHARED}"))]


@pytest.mark.parametrize("attention,knobs", own_rows())
def test_rows_of_the_paper_build(attention, knobs):
    with torch.device("meta"):
        net = video.build("resnet3d", "50", attention, 32, 101, knobs=knobs)
    fused = attention == "st_manet" and "mf" in knobs.get("parts", PARTS)
    readout = knobs.get("readout", "res5")
    features = 256 + 512 + 1024 + 2048 if fused else {"res2": 256, "res3": 512, "res4": 1024, "res5": 2048}[readout]
    assert net.head.weight.shape == (101, features)


@cache
def cost(attention: str = "st_manet", parts: tuple[str, ...] = PARTS, **knobs: bool) -> tuple[int, int]:
    """Return parameters and multiply-accumulates of the paper's network at the paper's size."""
    with torch.device("meta"):
        given = {"parts": parts, **knobs} if attention == "st_manet" else {}
        net = video.build("resnet3d", "50", attention, 32, 101, knobs=given)
    return costs.parameters(net), costs.macs(net, CLIP)


PLAIN = 20_137_191_424
# C, T, P of res2 to res5, and what the branch has behind each
SHAPES = ((256, 16, 784, 256), (512, 8, 196, 512), (1024, 4, 49, 1024), (2048, 2, 16, 2048))


def test_the_baselines_cost():
    assert cost("none") == (46_405_925, PLAIN)


def test_what_each_part_adds():
    both = [c * 3 // 2 for c, *_ in SHAPES]
    branch = sum(3 * b * after * t * p for b, (_, t, p, after) in zip(both, SHAPES, strict=True))
    main = sum(3 * c * c * t * p for c, t, p, _ in SHAPES)
    temporal = sum(t * t * p * (2 * b + c) for b, (c, t, p, _) in zip(both, SHAPES, strict=True))
    spatial = sum(2 * p * p * c * t for c, t, p, _ in SHAPES)
    depthwise = sum(3 * t * p * (3 * b + c) for b, (c, t, p, _) in zip(both, SHAPES, strict=True))
    start = 3 * 64 * 128 * 16 * 784
    head = (3840 - 2048) * 101
    # the shares of the baseline, in percent, that the paper's formulas give
    shares = {"branch": branch, "main": main, "temporal": temporal, "spatial": spatial}
    printed = {"branch": 35.1, "main": 23.4, "temporal": 1.2, "spatial": 26.6}
    for name, macs in shares.items():
        assert abs(100 * macs / PLAIN - printed[name]) < 0.1
    assert abs(sum(shares.values()) / PLAIN - 0.86) < 0.005
    assert abs((temporal + spatial) / PLAIN - 0.278) < 0.0005
    # Those 86% leave out the branch's start, the convolutions over each channel alone and the wider head: 2% more.
    assert cost()[1] - PLAIN == sum(shares.values()) + depthwise + start + head
    assert abs(cost()[1] / PLAIN - 1.883) < 0.0005
    assert cost(parts=("sda",)) == (46_405_925, PLAIN + spatial)
    assert cost(parts=("tda",))[1] - PLAIN == branch + main + temporal + depthwise + start
    assert cost(parts=("mf",))[1] - PLAIN == head
    # phi and omega across the channels are 105% by themselves
    dense = sum(2 * 3 * b * b * t * p for b, (_, t, p, _) in zip(both, SHAPES, strict=True))
    assert abs(dense / PLAIN - 1.05) < 0.005
    assert cost(dense_maps=True)[1] > cost()[1] + dense - depthwise
    # A count of layers alone, with the branch's eps in small groups, comes near the printed 24%.
    layers = cost(dense_branch=False)[1] - temporal - spatial
    assert abs(layers / PLAIN - 1.255) < 0.0005


def test_parameters_it_adds():
    both = [c * 3 // 2 for c, *_ in SHAPES]
    tda = sum(3 * (b * after + c * c + 3 * b + c) for b, (c, _, _, after) in zip(both, SHAPES, strict=True))
    plain = 46_405_925
    assert cost(parts=("tda",))[0] == plain + tda + 3 * 64 * 128
    assert cost()[0] == plain + tda + 3 * 64 * 128 + (3840 - 2048) * 101


def test_parameters_of_other_readings():
    """`convolved`: four 1x1x1 convolutions per stage; `normed`: a batch norm after each epsilon."""
    assert cost(convolved=True)[0] - cost()[0] == sum(4 * c * c for c, *_ in SHAPES)
    assert cost(normed=True)[0] - cost()[0] == sum(2 * (c + after) for c, *_, after in SHAPES)


@pytest.mark.parametrize("frames,h,w", [(1, 32, 32), (2, 33, 17), (7, 48, 31)])
def test_any_size(frames, h, w):
    net = tiny(frames).eval()
    assert net(clips(2, frames, h, w)).isfinite().all()


def test_frames_and_unknown_values_are_refused():
    for knobs, line in (
        ({"parts": []}, r"parts \[\] must be some of tda, sda, mf"),
        ({"parts": ["tda", "tsa"]}, "must be some of tda, sda, mf"),
        ({"joined": "product"}, "joined is 'product'; known: mean, sum"),
        ({"branch": "none"}, "branch is 'none'; known: added, apart"),
        ({"readout": "stem"}, "readout is 'stem'; known: res2, res3, res4, res5"),
        ({"readout": "res3"}, "readout 'res3' does not go with the part 'mf'"),
    ):
        with pytest.raises(ValueError, match=line):
            tiny(**knobs)
    with pytest.raises(
        ValueError, match="of layout 'volume' that ends with res5, not one of 'frames' that ends with res5"
    ):
        video.build("resnet", "tiny", "st_manet", 8, classes=5)


def test_the_product_of_all_rows_has_its_gradient_also_under_autocast() -> None:
    rows = torch.randn(2, 6, 5, requires_grad=True)
    weights = torch.randn(2, 6, 6)
    (rows @ rows.transpose(-2, -1) * weights).sum().backward()
    expected, rows.grad = rows.grad, None
    with torch.autocast("cpu", torch.bfloat16):
        products = Gram.apply(rows)
    assert products.dtype == torch.bfloat16
    (products * weights).sum().backward()
    assert rows.grad.dtype == rows.dtype
    torch.testing.assert_close(rows.grad, expected, rtol=0.05, atol=0.05)
