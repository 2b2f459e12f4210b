"""Paths of official lists, and stages download and splits of a set, for tests of list files."""

from pathlib import Path

import pytest

from pipeline import splits
from pipeline.config import places
from pipeline.config.schema import Dataset, Decode
from pipeline.download import sources
from tests.support.real_data import TEST_DATA

ANNOTATIONS = TEST_DATA / "data/annotations"
DECODE = Decode(short_side=240, quality=90, decoder="ffmpeg", videos_per_shard=64, max_failed=0.05)


def official(path: str) -> Path:
    """Return the path of an official list or folder of lists; skip the test if it is missing."""
    if not (ANNOTATIONS / path).exists():
        pytest.skip(
            f"no official list {ANNOTATIONS / path}, so what it holds can't be checked against the code's counts"
        )
    return ANNOTATIONS / path


def dataset(name: str, source: Path, lists: Path | None = None) -> Dataset:
    return Dataset(file=name, source=str(source), lists=str(lists) if lists else None, options={}, decode=DECODE)


def through(name: str, given: Dataset, root: Path) -> splits.Tables:
    """Run stages download and splits."""
    folder = sources.fetch(name, given, root, root / "videos" / name)
    entries = sources.manifest(name, given, folder)
    return splits.build(name, given, entries, places.lists(given, root, root / "videos" / name))
