"""Sources of videos are kept, made again or refused; and the manifest."""

import hashlib
from pathlib import Path

import pytest

from pipeline.config import places
from pipeline.config.schema import Dataset, Decode
from pipeline.download import sources
from pipeline.errors import UserError
from tests.support.machines.served import serving
from tests.support.videos.flips import flip
from tests.support.videos.packed import tree, zipped

DECODE = Decode(short_side=64, quality=90, decoder="ffmpeg", videos_per_shard=8, max_failed=0.1)
SHAPES = {"train": 8, "test": 8, "frames": [2, 3], "side": 32}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def dataset(source: str | Path, file: str = "folder", **options: object) -> Dataset:
    return Dataset(file=file, source=str(source), lists=None, decode=DECODE, options=options)


def test_a_url_needs_its_checksum(tmp_path):
    for source in ("http://u:p@127.0.0.1/v.zip", "http://u:p@127.0.0.1/v.zip#sha256=12"):
        with pytest.raises(UserError, match=r"datasets\.mine\.source: http://127\.0\.0\.1/v\.zip needs its checksum"):
            sources.fetch("mine", dataset(source), tmp_path, tmp_path / "videos")


def test_videos_come_from_a_url(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    content = zipped(tmp_path / "v.zip", {"clap/1.mp4": b"1", "run/2.mp4": b"2"}).read_bytes()
    with serving(content) as server:
        source = dataset(f"{server.url}#sha256={sha256(content)}")
        for _ in range(2):
            folder = sources.fetch("mine", source, tmp_path, tmp_path / "videos/mine")
            assert folder == tmp_path / "videos/mine" == places.located(source, tmp_path, folder)
            assert [entry.video for entry in sources.manifest("mine", source, folder)] == ["clap/1", "run/2"]
        assert len(server.asked) == 1
    assert [path.name for path in (tmp_path / "videos").iterdir()] == ["mine"]


def test_videos_come_from_an_archive_and_follow_it(tmp_path):
    zipped(tmp_path / "v.zip", {"clap/1.mp4": b"1"})
    folder = sources.fetch("mine", dataset("v.zip"), tmp_path, tmp_path / "videos")
    assert [path for path in tree(folder) if path not in (sources.MADE, "SHA256SUMS")] == ["clap/1.mp4"]
    zipped(tmp_path / "v.zip", {"run/23.mp4": b"2"})
    sources.fetch("mine", dataset("v.zip"), tmp_path, tmp_path / "videos")
    assert [path for path in tree(folder) if path not in (sources.MADE, "SHA256SUMS")] == ["run/23.mp4"]
    with pytest.raises(UserError, match=r"v\.zip does not have the sha256"):
        sources.fetch("mine", dataset(f"v.zip#sha256={'0' * 64}"), tmp_path, tmp_path / "other")


def test_a_refused_archive_leaves_nothing(tmp_path):
    zipped(tmp_path / "v.zip", {"fine.mp4": b"1", "../evil.mp4": b"2"})
    with pytest.raises(UserError, match="is refused"):
        sources.fetch("mine", dataset("v.zip"), tmp_path, tmp_path / "data/videos")
    assert not list((tmp_path / "data").iterdir())


def test_a_folder_of_the_users_is_used_in_place(tmp_path):
    (tmp_path / "own/clap").mkdir(parents=True)
    (tmp_path / "own/clap/1.mp4").write_bytes(b"1")
    source = dataset("own")
    assert sources.fetch("mine", source, tmp_path, tmp_path / "videos") == tmp_path / "own"
    assert places.located(source, tmp_path, tmp_path / "videos") == tmp_path / "own"
    assert places.lists(source, tmp_path, tmp_path / "videos") == tmp_path / "own"
    assert sources.manifest("mine", source, tmp_path / "own") == [
        sources.Entry("clap/1", "clap/1.mp4", 1, sha256(b"1"))
    ]
    assert not (tmp_path / "videos").exists()


def test_an_absent_or_empty_folder_says_where_to_put_what(tmp_path):
    absent = dataset("here", file="jhmdb")
    with pytest.raises(UserError, match=f"there is no {tmp_path}/here. Put the videos there.*JHMDB_video.zip"):
        sources.fetch("mine", absent, tmp_path, tmp_path / "videos")
    (tmp_path / "here").mkdir()
    with pytest.raises(UserError, match=f"{tmp_path}/here holds no video of it. Expected there: .*JHMDB_video.zip"):
        sources.manifest("mine", absent, sources.fetch("mine", absent, tmp_path, tmp_path / "videos"))


def test_videos_are_drawn_once_and_again_for_other_options(tmp_path):
    made: list[int] = []

    def each(make, items):
        made.append(len(items))
        sources.in_turn(make, items)

    for seed in (0, 0, 0, 1):
        source = dataset("generated", file="shapes", **SHAPES, seed=seed)
        folder = sources.fetch("s", source, tmp_path, tmp_path / "videos/s", each=each)
        if len(made) == 1:
            first = sources.manifest("s", source, folder)
            (folder / "left/000000.mp4").unlink()  # as if interrupted
            (folder / "stray.mp4").write_bytes(b"no part of the plan")
    with pytest.raises(UserError, match="unknown option 'sed'"):
        sources.fetch("s", dataset("generated", file="shapes", **SHAPES, sed=2), tmp_path, tmp_path / "videos/s")
    last = sources.manifest("s", source, folder)  # a mistyped option took nothing away
    assert len(first) == len(last) == 16 and made == [8, 1, 8]
    assert [entry.video for entry in first] == [entry.video for entry in last]
    assert not {entry.sha256 for entry in first} & {entry.sha256 for entry in last}
    assert not (folder / "stray.mp4").exists()


def test_a_flipped_byte_in_a_drawn_video_is_found_and_the_video_drawn_again(tmp_path, capsys):
    source = dataset("generated", file="shapes", **SHAPES)
    folder = sources.fetch("s", source, tmp_path, tmp_path / "videos/s")
    first = sources.manifest("s", source, folder)
    flip(folder / "left/000000.mp4")
    sources.fetch("s", source, tmp_path, folder)
    assert sources.manifest("s", source, folder) == first
    assert "left/000000.mp4 is damaged; it is drawn again" in capsys.readouterr().err


@pytest.mark.parametrize("harm", [flip, Path.unlink])
def test_an_unpacked_archive_that_lost_a_file_is_unpacked_again(tmp_path, harm, capsys):
    zipped(tmp_path / "v.zip", {"clap/1.mp4": b"1", "run/2.mp4": b"22"})
    folder = sources.fetch("mine", dataset("v.zip"), tmp_path, tmp_path / "videos")
    first = tree(folder)
    harm(folder / "run/2.mp4")
    sources.fetch("mine", dataset("v.zip"), tmp_path, folder)
    assert tree(folder) == first and "run/2.mp4 is damaged or gone" in capsys.readouterr().err


def test_what_the_user_put_there_is_not_taken_away(tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/mine.mp4").write_bytes(b"precious")
    zipped(tmp_path / "v.zip", {"clap/1.mp4": b"1"})
    for source in (dataset("generated", file="shapes", **SHAPES), dataset("v.zip")):
        with pytest.raises(UserError, match="holds files that were not put there by this project"):
            sources.fetch("mine", source, tmp_path, tmp_path / "videos")
    assert tree(tmp_path / "videos") == {"mine.mp4": b"precious"}


def test_a_set_that_can_not_be_generated_says_so(tmp_path):
    with pytest.raises(UserError, match="jhmdb can't be generated"):
        sources.fetch("mine", dataset("generated", file="jhmdb"), tmp_path, tmp_path / "videos")


def test_the_manifest_round_trips(tmp_path):
    entries = [
        sources.Entry('a "b", ü/1', 'a "b", ü/1.mp4', 2**40, "0" * 64),
        sources.Entry("b", "b", 1, "1" * 64, 0, 9, 12.0),
    ]
    sources.write(tmp_path / "manifest.csv", entries)
    first = (tmp_path / "manifest.csv").read_bytes()
    assert first.startswith(b"video,path,bytes,sha256,first,last,fps\n")
    assert sources.read(tmp_path / "manifest.csv") == entries
    sources.write(tmp_path / "manifest.csv", entries)
    assert (tmp_path / "manifest.csv").read_bytes() == first


def test_a_manifest_that_is_absent_or_damaged_is_named(tmp_path):
    with pytest.raises(UserError, match="is absent; the download stage writes it"):
        sources.read(tmp_path / "manifest.csv")
    heads = "video,path,bytes,sha256,first,last,fps"
    for text in ("video,path\na,b\n", f"{heads}\na,b\n", f"{heads}\na,b,many,c,,,\n", f"{heads}\na,b,1,c,one,,\n"):
        (tmp_path / "manifest.csv").write_text(text)
        with pytest.raises(UserError, match="is damaged"):
            sources.read(tmp_path / "manifest.csv")


def test_a_folder_of_frames_is_hashed_by_names_and_contents(tmp_path, monkeypatch):
    for name in ("00002.jpg", "00001.jpg"):
        (tmp_path / "v/7").mkdir(parents=True, exist_ok=True)
        (tmp_path / "v/7" / name).write_bytes(name.encode())
    monkeypatch.setattr("pipeline.datasets.folder.videos", lambda *_: [sources.datasets.Video("7", "7")])
    (entry,) = sources.manifest("mine", dataset("v"), tmp_path / "v")
    assert entry.bytes == 18
    (tmp_path / "v/7/00001.jpg").rename(tmp_path / "v/7/00003.jpg")
    (renamed,) = sources.manifest("mine", dataset("v"), tmp_path / "v")
    assert renamed.sha256 != entry.sha256


def test_a_file_that_can_not_be_read_is_named(tmp_path):
    (tmp_path / "clap").mkdir()
    (tmp_path / "clap/1.mp4").symlink_to(tmp_path / "gone.mp4")
    with pytest.raises(UserError, match=r"clap/1\.mp4 can't be read: No such file"):
        sources.manifest("mine", dataset("."), tmp_path)


def test_a_name_that_is_no_text_is_named(tmp_path):
    (tmp_path / "caf\udce9.mp4").write_bytes(b"1")
    entries = sources.manifest("mine", dataset("."), tmp_path)
    with pytest.raises(UserError, match=r"not in UTF-8, rename it: .*caf\\udce9"):
        sources.write(tmp_path / "manifest.csv", entries)
