"""The papers' suites are complete in both tiers, and tier mini differs only in size."""

from pathlib import Path

import pytest
import torch

from models import video
from pipeline import datasets, splits
from pipeline.config.schema import Dataset, Decode
from pipeline.download import sources
from pipeline.papers.published import PAPERS
from pipeline.subset import videos
from tests.support.composed import composed
from tests.support.nets import pairs
from tests.support.videos import mini_sets

# What conf/tier/recipe/ and protocol/ may change.
SMALL = {"epochs", "batch", "micro_batch", "size", "lr", "steps", "warmup_epochs", "frozen", "partial_bn"}
SMALL |= {"clip_grad", "precision"}


def changed(one: object, other: object) -> set[str]:
    return {name for name in vars(one) if getattr(one, name) != getattr(other, name)}


@pytest.mark.parametrize("suite", PAPERS)
def test_the_small_form_differs_in_size_alone(suite: str) -> None:
    full, mini = composed(suite, "full"), composed(suite, "mini")
    assert (full.tier.name, mini.tier.name) == ("full", "mini")
    assert full.tables == mini.tables and full.fusions == mini.fusions
    assert full.experiments.keys() == mini.experiments.keys()
    for name, row in full.experiments.items():
        small = mini.experiments[name]
        assert changed(row, small) <= {"variant", "weights", "splits", "seeds", "knobs"}, name
        assert {**row.knobs, "positions": 0} == {**small.knobs, "positions": 0}, name
        assert (small.variant, small.weights, small.seeds) == ("tiny", None, (0,))
    for name, recipe in full.recipes.items():
        assert changed(recipe, mini.recipes[name]) <= SMALL, name
    for name, protocol in full.protocols.items():
        assert changed(protocol, mini.protocols[name]) <= {"size", "batch"}, name
    for name, settings in full.trajectories.items():
        assert changed(settings, mini.trajectories[name]) <= {"splits", "scales", "gaussians", "samples"}, name
    for name, dataset in full.datasets.items():
        assert changed(dataset, mini.datasets[name]) <= {"decode"}, name


@pytest.mark.parametrize("suite", PAPERS)
def test_a_suite_has_both_kinds_of_table_and_no_row_that_none_shows(suite: str) -> None:
    params = composed(suite, "full")
    assert {table.base is None for table in params.tables.values()} == {True, False}
    shown = {row for table in params.tables.values() for row in (*table.rows, table.base) if row}
    shown |= {row for fusion in params.fusions.values() for row in fusion.rows}
    assert set(params.experiments) <= shown
    assert {row.recipe for row in params.experiments.values()} == set(params.recipes)
    assert {row.protocol for row in params.experiments.values()} == set(params.protocols)
    assert {row.dataset for row in params.experiments.values()} == set(params.datasets)


@pytest.mark.parametrize("tier", ["full", "mini"])
def test_all_is_the_five_together(tier: str) -> None:
    whole, parts = composed("all", tier), [composed(suite, tier) for suite in PAPERS]
    for kind in ("experiments", "recipes", "protocols", "tables", "fusions", "trajectories"):
        names = [name for part in parts for name in getattr(part, kind)]
        assert len(names) == len(set(names)), kind
        assert getattr(whole, kind) == {name: value for part in parts for name, value in getattr(part, kind).items()}
    assert set(whole.datasets) == {name for part in parts for name in part.datasets}


@pytest.mark.parametrize("suite", PAPERS)
def test_rows_train_and_test_alike(suite: str) -> None:
    """Inputs and losses of a row match; multi-label sets and flow are where rows need them."""
    params = composed(suite, "full")
    for name, row in params.experiments.items():
        recipe, protocol, dataset = (
            params.recipes[row.recipe],
            params.protocols[row.protocol],
            params.datasets[row.dataset],
        )
        multiple = getattr(datasets.loaded(dataset.file), "MULTI_LABEL", False)
        assert (recipe.loss == "sigmoid") == (protocol.average == "sigmoid") == multiple, name
        assert recipe.input == "rgb" or dataset.decode.flow is not None, name
        assert recipe.input != "warped" or dataset.decode.flow.compensated, name
        assert set(row.splits) <= set(datasets.loaded(dataset.file).COUNTS), name
        assert "dense" not in (recipe.sampling, protocol.sampling) or recipe.stride == protocol.stride, name
        assert recipe.size <= protocol.size, name


ROWS = [*((path.stem, "full") for path in pairs.SUITES if path.stem != "all"), *((suite, "mini") for suite in PAPERS)]


@pytest.mark.parametrize(("suite", "tier"), ROWS)
def test_every_row_of_a_suite_builds_and_takes_its_clips(suite: str, tier: str) -> None:
    """Each row builds at its size on the meta device, without memory or arithmetic."""
    params, built = composed(suite, tier), set()
    for name, row in params.experiments.items():
        recipe, protocol = params.recipes[row.recipe], params.protocols[row.protocol]
        sizes = {(recipe.frames, recipe.size), (protocol.frames or recipe.frames, protocol.size)}
        key = (row.backbone, row.variant, row.attention, repr(row.knobs), recipe.planes, *sorted(sizes))
        if key in built:
            continue
        built.add(key)
        with torch.device("meta"):
            named = row.backbone, row.variant, row.attention
            net = video.build(*named, recipe.frames, 5, knobs=row.knobs, planes=recipe.planes).eval()
            for frames, size in sizes:
                net.retime(frames)
                assert net(torch.empty(1, frames, recipe.planes, size, size)).shape == (1, 5), name


@pytest.mark.slow
@pytest.mark.skipif(not mini_sets.LISTS.is_dir(), reason=f"no {mini_sets.LISTS}")
@pytest.mark.parametrize("name", [name for name in mini_sets.SETS if name != "cifar100"])
def test_a_drawn_set_is_the_subset_of_its_lists(name: str, tmp_path: Path) -> None:
    """Drawn lists have the official counts, and exactly the videos that the tier takes exist."""
    mini_sets.draw(name, tmp_path)
    dataset = Dataset(name, str(tmp_path), None, {}, Decode(72, 90, "ffmpeg", 8, 0.0))
    subset = mini_sets.subset()
    actual = sources.manifest(name, dataset, tmp_path)
    assert {entry.video for entry in actual} == videos(mini_sets.whole(name, tmp_path), subset)
    built = splits.build(name, dataset, actual, tmp_path, subset)
    assert len(built.classes) == subset.classes and not built.notes
