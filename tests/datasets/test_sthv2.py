"""Something-Something V2: the official lists if available, and stand-ins in real layouts."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline.datasets import Video, sthv2
from pipeline.errors import UserError
from tests.support.videos.lists import dataset, official, through
from tests.support.videos.packed import zipped
from tests.support.videos.stand_ins import NAMES


def jsons(root: Path, **lists: Any) -> Path:
    """Write V2's lists, whose class numbers are text and whose templates have brackets."""
    root.mkdir(parents=True, exist_ok=True)
    clips = [("11", "Doing [something] 0"), ("12", "Pushing [something] from left to right")]
    own = {
        "labels": {name: str(number) for number, name in enumerate(NAMES)},
        "train": [{"id": clip, "label": "x", "template": kind, "placeholders": ["x"]} for clip, kind in clips],
        "validation": [{"id": "7", "label": "x", "template": "Doing [something] 9", "placeholders": ["x"]}],
    }
    for kind, content in (own | lists).items():
        (root / f"something-something-v2-{kind}.json").write_text(json.dumps(content))
    return root


def test_sthv2_lists_are_as_published(tmp_path):
    validation = json.loads(official("sthv2/something-something-v2-validation.json").read_text())
    labels = official("sthv2/something-something-v2-labels.json")
    for path in labels.parent.glob("something-something-v2-*.json"):
        (tmp_path / path.name).symlink_to(path)
    if not (tmp_path / "something-something-v2-train.json").exists():  # not kept here
        (tmp_path / "something-something-v2-train.json").write_text("[]")
    classes, rows = sthv2.splits(tmp_path, {})
    assert list(classes) == list(json.loads(labels.read_text())) and len(classes) == 174
    tests = [row for row in rows[1] if row.part == "test"]
    assert len({row.video for row in tests}) == len(tests) == 24_777 == sthv2.COUNTS[1]["test"]
    assert {label for row in tests for label in row.labels} == {*range(174)}
    assert [row.video for row in tests] == [entry["id"] for entry in validation]
    assert 168_913 + 24_777 + sthv2.UNLABELLED == 220_847


def test_sthv2_training_list_is_as_published():
    path = official("sthv2/something-something-v2-train.json")
    assert Counter(row.part for row in sthv2.splits(path.parent, {}).rows[1])["train"] == 168_913


def test_webms_become_splits_with_the_lists_next_to_them(tmp_path, monkeypatch):
    root = jsons(tmp_path / "ssv2", test=[{"id": "99"}])
    for clip in ("7", "11", "99"):
        path = root / f"20bn-something-something-v2/{clip}.webm"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(clip.encode())
    monkeypatch.setattr(sthv2, "COUNTS", {1: {"train": 2, "test": 1}})
    monkeypatch.setattr(sthv2, "UNLABELLED", 1)
    built = through("sthv2", dataset("sthv2", root), tmp_path)
    pushing = NAMES.index("Pushing something from left to right")
    assert built.tables[1].rows() == [("11", "train", [0]), ("12", "train", [pushing]), ("7", "test", [9])]
    assert built.notes == (
        "sthv2, split 1: 1 of 2 train videos are absent: 12",
        "sthv2: 1 of 3 videos are in no list: 99",
    )


def test_a_webm_in_two_places_is_refused(tmp_path):
    for path in ("one/7.webm", "two/7.webm", "other.webm"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(b"x")
    with pytest.raises(UserError, match=r"7\.webm and \w+/7\.webm, the same clip; keep one of them"):
        sthv2.videos(tmp_path, {})
    assert sthv2.videos(tmp_path / "two", {}) == [Video("7", "7.webm")]


def test_v2_lists_that_lack_lines_are_refused(tmp_path):
    lists, archive = jsons(tmp_path / "lists"), zipped(tmp_path / "v.zip", {"v/11.webm": b"x"})
    with pytest.raises(UserError, match=r"lists have 2 train, 1 test rows, published are 168913 train, 24777 test"):
        through("sthv2", dataset("sthv2", archive, lists), tmp_path)


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"train": [{"id": "1", "template": "Doing [nothing]"}]}, "-train.json, entry 1: 'Doing nothing' is no class"),
        ({"train": [{"id": "1", "label": "x"}]}, "-train.json, entry 1: expected a text template, not {"),
        ({"train": [{"id": 1, "template": "x"}]}, "-train.json, entry 1: expected an id, a number as text, not {"),
        ({"validation": [7]}, "-validation.json, entry 1: expected an id, a number as text, not 7"),
        ({"validation": {"id": "7"}}, "-validation.json is no list of clips"),
        ({"labels": {"Doing something 0": "0"}}, "-labels.json: expected 174 classes, numbered from 0 to 173"),
        ({"labels": {name: str(n + 1) for n, name in enumerate(NAMES)}}, "expected 174 classes, numbered from 0"),
        ({"labels": NAMES}, "-labels.json: expected 174 classes, numbered from 0"),
        ({"test": [{"id": "1"}, {"id": "2"}]}, "-test.json has 2 clips; published are 1"),
        ({"test": [{"id": "12"}]}, "-test.json: clip 12 is in the train list too"),
    ],
)
def test_an_entry_of_v2_that_is_wrong_is_named(tmp_path, monkeypatch, lists, message):
    monkeypatch.setattr(sthv2, "UNLABELLED", 1)
    with pytest.raises(UserError) as error:
        sthv2.splits(jsons(tmp_path, **lists), {})
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_damaged_list_is_named(tmp_path):
    (jsons(tmp_path) / "something-something-v2-train.json").write_text('[{"id": "1"')
    with pytest.raises(UserError, match=r"sthv2: the list .*-v2-train\.json is no JSON"):
        sthv2.splits(tmp_path, {})
