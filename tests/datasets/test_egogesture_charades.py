"""EgoGesture and Charades: the official lists if available, and stand-ins in the real layouts."""

import csv
import json
from collections import Counter
from pathlib import Path

import pytest

from pipeline.datasets import Row, charades, egogesture
from pipeline.download import sources
from pipeline.errors import UserError
from tests.support.videos.lists import ANNOTATIONS, dataset, official, through
from tests.support.videos.packed import zipped

COLUMNS = ("id", "subject", "scene", "quality", "script", "actions", "length")
GESTURES = {
    "train": "Subject03/Scene1/Color/rgb1 7 2 4\nSubject03/Scene1/Color/rgb1 83 6.0 9.0\n",
    "val": "Subject01/Scene2/Color/rgb2 1 1 3\n",
    "test": "Subject02/Scene6/Color/rgb9 2 5 8\n",
}


def gestures(**texts: str) -> dict[str, bytes]:
    """Return EgoGesture's lists; `texts` replace some."""
    return {f"{part}listall_but_None.txt": text.encode() for part, text in (GESTURES | texts).items()}


def frames(video: str, count: int) -> dict[str, bytes]:
    return {f"images/{video}/{n:06d}.jpg": f"{video} {n}".encode() for n in range(1, count + 1)}


def written(root: Path, files: dict[str, bytes]) -> Path:
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return root


def lists_of_charades(root: Path, **videos: list[tuple[str, str]]) -> Path:
    """Write lists of two training videos and one test video, (id, actions); `videos` replace some."""
    root.mkdir(parents=True, exist_ok=True)
    classes = "".join(f"c{number:03d} Action {number}\n" for number in range(157))
    (root / "Charades_v1_classes.txt").write_text(classes)
    own = {"train": [("46GP8", "c092 11.90 21.20;c147 0.00 12.60"), ("N11GT", "")], "test": [("0BH84", "c001 1 2.5")]}
    for part, rows in (own | videos).items():
        with (root / f"Charades_v1_{part}.csv").open("w", newline="") as file:
            lines = csv.DictWriter(file, COLUMNS, restval='A person, as "they" say')
            lines.writeheader()
            lines.writerows({"id": name, "actions": text} for name, text in rows)
    return root


def few(monkeypatch: pytest.MonkeyPatch, train: int = 2, test: int = 1) -> None:
    """Replace Charades' published counts by those of a stand-in."""
    monkeypatch.setattr(charades, "COUNTS", {1: {"train": train, "test": test}})


def test_egogesture_lists_are_as_published():
    lists = official("egogesture/trainlistall_but_None.txt").parent
    classes, rows = egogesture.splits(lists, {})
    numbered = [line.split() for line in (lists / "classIndAllbutNone.txt").read_text().splitlines()]
    assert [(str(number), name) for number, name in enumerate(classes, 1)] == [(a, b) for a, b in numbered]
    assert Counter(row.part for row in rows[1]) == {"train": 14_416, "val": 4_768, "test": 4_977}
    assert len({row.video for row in rows[1]}) == 24_161
    assert len({row.video.rpartition("/")[0] for row in rows[1]}) == 2_081
    assert {label for row in rows[1] for label in row.labels} == {*range(83)}
    assert rows[1][0] == Row("Subject03/Scene1/Color/rgb1/67-112", "train", (6,))


def test_egogesture_agrees_with_another_copy_of_its_lists():
    database = json.loads(official("egogesture/egogestureall_but_None.json").read_text())["database"]
    classes, rows = egogesture.splits(ANNOTATIONS / "egogesture", {})
    ours = Counter((row.video, classes[row.labels[0]], row.part) for row in rows[1])
    parts = {"training": "train", "validation": "val", "testing": "test"}
    theirs = Counter(
        (
            f"{name.partition('_')[0]}/{int(float(facts['start_frame']))}-{int(float(facts['end_frame']))}",
            facts["label"],
            parts[entry["subset"]],
        )
        for name, entry in database.items()
        for facts in [entry["annotations"]]
    )
    assert ours == theirs


def test_egogesture_mirrored_classes_are_those_that_speak_of_left_or_right():
    words = {"left": "right", "right": "left", "clockwise": "counterclockwise", "counterclockwise": "clockwise"}
    swapped = {name: "_".join(words.get(word, word) for word in name.split("_")) for name in egogesture.CLASSES}
    both = {name: other for pair in egogesture.MIRRORED for name, other in (pair, pair[::-1])}
    assert both == {name: other for name, other in swapped.items() if name != other}
    assert {*egogesture.ONE_WAY} < {*egogesture.CLASSES} - {*both}


