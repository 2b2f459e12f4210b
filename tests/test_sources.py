"""Fetching videos over broken connections, from hostile archives and from folders, and the manifest."""

import hashlib
import io
import stat
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline import archives, sources
from pipeline.downloads import CHUNK, download, shown
from pipeline.errors import UserError
from pipeline.params import Dataset, Decode

DECODE = Decode(short_side=64, quality=90, decoder="ffmpeg", videos_per_shard=8, max_failed=0.1)
CONTENT = bytes(range(256)) * 8000  # 2 MB, which no single read brings
SHAPES = {"train": 8, "test": 8, "frames": [2, 3], "side": 32}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def dataset(source: str | Path, file: str = "folder", **options: object) -> Dataset:
    return Dataset(file=file, source=str(source), lists=None, decode=DECODE, options=options)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append(wanted)
        if server.errors:
            self.send_response(server.errors.pop(0))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.ranges else 0
        if start >= len(server.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if wanted and server.ranges else 200)
        self.send_header("Content-Length", str(len(server.content) - start))
        if wanted and server.ranges:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        self.end_headers()
        stop = start + server.drops.pop(0) if server.drops else len(server.content)
        self.wfile.write(server.content[start:stop])
        self.close_connection = stop < len(server.content)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch):
    """A server on loopback; `drops`: after how many bytes of its content each answer breaks off."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.content, http.ranges, http.drops, http.errors, http.asked = CONTENT, True, [], [], []
    http.url = f"http://127.0.0.1:{http.server_port}/videos.zip"
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield http
    http.shutdown()
    http.server_close()
    thread.join()


def fetched(server: ThreadingHTTPServer, path: Path) -> bytes:
    return download(server.url, sha256(CONTENT), path, wait=lambda _: None).read_bytes()


def test_a_broken_connection_is_resumed(server, tmp_path):
    server.drops, server.errors = [10 * CHUNK, 5 * CHUNK + 100], [503]
    assert fetched(server, tmp_path / "v.zip") == CONTENT
    assert server.asked == [None, None, f"bytes={10 * CHUNK}-", f"bytes={15 * CHUNK}-"]
    assert [path.name for path in tmp_path.iterdir()] == ["v.zip"]
    assert fetched(server, tmp_path / "v.zip") == CONTENT
    assert len(server.asked) == 4  # it was there


def test_a_later_run_goes_on_where_an_earlier_one_gave_up(server, tmp_path):
    server.drops = [3 * CHUNK, 0, 0, 0, 0, 0]
    with pytest.raises(UserError, match=r"127\.0\.0\.1:\d+/videos\.zip can't be read"):
        fetched(server, tmp_path / "v.zip")
    assert not (tmp_path / "v.zip").exists()
    server.asked.clear()
    assert fetched(server, tmp_path / "v.zip") == CONTENT
    assert server.asked == [f"bytes={3 * CHUNK}-"]


def test_a_part_that_is_whole_needs_no_more(server, tmp_path):
    (tmp_path / "v.zip.part").write_bytes(CONTENT)
    assert fetched(server, tmp_path / "v.zip") == CONTENT


def test_a_part_longer_than_the_file_is_begun_anew(server, tmp_path):
    (tmp_path / "v.zip.part").write_bytes(CONTENT + b"more")
    assert fetched(server, tmp_path / "v.zip") == CONTENT


def test_a_server_without_ranges_starts_over(server, tmp_path):
    server.ranges, server.drops = False, [20 * CHUNK, 10 * CHUNK]
    assert fetched(server, tmp_path / "v.zip") == CONTENT
    assert server.asked == [None, f"bytes={20 * CHUNK}-", f"bytes={10 * CHUNK}-"]


def test_other_bytes_than_promised_are_thrown_away(server, tmp_path):
    server.content = CONTENT[:-1] + b"x"
    with pytest.raises(UserError, match="does not have the sha256"):
        fetched(server, tmp_path / "v.zip")
    assert not list(tmp_path.iterdir())


def test_no_message_holds_a_secret(server, tmp_path, capfd):
    server.errors = [404]
    url = server.url.replace("//", "//user:pass@") + "?token=hidden#part"
    with pytest.raises(UserError, match="answers 404") as error:
        download(url, sha256(CONTENT), tmp_path / "v.zip")
    with pytest.raises(UserError, match="ConnectionError") as unreachable:
        server.errors = [500] * 9
        download(url, sha256(CONTENT), tmp_path / "v.zip", wait=lambda _: None)
    out = "".join(capfd.readouterr()) + str(error.value) + str(unreachable.value)
    assert not any(secret in out for secret in ("user", "pass", "token", "hidden"))
    assert shown("https://u:p@host:8/a/b.zip?q#f") == "https://host:8/a/b.zip"


def test_only_http_is_fetched(tmp_path):
    with pytest.raises(UserError, match="is no http or https address"):
        download("file:///etc/passwd", "0" * 64, tmp_path / "v.zip")


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as target:
        for name, content in files.items():
            target.writestr(name, content)
    return path


def tarred(path: Path, *members: tuple[tarfile.TarInfo, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as target:
        for member, content in members:
            member.size = len(content)
            target.addfile(member, io.BytesIO(content))
    return path


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tgz", "tar.bz2", "tar.xz", "tar.zst"])
def test_every_kind_of_archive_is_unpacked(tmp_path, kind):
    archive = tmp_path / f"Videos.{kind.upper()}"
    if kind == "zip":
        zipped(archive, {"a/ü 1.mp4": b"1"})
    elif kind == "tar.zst":
        tarred(tmp_path / "plain.tar", (tarfile.TarInfo("a/ü 1.mp4"), b"1"))
        with pa.output_stream(str(archive), compression="zstd") as target:
            target.write((tmp_path / "plain.tar").read_bytes())
    else:
        compression = {"tar": "", "tgz": "gz"}.get(kind, kind.removeprefix("tar."))
        tarred(archive, (tarfile.TarInfo("a/ü 1.mp4"), b"1"), mode=f"w:{compression}")
    archives.unpack(archive, tmp_path / "out")
    assert tree(tmp_path / "out") == {"a/ü 1.mp4": b"1"}


def test_archives_in_an_archive_are_unpacked_where_they_lie(tmp_path):
    inner = zipped(tmp_path / "clap.zip", {"clap/1.avi": b"1"}).read_bytes()
    archives.unpack(zipped(tmp_path / "all.zip", {"set/clap.zip": inner, "set/x.txt": b""}), tmp_path / "out")
    assert tree(tmp_path / "out") == {"set/clap/1.avi": b"1", "set/x.txt": b""}


@pytest.mark.parametrize("name", ["../evil.mp4", "a/../../evil.mp4", "/tmp/evil.mp4", "..\\evil.mp4", "C:/evil.mp4"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_name_that_leads_out_is_refused(tmp_path, kind, name):
    if kind == "zip":
        archive = zipped(tmp_path / "v.zip", {"fine.mp4": b"1", name: b"2"})
    else:
        archive = tarred(tmp_path / "v.tar", (tarfile.TarInfo("fine.mp4"), b"1"), (tarfile.TarInfo(name), b"2"))
    with pytest.raises(UserError, match="leads out of the folder"):
        archives.unpack(archive, tmp_path / "deep/out")
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path, kind):
    member = tarfile.TarInfo("x.mp4")
    member.type, member.linkname = kind, "/etc/passwd"
    with pytest.raises(UserError, match=r"'x\.mp4' is a link or device"):
        archives.unpack(tarred(tmp_path / "v.tar", (member, b"")), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_link_in_a_zip_is_refused(tmp_path):
    link = zipfile.ZipInfo("x.mp4")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "v.zip", "w") as target:
        target.writestr(link, "/etc/passwd")
    with pytest.raises(UserError, match="is a link or device"):
        archives.unpack(tmp_path / "v.zip", tmp_path / "out")


@pytest.mark.parametrize("name", ["v.zip", "v.tar", "v.tar.gz", "v.tar.zst"])
def test_a_damaged_archive_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"no archive")
    with pytest.raises(UserError, match=f"{name} can't be unpacked"):
        archives.unpack(tmp_path / name, tmp_path / "out")


@pytest.mark.parametrize("name", ["v.zip", "v.tar.gz", "v.tar.bz2", "v.tar.xz"])
def test_an_archive_that_was_damaged_on_the_way_is_named(tmp_path, name):
    noise = np.random.default_rng(0).bytes(200_000)
    if name == "v.zip":
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as target:
            target.writestr("1.mp4", noise)
    else:
        tarred(tmp_path / name, (tarfile.TarInfo("1.mp4"), noise), mode=f"w:{name.split('.')[-1]}")
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[:90_000] + b"damaged" * 10 + content[90_070:])
    with pytest.raises(UserError, match=f"{name} can't be unpacked"):
        archives.unpack(tmp_path / name, tmp_path / "out")


def script(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def test_rar_goes_through_a_tool_that_is_installed(tmp_path, monkeypatch):
    (tmp_path / "v.rar").write_bytes(b"Rar!")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(UserError, match=r"to unpack v\.rar, install one of: unrar, bsdtar, 7z, 7zz"):
        archives.unpack(tmp_path / "v.rar", tmp_path / "out")
    script(tmp_path / "bin", "bsdtar", 'echo "$3" > "$5/1.avi"')
    archives.unpack(tmp_path / "v.rar", tmp_path / "out")
    assert tree(tmp_path / "out") == {"1.avi": f"{tmp_path}/v.rar\n".encode()}
    script(tmp_path / "bin", "unrar", 'echo "wrong password" >&2; exit 3')
    with pytest.raises(UserError, match="can't be unpacked by unrar: wrong password"):
        archives.unpack(tmp_path / "v.rar", tmp_path / "out")
    script(tmp_path / "bin", "unrar", '/bin/ln -s /etc "${5}x"')
    with pytest.raises(UserError, match="'x' is a link"):
        archives.unpack(tmp_path / "v.rar", tmp_path / "out")


def test_a_url_needs_its_checksum(tmp_path):
    for source in ("http://u:p@127.0.0.1/v.zip", "http://u:p@127.0.0.1/v.zip#sha256=12"):
        with pytest.raises(UserError, match=r"datasets\.mine\.source: http://127\.0\.0\.1/v\.zip needs its checksum"):
            sources.fetch("mine", dataset(source), tmp_path, tmp_path / "videos")


def test_videos_come_from_a_url(server, tmp_path):
    server.content = zipped(tmp_path / "v.zip", {"clap/1.mp4": b"1", "run/2.mp4": b"2"}).read_bytes()
    source = dataset(f"{server.url}#sha256={sha256(server.content)}")
    for _ in range(2):
        folder = sources.fetch("mine", source, tmp_path, tmp_path / "videos/mine")
        assert folder == tmp_path / "videos/mine" == sources.located(source, tmp_path, folder)
        assert [entry.video for entry in sources.manifest("mine", source, folder)] == ["clap/1", "run/2"]
    assert len(server.asked) == 1
    assert [path.name for path in (tmp_path / "videos").iterdir()] == ["mine"]


def test_videos_come_from_an_archive_and_follow_it(tmp_path):
    zipped(tmp_path / "v.zip", {"clap/1.mp4": b"1"})
    folder = sources.fetch("mine", dataset("v.zip"), tmp_path, tmp_path / "videos")
    assert [path for path in tree(folder) if path != sources.MADE] == ["clap/1.mp4"]
    zipped(tmp_path / "v.zip", {"run/23.mp4": b"2"})
    sources.fetch("mine", dataset("v.zip"), tmp_path, tmp_path / "videos")
    assert [path for path in tree(folder) if path != sources.MADE] == ["run/23.mp4"]
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
    assert sources.located(source, tmp_path, tmp_path / "videos") == tmp_path / "own"
    assert sources.lists(source, tmp_path, tmp_path / "videos") == tmp_path / "own"
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


def test_generated_videos_are_made_once_and_anew_for_other_options(tmp_path):
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
    entries = [sources.Entry('a "b", ü/1', 'a "b", ü/1.mp4', 2**40, "0" * 64), sources.Entry("b", "b.avi", 1, "1" * 64)]
    sources.write(tmp_path / "manifest.csv", entries)
    first = (tmp_path / "manifest.csv").read_bytes()
    assert first.startswith(b"video,path,bytes,sha256\n")
    assert sources.read(tmp_path / "manifest.csv") == entries
    sources.write(tmp_path / "manifest.csv", entries)
    assert (tmp_path / "manifest.csv").read_bytes() == first


def test_a_manifest_that_is_absent_or_damaged_is_named(tmp_path):
    with pytest.raises(UserError, match="is absent; the download stage writes it"):
        sources.read(tmp_path / "manifest.csv")
    for text in ("video,path\na,b\n", "video,path,bytes,sha256\na,b\n", "video,path,bytes,sha256\na,b,many,c\n"):
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
