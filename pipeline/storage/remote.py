"""Storage that outlives a task, with atomic writes: a folder or S3-like bucket."""

import fnmatch
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pipeline.errors import UserError
from pipeline.storage import atomic

if TYPE_CHECKING:
    from pyarrow import NativeFile
    from pyarrow.fs import S3FileSystem

STORE = "s3://"
TRIES = 4  # of a request, before it fails after some seconds
# Words in a store's errors -> the remedy.
REMEDIES = {
    ("NO_SUCH_BUCKET",): "there is no bucket {bucket!r}; create it, or name another in cluster.storage",
    ("status 301", "AuthorizationHeaderMalformed"): "its bucket is in another region; set AWS_DEFAULT_REGION to that",
    ("NETWORK_CONNECTION",): "nothing answers at {endpoint}; for a store other than AWS set AWS_ENDPOINT_URL",
    ("ACCESS_DENIED", "ACCESS_KEY", "SIGNATURE", "Token", "Forbidden", "Access Key"): "{endpoint} refuses it; set "
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to those of a user who may list, read, write and delete there",
}


@dataclass(frozen=True)
class Remote:
    """An object of a store, or all below it, with the methods of Path used here.

    An absent object is a FileNotFoundError, as for a Path; every other failure is a UserError of one line. Credentials
    and address are read from the environment only: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL and the
    other variables of AWS's tools.
    """

    path: str  # bucket/name

    def __truediv__(self, name: str) -> "Remote":
        return Remote(f"{self.path}/{name}")

    def __str__(self) -> str:
        return STORE + self.path

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    def exists(self) -> bool:
        with self._explained():
            return self.system.get_file_info(self.path).is_file

    def sizes(self) -> dict[str, int]:
        """Return name -> bytes of each object directly below this one."""
        from pyarrow.fs import FileSelector

        with self._explained():
            infos = self.system.get_file_info(FileSelector(self.path, allow_not_found=True))
        return {info.base_name: info.size for info in infos if info.is_file}

    def glob(self, pattern: str) -> "list[Remote]":
        """List the objects directly below this one whose names match `pattern`."""
        return [self / name for name in fnmatch.filter(self.sizes(), pattern)]

    @contextmanager
    def open(self) -> "Iterator[NativeFile]":
        """Open the object for reading."""
        with self._explained(), self.system.open_input_file(self.path) as file:
            yield file

    def read_bytes(self) -> bytes:
        with self.open() as file:
            return file.read()

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def write_bytes(self, content: Any) -> None:
        """Write anything with a buffer in one step; a failure leaves the old content."""
        with self._explained(), self.system.open_output_stream(self.path) as stream:
            stream.write(content)

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            with self._explained():
                self.system.delete_file(self.path)
        except FileNotFoundError:
            if not missing_ok:
                raise

    @property
    def system(self) -> "S3FileSystem":
        return _system(_endpoint())

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            if error.errno is not None:  # of a local file, not of the store
                raise
            raise UserError(f"{self}: {_reason(str(error), self.path.partition('/')[0])}") from None


Place = Path | Remote


def place(storage: str) -> Place:
    """Return the place that cluster.storage names.

    Raises:
        UserError: It is neither a folder nor s3://bucket/name.
    """
    if "://" not in storage:
        return Path(storage).absolute()
    parts = urlsplit(storage)
    if parts.scheme != "s3" or not parts.netloc or "@" in parts.netloc or parts.query or parts.fragment:
        raise UserError(  # without the value: it may hold a secret
            "cluster.storage must be a folder, or s3://bucket/name and no more; set AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL in the environment"
        )
    return Remote(f"{parts.netloc}/{parts.path.strip('/')}".rstrip("/"))


def write(place: Place, content: bytes | str) -> None:
    """Write bytes, or text as UTF-8, in one step: no reader ever sees half of it."""
    if isinstance(place, Path):
        atomic.write(place, content)
    else:
        place.write_bytes(content.encode() if isinstance(content, str) else content)


def remove(place: Place) -> None:
    """Remove a folder with all its content, if it exists."""
    if isinstance(place, Path):
        shutil.rmtree(place, ignore_errors=True)
        return
    try:
        with place._explained():
            place.system.delete_dir(place.path)
    except FileNotFoundError:
        pass


def arrow(place: Place) -> dict[str, Any]:
    """Return Ray Train's arguments for a folder."""
    if isinstance(place, Path):
        return {"storage_path": str(place)}
    return {"storage_path": place.path, "storage_filesystem": place.system}


@cache
def _system(endpoint: str | None) -> "S3FileSystem":
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

    # Delayed: small objects then take one request, and a killed writer leaves no open upload.
    return S3FileSystem(
        endpoint_override=endpoint,
        allow_delayed_open=True,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=TRIES),
    )


def _endpoint() -> str | None:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


def _reason(error: str, bucket: str) -> str:
    for words, reason in REMEDIES.items():
        if any(word in error for word in words):
            parts = urlsplit(_endpoint() or "https://AWS")
            return reason.format(bucket=bucket, endpoint=parts.netloc.rpartition("@")[2] or "AWS_ENDPOINT_URL")
    return " ".join(error.partition("(Request ID")[0].split())
