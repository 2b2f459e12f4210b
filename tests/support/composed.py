"""Suites as Hydra composes them."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from ruamel.yaml import YAML

from pipeline.config.load import parse
from pipeline.config.schema import Params

ROOT = Path(__file__).parents[2]


@cache
def composed(suite: str, tier: str) -> Params:
    from dvc.utils.hydra import compose_and_dump

    with TemporaryDirectory() as folder:
        path = Path(folder) / "params.yaml"
        compose_and_dump(str(path), str(ROOT / "conf"), None, "config", "", [f"suite={suite}", f"tier={tier}"])
        return parse(YAML(typ="safe").load(path.read_text()))
