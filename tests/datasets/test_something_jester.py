"""Something-Something V1 and V2, and Jester: official lists if available, and stand-ins in real layouts."""

from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from pipeline.datasets import Row, Video, jester, sthv1, sthv2
from pipeline.download import sources
from pipeline.errors import UserError
from tests.support.videos.lists import dataset, official, through
from tests.support.videos.packed import zipped
from tests.support.videos.stand_ins import NAMES

PREFIX = {"sthv1": "something-something-v1", "jester": "jester-v1"}
LABELS = {"sthv1": NAMES, "jester": list(jester.CLASSES)}
FRAMES: list[tuple[str, ModuleType]] = [("sthv1", sthv1), ("jester", jester)]  # sets that come as folders of frames


def csvs(root: Path, name: str, **texts: str) -> Path:
    """Write lists of two training clips and a validation clip; `texts` replace some."""
    root.mkdir(parents=True, exist_ok=True)
    first, last = LABELS[name][0], LABELS[name][-1]
    own = {"train": f"11;{first}\n12;{last}\n", "validation": f"7;{last}\n", "labels": "\n".join(LABELS[name]) + "\n"}
    for kind, text in (own | texts).items():
        (root / f"{PREFIX[name]}-{kind}.csv").write_text(text)
    return root


def frames(*clips: str, top: str) -> dict[str, bytes]:
    return {f"{top}/{clip}/{n:05d}.jpg": f"{clip} {n}".encode() for clip in clips for n in (1, 2, 3)}


def swapped(name: str) -> str:
    words = {"left": "right", "right": "left", "clockwise": "counterclockwise", "counterclockwise": "clockwise"}
    words |= {word.title(): other.title() for word, other in words.items()}
    return " ".join(words.get(word, word) for word in name.split())


def check_mirrored(names: list[str], pairs: tuple[tuple[str, str], ...]) -> None:
    """Check that pairs are exactly the classes that swap when left and right do."""
    both = {name: other for pair in pairs for name, other in (pair, pair[::-1])}
    assert both == {name: swapped(name) for name in names if swapped(name) != name and swapped(name) in names}
    # No class is left that speaks of a direction and has no partner ("pulling it right out" speaks of none).
    assert {name for name in names if swapped(name) != name} - set(both) <= {
        "Plugging something into something but pulling it right out as you remove your hand"
    }


def test_jester_lists_are_as_published():
    lists = official("jester/jester-v1-train.csv").parent
    classes, rows = jester.splits(lists, {})
    assert list(classes) == official("jester/jester-v1-labels.csv").read_text().splitlines()
    assert Counter(row.part for row in rows[1]) == {"train": 118_562, "test": 14_787}
    assert len({row.video for row in rows[1]}) == 118_562 + 14_787
    unlabelled = (lists / "jester-v1-test.csv").read_text().split()
    assert len(unlabelled) == jester.UNLABELLED == 148_092 - 118_562 - 14_787
    assert rows[1][0] == Row("34870", "train", (24,)) and {label for row in rows[1] for label in row.labels} == {
        *range(27)
    }


def test_sthv1_lists_are_as_published():
    path = official("sthv1/something-something-v1-train.csv")
    assert Counter(row.part for row in sthv1.splits(path.parent, {}).rows[1]) == sthv1.COUNTS[1]


def test_sthv1_classes_are_in_the_order_of_their_list(tmp_path):
    # A copy of the labels' list; another of its orders, by alphabet, is category.txt.
    text = official("sthv1/mmaction2_label_map.txt").read_text()
    classes, _ = sthv1.splits(
        csvs(tmp_path, "sthv1", labels=text, train="1;Holding something\n", validation="2;Closing something\n"), {}
    )
    assert list(classes) == text.splitlines() and classes[0] == "Holding something" and len(classes) == 174


@pytest.mark.parametrize(
    ("path", "plugin"),
    [
        ("sthv1/mmaction2_label_map.txt", sthv1),
        ("sthv2/mmaction2_label_map.txt", sthv2),
        ("jester/jester-v1-labels.csv", jester),
    ],
)
def test_mirrored_classes_are_those_that_speak_of_left_or_right(path, plugin):
    check_mirrored(official(path).read_text().splitlines(), plugin.MIRRORED)


@pytest.mark.parametrize(("name", "plugin"), FRAMES)
def test_frames_in_an_archive_become_splits(tmp_path, monkeypatch, name, plugin):
    top = f"20bn-{PREFIX[name]}"
    archive = zipped(tmp_path / "v.zip", frames("7", "11", "12", "99", top=top) | {f"{top}/13/readme.txt": b"no frame"})
    lists = csvs(tmp_path / "lists", name, test="99\n")
    monkeypatch.setattr(plugin, "COUNTS", {1: {"train": 2, "test": 1}})
    monkeypatch.setattr(plugin, "UNLABELLED", 1)
    given = dataset(name, archive, lists)
    built = through(name, given, tmp_path)
    last = len(LABELS[name]) - 1
    assert built.tables[1].rows() == [("11", "train", [0]), ("12", "train", [last]), ("7", "test", [last])]
    assert built.classes == tuple(LABELS[name])
    assert built.notes == (f"{name}: 1 of 4 videos are in no list: 99",)
    entries = sources.manifest(name, given, tmp_path / "videos" / name)
    assert [entry.path.rpartition("/")[2] for entry in entries] == ["11", "12", "7", "99"]
    assert entries[0].bytes == len("11 1") * 3 and len({entry.sha256 for entry in entries}) == 4


