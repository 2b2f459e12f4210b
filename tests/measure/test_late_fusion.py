"""Late fusion: the weighted mean of scores, or the reason why members don't fit."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipeline.config.load import parse
from pipeline.config.schema import Fusion, Params, Table
from pipeline.digest import files
from pipeline.errors import UserError
from pipeline.evaluate.predictions import SCHEMA, Predictions
from pipeline.measure import accuracy as metrics
from pipeline.measure import late_fusion, results
from pipeline.report import suite_tables, table
from tests.support import invented

ROWS = {"rgb": 1.0, "flow": 1.5}


def project(folder: Path, rights: tuple[float, ...] = (0.6, 0.6), views: int = 1, outside: str | None = None) -> Params:
    """Write two rows of two splits and two seeds; return params with their fusion."""
    params = invented.params([*ROWS], splits=(1, 2), clips=views)
    splits = invented.splits(folder / "splits" / "shapes", numbers=(1, 2))
    for seed, (row, right) in enumerate(zip(ROWS, rights, strict=True)):
        frame = invented.predictions(params, row, splits, right, views, seed)
        invented.write(frame, folder / "predictions" / row / "predictions.parquet", params, row)
        costs = folder / "predictions" / row / "costs.json"
        costs.write_text(json.dumps({"parameters": 100 + seed, "macs": 7}))
        files.write_sums(costs.parent)
    return replace(params, fusions={"both": Fusion(ROWS, {outside: 0.5} if outside else {})})


def written(folder: Path, name: str, change: Callable[[pl.DataFrame], pl.DataFrame]) -> str:
    """Write an outside file: a changed copy of one run of row rgb, for both splits."""
    frame = pl.read_parquet(folder / "predictions" / "rgb" / "predictions.parquet").filter(seed=0)
    path = folder / f"{name}.parquet"
    change(frame.with_columns(experiment=pl.lit("iDT"), seed=pl.lit(9, pl.Int32))).write_parquet(path)
    return str(path)


def fused(params: Params, folder: Path) -> results.Row:
    return late_fusion.read(params, "both", folder)


@pytest.mark.parametrize("views", [1, 3])
def test_scores_are_the_weighted_mean_of_the_rows_scores(tmp_path: Path, views: int) -> None:
    params = project(tmp_path, views=views)
    fusion = fused(params, tmp_path)
    expected = 0.0
    for row, weight in ROWS.items():
        frame = pl.read_parquet(tmp_path / "predictions" / row / "predictions.parquet").sort(
            "split", "seed", "video", "view"
        )
        powers = np.exp(frame["logits"].explode().to_numpy().astype(float).reshape(-1, views, 6))
        expected = expected + weight / 2.5 * (powers / powers.sum(-1, keepdims=True)).mean(1)
    assert isinstance(fusion.predictions, Predictions)
    tests, scores = metrics.scores(fusion.predictions)
    assert len(tests) == 2 * 2 * 60
    np.testing.assert_allclose(scores, expected, rtol=1e-12)


def test_a_fusion_is_a_row_with_interval_test_signature_and_summed_costs(tmp_path: Path) -> None:
    params = project(tmp_path)
    rows = {row: results.measure(results.read(params, row, tmp_path)) for row in ROWS}
    rows["both"] = results.measure(fused(params, tmp_path))
    both = rows["both"]
    assert both.protocol == "rgb*1 + flow*1.5: 1 clip x center, 8f segments, 64 px, softmax"
    assert both.costs == {"parameters": 201, "macs": 14}
    assert both.accuracy.top1.low < both.accuracy.top1.value < both.accuracy.top1.high
    table.save(tmp_path, suite_tables.of("t", Table("t", ("flow", "both"), base="rgb"), rows))
    text = (tmp_path / "t.md").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("| both ")]
    assert "can't tell (1 more seed needed)" in line and "A fusion is the weighted mean" in text


def test_a_fusion_has_frames_if_its_rows_agree_on_them(tmp_path: Path) -> None:
    params = project(tmp_path)
    assert fused(params, tmp_path).frames == 8
    recipe = replace(next(iter(params.recipes.values())), frames=16)
    flow = replace(params.experiments["flow"], recipe="longer")
    params = replace(
        params, recipes={**params.recipes, "longer": recipe}, experiments={**params.experiments, "flow": flow}
    )
    assert fused(params, tmp_path).frames is None


def test_a_weight_that_drowns_the_others_gives_that_row(tmp_path: Path) -> None:
    params = replace(project(tmp_path), fusions={"both": Fusion({"rgb": 1e12, "flow": 1.0})})
    rgb, both = (results.measure(row) for row in (results.read(params, "rgb", tmp_path), fused(params, tmp_path)))
    assert both.accuracy.right.equals(rgb.accuracy.right)


def test_only_seeds_that_all_rows_have_are_fused(tmp_path: Path) -> None:
    params = project(tmp_path)
    path = tmp_path / "predictions" / "flow" / "predictions.parquet"
    experiments = {**params.experiments, "flow": replace(params.experiments["flow"], seeds=(1,))}
    invented.write(pl.read_parquet(path).filter(seed=1), path, params, "flow")
    fusion = fused(replace(params, experiments=experiments), tmp_path)
    assert fusion.seeds == (1,) and set(fusion.predictions.frame["seed"]) == {1}
    assert isinstance(results.measure(fusion).accuracy.top1.value, float)


def test_a_video_that_a_row_could_not_decode_is_not_decoded(tmp_path: Path) -> None:
    params = project(tmp_path)
    path = tmp_path / "predictions" / "flow" / "predictions.parquet"
    gone = pl.col("video") == "test_1_000"
    frame = pl.read_parquet(path).with_columns(logits=pl.when(~gone).then("logits"))
    invented.write(frame, path, params, "flow")
    accuracy = results.measure(fused(params, tmp_path)).accuracy
    assert (accuracy.videos, accuracy.decoded) == (120, 119)


def test_an_outside_file_counts_for_every_seed(tmp_path: Path) -> None:
    project(tmp_path)
    params = project(tmp_path, outside=written(tmp_path, "idt", lambda frame: frame))
    fusion = fused(params, tmp_path)
    assert fusion.protocol.startswith("rgb*1 + flow*1.5 + idt*0.5: ")
    plain = metrics.scores(fused(replace(params, fusions={"both": Fusion(ROWS)}), tmp_path).predictions)[1]
    seed0 = metrics.scores(results.read(params, "rgb", tmp_path).predictions)[1].reshape(2, 2, 60, 6)[:, :1]
    expected = 2.5 / 3 * plain.reshape(2, 2, 60, 6) + 0.5 / 3 * seed0
    np.testing.assert_allclose(metrics.scores(fusion.predictions)[1], expected.reshape(-1, 6), rtol=1e-12)


def test_predictions_of_another_row_are_called_by_its_folder(tmp_path: Path) -> None:
    params = project(tmp_path, outside=str(tmp_path / "predictions" / "rgb" / "predictions.parquet"))
    fusion = fused(params, tmp_path)
    assert fusion.protocol.startswith("rgb*1 + flow*1.5 + rgb*0.5: ")
    # One run was asked for, and the file has two.
    assert "has not its views once each" in fusion.predictions


FIRST = pl.col("video") == "test_1_007"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda f: f.filter(~FIRST), "video 'test_1_007' of split 1, seed 0 is missing"),
        (lambda f: f.with_columns(pl.when(FIRST).then(pl.lit("x")).otherwise("video").alias("video")), "is missing"),
        (lambda f: pl.concat([f, f.filter(FIRST).with_columns(video=pl.lit("x"))]), "'x' of split 1.* no test video"),
        (lambda f: f.with_columns(pl.col("logits").list.head(5)), "has not one logit for each of 6 classes"),
        (lambda f: f.drop("view"), "column 'view' must be Int32, not missing"),
        (lambda f: pl.concat([f, f.filter(FIRST)]), "has not its views once each"),
        (lambda f: f.with_columns(labels=pl.lit([0], SCHEMA["labels"])), "other labels than its split"),
    ],
)  # fmt: skip
def test_an_outside_file_that_does_not_fit_is_a_reason(tmp_path: Path, damage, reason: str) -> None:
    project(tmp_path)
    params = project(tmp_path, outside=written(tmp_path, "idt", damage))
    reason_found = fused(params, tmp_path).predictions
    assert isinstance(reason_found, str)
    with pytest.raises(UserError, match=f"failed: .*idt.parquet: .*{reason}"):
        raise UserError(reason_found)


def test_an_outside_file_with_other_classes_or_none_or_damaged_is_a_reason(tmp_path: Path) -> None:
    project(tmp_path)
    path = Path(written(tmp_path, "idt", lambda frame: frame))
    params = project(tmp_path, outside=str(path))
    pl.read_parquet(path).write_parquet(path, metadata={"classes": json.dumps(["x"] * 6)})
    assert "its classes are not the 6" in fused(params, tmp_path).predictions
    path.write_bytes(path.read_bytes()[:200])
    assert fused(params, tmp_path).predictions.startswith(f"failed: {path} is damaged")
    path.unlink()
    assert fused(params, tmp_path).predictions == f"failed: {path} is not there"


def test_rows_that_do_not_fit_together_are_a_reason(tmp_path: Path) -> None:
    params = project(tmp_path)

    def with_flow(**changes: object) -> str:
        experiments = {**params.experiments, "flow": replace(params.experiments["flow"], **changes)}
        flow = tmp_path / "predictions" / "flow" / "predictions.parquet"
        whole = flow.read_bytes()
        part = pl.read_parquet(flow).filter(pl.col("split").is_in(experiments["flow"].splits))
        invented.write(part.filter(pl.col("seed").is_in(experiments["flow"].seeds)), flow, params, "flow")
        sets = {**params.datasets, "other": params.datasets["shapes"]}
        reason = fused(replace(params, experiments=experiments, datasets=sets), tmp_path).predictions
        flow.write_bytes(whole)
        return reason

    assert with_flow(splits=(2,)) == "failed: rgb has splits [1, 2], flow [2]"
    (tmp_path / "splits" / "other").symlink_to(tmp_path / "splits" / "shapes")
    assert with_flow(dataset="other") == "failed: rgb is on shapes, flow on other"
    experiments = {**params.experiments, "rgb": replace(params.experiments["rgb"], seeds=(0,))}
    rgb = tmp_path / "predictions" / "rgb" / "predictions.parquet"
    invented.write(pl.read_parquet(rgb).filter(seed=0), rgb, params, "rgb")
    params = replace(params, experiments=experiments)
    assert with_flow(seeds=(1,)) == "failed: rgb, flow share no seed"


def test_a_row_that_has_not_run_or_failed_is_the_reason(tmp_path: Path) -> None:
    params = project(tmp_path)
    path = tmp_path / "predictions" / "flow" / "predictions.parquet"
    path.write_bytes(b"no parquet")
    assert fused(params, tmp_path).predictions.startswith(f"failed: flow: {path} is damaged")
    path.unlink()
    assert fused(params, tmp_path).predictions == "not run"


def test_several_labels_a_video_are_fused_by_their_sigmoids(tmp_path: Path) -> None:
    logits = np.array([[[0.0, 2.0], [1.0, 1.0]], [[-2.0, 0.0], [3.0, 1.0]]])
    tests = pl.DataFrame({"split": [1, 1], "seed": [0, 0], "video": ["a", "b"], "view": [0, 0]})
    tests = tests.with_columns(labels=pl.Series([[0, 1], []], dtype=SCHEMA["labels"]))
    members = [
        Predictions(tests.with_columns(logits=pl.Series(scores, dtype=SCHEMA["logits"])), ("c", "d"), "sigmoid", True)
        for scores in logits
    ]
    both = late_fusion.fuse([(members[0], 3.0), (members[1], 1.0)], (0,))
    assert both.several and both.average == "none"
    sigmoid = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(metrics.scores(both)[1], 0.75 * sigmoid[0] + 0.25 * sigmoid[1])


@pytest.mark.parametrize("rows", [{}, {"rgb": 0.0}, {"rgb": 1.0, "flow": -1.0}])
def test_weights_must_be_above_0(rows: dict[str, float]) -> None:
    raw = {"suite": "s", "datasets": {}, "recipes": {}, "protocols": {}, "experiments": {}, "tables": {}}
    with pytest.raises(UserError, match=r"fusions\.both\.rows"):
        parse({**raw, "fusions": {"both": {"rows": rows}}})
