"""Damaged files count as absent or are refused in one line; only the project's files are removed."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.digest import files, state
from pipeline.digest.inputs import Memo
from pipeline.download import sources
from pipeline.errors import UserError
from pipeline.storage import notes
from pipeline.tracking import run_log, run_record
from pipeline.train import node_cache
from stages.commands import arrival
from tests.support.videos.flips import flip

KEY = "0123456789abcdef"


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def foreign(path: Path) -> None:
    path.write_text("[1, 2]")


def noise(path: Path) -> None:
    path.write_bytes(os.urandom(64))


def middle(path: Path) -> None:
    flip(path, path.stat().st_size // 2)


DAMAGES = pytest.mark.parametrize("damage", [empty, cut, foreign, noise, middle])
Damage = Callable[[Path], None]


@DAMAGES
def test_a_damaged_note_counts_as_absent(tmp_path: Path, damage: Damage, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "speeds.json"
    assert notes.read(path) is None and capsys.readouterr().err == ""
    notes.write(path, {"clips_per_second": 20.5, "names": ["ü", "b"], "nested": {"1": None}})
    assert notes.read(path) == {"clips_per_second": 20.5, "names": ["ü", "b"], "nested": {"1": None}}
    damage(path)
    assert notes.read(path) is None
    assert capsys.readouterr().err == f"{path} is damaged and counts as absent\n"


def test_a_note_of_an_earlier_version_has_no_checksum(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"a": 1}')
    assert notes.read(tmp_path / "run.json") == {"a": 1}


@DAMAGES
def test_a_damaged_record_counts_as_absent(tmp_path: Path, damage: Damage) -> None:
    record = run_record.record("quick", "tsn", {"lr": 0.1}, {"data": "f00"})
    numbers = run_record.Numbers(record.training, {"split1-seed0": {"top1": 0.5}}, {"top1": 0.5})
    run_record.save(record, tmp_path)
    run_record.save(numbers, tmp_path)
    assert (run_record.load(tmp_path), run_record.numbers(tmp_path)) == (record, numbers)
    damage(tmp_path / run_record.RUN)
    damage(tmp_path / run_record.NUMBERS)
    assert run_record.load(tmp_path) is run_record.numbers(tmp_path) is None


def test_a_record_of_other_types_counts_as_absent(tmp_path: Path) -> None:
    (tmp_path / run_record.RUN).write_text('{"suite": 1, "row": "a", "params": [], "tags": {}}')
    assert run_record.load(tmp_path) is None


@DAMAGES
def test_damaged_memory_of_files_is_taken_again(tmp_path: Path, damage: Damage) -> None:
    (tmp_path / "w.pt").write_text("weights")
    memo = Memo(tmp_path / "inputs.json")
    digest = memo.sha256(tmp_path / "w.pt")
    memo.save()
    damage(tmp_path / "inputs.json")
    assert Memo(tmp_path / "inputs.json").sha256(tmp_path / "w.pt") == digest == files.sha256(tmp_path / "w.pt")


@pytest.mark.parametrize(
    "line",
    [b"", b"\xff\xfe", b"{", b"7", b"[]", b'{"kind": "epoch"}', b'{"kind": "epoch", "epoch": "1", "loss": 0.1}'],
)
def test_a_damaged_line_of_a_log_counts_as_absent(tmp_path: Path, line: bytes) -> None:
    whole = [{"kind": "epoch", "epoch": number, "loss": 0.5} for number in range(3)]
    texts = [json.dumps(each).encode() for each in whole]
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"\n".join([texts[0], line, texts[2], b""]))
    assert run_log.epochs(path) == [whole[0], whole[2]]
    path.write_bytes(line)
    assert run_log.epochs(path) == []


@DAMAGES
def test_a_damaged_manifest_is_a_line(tmp_path: Path, damage: Damage) -> None:
    path = tmp_path / "shapes" / "manifest.csv"
    entries = [sources.Entry(f"a/{n}", f"a/{n}.mp4", 7, 64 * "0") for n in range(3)]
    sources.write(path, entries)
    assert sources.read(path) == entries
    damage(path)
    with pytest.raises(UserError, match=r"manifest\.csv is damaged; `dvc repro -f download@shapes`"):
        sources.read(path)


@DAMAGES
def test_a_damaged_list_of_sums_is_a_line(tmp_path: Path, damage: Damage) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    files.write_sums(tmp_path)
    assert set(files.sums(tmp_path)) == {"a", "b"}
    damage(tmp_path / files.SUMS)
    with pytest.raises(UserError, match="SHA256SUMS"):
        files.verify(tmp_path / "a")
        files.verify(tmp_path / "b")


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "..", ""])
def test_names_of_lists_stay_in_their_folder(tmp_path: Path, name: str) -> None:
    digest = files.hashlib.sha256(b"").hexdigest()
    (tmp_path / files.SUMS).write_text(f"{digest}  {name}\n")
    with pytest.raises(UserError, match="is damaged"):
        files.sums(tmp_path)
    listed = tmp_path / "list.json"
    listed.write_text(json.dumps({name: [digest, 0], "data/a": [digest, 0]}))
    with pytest.raises(UserError, match="is refused") as caught:
        node_cache.read_list(listed)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"a": 1}', '{"a": ["00", 1]}', '{"a": ["../../x", 1]}', '{"a": [null, 1]}']
)
def test_a_damaged_list_of_a_store_is_a_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "list.json").write_text(content)
    with pytest.raises(UserError, match=r"the list .* is (damaged|refused)"):
        node_cache.read_list(tmp_path / "list.json")  # type: ignore[arg-type]


# -- what is removed --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ["../precious", "/precious", "..", ".", "", "a/../../precious", "models/attention"])
def test_a_row_that_leads_out_removes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: str) -> None:
    monkeypatch.chdir(tmp_path)
    kept = tmp_path / "precious" / f"split1-{KEY}" / "file"
    kept.parent.mkdir(parents=True)
    kept.touch()
    with pytest.raises(UserError, match="is no name of a row"):
        state.clear(tmp_path / "work", row.replace("/precious", str(tmp_path / "precious"), row[:1] == "/"), [])
    assert kept.exists()


def test_only_folders_that_are_named_by_a_key_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """cluster.storage may be any folder, where a row's name may match an unrelated folder."""
    monkeypatch.chdir(tmp_path)
    ours, users = (tmp_path / "models" / "attention" / name for name in (f"split1-seed0-{KEY}", "mine"))
    for folder in (ours, users):
        folder.mkdir(parents=True)
        (folder / "file").touch()
    (ours.parent / f"linked-{KEY}").symlink_to(users)
    (ours.parent / "se.py").touch()
    state.clear(tmp_path / "models", "attention", [])
    assert not ours.exists() and (users / "file").exists() and (ours.parent / "se.py").exists()


