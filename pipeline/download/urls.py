"""A file from a URL: resumed where a connection broke, checked against its sha256 before anyone sees it."""

import os
import re
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import requests
import urllib3
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from pipeline.digest import files
from pipeline.errors import UserError

ATTEMPTS = 5  # in a row that bring no byte
CHUNK = 1 << 16  # bytes: what a broken connection loses at most
TIMEOUT = 30  # seconds without an answer or a byte
SLOWEST, WINDOW = 1024, 60.0  # bytes a second, seconds: a connection that brings less is broken off


def shown(url: str) -> str:
    """A URL as a message may print it: without user, password, query and fragment, which may be secrets."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an address that can't be read"
    try:
        port = f":{parts.port}" if parts.port else ""
    except ValueError:  # what stands where the port should may be a password: https://user:password
        port = ":***"
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"


def named(url: str) -> str:
    """The file's name in a URL: what follows the last slash once the path is decoded, up to 100 characters of it."""
    try:
        path = urlsplit(url).path
    except ValueError:
        raise UserError(f"{shown(url)} is no http or https address") from None
    return PurePosixPath(unquote(path).replace("\0", "")).name[-100:]


def download(url: str, sha256: str | None, path: Path, wait: Callable[[float], None] = time.sleep) -> Path:
    """Fetch the file of an http(s) URL into `path`, unless it is there with that sha256.

    An interrupted download stays in <path>.part, and the next call resumes it.

    Args:
        url: The address; user, password and query appear in no message.
        sha256: The file's sha256, its first digits, or None if it is not known.
        path: The file to write.
        wait: Sleeps so many seconds between two attempts.

    Raises:
        UserError: The address can't be reached or answers with an error, or the sha256 differs.
    """
    if not re.match(r"https?://[^/?#]", shown(url)) or ":***" in shown(url):
        raise UserError(f"{shown(url)} is no http or https address")
    if path.is_file() and matches(path, sha256):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    _resumed(url, part, wait)
    if not matches(part, sha256):
        part.unlink()
        raise UserError(
            f"{shown(url)} does not have the sha256 {sha256}; it was thrown away, for it is damaged or another version"
        )
    part.replace(path)
    return path


def matches(path: Path, sha256: str | None) -> bool:
    """Tell whether a file's sha256 begins with these hex digits; None matches every file."""
    return sha256 is None or files.sha256(path).startswith(sha256.lower())


def _resumed(url: str, part: Path, wait: Callable[[float], None]) -> None:
    """All of the URL's bytes in `part`, in as many requests as it takes."""
    failures = most = 0
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task(part.name.removesuffix(".part"), total=None)
        while True:
            had = part.stat().st_size if part.exists() else 0
            try:
                if _request(url, part, had, lambda done, total: progress.update(bar, completed=done, total=total)):
                    return
                said = "it changed while it was read"
            except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError) as error:
                said = type(error).__name__  # its text holds the whole URL
            size = part.stat().st_size if part.exists() else 0
            failures = 0 if size - most >= CHUNK else failures + 1  # a few bytes an attempt would never end
            most = max(size, most)
            if failures == ATTEMPTS:
                raise UserError(f"{shown(url)} can't be read ({said}); what came is kept, so a further run goes on")
            wait(min(2.0**failures, 30))


def _request(url: str, part: Path, had: int, moved: Callable[[int, int | None], None]) -> bool:
    """One request for what is beyond the `had` bytes; False where the server's file isn't the one they are of."""
    # identity: a range of the file's own bytes, not of what a compression of them would be
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={had}-"} if had else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        place = answer.headers.get("Content-Range", "")
        if answer.status_code == 416:  # nothing lies beyond: all is here, or it is of another file
            if place == f"bytes */{had}":
                return True
            part.unlink()
            return False
        if answer.status_code in (408, 425, 429) or answer.status_code >= 500:
            raise requests.exceptions.ConnectionError  # may pass
        if answer.status_code not in (200, 206):
            raise UserError(f"{shown(url)} answers {answer.status_code} {answer.reason}")
        if answer.status_code == 206 and not place.startswith(f"bytes {had}-"):
            part.unlink(missing_ok=True)
            return False
        if answer.status_code == 200:  # all of it, for such a server knows no ranges
            had = 0
        length = answer.headers.get("Content-Length", "")
        total = had + int(length) if length.isdecimal() else None
        with part.open("ab" if had else "wb") as file:
            pending, since, before = b"", time.monotonic(), had
            while data := answer.raw.read1(CHUNK):  # what has come: read() would wait for all of a chunk
                pending += data
                had += len(data)
                if len(pending) >= CHUNK:
                    file.write(pending[:CHUNK])
                    pending = pending[CHUNK:]
                moved(had, total)
                if time.monotonic() - since > WINDOW:
                    if had - before < SLOWEST * WINDOW:
                        raise requests.exceptions.ReadTimeout
                    since, before = time.monotonic(), had
            file.write(pending)
            file.flush()
            os.fsync(file.fileno())
    return True
