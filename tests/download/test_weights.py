"""Weights by path, URL or registered name are fetched once and checked."""

import functools
import hashlib
from pathlib import Path

import pytest

from pipeline.config import load, pretrained
from pipeline.download.weights import checksum, fetch
from pipeline.errors import UserError
from tests.support.machines.served import serving
from tests.support.registry import registered

CONTENT = bytes(range(256)) * 8000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
FOLDER = Path("data/weights")


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving(CONTENT) as http:
        yield http


@pytest.fixture
def register(tmp_path, monkeypatch):
    """Replace the registry by these entries."""
    return functools.partial(registered, monkeypatch, tmp_path / "registry")


def test_a_path_or_a_url_with_its_checksum(server, tmp_path):
    local = tmp_path / "local.pth"
    local.write_bytes(b"weights")
    assert fetch(str(local), tmp_path) == local
    source = f"{server.url}#sha256={SHA256}"
    first = fetch(source, tmp_path)
    assert first.read_bytes() == CONTENT and first.parent == tmp_path / FOLDER
    assert fetch(source, tmp_path) == first and len(server.asked) == 1
    assert checksum(source, tmp_path) == SHA256
    with pytest.raises(UserError, match=r"no weights at .*absent"):
        fetch(str(tmp_path / "absent.pth"), tmp_path)
    with pytest.raises(UserError, match="need their checksum"):
        fetch(server.url, tmp_path)
    with pytest.raises(UserError, match="does not have the sha256"):
        fetch(f"{server.url}#sha256={hashlib.sha256(b'other').hexdigest()}", tmp_path / "other")
    assert not list((tmp_path / "other" / FOLDER).iterdir())


@pytest.mark.parametrize("published", [SHA256, SHA256[:8], None])
def test_a_registered_file_is_downloaded_once(published, server, register, tmp_path):
    register(net={"file": "net-1.pth", "url": server.url, "sha256": published})
    assert checksum("net", tmp_path) is None
    server.drops = [1 << 17]  # the connection breaks off once
    path = fetch("net", tmp_path)
    assert path == tmp_path / FOLDER / "net-1.pth" and path.read_bytes() == CONTENT
    assert len(server.asked) == 2
    assert fetch("net", tmp_path) == path and len(server.asked) == 2
    assert checksum("net", tmp_path) == SHA256


def test_another_content_than_published_is_refused(server, register, tmp_path):
    register(net={"file": "net-1.pth", "url": server.url, "sha256": "0" * 8})
    with pytest.raises(UserError, match=r"weights net: .* does not have the sha256 00000000"):
        fetch("net", tmp_path)
    assert not list((tmp_path / FOLDER).iterdir())


def test_a_file_under_its_public_name_is_taken_if_it_is_that_file(register, tmp_path):
    register(net={"file": "net-1.pth", "url": "https://example.org/net-1.pth", "sha256": SHA256[:8]})
    path = tmp_path / FOLDER / "net-1.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    assert fetch("net", tmp_path) == path
    path.write_bytes(b"another net")
    with pytest.raises(UserError, match=f"published sha256 {SHA256[:8]}; remove it, or rename it to net.pth"):
        fetch("net", tmp_path)
    assert path.read_bytes() == b"another net"  # a user's file is never overwritten


def test_a_file_under_the_registrys_name_is_taken_as_it_is(register, tmp_path):
    register(net={"file": "net-1.pth", "url": "https://example.org/net-1.pth", "sha256": SHA256[:8]})
    path = tmp_path / FOLDER / "net.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    assert fetch("net", tmp_path) == path
    assert checksum("net", tmp_path) == hashlib.sha256(b"mine").hexdigest()


def test_weights_that_only_a_person_can_download(register, tmp_path):
    register(net={"file": "net-1.pth"})
    with pytest.raises(UserError, match=r"download net-1\.pth from https://example\.org/net and put it into .*weights"):
        fetch("net", tmp_path)
    path = tmp_path / FOLDER / "net-1.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"hand")
    assert fetch("net", tmp_path) == path


def test_every_row_of_the_suites_names_registered_weights():
    names = {name for name in load.load(pretrained.REGISTRY.parents[1] / "params.yaml").tier.weights.values() if name}
    assert names and names <= pretrained.registry().keys()
    for name, entry in pretrained.registry().items():
        assert entry.page.startswith("https://") and (entry.url is None or entry.url.endswith("/" + entry.file)), name
        assert entry.sha256 is None or f"-{entry.sha256}" in entry.file, f"{name}: a published hash is in the file name"
    assert len({entry.file for entry in pretrained.registry().values()}) == len(pretrained.registry())
