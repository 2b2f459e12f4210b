"""Optical flow clips: channel order, mirroring, and training and scoring on them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import simplejpeg
import torch
from hypothesis import given
from hypothesis import strategies as st

from models import video
from pipeline.clips import loading
from pipeline.clips.augmentation import Box
from pipeline.clips.loading import View
from pipeline.config.load import parse
from pipeline.decode.frame_store import FrameStore
from pipeline.decode.packing import INDEX, write_index, write_shard
from pipeline.digest.files import sha256
from pipeline.errors import UserError
from pipeline.evaluate import inference
from pipeline.train import keys, rows
from pipeline.train.run import Run
from tests.support.recipes import RECIPE
from tests.support.trainings import params, train

COUNT, WIDTH, HEIGHT = 7, 40, 36
WHOLE = Box(2, 2, 32, 32)
PLANES = ("x", "y", "warped_x", "warped_y")
FLOW = {"algorithm": "dis", "compensated": True}


def level(column: str, frame: int) -> int:
    """Return a constant flow plane whose value identifies it."""
    return 20 + 50 * PLANES.index(column) + 5 * frame


def frames(video: int) -> dict[str, list[bytes]]:
    draws = np.random.default_rng(video)
    pictures = [cv2.resize(p, (WIDTH, HEIGHT)) for p in draws.integers(0, 255, (COUNT, 6, 6, 3), np.uint8)]
    actual = {"jpeg": [simplejpeg.encode_jpeg(picture, 95) for picture in pictures]}
    for name in PLANES:
        flat = [np.full((HEIGHT, WIDTH, 1), level(name, n), np.uint8) for n in range(COUNT)]
        for plane in flat:
            plane[:, : WIDTH // 2] += 5  # left is not right
        actual[name] = [simplejpeg.encode_jpeg(plane, 100, "GRAY", "Gray") for plane in flat]
    return actual


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data folder of 12 training and 4 test videos with flow."""
    root = tmp_path_factory.mktemp("data")
    names = [f"video-{n:02d}" for n in range(16)]
    folder, splits = root / "frames" / "tiny", root / "splits" / "tiny"
    folder.mkdir(parents=True)
    splits.mkdir(parents=True)
    write_shard(folder / "shard-00000.arrow", map(frames, range(16)), ("jpeg", *PLANES))
    facts = {"shard": 0, "width": WIDTH, "height": HEIGHT, "fps": 12.0, "frames": COUNT, "timestamps": [0.0] * COUNT}
    facts |= {"sha256": "", "decoder": "", "decoder_version": ""}
    rows = [{"video": name, "batch": n, **facts} for n, name in enumerate(names)]
    write_index(folder, pa.Table.from_pylist(rows, INDEX), [sha256(folder / "shard-00000.arrow")])
    labels = pa.array([[n % 3] for n in range(16)], pa.list_(pa.int32()))
    table = pa.table({"video": names, "part": ["train"] * 12 + ["test"] * 4, "labels": labels})
    pyarrow.parquet.write_table(table, splits / "split-1.parquet")
    (splits / "classes.json").write_text('["a", "b", "c"]')
    (splits / "mirrored.json").write_text("[0, 1, 2]")
    return root


@pytest.fixture
def store(data: Path) -> FrameStore:
    return FrameStore(data / "frames" / "tiny")


def load(store: FrameStore, indices: tuple[int, ...], input: str, stack: int, size: int = 32, flip: bool = False):
    return loading.load_views(store, [("video-00", View(indices, WHOLE, flip))], size, input, stack)[0]


@pytest.mark.parametrize("size", [32, 24, 16])  # as stored, resized, decoded at half size
@given(st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=4), st.integers(1, 9))
def test_each_frame_has_the_flows_that_begin_there(data: Path, size: int, indices: list[int], stack: int) -> None:
    store = FrameStore(data / "frames" / "tiny")
    clip = load(store, tuple(indices), "warped", stack, size)
    assert clip.shape == (len(indices), size, size, 2 * stack) and clip.dtype == np.uint8
    right = clip[:, :, size - 4 :].astype(int).mean((1, 2))  # T, C
    flows = [[min(index + n, COUNT - 1) for n in range(stack)] for index in indices]
    expected = [[level(name, n) for n in own for name in ("warped_x", "warped_y")] for own in flows]
    assert np.abs(right - expected).max() <= 1


