"""Validation scores each epoch on videos that are neither trained on nor tested."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
import torch

from cluster.fit import train_run
from pipeline.errors import UserError
from pipeline.report.exports import save_curve
from pipeline.train import loop, validation
from pipeline.train.run import Run
from tests.support.trainings import losses, params, same, tiny_run, train, trained, training


def replaced(data: Path, parts: list[str]) -> None:
    """Assign the split's videos to other parts."""
    path = data / "splits/tiny/split-1.parquet"
    table = pyarrow.parquet.read_table(path)
    pyarrow.parquet.write_table(table.set_column(1, "part", pa.array(parts)), path)


def scores(epochs: list[loop.Epoch]) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in epoch.lines[-1].items() if name.startswith("validation")} for epoch in epochs
    ]


def test_a_share_is_taken_from_training_by_seed(data: Path) -> None:
    kept, held = validation.parts(tiny_run(data, validate=0.25))
    assert (len(kept), len(held)) == (9, 3)
    assert sorted([*kept, *held]) == sorted(tiny_run(data).part("train"))
    assert validation.parts(tiny_run(data, validate=0.25)) == (kept, held)
    run = tiny_run(data, validate=0.25)
    others = [validation.parts(Run(**{**vars(run), "seed": seed}))[1] for seed in range(4)]
    assert len({str(other) for other in others}) > 1


def test_the_part_val_is_taken_where_there_is_one(data: Path) -> None:
    with pytest.raises(UserError, match=r"recipes.r.validate is val, but split 1 of tiny has no part val"):
        validation.parts(tiny_run(data, validate="val"))
    replaced(data, ["train"] * 10 + ["val"] * 2 + ["test"] * 5)
    kept, held = validation.parts(tiny_run(data, validate="val"))
    assert (len(kept), [name for name, _ in held]) == (10, ["video-10", "video-11"])


def test_a_part_to_train_on_that_the_split_lacks_is_an_error(data: Path) -> None:
    with pytest.raises(UserError, match=r"recipes.r.train lists val, but split 1 of tiny has no part val"):
        validation.parts(tiny_run(data, train=("train", "val")))
    replaced(data, ["train"] * 10 + ["val"] * 2 + ["test"] * 5)
    kept, held = validation.parts(tiny_run(data, train=("train", "val")))
    assert (len(kept), held) == (12, [])


def test_a_share_without_a_video_is_an_error(data: Path) -> None:
    with pytest.raises(UserError, match="0 of 12 training videos"):
        validation.parts(tiny_run(data, validate=0.01))


@pytest.mark.parametrize("setting", [{"checkpoint": "best"}, {"patience": 2}])
def test_a_choice_by_validation_needs_it(setting: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="but validate is null"):
        params(**setting)


def test_the_part_val_is_not_trained_on_and_validated_on() -> None:
    with pytest.raises(UserError, match="leave it out of one"):
        params(validate="val", train=["train", "val"])


def test_each_epoch_has_a_score_and_the_test_videos_have_no_part_in_it(data: Path, tmp_path: Path) -> None:
    epochs = train(tiny_run(data, validate=0.25))
    assert [set(score) for score in scores(epochs)] == [
        {"validation_loss", "validation_accuracy", "validation_videos"}
    ] * 2
    assert {score["validation_videos"] for score in scores(epochs)} == {3}
    replaced(data, ["train"] * 12 + ["val"] * 5)  # no test videos at all
    again = train(tiny_run(data, validate=0.25))
    assert [epoch.lines for epoch in again] == [epoch.lines for epoch in epochs]


def test_validation_changes_no_step(data: Path) -> None:
    replaced(data, ["train"] * 12 + ["val"] * 3 + ["test"] * 2)
    plain, validated = train(tiny_run(data)), train(tiny_run(data, validate="val"))
    assert losses(plain) == losses(validated)
    same(plain[-1].state["model"], validated[-1].state["model"])


def test_videos_of_several_classes_have_a_loss_alone(data: Path) -> None:
    epochs = train(tiny_run(data, validate=0.25, loss="sigmoid", epochs=1))
    assert set(scores(epochs)[0]) == {"validation_loss", "validation_videos"}


@pytest.fixture
def rated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the second epoch the most accurate."""
    accuracies: Iterator[float] = iter([0.2, 0.6, 0.6, 0.1, 0.5, 0.9])

    def score(*_: object) -> validation.Score:
        return validation.Score(1.0, next(accuracies), 3)

    monkeypatch.setattr(validation, "score", score)


@pytest.mark.usefixtures("rated")
def test_the_best_epoch_is_kept_and_patience_ends(data: Path) -> None:
    epochs = train(tiny_run(data, validate=0.25, checkpoint="best", patience=2, epochs=6))
    assert [epoch.number for epoch in epochs] == [0, 1, 2, 3]
    assert epochs[-1].state["best"]["epoch"] == 1
    same(epochs[1].state["model"], epochs[-1].state["best"]["model"])
    rest = train(tiny_run(data, validate=0.25, checkpoint="best", patience=2, epochs=6), epochs[-1].state)
    assert not rest  # a run that had ended stays so


@pytest.mark.usefixtures("rated")
@pytest.mark.parametrize(("checkpoint", "epoch"), [("best", 1), ("last", 2)])
def test_the_weights_are_the_chosen_epochs(data: Path, tmp_path: Path, checkpoint: str, epoch: int) -> None:
    run = tiny_run(data, validate=0.25, checkpoint=checkpoint, epochs=3)
    weights = trained_by(run, tmp_path)
    same(train(tiny_run(data, validate=0.25, epochs=3))[epoch].state["model"], weights)


def trained_by(run: Run, folder: Path) -> dict[str, torch.Tensor]:
    job = training(run, folder)
    train_run(job)
    return torch.load(io.BytesIO(trained(job)), weights_only=True)


def test_the_curve_has_the_scores(data: Path, tmp_path: Path) -> None:
    lines = [line for epoch in train(tiny_run(data, validate=0.25)) for line in epoch.lines]
    log, table = tmp_path / "log.jsonl", tmp_path / "curve.csv"
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    save_curve(table, [log])
    head, *rows = table.read_text().splitlines()
    assert head == "epoch,loss,lr,validation_accuracy,validation_loss" and len(rows) == 2
