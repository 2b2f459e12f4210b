"""Archives of every kind, including damaged and hostile ones."""

import stat
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.download import archives
from pipeline.errors import UserError
from tests.support.videos.packed import tarred, tree, zipped


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