def test_rgb_comes_first_and_equals_rgb_alone(store: FrameStore) -> None:
    for size in (32, 20):
        both = load(store, (4, 1, 6, 4), "rgb+flow", 2, size)
        assert np.array_equal(both[..., :3], load(store, (4, 1, 6, 4), "rgb", 2, size))
        assert np.array_equal(both[..., 3:], load(store, (4, 1, 6, 4), "flow", 2, size))


@pytest.mark.parametrize("input", ["flow", "rgb+flow"])
def test_mirrored_flow_goes_the_other_way(store: FrameStore, input: str) -> None:
    first = 3 if input == "rgb+flow" else 0
    plain, mirrored = (load(store, (0, 3), input, 3, 24, flip) for flip in (False, True))
    assert np.array_equal(mirrored[..., :first], plain[..., :first][:, :, ::-1])
    assert np.array_equal(mirrored[..., first::2], 255 - plain[..., first::2][:, :, ::-1])
    assert np.array_equal(mirrored[..., first + 1 :: 2], plain[..., first + 1 :: 2][:, :, ::-1])
    assert not np.array_equal(plain, plain[:, :, ::-1])


def test_crops_of_a_frame_are_each_their_own(store: FrameStore) -> None:
    views = [("video-01", View((2, 5, 2), Box(x, 1, 30, 30), x == 4)) for x in (0, 4, 10)]
    together = loading.load_views(store, views, 24, "rgb+flow", 2)
    for one, view in zip(together, views, strict=True):
        assert np.array_equal(one, loading.load_views(store, [view], 24, "rgb+flow", 2)[0])


def test_flow_keeps_its_place_where_colours_change_theirs() -> None:
    batch = torch.randint(0, 256, (2, 3, 4, 5, 7), dtype=torch.uint8)
    mean, std = (1.0, 2.0, 3.0, 128.0, 128.0, 128.0, 128.0), (1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 8.0)
    x = loading.normalise(batch, mean, std, "bgr")
    expected = (batch[..., [2, 1, 0, 3, 4, 5, 6]] - torch.tensor(mean)) / torch.tensor(std)
    torch.testing.assert_close(x, expected.permute(0, 1, 4, 2, 3))


def raw(flow: dict[str, Any] | None, **recipe: Any) -> dict[str, Any]:
    """Return the params of one row as YAML has them."""
    given = params("none")
    row = {"dataset": "tiny", "backbone": "resnet", "variant": "tiny", "attention": "none", "knobs": {}}
    row |= {"weights": None, "recipe": "r", "protocol": "p", "splits": [1], "seeds": [3]}
    protocol = {"clips": 2, "crops": "three", "sampling": "segments", "size": 32, "average": "softmax", "batch": 4}
    decode = {"short_side": 36, "quality": 90, "decoder": "ffmpeg", "videos_per_shard": 64, "max_failed": 0.1}
    own = {"file": "folder", "source": "nowhere", "lists": None, "options": {}, "decode": {**decode, "flow": flow}}
    return {
        "suite": given.suite,
        "datasets": {"tiny": own},
        "recipes": {"r": {**RECIPE, **recipe}},
        "protocols": {"p": protocol},
        "experiments": {"row": row},
        "tables": {},
    }


def flow_run(data: Path, **recipe: Any) -> Run:
    return rows.runs(parse(raw(FLOW, **recipe)), "row", data)[0]


