"""A loss that isn't finite stops a run in one line; the curve has the earlier gradient norms."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.errors import UserError
from pipeline.evaluate.inference import Scorer, blocks
from pipeline.measure import results
from pipeline.train import divergence
from pipeline.train.divergence import Diverged
from tests.support.trainings import CPU, params, tiny_run, train


def test_a_learning_rate_out_of_bounds_stops_at_the_second_step(data: Path) -> None:
    with pytest.raises(Diverged) as caught:
        train(tiny_run(data, lr=1e30))
    error = copy.copy(caught.value)  # by the way in which it crosses processes
    assert (error.epoch, error.step) == (1, 2)
    assert isinstance(error, UserError) and "\n" not in str(error)
    for words in (
        "experiments.row, split1-seed3",
        "epoch 1 of 2, step 2",
        "loss nan",
        "rate 1e+30",
        "lower recipes.r.lr",
    ):
        assert words in str(error)


def test_a_gradient_alone_that_is_not_finite_stops_too(data: Path) -> None:
    one = tiny_run(data, clip_grad=5.0, precision="fp32")
    divergence.check(one, 0, 0, 0.1, 1.0, 1e30)
    with pytest.raises(Diverged, match=r"epoch 2 of 2, step 4: loss 1, gradient norm inf.*or a lower recipes\.r\.clip"):
        divergence.check(one, 1, 3, 0.1, 1.0, float("inf"))


@pytest.mark.parametrize("clip", [None, 0.01])
def test_the_curve_has_the_norm_before_clipping(
    data: Path, monkeypatch: pytest.MonkeyPatch, clip: float | None
) -> None:
    norms: list[float] = []
    step = torch.optim.SGD.step

    def watched(self: torch.optim.SGD, *rest: Any) -> Any:
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        norms.append(float(torch.cat([gradient.flatten() for gradient in gradients]).double().norm()))
        return step(self, *rest)

    monkeypatch.setattr(torch.optim.SGD, "step", watched)
    (epoch,) = train(tiny_run(data, epochs=1, clip_grad=clip))
    curve = [float(line["grad_norm"]) for line in epoch.lines if line["kind"] == "steps"]
    if clip is None:
        assert curve == pytest.approx(norms, rel=1e-4)
    else:
        assert norms == pytest.approx([clip] * 3, rel=1e-3) and min(curve) > clip
    assert epoch.lines[-1]["grad_norm"] == pytest.approx(np.mean(curve))


def test_the_result_says_where_until_the_run_has_weights(data: Path) -> None:
    one = tiny_run(data)
    read = lambda: results.read(params(), "row", data).predictions  # noqa: E731
    assert read() == "not run"
    divergence.mark(one, 3, 17)
    assert read() == "failed: diverged at epoch 3, step 17 (split1-seed3)"
    predictions = data / "predictions" / "row" / "predictions.parquet"
    predictions.parent.mkdir(parents=True)
    predictions.write_bytes(b"of an earlier training")
    assert read() == "failed: diverged at epoch 3, step 17 (split1-seed3)"
    one.weights.parent.mkdir(parents=True)
    one.weights.touch()  # as DVC restores it
    assert "diverged" not in read()
    one.weights.unlink()
    divergence.unmark(one)
    predictions.unlink()
    assert read() == "not run"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_refused(data: Path, value: float) -> None:
    one = tiny_run(data, "none")
    model = copy.deepcopy(one.net().state_dict())
    model["head.bias"][1] = value
    one.weights.parent.mkdir(parents=True)
    torch.save(model, one.weights)
    scorer = Scorer(dataclasses.replace(one), CPU)
    with pytest.raises(UserError, match=r"experiments\.row, split1-seed3: video-12 has logits that aren't finite"):
        scorer.score(blocks(one)[0])
