"""Downloads as input: a faulty local server, and addresses of all sorts."""

import gzip
import hashlib
import random
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from bench.attack.judge import Attack
from pipeline.download import urls

SIZE = 300_000  # bytes of the file


class Script(BaseHTTPRequestHandler):
    """Handler that answers by the server's script; the last step repeats."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server: Any = self.server
        step = server.script.pop(0) if len(server.script) > 1 else server.script[0]
        content, begin = server.content, 0
        status, headers = step.get("status", 200), dict(step.get("headers", {}))
        asked = self.headers.get("Range")
        if asked and step.get("ranges", True) and status == 200:
            begin = int(asked.removeprefix("bytes=").rstrip("-"))
            status = 206
            headers["Content-Range"] = f"bytes {begin + step.get('shift', 0)}-{len(content) - 1}/{len(content)}"
            if begin >= len(content):
                status, headers = 416, {"Content-Range": f"bytes */{len(content)}"}
        body = step.get("body", content[begin:] if status in (200, 206) else b"")
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body) + step.get("more", 0)), **headers}.items():
            if value:
                self.send_header(name, value.replace("SELF", server.url))
        self.end_headers()
        end = step.get("drop", len(body))
        if step.get("drip"):
            for at in range(len(body)):
                self.wfile.write(body[at : at + 1])
                time.sleep(0.05)
        self.wfile.write(body[:end])
        self.close_connection = end < len(body) or step.get("more", 0) > 0 or headers.get("Connection") == "close"

    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        with suppress(OSError):  # the client has gone
            super().handle()


def attacks(rng: random.Random) -> Iterator[Attack]:
    right: dict[str, Any] = {}
    for _ in range(6):
        drops = sorted(rng.randrange(1, SIZE) for _ in range(rng.randrange(1, 4)))
        yield _served(f"breaks off after {drops} bytes", "right", [*({"drop": drop} for drop in drops), right])
    for code in (500, 502, 503, 429, 408):
        yield _served(f"answers {code} at first", "right", [{"status": code}, right])
        yield _served(f"answers {code} always", "line", [{"status": code}])
    for code in (400, 401, 403, 404, 410, 451):
        yield _served(f"answers {code}", "line", [{"status": code}])
    for words, wants, script in (
        ("is whole", "right", [right]),
        ("knows no ranges and breaks off", "right", [{"drop": 1000}, {"ranges": False}]),
        ("gives another range", "either", [{"drop": 1000}, {"shift": 5}, right]),
        ("always breaks off at once", "line", [{"drop": 0}]),
        ("always breaks off after 10 bytes", "line", [{"drop": 10, "ranges": False}]),
        ("declares more bytes than come", "either", [{"more": 1000}]),
        ("declares no length", "right", [{"headers": {"Content-Length": "", "Connection": "close"}}]),
        ("redirects", "right", [_location("SELF"), right]),
        ("redirects for ever", "line", [_location("SELF")]),
        ("redirects to a file of this machine", "line", [_location("file:///etc/passwd")]),
        ("redirects to nowhere", "line", [_location("http://127.0.0.1:1/x.zip")]),
        ("sends a web page", "line", [{"body": b"<html>sorry</html>"}]),
        ("sends nothing", "line", [{"body": b""}]),
        ("compresses it", "either", [{"body": b"", "headers": {"Content-Encoding": "gzip"}}]),
        ("has other bytes", "line", [{"body": rng.randbytes(SIZE)}]),
    ):
        yield _served(words, wants, script)
    yield _served("drips", "line", [{"drip": True}], drip=True)
    yield _served("has a leftover of another file", "right", [right], part=rng.randbytes(1000))
    yield _served("has a leftover that is longer", "right", [right], part=rng.randbytes(SIZE + 1))
    yield _served("has its own leftover", "right", [right], part=None)
    for url in (
        "ftp://host/x.zip",
        "file:///etc/passwd",
        "http:///x.zip",
        "https://user:secret",
        "https://user:secret@127.0.0.1:1/x.zip",
        "http://127.0.0.1:99999/x.zip",
        "http://[::1/x.zip",
        "http://127.0.0.1:1/x.zip?token=secret",
        "javascript:alert(1)",
        "http://no.such.host.invalid/x.zip",
    ):
        yield _address(url)
    for path, name in (
        ("..%2F..%2Fprecious%2Fx.zip", "x.zip"),
        ("a/%2e%2e/x.zip", "x.zip"),
        ("x%00.zip", "x.zip"),
        ("x.zip/", "x.zip"),
        ("%2Fetc%2Fpasswd", "passwd"),
        ("n" * 300 + ".zip", ("n" * 300 + ".zip")[-100:]),
        ("%E3%83%93.zip", "ビ.zip"),
    ):
        yield Attack("downloads", f"name {path[:40]!r}", "right", _named(path, name))


def _location(place: str) -> dict[str, Any]:
    return {"status": 302, "headers": {"Location": place}}


def _served(
    words: str, wants: str, script: list[dict[str, Any]], part: bytes | None = b"", drip: bool = False
) -> Attack:
    def act(folder: Path) -> str:
        content = random.Random(words).randbytes(SIZE)
        steps = [dict(step) for step in script]
        for step in steps:
            if step.get("headers", {}).get("Content-Encoding"):
                step["body"] = gzip.compress(content)
        server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Script)
        server.content, server.script, server.url = content, steps, f"http://127.0.0.1:{server.server_port}/x.zip"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        if drip:
            urls.WINDOW = 2.0
        left = content[:5000] if part is None else part
        if left:
            (folder / "x.zip.part").write_bytes(left)
        url = f"{server.url}?token=secret"
        path = _fetched(url, hashlib.sha256(content).hexdigest(), folder / "x.zip")
        return "" if path.read_bytes() == content else "it has other bytes"

    return Attack("downloads", f"the server {words}", wants, act)


def _fetched(url: str, sha256: str, target: Path) -> Path:
    try:
        return urls.download(url, sha256, target, wait=lambda _: None)
    except BaseException as error:
        if "secret" in str(error):
            raise AssertionError("its message shows the secret") from None
        raise


def _address(url: str) -> Attack:
    def act(folder: Path) -> str:
        _fetched(url, "0" * 64, folder / "x.zip")
        return ""

    return Attack("downloads", f"address {url}", "line", act)


def _named(path: str, name: str) -> Any:
    def act(_: Path) -> str:
        derived = urls.named(f"https://host/{path}")
        return "" if derived == name else f"named {derived!r}"

    return act