@pytest.mark.parametrize("input", ["flow", "warped"])
def test_a_net_trains_on_flow_and_is_scored_on_it(data: Path, tmp_path: Path, input: str) -> None:
    one = flow_run(data, input=input, stack=2, augment={"crop": "random", "flip": True})
    state = train(one)[-1].state["model"]
    assert next(value for value in state.values() if value.ndim == 4).shape[1] == 4
    one.weights.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, one.weights)
    block = inference.Scorer(one, torch.device("cpu")).score(inference.blocks(one)[0])
    actual = pyarrow.parquet.read_table(pa.BufferReader(block))
    assert len(actual) == 4 * 6 and all(np.isfinite(logits).all() for logits in actual["logits"].to_pylist())
    inference.gather([one], [block], tmp_path / "all.parquet")
    gathered = pyarrow.parquet.read_table(tmp_path / "all.parquet")
    assert gathered.schema.metadata[b"rows"] == str(len(gathered)).encode()
    told = pyarrow.parquet.read_schema(tmp_path / "all.parquet").metadata[b"protocol"].decode()
    assert told.endswith(", 2 flows" if input == "flow" else ", 2 warped flows")


def test_costs_are_of_all_planes(data: Path) -> None:
    rgb, flow = inference.costs(flow_run(data)), inference.costs(flow_run(data, input="flow", stack=5))
    weight = flow_run(data).net().backbone.state_dict()["conv1.weight"]
    assert flow["parameters"] - rgb["parameters"] == weight[:, :1].numel() * (10 - 3)
    assert flow["macs"] > rgb["macs"]


def test_the_first_convolution_of_a_weight_file_is_averaged(tmp_path: Path) -> None:
    image = video.build("resnet", "tiny", "none", 2, 5)
    torch.save(image.state_dict(), tmp_path / "rgb.pt")
    flow = video.build("resnet", "tiny", "none", 2, 5, weights=tmp_path / "rgb.pt", planes=10)
    first = image.backbone.conv1.weight
    torch.testing.assert_close(flow.backbone.conv1.weight, first.mean(1, keepdim=True).expand(-1, 10, -1, -1))
    same = image.backbone.state_dict()
    for name, value in flow.backbone.state_dict().items():
        assert name == "conv1.weight" or torch.equal(value, same[name]), name
    assert flow.mean == (128.0,) * 10 and len(flow.std) == 10
    torch.save(flow.state_dict(), tmp_path / "flow.pt")
    again = video.build("resnet", "tiny", "none", 2, 5, weights=tmp_path / "flow.pt", planes=10)
    assert torch.equal(again.backbone.conv1.weight, flow.backbone.conv1.weight)


@pytest.mark.parametrize(
    ("flow", "recipe", "message"),
    [
        (None, {"input": "flow"}, "'flow', but datasets.tiny.decode.flow is null"),
        ({"algorithm": "tvl1"}, {"input": "warped"}, "datasets.tiny.decode.flow.compensated is false"),
        (FLOW, {"input": "flow", "stack": 0}, "recipes.r.stack is 0"),
        (FLOW, {"input": "depth"}, "recipes.r.input"),
        ({"algorithm": "farneback"}, {}, "decode.flow.algorithm"),
    ],
)
def test_missing_flow_is_an_error_at_once(flow: Any, recipe: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse(json.loads(json.dumps(raw(flow, **recipe))))


def test_a_store_without_flow_is_named(data: Path, tmp_path: Path) -> None:
    write_shard(tmp_path / "shard-00000.arrow", [frames(0)])
    index = FrameStore(data / "frames" / "tiny")
    row = {**index.entry("video-00")._asdict(), "video": "video-00", "timestamps": [], "sha256": "", "decoder": ""}
    table = pa.Table.from_pylist([{**row, "decoder_version": ""}], INDEX)
    write_index(tmp_path, table, [sha256(tmp_path / "shard-00000.arrow")])
    with pytest.raises(UserError, match="holds no 'x', only jpeg"):
        load(FrameStore(tmp_path), (0,), "flow", 2)


def test_rows_of_other_flow_are_other_runs(data: Path) -> None:
    recipe = flow_run(data, input="flow")
    others = [flow_run(data), flow_run(data, input="warped"), replace(recipe, recipe=replace(recipe.recipe, stack=3))]
    prints = {keys.training(one, None) for one in (recipe, *others)}
    assert len(prints) == 4
