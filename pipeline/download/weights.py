"""Files of weights: a path, a name in the registry, or a URL with its checksum."""

import re
import zipfile
from pathlib import Path

from pipeline.config.places import remote
from pipeline.config.pretrained import FOLDER, is_name, located, registry
from pipeline.digest.files import sha256
from pipeline.download.urls import download, matches, named, shown
from pipeline.errors import UserError, reading


def fetch(weights: str, root: Path) -> Path:
    """Return the file of a row's `weights`, downloaded into data/weights if absent.

    Args:
        weights: A name in the registry, a path, or `<URL>#sha256=<64 hex digits>`.
        root: The project's root, which relative paths start from.

    Raises:
        UserError: The file is absent and can't be downloaded, or its sha256 is not the published one.
    """
    if is_name(weights):
        return _registered(weights, root)
    if not remote(weights):
        path = located(weights, root)
        if not path.is_file():
            raise UserError(f"no weights at {path.absolute()}")
        if zipfile.is_zipfile(path):  # torch's format; torch ignores its checksums
            remedy = "its checksums are not those of its numbers; fetch it again"
            with reading(path, remedy), zipfile.ZipFile(path) as file:
                if file.testzip():
                    raise ValueError
        return path
    url, _, expected = weights.partition("#sha256=")
    if not re.fullmatch("[0-9a-f]{64}", expected):
        raise UserError(f"weights {shown(url)} need their checksum: <URL>#sha256=<64 hex digits>")
    return download(url, expected, root / FOLDER / f"{expected[:16]}-{named(url)}")


def checksum(weights: str, root: Path) -> str | None:
    """Return the sha256 of a row's weights, unfetched; None if the file is absent."""
    if remote(weights):
        return weights.partition("#sha256=")[2] or None
    path = located(weights, root)
    return sha256(path) if path.is_file() else None


def _registered(name: str, root: Path) -> Path:
    entry, path = registry()[name], located(name, root)
    if path.is_file():
        # A file under the registry's name is the user's choice, whatever it holds.
        if path.name != entry.file or matches(path, entry.sha256):
            return path
        raise UserError(
            f"weights {name}: {path} does not have the published sha256 {entry.sha256}; remove it, or rename it to "
            f"{name}.pth to use it as it is"
        )
    if entry.url is None:
        raise UserError(f"no weights {name}: download {entry.file} from {entry.page} and put it into {path.parent}")
    try:
        return download(entry.url, entry.sha256, path)
    except UserError as error:
        raise UserError(f"weights {name}: {error}; or put {entry.file} into {path.parent} yourself") from None
