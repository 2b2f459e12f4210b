"""Downloads over broken connections resume, are checked, and leak no secret."""

import hashlib
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.download.urls import CHUNK, download, shown
from pipeline.errors import UserError
from tests.support.machines.served import serving

CONTENT = bytes(range(256)) * 8000  # 2 MB, which no single read brings


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving(CONTENT) as http:
        yield http


def fetched(server: ThreadingHTTPServer, path: Path) -> bytes:
    return download(server.url, sha256(CONTENT), path, wait=lambda _: None).read_bytes()


def test_a_broken_connection_is_resumed(server, tmp_path):
    server.drops, server.errors = [10 * CHUNK, 5 * CHUNK + 100], [503]
    assert fetched(server, tmp_path / "v.zip") == CONTENT
    assert server.asked == [None, None, f"bytes={10 * CHUNK}-", f"bytes={15 * CHUNK}-"]
    assert [path.name for path in tmp_path.iterdir()] == ["v.zip"]
    assert fetched(server, tmp_path / "v.zip") == CONTENT
    assert len(server.asked) == 4  # it was there


def test_a_later_run_resumes_where_an_earlier_one_gave_up(server, tmp_path):
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


def test_a_part_longer_than_the_file_is_downloaded_again(server, tmp_path):
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
