"""Networks, training, scoring and Ray's tasks on one GPU, compared with the CPU."""

import copy
import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.compute
import pyarrow.parquet
import pytest
import torch

from cluster.fit import fit
from cluster.score import score
from cluster.session import session
from pipeline.clips.loading import mixup, normalise
from pipeline.config.schema import Cluster
from pipeline.evaluate.inference import Scorer, blocks
from pipeline.train import numerics
from stages.commands import measure
from tests.support.nets import pairs
from tests.support.nets.pairs import build, clips, loss_of
from tests.support.quick import quick
from tests.support.trainings import losses, same, tiny_run, train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")
GPU = torch.device("cuda")
COMPILED = [
    *(("resnet", name, {}) for name in ("none", "tsm", "action", "eam", "maagn", "tpn")),
    ("resnet", "istpa", {"positions": 2}),
    ("resnet3d", "eam", {}),
    ("resnet3d", "st_manet", {}),
]


@pytest.fixture(autouse=True)
def single_precision() -> Iterator[None]:
    """Compute convolutions in float32, not in TensorFloat-32, which rounds to 10 bits."""
    with torch.backends.cudnn.flags(allow_tf32=False):
        yield


@pytest.mark.parametrize("pair", pairs.pairs(), ids=pairs.name)
def test_logits_and_gradients_are_the_cpus(pair: pairs.Pair) -> None:
    net = build(pair, 4).double()
    other = copy.deepcopy(net).to(GPU)
    batch = clips(2, 4).double()
    loss_of(net, net, batch).backward()
    loss_of(other, other, batch.to(GPU)).backward()
    grads = {name: value.grad.cpu() for name, value in other.named_parameters() if value.grad is not None}
    for name, value in net.named_parameters():
        if value.grad is None:
            assert name not in grads
            continue
        scale = float(value.grad.abs().max())
        torch.testing.assert_close(grads[name], value.grad, rtol=1e-6, atol=1e-8 * max(scale, 1.0), msg=name)
    with torch.no_grad():
        torch.testing.assert_close(other.eval()(batch.to(GPU)).cpu(), net.eval()(batch), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("one", COMPILED, ids=pairs.name)
def test_a_compiled_net_says_and_trains_alike(one: pairs.Pair) -> None:
    net = build(one, 4).to(GPU)
    batch = clips(2, 4).to(GPU)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(net.eval())(batch), net(batch), rtol=1e-3, atol=1e-3)
    net.train()
    grads = []
    for form in (net, torch.compile(net)):
        net.zero_grad()
        loss_of(form, net, batch).backward()
        grads.append({name: value.grad.clone() for name, value in net.named_parameters() if value.grad is not None})
    for name, value in grads[0].items():
        bound = 1e-2 * float(value.abs().max())
        torch.testing.assert_close(grads[1][name], value, rtol=0.0, atol=max(bound, 1e-5), msg=name)


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_a_batch_is_normalised_and_mixed_as_on_the_cpu(channels: str) -> None:
    batch = torch.randint(0, 256, (3, 2, 9, 7, 3), dtype=torch.uint8)
    labels = torch.tensor([0, 2, 1])
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    here = normalise(batch, mean, std, channels)
    there = normalise(batch.to(GPU), mean, std, channels)
    assert there.device.type == "cuda"
    torch.testing.assert_close(there.cpu(), here, rtol=1e-6, atol=1e-6)
    for one, other in zip(mixup(there, labels.to(GPU), 3, 0.2, 5), mixup(here, labels, 3, 0.2, 5), strict=True):
        torch.testing.assert_close(one.cpu(), other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("attention", ["action", "eam", "tsm"])
def test_training_is_the_cpus(data: Path, attention: str) -> None:
    one = tiny_run(
        data, attention, precision="fp32", dropout=0.0, augment={"crop": "random", "mixup": 0.2}, clip_grad=5.0
    )
    np.testing.assert_allclose(losses(train(one, device=GPU)), losses(train(one)), rtol=1e-3)


def test_training_in_bf16_is_near(data: Path) -> None:
    one = tiny_run(data, dropout=0.0, epochs=1)  # from there on these few noisy clips make another net of any rounding
    assert one.recipe.precision == "auto"
    with numerics.autocast(one.recipe, GPU):
        assert torch.is_autocast_enabled("cuda") == torch.cuda.is_bf16_supported()
    np.testing.assert_allclose(losses(train(one, device=GPU)), losses(train(one)), rtol=0.05)


def test_a_kept_state_resumes_on_a_gpu_and_on_a_cpu(data: Path) -> None:
    one = tiny_run(data, precision="fp32", dropout=0.0)
    whole = train(one, device=GPU)
    buffer = io.BytesIO()
    torch.save(whole[0].state, buffer)
    for device in (GPU, torch.device("cpu")):
        buffer.seek(0)
        state = torch.load(buffer, weights_only=True, map_location="cpu")
        rest = train(one, state, device)
        assert [epoch.number for epoch in rest] == [1]
        np.testing.assert_allclose(losses(rest), losses(whole[1:]), rtol=1e-3)


def test_loader_processes_change_nothing(data: Path) -> None:
    one = tiny_run(data, precision="fp32", dropout=0.0)
    np.testing.assert_allclose(losses(train(one, device=GPU, loaders=2)), losses(train(one, device=GPU)), rtol=1e-4)


def test_rays_tasks_train_and_score_two_cells_on_one_gpu(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(data)
    one = tiny_run(data, precision="fp32", dropout=0.0, epochs=1, lr=0.002)  # TensorFloat-32 is on in Ray's workers
    both = [one, dataclasses.replace(one, seed=4)]
    cluster = Cluster(gpus_per_worker=0.5, storage=str(data / "work"))
    with session(cluster):
        fit(both, None, cluster, lambda: None)
        scored = score(both, cluster)
    trained = torch.load(one.weights, weights_only=True)
    assert {value.device.type for value in trained.values()} == {"cpu"}
    same(train(one)[-1].state["model"], trained, rtol=1e-2, atol=2e-3)
    actual = pyarrow.concat_tables([pyarrow.parquet.read_table(pyarrow.BufferReader(block)) for block in scored])
    assert actual["seed"].unique().to_pylist() == [3, 4]
    here = Scorer(one, torch.device("cpu")).score(blocks(one)[0])
    own = actual.filter(pyarrow.compute.equal(actual["seed"], 3)).to_pylist()
    expected = pyarrow.parquet.read_table(pyarrow.BufferReader(here)).to_pylist()
    assert [(row["video"], row["view"]) for row in own] == [(row["video"], row["view"]) for row in expected]
    for message, known in zip(own, expected, strict=True):
        assert (message["logits"] is None) == (known["logits"] is None)
        if known["logits"] is not None:
            np.testing.assert_allclose(message["logits"], known["logits"], rtol=1e-2, atol=1e-2)


def test_a_row_is_measured_there(data: Path) -> None:
    (actual,) = measure.measure(quick(), data, ["tsm"], turns=1)
    assert actual.error == ""
    assert actual.device == torch.cuda.get_device_name()
    assert actual.forward and actual.training and actual.training_bytes and actual.forward_bytes
    assert actual.training_bytes >= actual.forward_bytes > 0