def test_egogesture_ranges_become_splits(tmp_path, monkeypatch):
    files = frames("Subject03/Scene1/Color/rgb1", 9) | frames("Subject02/Scene6/Color/rgb9", 4)
    files |= frames("Subject01/Scene2/Color/rgb2", 3) | {"images/Subject01/Scene2/Depth/depth2/000001.jpg": b"depth"}
    lists = {f"annotation_EgoGesture/{name}": text for name, text in gestures().items()}
    more = {"annotation_EgoGesture/testlistall_but_None.txt": lists["annotation_EgoGesture/testlistall_but_None.txt"]}
    more["annotation_EgoGesture/testlistall_but_None.txt"] += b"Subject02/Scene6/Color/rgb9 3 1 4\n"
    archive = zipped(tmp_path / "EgoGesture.zip", files | lists | more)
    monkeypatch.setattr(egogesture, "COUNTS", {1: {"train": 2, "val": 1, "test": 2}})
    given = dataset("egogesture", archive)
    built = through("egogesture", given, tmp_path)
    assert built.tables[1].rows() == [
        ("Subject03/Scene1/Color/rgb1/2-4", "train", [6]),
        ("Subject03/Scene1/Color/rgb1/6-9", "train", [82]),
        ("Subject01/Scene2/Color/rgb2/1-3", "val", [0]),
        ("Subject02/Scene6/Color/rgb9/5-8", "test", [1]),
        ("Subject02/Scene6/Color/rgb9/1-4", "test", [2]),
    ]
    # Of the video of four frames, the range that begins at the fifth is not there.
    absent = "egogesture, split 1: 1 of 2 test videos are absent: Subject02/Scene6/Color/rgb9/5-8"
    assert built.notes == (absent,)
    folder = tmp_path / "videos/egogesture"
    entries = {entry.video: entry.path for entry in sources.manifest("egogesture", given, folder)}
    assert entries["Subject03/Scene1/Color/rgb1/6-9"] == "images/Subject03/Scene1/Color/rgb1"


def test_egogesture_video_in_two_places_or_without_lists_is_refused(tmp_path):
    one = frames("Subject03/Scene1/Color/rgb1", 2)
    written(tmp_path, one | {f"more/{path}": content for path, content in one.items()})
    with pytest.raises(UserError, match=r"egogesture: .* holds .*rgb1 and .*rgb1, the same clip; keep one"):
        egogesture.videos(tmp_path, {})
    with pytest.raises(UserError, match=r"the list .*trainlistall_but_None\.txt is absent\. Expected: the frames Subj"):
        egogesture.videos(tmp_path / "images", {})


@pytest.mark.parametrize(
    ("part", "line", "message"),
    [
        ("train", "Subject03/Scene1/Color/rgb1 84 1 5", "the class 84 is none of 1 to 83"),
        ("train", "Subject03/Scene1/Color/rgb1 0 1 5", "the class 0 is none of 1 to 83"),
        ("val", "Subject01/Scene1/Color/rgb1 1 5 4", "expected `<video> <class> <first frame> <last frame>`"),
        ("val", "Subject01/Scene1/Color/rgb1 1 0 4", "expected `<video> <class> <first frame> <last frame>`"),
        ("val", "Subject01/Scene1/Color/rgb1 1 1.5 4", "expected `<video> <class> <first frame> <last frame>`"),
        ("val", "Subject01/Scene1/Color/rgb1 1 4", "expected `<video> <class> <first frame> <last frame>`"),
        ("test", "Subject1/Scene1/rgb1 1 1 4", "expected `<video> <class> <first frame> <last frame>`"),
    ],
)
def test_egogesture_names_a_line_it_can_not_read(tmp_path, part, line, message):
    written(tmp_path, gestures(**{part: f"{GESTURES[part].splitlines()[0]}\n\n{line}\n"}))
    with pytest.raises(UserError) as error:
        egogesture.splits(tmp_path, {})
    assert f"{part}listall_but_None.txt, line 3: {message}" in str(error.value) and "\n" not in str(error.value)


def test_egogesture_person_of_two_parts_is_refused(tmp_path):
    written(tmp_path, gestures(test="Subject03/Scene6/Color/rgb1 2 5 8\n"))
    with pytest.raises(UserError, match="Subject03 is in the train list and in the test list"):
        egogesture.splits(tmp_path, {})


def test_charades_lists_are_as_published(tmp_path):
    """The official facts of another file, written as lists, give the published counts."""
    database = json.loads(official("charades/charades.json").read_text())
    listed: dict[str, list[tuple[str, str]]] = {"train": [], "test": []}
    for name, facts in database.items():
        text = ";".join(f"c{label:03d} {start:.2f} {end:.2f}" for label, start, end in facts["actions"])
        listed[{"training": "train", "testing": "test"}[facts["subset"]]].append((name, text))
    lists = lists_of_charades(tmp_path, **listed)
    (lists / "Charades_v1_classes.txt").write_text(official("charades/Charades_v1_classes.txt").read_text())
    classes, rows = charades.splits(lists, {})
    assert Counter(row.part for row in rows[1]) == charades.COUNTS[1] == {"train": 7_985, "test": 1_863}
    assert Counter(row.part for row in rows[1] if not row.labels) == {"train": 174, "test": 49}
    assert len(classes) == 157 and (classes[0], classes[156]) == ("Holding some clothes", "Someone is eating something")
    assert not any(word in name.lower().split() for name in classes for word in ("left", "right"))
    expected = {name: {label for label, _, _ in facts["actions"]} for name, facts in database.items()}
    assert all(expected[row.video] == {*row.labels} for row in rows[1])
    assert all(len({*row.labels}) == len(row.labels) for row in rows[1])


