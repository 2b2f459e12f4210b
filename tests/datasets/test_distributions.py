"""Data sets as their home pages and mirrors distribute them today."""

import json
import os
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

from pipeline.datasets import folder, jester, sthv1, sthv2
from pipeline.download import archives
from pipeline.errors import UserError

DATA = os.environ.get("ACTIONBENCH_TEST_DATA")
CASE = Path(DATA or "absent") / "cases" / "09-labels-of-today"
needs_case = pytest.mark.skipif(not CASE.is_dir(), reason="ACTIONBENCH_TEST_DATA names no folder with cases/")

CLASSES = [f"Class {number}" for number in range(174)]
ENTRY = [{"id": "1", "label": "class one", "template": "Class [1]", "placeholders": []}]
LISTS: dict[str, tuple[ModuleType, str, str, dict[str, str]]] = {
    "sthv2": (
        sthv2,
        "something-something-v2-",
        "json",
        {
            "labels": json.dumps({name: str(number) for number, name in enumerate(CLASSES)}),
            "train": json.dumps(ENTRY),
            "validation": json.dumps(ENTRY),
        },
    ),
    "sthv1": (
        sthv1,
        "something-something-v1-",
        "csv",
        {"labels": "\n".join(CLASSES), "train": "1;Class 1\n", "validation": "2;Class 1\n"},
    ),
    "jester": (jester, "jester-v1-", "csv", {"train": "1;Swiping Left\n", "validation": "2;Swiping Left\n"}),
}


@pytest.mark.parametrize("inside", ["", "labels"])
@pytest.mark.parametrize("prefixed", [True, False])
@pytest.mark.parametrize("name", LISTS)
def test_lists_are_read_by_todays_names_and_by_yesterdays(
    tmp_path: Path, name: str, prefixed: bool, inside: str
) -> None:
    plugin, prefix, suffix, texts = LISTS[name]
    (tmp_path / inside).mkdir(exist_ok=True)
    for part, text in texts.items():
        (tmp_path / inside / f"{prefix if prefixed else ''}{part}.{suffix}").write_text(text)
    actual = plugin.splits(tmp_path, {})
    assert [row.part for row in actual.rows[1]] == ["train", "test"]


@pytest.mark.parametrize("name", LISTS)
def test_an_absent_list_is_named_with_both_namings(tmp_path: Path, name: str) -> None:
    plugin, prefix, *_ = LISTS[name]
    with pytest.raises(UserError, match=prefix) as caught:
        plugin.splits(tmp_path, {})
    assert "labels" in str(caught.value) and "\n" not in str(caught.value)


@needs_case
@pytest.mark.parametrize("name", ["sthv2", "jester"])
@pytest.mark.parametrize("inside", ["", "labels"])
def test_the_cases_packages_are_read(name: str, inside: str) -> None:
    plugin = LISTS[name][0]
    assert len(plugin.splits(CASE / name / inside, {}).rows[1]) == 2


@pytest.mark.parametrize("name", ["x:y", "a: b", "16:9", "file:x", "C:", "http:"])
def test_a_class_folder_with_a_colon_is_a_name(tmp_path: Path, name: str) -> None:
    place = tmp_path / "videos" / name
    place.mkdir(parents=True)
    (place / "1.mp4").touch()
    for part in ("train", "test"):
        (tmp_path / "videos" / f"{part}.txt").write_text(f"{name}/1.mp4\n")
    assert [video.path for video in folder.videos(tmp_path / "videos", {})] == [f"{name}/1.mp4"]
    assert folder.splits(tmp_path / "videos", {}).classes == (name,)
    if name == "C:":
        return  # "C:/" at an archive's top is refused still, as Windows' absolute path
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(place, name)
    archives.unpack(tmp_path / "a.tar", tmp_path / "unpacked")
    assert (tmp_path / "unpacked" / name / "1.mp4").is_file()