@pytest.mark.parametrize(("name", "plugin"), FRAMES)
def test_a_clip_in_two_places_is_refused(tmp_path, name, plugin):
    for path, content in {**frames("7", top="one"), **frames("7", top="two")}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}: .* holds \w+/7 and \w+/7, the same clip; keep one of them"):
        plugin.videos(tmp_path, {})
    assert plugin.videos(tmp_path / "one", {}) == [Video("7", "7")]
    assert plugin.videos(tmp_path / "one/7", {}) == []  # a clip's own folder is no folder of clips


@pytest.mark.parametrize("name", ["sthv1", "sthv2", "jester"])
def test_a_folder_of_another_layout_says_what_is_expected(tmp_path, name):
    for path in ("flat/00001.jpg", "named/drumming/00001.jpg", "named/clip.webm"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"x")
    with pytest.raises(UserError, match=rf"{name}: .* holds no video of it\. Expected there: the content of the arch"):
        through(name, dataset(name, tmp_path), tmp_path)
    with pytest.raises(UserError, match=rf"{name}: there is no .*nowhere\. Put the videos there.*20bn-"):
        through(name, dataset(name, tmp_path / "nowhere"), tmp_path)


@pytest.mark.parametrize(("name", "plugin"), FRAMES)
@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("train", "11;{first}\n\n12\n", "-train.csv, line 3: expected `<number>;<class>`, not '12'"),
        ("train", "x11;{first}\n", "-train.csv, line 1: expected `<number>;<class>`"),
        ("validation", "7;{first}s\n", "-validation.csv, line 1: '{first}s' is no class of"),
        ("validation", "7;3\n", "-validation.csv, line 1: '3' is no class of"),
        ("test", "1\n2\n", "-test.csv has 2 clips; published are 1"),
        ("test", "11\n", "-test.csv: clip 11 is in the train list too"),
        ("test", "7\n", "-test.csv: clip 7 is in the validation list too"),
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path, monkeypatch, name, plugin, kind, text, message):
    monkeypatch.setattr(plugin, "UNLABELLED", 1)
    first = LABELS[name][0]
    lists = csvs(tmp_path, name, **{kind: text.format(first=first)})
    with pytest.raises(UserError) as error:
        plugin.splits(lists, {})
    assert message.format(first=first) in str(error.value) and "\n" not in str(error.value)


def test_an_absent_or_damaged_list_is_named(tmp_path):
    with pytest.raises(UserError, match=r"sthv1: the list .*-v1-labels\.csv is absent\. Expected: "):
        sthv1.splits(tmp_path, {})
    with pytest.raises(UserError, match=r"jester: the list .*jester-v1-train\.csv is absent\. Expected: "):
        jester.splits(tmp_path, {})
    with pytest.raises(UserError, match=r"sthv2: the list .*-v2-labels\.json is absent\. Expected: "):
        sthv2.splits(tmp_path, {})
    lists = csvs(tmp_path, "sthv1", labels="Holding something\n")
    with pytest.raises(UserError, match=r"v1-labels\.csv has 1 classes; published are 174"):
        sthv1.splits(lists, {})
    (csvs(tmp_path, "jester") / "jester-v1-train.csv").write_bytes(b"\xff\xfe1")
    with pytest.raises(UserError, match=r"jester: the list .*jester-v1-train\.csv is no text"):
        jester.splits(tmp_path, {})


@pytest.mark.parametrize(("name", "plugin"), FRAMES)
def test_a_training_clip_in_the_test_part_is_refused(tmp_path, monkeypatch, name, plugin):
    lists = csvs(tmp_path / "lists", name, validation=f"11;{LABELS[name][0]}\n")
    archive = zipped(tmp_path / "v.zip", frames("11", "12", top="v"))
    monkeypatch.setattr(plugin, "COUNTS", {1: {"train": 2, "test": 1}})
    with pytest.raises(UserError, match=r"1 videos stand more than once in its lists, e\.g\. 11 in train and test"):
        through(name, dataset(name, archive, lists), tmp_path)


@pytest.mark.parametrize(("name", "counts"), [("sthv1", "86017"), ("jester", "118562")])
def test_lists_that_lack_lines_are_refused(tmp_path, name, counts):
    lists, archive = csvs(tmp_path / "lists", name), zipped(tmp_path / "v.zip", frames("11", top="v"))
    with pytest.raises(UserError, match=rf"lists have 2 train, 1 test rows, published are {counts} train"):
        through(name, dataset(name, archive, lists), tmp_path)