def test_charades_has_a_row_a_video_with_all_its_labels(tmp_path, monkeypatch):
    few(monkeypatch)
    train = [("46GP8", "c147 0.00 12.60;c092 11.90 21.20;c147 14.00 13.00"), ("N11GT", "")]
    lists = lists_of_charades(tmp_path / "lists", train=train)
    names = ("46GP8", "N11GT", "0BH84")
    archive = zipped(tmp_path / "v.zip", {f"Charades_v1_480/{name}.mp4": name.encode() for name in names})
    built = through("charades", dataset("charades", archive, lists), tmp_path)
    assert built.tables[1].rows() == [("46GP8", "train", [92, 147]), ("N11GT", "train", []), ("0BH84", "test", [1])]
    assert built.notes == ()
    (_, first), (_, none) = charades.actions(lists / "Charades_v1_train.csv")
    assert first[1] == charades.Action(92, 11.9, 21.2) and len(first) == 3 and none == []


def test_charades_lists_next_to_the_videos_and_absent_videos(tmp_path, monkeypatch):
    few(monkeypatch)
    lists_of_charades(tmp_path / "c/Charades", train=[("46GP8", "c092 1 2"), ("N11GT", "c000 0 1")])
    written(tmp_path / "c", {f"Charades_v1_480/{name}.mp4": name.encode() for name in ("46GP8", "0BH84", "sample")})
    built = through("charades", dataset("charades", tmp_path / "c"), tmp_path)
    assert built.notes == ("charades, split 1: 1 of 2 train videos are absent: N11GT",)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("46GP8", "c157 1 2"), "line 2: c157 is none of c000 to c156"),
        (
            ("46GP8", "c001 1 2;c002"),
            "line 2: expected actions `c<three digits> <start> <end>` with `;` between, not 'c0",
        ),
        (("46GP8", "c001 -1 2"), "line 2: expected actions `c<three digits> <start> <end>`"),
        (("46gp8.mp4", "c001 1 2"), "line 2: expected an id of five letters and digits"),
    ],
)
def test_charades_names_a_line_it_can_not_read(tmp_path, monkeypatch, row, message):
    few(monkeypatch)
    with pytest.raises(UserError) as error:
        charades.splits(lists_of_charades(tmp_path, train=[row]), {})
    assert f"Charades_v1_train.csv, {message}" in str(error.value) and "\n" not in str(error.value)


def test_charades_lists_that_are_not_whole_are_refused(tmp_path):
    lists = lists_of_charades(tmp_path / "lists")
    folder = written(tmp_path / "v", {"Charades_v1_480/46GP8.mp4": b"x"})
    with pytest.raises(UserError, match=r"lists have 2 train, 1 test rows, published are 7985 train, 1863 test"):
        through("charades", dataset("charades", folder, lists), tmp_path)
    (lists / "Charades_v1_test.csv").write_text("id,subject\n0BH84,x\n")
    with pytest.raises(UserError, match=r"test\.csv: no column actions; expected are id, actions"):
        charades.splits(lists, {})
    (lists / "Charades_v1_test.csv").write_text("id,subject,actions\n0BH84,x\n")
    with pytest.raises(UserError, match=r"test\.csv, line 2: expected an id of five letters and digits, and actions"):
        charades.splits(lists, {})
    (lists / "Charades_v1_test.csv").unlink()
    with pytest.raises(UserError, match=r"charades: the list .*test\.csv is absent\. Expected: the content of "):
        charades.splits(lists, {})
    (lists / "Charades_v1_classes.txt").write_text("c000 Holding some clothes\nc002 Taking\n")
    with pytest.raises(UserError, match=r"classes\.txt: expected the classes c000 to c156 in turn"):
        charades.splits(lists, {})


def test_charades_training_video_in_test_and_a_video_twice_are_refused(tmp_path, monkeypatch):
    few(monkeypatch)
    lists = lists_of_charades(tmp_path / "lists", test=[("46GP8", "c001 1 2")])
    folder = written(tmp_path / "v", {"Charades_v1_480/46GP8.mp4": b"x"})
    with pytest.raises(UserError, match=r"1 videos stand more than once in its lists, e\.g\. 46GP8 in train and test"):
        through("charades", dataset("charades", folder, lists), tmp_path)
    written(folder, {"Charades_v1/46GP8.mp4": b"x"})
    with pytest.raises(UserError, match=r"46GP8\.mp4 and .*46GP8\.mp4, the same clip; keep one of them"):
        charades.videos(folder, {})


@pytest.mark.parametrize("name", ["egogesture", "charades"])
def test_a_folder_of_another_layout_says_what_is_expected(tmp_path, name):
    written(tmp_path, {"Subject03/rgb1/000001.jpg": b"x", "a video.mp4": b"x"})
    with pytest.raises(UserError, match=rf"{name}: .* holds no video of it\. Expected there: the "):
        through(name, dataset(name, tmp_path), tmp_path)
