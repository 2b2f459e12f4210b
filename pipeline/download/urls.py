"""Download of a file: resumed if broken, checked against its sha256."""

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

ATTEMPTS = 5  # in a row without progress
CHUNK = 1 << 16  # bytes; a broken connection loses that many at most
TIMEOUT = 30  # seconds without an answer or a byte
SLOWEST, WINDOW = 1024, 60.0  # bytes a second, seconds; a slower connection is closed


def shown(url: str) -> str:
    """Return a URL without user, password, query and fragment, which may be secret."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an address that can't be read"
    try:
        port = f":{parts.port}" if parts.port else ""
    except ValueError:  # a password may be in the port's place: https://user:password
        port = ":***"
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"


def named(url: str) -> str:
    """Return the file's name in a URL, its last 100 characters at most."""
    try:
        path = urlsplit(url).path
    except ValueError:
        raise UserError(f"{shown(url)} is no http or https address") from None
    return PurePosixPath(unquote(path).replace("\0", "")).name[-100:]


def download(url: str, sha256: str | None, path: Path, wait: Callable[[float], None] = time.sleep) -> Path:
    """Fetch the file of an http(s) URL into `path`, unless that has the sha256.

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
            f"{shown(url)} does not have the sha256 {sha256}: it is damaged or another version, and was removed"
        )
    part.replace(path)
    return path


def matches(path: Path, sha256: str | None) -> bool:
    """Return true if a file's sha256 begins with these digits; None matches any file."""
    return sha256 is None or files.sha256(path).startswith(sha256.lower())


def _resumed(url: str, part: Path, wait: Callable[[float], None]) -> None:
    """Fetch all bytes of the URL into `part`, by as many requests as needed."""
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
                reason = "it changed while it was read"
            except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError) as error:
                reason = type(error).__name__  # its text holds the whole URL
            size = part.stat().st_size if part.exists() else 0
            failures = 0 if size - most >= CHUNK else failures + 1  # a few bytes an attempt would never end
            most = max(size, most)
            if failures == ATTEMPTS:
                raise UserError(f"{shown(url)} can't be read ({reason}); run again to resume the download")
            wait(min(2.0**failures, 30))


def _request(url: str, part: Path, had: int, moved: Callable[[int, int | None], None]) -> bool:
    """Request the bytes after the first `had`; return false if the file changed."""
    # identity: a range of the file's bytes, not of compressed ones
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={had}-"} if had else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        place = answer.headers.get("Content-Range", "")
        if answer.status_code == 416:  # no byte follows: the file is complete, or another
            if place == f"bytes */{had}":
                return True
            part.unlink()
            return False
        if answer.status_code in (408, 425, 429) or answer.status_code >= 500:
            raise requests.exceptions.ConnectionError  # try again
        if answer.status_code not in (200, 206):
            raise UserError(f"{shown(url)} answers {answer.status_code} {answer.reason}")
        if answer.status_code == 206 and not place.startswith(f"bytes {had}-"):
            part.unlink(missing_ok=True)
            return False
        if answer.status_code == 200:  # the whole file, from a server without ranges
            had = 0
        length = answer.headers.get("Content-Length", "")
        total = had + int(length) if length.isdecimal() else None
        with part.open("ab" if had else "wb") as file:
            pending, since, before = b"", time.monotonic(), had
            while data := answer.raw.read1(CHUNK):  # read() would wait for all of a chunk
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
