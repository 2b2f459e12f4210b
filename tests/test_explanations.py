"""Explanations against loops over their equations, nets whose only signal is in one place, and the pictures of them."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
import pairs
import pytest
import torch
from torch import Tensor, nn

from models import explanations, video
from models.contract import Backbone
from models.pyramid import InteractionPyramid
from models.video import VideoNet
from pipeline import params, pictures
from pipeline.cells import cells, net
from pipeline.executable import ffmpeg_exe
from stages import cli

FRAMES = 3


class Tiny(Backbone):
    """Two convolutions, 3 -> 2 -> `features` channels, each a stage; the second halves the size."""

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


def pooled(maps: Tensor, made: VideoNet, target: int) -> float:
    """The logit that the net's rest makes of its last maps."""
    rows = maps.flatten(2).mean(2)
    return float(made.head(rows)[:, target].mean())


def rest(made: VideoNet, stage: str, maps: Tensor, target: int) -> float:
    names = list(made.backbone.stages)
    for name in names[names.index(stage) + 1 :]:
        maps = made.backbone.stage(name, maps)
    return pooled(maps, made, target)


@pytest.mark.parametrize("stage", ["res2", "res3"])
@pytest.mark.parametrize("layout", ["frames", "volume"])
def test_grad_cam_is_equations_1_and_2(layout: str, stage: str) -> None:
    """Each slope by a finite difference, one value of the maps at a time."""
    made, target, step = tiny(layout), 2, 1e-6
    clip = torch.randn(FRAMES, 3, 4, 4, dtype=torch.double)
    with torch.no_grad():
        maps = clip if layout == "frames" else clip.transpose(0, 1)[None]
        for name in list(made.backbone.stages)[: list(made.backbone.stages).index(stage) + 1]:
            maps = made.backbone.stage(name, maps)
        before = rest(made, stage, maps, target)
        slopes = torch.empty_like(maps)
        for at in np.ndindex(*maps.shape):
            moved = maps.clone()
            moved[at] += step
            slopes[at] = (rest(made, stage, moved, target) - before) / step
    wanted = torch.zeros(len(maps), *maps.shape[2:], dtype=torch.double)
    for row in range(len(maps)):
        for channel in range(maps.shape[1]):
            alpha = sum(slopes[row, channel].flatten().tolist()) / slopes[row, channel].numel()
            wanted[row] += alpha * maps[row, channel]
    wanted = wanted.clamp_min(0)[0] if layout == "volume" else wanted.clamp_min(0)
    assert wanted.max() > 0
    found = explanations.grad_cam(made, clip, target, stage)
    torch.testing.assert_close(found, wanted / wanted.max(), rtol=0, atol=1e-5)


def test_grad_cam_takes_the_predicted_class_and_the_last_stage() -> None:
    made, clip = tiny("frames"), torch.randn(FRAMES, 3, 4, 4, dtype=torch.double)
    best = int(made(clip[None]).argmax())
    torch.testing.assert_close(explanations.grad_cam(made, clip), explanations.grad_cam(made, clip, best, "res3"))
    assert all(parameter.grad is None for parameter in made.parameters()) and made.backbone.neck is None


def test_what_grad_cam_cannot_show_is_named() -> None:
    made, clip = tiny("frames"), torch.zeros(FRAMES, 3, 4, 4, dtype=torch.double)
    with pytest.raises(ValueError, match=r"no stage 'res9'; did you mean 'res3'. known: res2, res3"):
        explanations.grad_cam(made, clip, stage="res9")
    with pytest.raises(ValueError, match="no class 4; the net tells apart 0 to 3"):
        explanations.grad_cam(made, clip, 4)


@pytest.mark.parametrize(
    "pair", [p for p in pairs.pairs() if p[1] == "none" or p[0] in ("resnet", "resnet3d")], ids=pairs.name
)
def test_every_net_can_be_looked_at_and_stays_as_it_was(pair: pairs.Pair) -> None:
    made = pairs.build(pair, 4).eval()
    clip = pairs.clips(1, 4)[0]
    before, neck = made(clip[None]).detach(), made.backbone.neck
    maps = explanations.grad_cam(made, clip)
    assert maps.ndim == 3 and 1 <= len(maps) <= 4 and maps.min() >= 0 and maps.max() in (0, 1)
    has = explanations.available(made)
    assert ("eam" in has, "receptive" in has) == (pair[1] == "eam", pair[1] == "istpa")
    if "eam" in has:
        explanations.eam_weights(made, clip)
    if "receptive" in has:
        assert len(explanations.salient_fields(made, clip).fields) == 4
    assert made.backbone.neck is neck
    torch.testing.assert_close(made(clip[None]).detach(), before, rtol=0, atol=0)


