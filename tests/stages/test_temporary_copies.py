"""Relative sources are resolved from the real project, also in DVC's temporary copies."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.config import places
from pipeline.config.schema import Dataset, Decode
from pipeline.download import sources
from pipeline.errors import UserError

DATASET = Dataset("folder", "data/videos/mine", None, {}, Decode(36, 90, "ffmpeg", 8, 0.0))
COPIES = ["standalone/tmp1", "tmp2", "celery/a/tmp3"]


@pytest.fixture(params=COPIES)
def copy(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path / "project" / ".dvc" / "tmp" / "exps" / request.param
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("source", ["data/videos/mine", "../elsewhere/mine", "."])
def test_sources_and_lists_are_the_real_projects(copy: Path, tmp_path: Path, source: str) -> None:
    real = tmp_path / "project" / source
    real.mkdir(parents=True, exist_ok=True)
    dataset = replace(DATASET, source=source, lists=source)
    if source != ".":
        assert sources.fetch("mine", dataset, copy, copy / "data/videos/mine").resolve() == real.resolve()
        assert places.lists(dataset, copy, copy / "x").resolve() == real.resolve()
    assert places.project(copy) == tmp_path / "project"
    assert places.project(tmp_path / "project") == tmp_path / "project"


def test_what_the_copy_has_itself_comes_first(copy: Path, tmp_path: Path) -> None:
    for place in (copy, tmp_path / "project"):
        (place / "data/videos/mine").mkdir(parents=True)
    assert places.located(DATASET, copy, copy / "x") == copy / "data/videos/mine"


def test_an_absent_source_is_named_in_the_real_project(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        sources.fetch("mine", DATASET, copy, copy / "data/videos/mine")
    assert str(tmp_path / "project" / "data/videos/mine") in str(caught.value) and ".dvc" not in str(caught.value)
