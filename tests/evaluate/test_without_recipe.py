"""A row without a recipe tests an authors' file as it is, up to its golden logits."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch

from models import video
from pipeline.config.load import parse
from pipeline.config.schema import Params
from pipeline.digest.files import write_sums
from pipeline.errors import UserError
from pipeline.evaluate import inference
from pipeline.measure import results
from pipeline.train import rows
from tests.support.nets import full_nets
from tests.support.nets.golden import GOLDEN
from tests.support.nets.released import WHOLE, by_action
from tests.support.trainings import CPU, params


def untrained(weights: str | None = "weights.pth", frames: int | None = 8, **changes: Any) -> Params:
    """Return trainings.params() with a row without a recipe."""
    raw = json.loads(json.dumps(dataclasses.asdict(params("none"))))
    raw["protocols"]["p"] |= {"clips": 1, "crops": "center", "size": 32, "frames": frames, "batch": 1}
    raw["experiments"]["row"] |= {"recipe": None, "weights": weights, "seeds": [0], **changes}
    return parse(raw)


@pytest.fixture
def few(data: Path) -> Path:
    """Return the data folder with one test video."""
    table = pa.parquet.read_table(data / "splits" / "tiny" / "split-1.parquet").slice(0, 13)
    pa.parquet.write_table(table, data / "splits" / "tiny" / "split-1.parquet")
    return data


def classes(data: Path, count: int) -> None:
    (data / "splits" / "tiny" / "classes.json").write_text(json.dumps([f"class {n}" for n in range(count)]))
    (data / "splits" / "tiny" / "mirrored.json").write_text(json.dumps(list(range(count))))
    write_sums(data / "splits" / "tiny")


@pytest.mark.parametrize(("stem", "rename"), WHOLE)
def test_an_authors_file_gives_the_golden_logits(
    stem: str, rename: Any, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row's steps give the golden logits, with the golden clip in place of the video's."""
    if not (GOLDEN / f"{stem}.npz").exists():
        pytest.skip(f"no {GOLDEN / stem}.npz: set ACTIONBENCH_TEST_DATA")
    golden = np.load(GOLDEN / f"{stem}.npz")
    clip, (backbone, variant, attention, _) = full_nets.clip_of(golden)[:1], full_nets.parsed(stem)
    net = video.build(backbone, variant, attention, clip.shape[1], golden["logits"].shape[1])
    with torch.no_grad():
        full_nets.fill(net, full_nets.manifest(golden), {})
    file = tmp_path / "authors.pth"
    torch.save({"epoch": 50, "state_dict": {rename(name): value for name, value in net.state_dict().items()}}, file)
    classes(few, net.head.out_features)
    given = untrained(str(file), clip.shape[1], backbone=backbone, variant=variant)
    (run,) = rows.runs(given, "row", few)
    run.convert(file)
    monkeypatch.setattr(inference.loading, "normalise", lambda *_: clip)
    blocks = [inference.Scorer(run, CPU).score(block) for block in inference.blocks(run)]
    inference.gather([run], blocks, few / "predictions" / "row" / "predictions.parquet")
    write_sums(few / "predictions" / "row")
    row = results.read(given, "row", few)
    assert not isinstance(row.predictions, str), row.predictions
    assert row.protocol == f"1 clip x center, {clip.shape[1]}f segments, 32 px, softmax, not trained here"
    logits = row.predictions.frame["logits"].to_list()
    np.testing.assert_allclose(logits, golden["logits"][:1], rtol=0, atol=1e-3 * golden["logits"].std())


def test_a_file_without_its_classifier_is_refused(few: Path, tmp_path: Path) -> None:
    file, net = tmp_path / "w.pth", video.build("resnet", "tiny", "none", 8, 7)
    (run,) = rows.runs(untrained(), "row", few)
    torch.save({by_action(name): value for name, value in net.state_dict().items()}, file)
    with pytest.raises(UserError, match=r"w\.pth has no classifier of 3 classes, but one of 7"):
        run.convert(file)
    torch.save(net.backbone.state_dict(), file)
    with pytest.raises(UserError, match=r"no classifier of 3 classes, but none"):
        run.convert(file)
    assert not run.weights.exists()


def test_what_a_row_without_a_recipe_needs_is_named() -> None:
    with pytest.raises(UserError, match=r"row\.recipe is null, and so is weights; name a recipe"):
        untrained(weights=None)
    with pytest.raises(UserError, match=r"null, and so is protocols\.p\.frames"):
        untrained(frames=None)
    with pytest.raises(UserError, match="every seed gives the same scores"):
        untrained(seeds=[0, 1])