class Bright(Backbone):
    """The maps are the pixels' first plane, in cells of 2x2."""

    layout, mean, std, channels = "frames", (0.0,) * 3, (1.0,) * 3, "rgb"

    def __init__(self) -> None:
        super().__init__()
        self.parts, self.stages, self.features = {"res2": ()}, {"res2": 1}, 1

    def stage(self, name: str, x: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(x[:, :1], 2)


def bright(frame: int, row: int, column: int) -> tuple[VideoNet, Tensor]:
    """A net whose class 1 is brightness, and a clip with one bright cell."""
    made = VideoNet(Bright(), FRAMES, classes=2).eval()
    made.head.weight.data.copy_(torch.tensor([[0.0], [1.0]]))
    clip = torch.zeros(FRAMES, 3, 8, 8)
    clip[frame, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = 5.0
    return made, clip


@pytest.mark.parametrize("place", [(0, 0, 0), (2, 3, 1)])
def test_grad_cam_lights_the_only_signal(place: tuple[int, int, int]) -> None:
    made, clip = bright(*place)
    wanted = torch.zeros(FRAMES, 4, 4)
    wanted[place] = 1.0
    torch.testing.assert_close(explanations.grad_cam(made, clip), wanted)
    assert not explanations.grad_cam(made, clip, target=0).any(), "nothing speaks for class 0"
    heat = explanations.upsampled(wanted, FRAMES, 8, 8)
    assert heat.shape == (FRAMES, 8, 8)
    assert not heat[torch.arange(FRAMES) != place[0]].any()


def test_a_volume_of_fewer_frames_is_spread_over_them_all() -> None:
    maps = torch.tensor([0.0, 1.0]).reshape(2, 1, 1)
    assert explanations.upsampled(maps, 4, 1, 1).flatten().tolist() == [0.0, 0.25, 0.75, 1.0]


def gate(v: Tensor, kernel: list[float]) -> list[float]:
    """EAM's weight of each v[i]: a kernel over average plus maximum, zeros beyond the ends, and a sigmoid."""
    sums, half = [float(part.mean() + part.max()) for part in v], len(kernel) // 2
    inner = [
        sum(kernel[i] * sums[at + i - half] for i in range(len(kernel)) if 0 <= at + i - half < len(sums))
        for at in range(len(sums))
    ]
    return [1 / (1 + math.exp(-x)) for x in inner]


@pytest.mark.parametrize("backbone", ["resnet", "resnet3d"])
def test_eam_weights_are_the_gates_of_each_stage(backbone: str) -> None:
    torch.manual_seed(0)
    frames = 4
    made = video.build(backbone, "tiny", "eam", frames, classes=3, knobs={"mode": "S//T"}).eval()
    clip = torch.randn(frames, 3, 32, 32)
    found = explanations.eam_weights(made, clip)
    assert list(found) == ["res2", "res3", "res4", "res5"]
    block = made.backbone.get_submodule("layer2.0")
    seen: list[Tensor] = []
    hook = block.after.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    with torch.no_grad():
        made(clip[None])
    hook.remove()
    v = seen[0][0] if backbone == "resnet3d" else seen[0].transpose(0, 1)  # (C, T, H, W)
    for axis, rows in (("S", v), ("T", v.transpose(0, 1))):
        kernel = block.after.gates[axis].conv.weight.flatten().tolist()
        assert found["res3"][axis].tolist() == pytest.approx(gate(rows, kernel), abs=1e-5)
    assert not any(module._forward_hooks for module in made.modules())


def test_eam_without_a_gate_for_frames_and_nets_without_either() -> None:
    made = video.build("resnet", "tiny", "eam", 2, 3, knobs={"mode": "S", "stages": ["res4"]}).eval()
    found = explanations.eam_weights(made, torch.zeros(2, 3, 32, 32))
    assert {stage: {axis: w.shape for axis, w in axes.items()} for stage, axes in found.items()} == {
        "res4": {"S": (64,)}
    }
    assert explanations.available(made) == ("gradcam", "eam")
    plain = video.build("resnet", "tiny", "none", 2, 3).eval()
    assert explanations.available(plain) == ("gradcam",)
    for explain, name in ((explanations.eam_weights, "EAM"), (explanations.salient_fields, "ISTPA")):
        with pytest.raises(ValueError, match=f"this net has no {name}"):
            explain(plain, torch.zeros(2, 3, 32, 32))


@pytest.mark.parametrize("place", [(0, 0, 0), (2, 3, 1)])
def test_istpa_looks_where_its_scores_are(place: tuple[int, int, int]) -> None:
    made, clip = bright(*place)
    made.backbone.neck = neck = InteractionPyramid(FRAMES, {"res2": 1}, (4, 4)).eval()
    nn.init.ones_(neck.scores["res2"].weight)
    found = explanations.salient_fields(made, clip)
    frame, row, column = place
    assert found.places.tolist() == [[frame, 4 * row + column]] * 16
    wanted = torch.zeros(FRAMES, 4, 4)
    wanted[place] = 1.0
    torch.testing.assert_close(found.fields, wanted)
    # softmax: e^5 against 47 times e^0, in the columns' every one
    dark = 16 / (math.exp(5) + 47)
    assert found.shares.tolist() == pytest.approx(
        [1 - 2 * dark if n == frame else dark for n in range(FRAMES)], abs=1e-5
    )
    assert made.backbone.neck is neck and explanations.available(made) == ("gradcam", "receptive")


def test_salient_fields_are_added_up_over_the_merged_map() -> None:
    """The reading that the docstring gives, one position at a time, with slopes by finite differences."""
    torch.manual_seed(1)
    made, step = tiny("frames"), 1e-6
    made.backbone.neck = neck = InteractionPyramid(FRAMES, {"res2": 2, "res3": 3}, (2, 2)).double().eval()
    for score in neck.scores.values():
        nn.init.normal_(score.weight)
    clip = torch.randn(FRAMES, 3, 4, 4, dtype=torch.double)
    kept: dict[str, Any] = {}
    hook = neck.attention.register_forward_hook(lambda module, given, out: kept.update(attention=out[0].tolist()))
    with torch.no_grad():
        made(clip[None])
    hook.remove()
    attention, cells = kept["attention"], 4
    chosen = [max(range(FRAMES * cells), key=lambda row: attention[row][m]) for m in range(cells)]

    def looked_at(pixels: Tensor) -> float:
        maps = made.backbone.stage("res3", made.backbone.stage("res2", pixels))  # (T, 3, 2, 2)
        return sum(
            attention[row][m] * float(maps[row // cells, :, row % cells // 2, row % 2].sum())
            for m, row in enumerate(chosen)
        )

    wanted = torch.zeros(FRAMES, 2, 2, dtype=torch.double)
    with torch.no_grad():
        before = looked_at(clip)
        for frame, plane, y, x in np.ndindex(*clip.shape):
            moved = clip.clone()
            moved[frame, plane, y, x] += step
            wanted[frame, y // 2, x // 2] += abs(looked_at(moved) - before) / step
    found = explanations.salient_fields(made, clip)
    torch.testing.assert_close(found.fields, wanted / wanted.max(), rtol=0, atol=1e-5)
    assert found.places.tolist() == [[row // cells, row % cells] for row in chosen]
    assert float(found.shares.sum()) == pytest.approx(1)


HEAD = pictures.LABELS + 2 * pictures.LINE  # inches above the strip


def strip(path: Path, **changed: Any) -> np.ndarray:
    """The picture of an invented clip of 3 frames, as pixels."""
    draws = np.random.default_rng(0)
    given: dict[str, Any] = {
        "title": "row, $x$ & co\nvideo",
        "frames": draws.integers(0, 255, (3, 16, 16, 3), np.uint8),
        "labels": ["frame 0", "frame 4", "frame 9"],
        "heat": draws.random((3, 16, 16)),
        "bars": [pictures.Bars("weights", [0.1, 0.9, 0.4], 1.0), pictures.Bars("channels", draws.random(40).tolist())],
    }
    pictures.film(path, **given | changed)
    return cv2.imread(str(path))


def test_a_picture_is_the_same_bytes_each_time_whatever_the_users_style(tmp_path: Path) -> None:
    strip(tmp_path / "one.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(matplotlib.rcParams, "font.size", 30)
        patch.setitem(matplotlib.rcParams, "savefig.dpi", 200)
        strip(tmp_path / "two.png")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.png", "two.png"], "no half of a file is left"


def test_a_picture_is_as_large_as_what_it_shows(tmp_path: Path) -> None:
    def inches(*rows: float) -> int:
        return round(100 * (HEAD + sum(row + pictures.GAP for row in rows) + pictures.GAP))

    whole = strip(tmp_path / "a.png")
    assert whole.shape == (inches(1.6, 1.6, pictures.BAR, pictures.BAR), 700, 3)
    assert strip(tmp_path / "b.png", heat=None, bars=[]).shape[0] == inches(1.6)
    long = strip(tmp_path / "c.png", frames=np.zeros((64, 8, 8, 3), np.uint8), labels=["f"] * 64, heat=None, bars=[])
    assert long.shape[1] == round(100 * (pictures.MARGIN + 64 * 0.5 + pictures.GAP))


def test_a_strip_shows_its_frames_and_their_heat(tmp_path: Path) -> None:
    frames = np.zeros((3, 16, 16, 3), np.uint8)
    frames[1] = (200, 100, 0)
    heat = np.zeros((3, 16, 16))
    heat[2] = 1.0
    made = strip(tmp_path / "a.png", frames=frames, heat=heat, bars=[])[..., ::-1].astype(int)

    def at(row: int, frame: int) -> list[int]:
        y = round(100 * (HEAD + row * (1.6 + pictures.GAP) + 0.8))
        return made[y, round(100 * (pictures.MARGIN + (frame + 0.5) * 1.6))].tolist()

    assert [at(0, n) for n in range(3)] == [[0, 0, 0], [200, 100, 0], [0, 0, 0]]
    assert [at(1, n) for n in range(2)] == [[0, 0, 0], [200, 100, 0]]
    assert min(at(1, 2)[:2]) > 100, "the hottest is bright"


@pytest.fixture
def project(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of four rows, all but `untrained` with weights (of no training), and the data set of conftest.py."""
    row = {"dataset": "tiny", "backbone": "resnet", "variant": "tiny", "attention": "none", "knobs": {}}
    row |= {"weights": None, "recipe": "r", "protocol": "p", "splits": [1], "seeds": [0, 1]}
    decode = {"short_side": 36, "quality": 90, "decoder": "ffmpeg", "videos_per_shard": 64, "max_failed": 0.1}
    clip = {"sampling": "segments", "size": 32}
    recipe = {"epochs": 1, "batch": 4, "micro_batch": 4, "frames": 4, "augment": {"crop": "random"}, "lr": 0.1}
    raw = {
        "suite": "test",
        "datasets": {"tiny": {"file": "folder", "source": "nowhere", "lists": None, "options": {}, "decode": decode}},
        "recipes": {"r": {**recipe, **clip, "momentum": 0.9, "weight_decay": 0.0}},
        "protocols": {"p": {"clips": 2, "crops": "three", "average": "softmax", "batch": 4, **clip}},
        "experiments": {
            "plain": row,
            "eam": {**row, "attention": "eam"},
            "istpa": {**row, "attention": "istpa", "knobs": {"positions": 2}},
            "untrained": row,
        },
        "tables": {},
    }
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "data").symlink_to(data)
    (folder / "params.yaml").write_text(json.dumps(raw))
    monkeypatch.chdir(folder)
    torch.manual_seed(0)
    given = params.load()
    for name in ("plain", "eam", "istpa"):
        for cell in cells(given, name, Path("data")):
            cell.weights.parent.mkdir(parents=True, exist_ok=True)
            torch.save(net(cell).state_dict(), cell.weights)
    return folder


def called(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `actionbench look`, run in this process."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as left:
        patch.setattr(sys, "argv", ["actionbench", "look", *arguments])
        cli.main()
    return int(left.value.code or 0), *capsys.readouterr()


@pytest.mark.parametrize(
    "row, show", [("plain", "gradcam"), ("eam", "eam"), ("istpa", "receptive"), ("istpa", "gradcam")]
)
def test_look_leaves_a_picture(project: Path, capsys: pytest.CaptureFixture[str], row: str, show: str) -> None:
    code, out, err = called(capsys, row, "video-13", "--show", show)
    assert (code, err) == (0, "")
    first, second, verdict, path = out.splitlines()
    assert first.startswith(f"{row}, split1-seed0: ") and second == "video-13 (test)"
    assert verdict.split(" (")[0] in {f"predicted: {name}" for name in "abc"} and verdict.endswith("%); true: b")
    assert path == f"data/looks/{row}-split1-seed0-video-13-{show}.png"
    assert cv2.imread(path).shape[1] == round(100 * (pictures.MARGIN + 4 * 1.6 + pictures.GAP))
    once = Path(path).read_bytes()
    called(capsys, row, "video-13", "--show", show, "-o", "again.png")
    assert Path("again.png").read_bytes() == once


def test_look_takes_a_run_and_a_video_file(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [ffmpeg_exe()[0], "-v", "error", "-f", "lavfi", "-i", "testsrc=size=64x48:rate=10:duration=1", "clip.mp4"]
    subprocess.run(command, check=True)
    code, out, err = called(capsys, "plain", "clip.mp4", "--seed", "1", "-o", "deep/one.png")
    assert (code, err) == (0, "")
    assert out.startswith("plain, split1-seed1: ") and "true label unknown" in out
    assert cv2.imread("deep/one.png") is not None


def test_look_takes_a_stage(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    last, earlier = (called(capsys, "plain", "video-13", *more)[1] for more in ([], ["--stage", "res3"]))
    assert earlier.startswith("plain, split1-seed0: Grad-CAM of the predicted class in res3\n")
    assert earlier.splitlines()[-1] == "data/looks/plain-split1-seed0-video-13-gradcam-res3.png"
    assert Path(earlier.splitlines()[-1]).read_bytes() != Path(last.splitlines()[-1]).read_bytes()


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["plane", "video-13"], "experiment: no 'plane'; did you mean 'plain'? known: eam, istpa, plain, untrained"),
        (["plain", "video-99"], "no video 'video-99' in split 1 of tiny, and no such file; of the 17 there: video-"),
        (["plain", "video-16"], "no frames of 'video-16' in "),
        (["plain", "params.yaml"], "params.yaml can't be decoded: "),
        (["untrained", "video-13"], "experiments.untrained has no weights of split1-seed0 yet, `actionbench repro "),
        (["plain", "video-13", "--show", "eam"], "experiments.plain: attention 'none' has nothing for --show eam; "),
        (["eam", "video-13", "--show", "receptive"], "experiments.eam: attention 'eam' has nothing for --show recep"),
        (["plain", "video-13", "--stage", "res9"], "--stage res9: it goes with Grad-CAM alone; stages: stem, res2, "),
        (["eam", "video-13", "--show", "eam", "--stage", "res4"], "--stage res4: it goes with Grad-CAM alone; "),
        (["plain", "video-13", "--show", "cam"], "Invalid value for '--show'"),
        (["plain", "video-13", "--seed", "7"], "experiments.plain has no run of seed 7; known: split1-seed0, split1-"),
        (["plain", "video-13", "-o", "a.jpg"], "a.jpg: a picture is written as .png"),
        (["plain", "video-13", "-o", "params.yaml/a.png"], "params.yaml/a.png can't be written: "),
    ],
)
def test_what_look_cannot_do_is_one_line(
    project: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    code, out, err = called(capsys, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"error: {said}")


def test_weights_of_another_net_are_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy("data/runs/eam/split1-seed0.pt", "data/runs/plain/split1-seed0.pt")
    code, _, err = called(capsys, "plain", "video-13")
    assert code == 2 and err.count("\n") == 1
    assert "split1-seed0.pt doesn't fit the row as it is now; `actionbench repro plain` trains it again" in err
    Path("data/runs/plain/split1-seed0.pt").write_bytes(b"damaged")
    assert "doesn't fit the row" in called(capsys, "plain", "video-13")[2]
