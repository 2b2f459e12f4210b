"""The registry of published weights, conf/weights/*.yaml, and their files."""

import re
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass
from ruamel.yaml import YAML

from pipeline.config import places
from pipeline.config.schema import NAME, STRICT, Text

REGISTRY = Path(__file__).parents[2] / "conf" / "weights"
FOLDER = Path("data") / "weights"  # of the files, below the project's root


@dataclass(frozen=True, config=STRICT)
class Pretrained:
    """A file of weights as its makers publish it."""

    about: Text  # architecture, data set, makers
    file: Text  # its public name
    url: Text | None  # null: only a person can download it, from its page
    page: Text
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{8,64}$")] | None  # or its first digits, as in the public name
    license: Text


def registry() -> dict[str, Pretrained]:
    """Return the published weights by the names that rows use."""
    return _read(REGISTRY)


@cache
def _read(folder: Path) -> dict[str, Pretrained]:
    files = [YAML(typ="safe").load(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.yaml"))]
    return {name: Pretrained(**entry) for file in files for name, entry in file.items()}


def is_name(weights: str) -> bool:
    """Tell a name in the registry from a path or URL, which have dots or slashes."""
    return re.fullmatch(NAME, weights) is not None


def located(weights: str, root: Path) -> Path:
    """Return the path of a row's weights, whether or not the file is there.

    A registered file is data/weights/<name>.pth if that exists, else data/weights/<public name>. `root` is the folder
    that relative paths start from.
    """
    if not is_name(weights):
        return places.path_of(root, weights)
    by_hand = places.path_of(root, (FOLDER / f"{weights}.pth").as_posix())
    return by_hand if by_hand.is_file() else places.path_of(root, (FOLDER / registry()[weights].file).as_posix())
