"""Training: restarts give the same run, and recipes do what they state."""

import dataclasses
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch

from pipeline.config.schema import Group, Recipe
from pipeline.errors import UserError
from pipeline.evaluate.inference import Scorer, blocks
from pipeline.train import keys, loop
from pipeline.train.optimizer import freeze, groups, kinds, learning_rate, train_mode
from pipeline.train.rows import runs
from pipeline.train.run import Run
from tests.support.recipes import RECIPE
from tests.support.trainings import CPU, losses, params, same, tiny_run, train


def test_the_key_is_the_same_once_a_net_is_built(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is second in its process can resume in a process where it is first."""
    one = tiny_run(data)
    monkeypatch.delitem(sys.modules, "models.attention.action", raising=False)
    before = keys.training(one, None)
    one.net()
    assert keys.training(one, None) == before


def test_a_net_without_norms_trains(data: Path) -> None:
    one = tiny_run(data, "none")
    plain = dataclasses.replace(one, experiment=dataclasses.replace(one.experiment, backbone="vgg"))
    assert np.isfinite(losses(train(plain))).all()


def test_a_run_is_repeated_bit_for_bit(data: Path) -> None:
    first, second = train(tiny_run(data)), train(tiny_run(data))
    assert losses(first) == losses(second)
    same(first[-1].state["model"], second[-1].state["model"])


def test_a_resumed_run_ends_as_an_undisturbed_one(data: Path) -> None:
    whole = train(tiny_run(data, epochs=3))
    buffer = io.BytesIO()
    torch.save(whole[0].state, buffer)
    buffer.seek(0)
    rest = train(tiny_run(data, epochs=3), torch.load(buffer, weights_only=True))
    assert [epoch.number for epoch in rest] == [1, 2]
    assert losses(rest) == losses(whole[1:])
    same(whole[-1].state["model"], rest[-1].state["model"])


def test_another_seed_is_another_run(data: Path) -> None:
    assert losses(train(tiny_run(data))) != losses(train(dataclasses.replace(tiny_run(data), seed=4)))


def test_loaders_change_nothing(data: Path) -> None:
    one = train(tiny_run(data))
    two = list(loop.epochs(tiny_run(data), None, None, CPU, loaders=2))
    assert losses(one) == losses(two)


def test_a_global_batch_is_its_micro_batches_mean(data: Path) -> None:
    """Without batch norm in training mode, one micro batch of 4 and two of 2 give the same step."""
    frozen = {"epochs": 1, "lr": 0.0005, "dropout": 0.0, "partial_bn": True, "frozen": ["stem"], "frozen_norms": "eval"}
    two, one = train(tiny_run(data, micro_batch=2, **frozen)), train(tiny_run(data, micro_batch=4, **frozen))
    np.testing.assert_allclose(losses(two), losses(one), rtol=1e-4)


def recipe(**changes: Any) -> Recipe:
    return params(**changes).recipes["r"]


def test_the_rate_warms_up_then_steps_down() -> None:
    rates = [learning_rate(recipe(epochs=8, lr=0.1, warmup_epochs=2, steps=[4, 6]), epoch) for epoch in range(8)]
    np.testing.assert_allclose(rates, [0.05, 0.1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_a_warm_up_of_one_epoch_warms(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [learning_rate(recipe(lr=0.1, warmup_epochs=1), 0, share) for share in (0.25, 0.5, 1.0)] == [
        pytest.approx(rate) for rate in (0.025, 0.05, 0.1)
    ]
    rates: list[float] = []
    step = torch.optim.SGD.step

    def watched(self: torch.optim.SGD, *rest: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *rest)

    monkeypatch.setattr(torch.optim.SGD, "step", watched)
    train(tiny_run(data, epochs=2, lr=0.03, warmup_epochs=1))
    assert rates == [pytest.approx(rate) for rate in (0.01, 0.02, 0.03, 0.03, 0.03, 0.03)]


def test_dampening_makes_a_steady_step_smaller(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the second step, momentum holds 0.9 of the first gradient and a tenth of the second."""
    gradients: list[torch.Tensor] = []
    momenta: list[torch.Tensor] = []
    step = torch.optim.SGD.step

    def watched(self: torch.optim.SGD, *rest: Any) -> Any:
        weight = self.param_groups[0]["params"][0]
        gradients.append(weight.grad.clone())
        step(self, *rest)
        momenta.append(self.state[weight]["momentum_buffer"].clone())

    monkeypatch.setattr(torch.optim.SGD, "step", watched)
    train(tiny_run(data, "none", epochs=1, weight_decay=0.0, dampening=0.9))
    torch.testing.assert_close(momenta[1], 0.9 * gradients[0] + 0.1 * gradients[1])


@pytest.mark.parametrize("std", [0.001, 0.01, None])
def test_the_head_starts_as_the_recipe_says(data: Path, std: float | None) -> None:
    head = tiny_run(data, "none", head_std=std).net().head
    if std is None:  # torch's: uniform up to 1 / sqrt(features), the biases too
        assert 0.9 < float(head.weight.abs().max()) * head.in_features**0.5 <= 1 and head.bias.all()
    else:
        assert float(head.weight.std()) == pytest.approx(std, rel=0.2) and not head.bias.any()


def test_groups_multiply_rate_and_decay(data: Path) -> None:
    """ACTION-Net's code: head weight at 5 times the rate, head bias at 10, other biases at 2, no decay of norms."""
    rules = (Group("head.weight", 5), Group("head.bias", 10, 0), Group("bias", 2, 0), Group("norm", 1, 0))
    net = tiny_run(data).net()
    made = groups(net, dataclasses.replace(recipe(lr=0.1), groups=rules))
    actual = {id(p): (group["lr"], group["weight_decay"]) for group in made for p in group["params"]}
    decay = RECIPE["weight_decay"]
    expected = {"head.weight": (0.5, decay), "head.bias": (1.0, 0.0), "norm": (0.1, 0.0), "attention": (0.1, decay)}
    seen = set()
    for kind, parameter in kinds(net):
        seen.add(kind)
        assert actual[id(parameter)] == pytest.approx(expected.get(kind, (0.1, decay)))
    assert {"head.weight", "head.bias", "norm", "attention", "weight"} <= seen
    assert len(actual) == len(list(net.parameters()))


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_frozen_norms_are_in_the_mode_of_the_recipe(data: Path, mode: str) -> None:
    """Hara's code freezes by a learning rate of 0, so its norms keep using each batch's statistics."""
    one = tiny_run(
        data, attention="none", frozen=["stem", "res2"], **({"frozen_norms": mode} if mode == "eval" else {})
    )
    net = one.net()
    freeze(net, one.recipe)
    train_mode(net, one.recipe)
    stages = {"stem": net.backbone.bn1, "res2": net.backbone.layer1, "res3": net.backbone.layer2}
    for stage, module in stages.items():
        norms = [norm for norm in module.modules() if isinstance(norm, torch.nn.BatchNorm2d)]
        assert {norm.training for norm in norms} == {mode == "train" or stage == "res3"}
        assert {norm.weight.requires_grad for norm in norms} == {stage == "res3"}
    before = {name: value.clone() for name, value in net.state_dict().items()}
    after = train(one)[-1].state["model"]
    moved = not torch.equal(before["backbone.layer1.0.bn1.running_mean"], after["backbone.layer1.0.bn1.running_mean"])
    assert moved == (mode == "train")


def test_frozen_stages_stay_as_loaded_except_their_attention(data: Path) -> None:
    one = tiny_run(data, frozen=["stem", "res2"], frozen_norms="eval")
    torch.manual_seed(one.seed)
    before = {name: value.clone() for name, value in one.net().state_dict().items()}
    after = train(one)[-1].state["model"]
    net = one.net()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    kept = {f"backbone.{part}." for stage in ("stem", "res2") for part in net.backbone.parts[stage]}
    inside = {name for name in changed if name.startswith(tuple(kept))}
    assert inside and inside & net.attention_parameters
    statistics = {name for name in inside if "running" in name or "num_batches" in name}
    assert inside - net.attention_parameters <= {name for name in statistics if ".entry." in name}
    assert any(name.startswith("backbone.layer4") for name in changed)


def test_an_unknown_frozen_stage_is_named(data: Path) -> None:
    one = tiny_run(data, frozen=["res9"])
    with pytest.raises(UserError, match=r"res9.*res2"):
        freeze(one.net(), one.recipe)


def test_partial_bn_leaves_the_first_norm_alone_in_training_mode(data: Path) -> None:
    one = tiny_run(data, partial_bn=True)
    net = one.net()
    train_mode(net, one.recipe)
    modes = [module.training for module in net.backbone.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert modes[0] and not any(modes[1:])


def test_bf16_trains(data: Path) -> None:
    assert np.isfinite(losses(train(tiny_run(data, precision="bf16", epochs=1)))).all()


def test_bf16_on_3d_convolutions_is_refused_on_a_cpu(data: Path) -> None:
    one = tiny_run(data, attention="none", precision="bf16")
    volume = dataclasses.replace(one, experiment=dataclasses.replace(one.experiment, backbone="resnet3d"))
    with pytest.raises(UserError, match="precision is bf16: gradients of 3D convolutions"):
        train(volume)


def test_unknown_models_are_one_line(data: Path) -> None:
    with pytest.raises(UserError, match=r"experiments\.row\.attention: no 'acton'; did you mean 'action'"):
        train(tiny_run(data, attention="acton"))


def test_an_absent_split_is_named(data: Path) -> None:
    given = params()
    row = dataclasses.replace(given.experiments["row"], splits=(1, 7))
    with pytest.raises(UserError, match=r"no split 7; splits there: 1"):
        runs(dataclasses.replace(given, experiments={"row": row}), "row", data)
    with pytest.raises(UserError, match=r"tiny has no splits yet; `actionbench repro` makes them"):
        runs(given, "row", data / "empty")


def test_evaluation_is_equal_bit_for_bit_and_counts_the_undecoded(data: Path) -> None:
    one = tiny_run(data)
    model = train(one)[-1].state["model"]
    one.weights.parent.mkdir(parents=True)
    torch.save(model, one.weights)
    scorer = Scorer(one, CPU)
    first, second = (pa.parquet.read_table(pa.BufferReader(scorer.score(blocks(one)[0]))) for _ in "ab")
    assert first.equals(second)
    assert first.num_rows == 4 * 6 + 1  # videos decoded x (2 clips x 3 crops), and the one that wasn't
    assert first.filter(pa.compute.field("logits").is_null())["video"].to_pylist() == ["video-16"]


def test_parts_of_a_split_are_trained_on_together(data: Path) -> None:
    """ACTION-Net's code trains on EgoGesture's training and validation videos."""
    table = pa.parquet.read_table(data / "splits" / "tiny" / "split-1.parquet").to_pylist()
    for row in table[:4]:
        row["part"] = "val"
    schema = pa.parquet.read_schema(data / "splits" / "tiny" / "split-1.parquet")
    pa.parquet.write_table(pa.Table.from_pylist(table, schema), data / "splits" / "tiny" / "split-1.parquet")
    steps = {
        parts: sum(
            line["kind"] == "steps"
            for epoch in train(tiny_run(data, epochs=1, train=list(parts)))
            for line in epoch.lines
        )
        for parts in (("train",), ("train", "val"))
    }
    assert steps == {("train",): 2, ("train", "val"): 3}


def test_evaluation_swaps_mirrored_views_back(data: Path) -> None:
    one = tiny_run(data, "none")
    one = dataclasses.replace(one, protocol=dataclasses.replace(one.protocol, clips=1, crops="ten"))
    one.weights.parent.mkdir(parents=True)
    torch.save(train(one)[-1].state["model"], one.weights)
    logits = {}
    for name, mirrored in (("as they are", "[0, 1, 2]"), ("swapped", "[1, 0, 2]")):
        (data / "splits" / "tiny" / "mirrored.json").write_text(mirrored)
        logits[name] = scored(one, data)
    plain, swapped = logits["as they are"], logits["swapped"]
    views = np.arange(len(plain)) % 10
    assert np.array_equal(swapped[views % 2 == 0], plain[views % 2 == 0])
    assert np.array_equal(swapped[views % 2 == 1], plain[views % 2 == 1][:, [1, 0, 2]])


def scored(one: Run, data: Path) -> np.ndarray:
    """Return the logits of a run's first four test videos, all decoded."""
    block = Scorer(one, CPU).score(blocks(one)[0][:4])
    return np.array(pa.parquet.read_table(pa.BufferReader(block))["logits"].to_pylist())
