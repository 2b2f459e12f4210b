"""A suite's params as DVC composes them from conf/, without touching params.yaml."""

from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.config import load
from pipeline.config.schema import Params


def composed(suite: str, *overrides: str) -> Params:
    """Return the params of `dvc exp run -S suite=<suite>`; run from the project's root."""
    from dvc.utils.hydra import compose_and_dump

    with TemporaryDirectory() as folder:
        path = Path(folder) / "params.yaml"
        compose_and_dump(path, str(Path("conf").resolve()), None, "config", "", [f"suite={suite}", *overrides])
        return load.load(path)