@pytest.mark.parametrize("name", ["../precious", "/precious", "linked/precious"])
def test_a_submissions_list_removes_nothing_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(arrival.plan, "dvc", lambda *_: "")
    precious, folder, source = tmp_path / "precious", tmp_path / "shared", tmp_path / "job"
    for path in (precious, folder / "old.py", source / "new.py"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    (folder / "linked").symlink_to(tmp_path)
    listed = name.replace("/precious", str(precious)) if name == "/precious" else name
    notes.write(folder / run_record.SUBMITTED, {"commit": "one", "files": [listed, "old.py", 7]})
    arrival.unpack(source, folder, "two")
    assert precious.exists() and not (folder / "old.py").exists() and (folder / "new.py").exists()
    assert run_record.commit(folder) == "two"


@DAMAGES
def test_a_damaged_list_of_a_submission_counts_as_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Damage
) -> None:
    monkeypatch.setattr(arrival.plan, "dvc", lambda *_: "")
    folder, source = tmp_path / "shared", tmp_path / "job"
    source.mkdir()
    (source / "new.py").write_text("x")
    arrival.unpack(source, folder, "one")
    damage(folder / run_record.SUBMITTED)
    assert run_record.commit(folder) == ""
    arrival.unpack(source, folder, "two")
    assert run_record.commit(folder) == "two"
