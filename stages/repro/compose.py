"""A suite's params as DVC composes them from conf/, without touching params.yaml."""

from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.config import load
from pipeline.config.schema import Params
from pipeline.errors import UserError, alternatives


def composed(suite: str, *overrides: str) -> Params:
    """Return the params of `dvc exp run -S suite=<suite>`.

    The current folder is the project's root.
    """
    from dvc.utils.hydra import compose_and_dump

    known = [path.stem for path in Path("conf/suite").glob("*.yaml")]
    if suite not in known:
        raise UserError(f"no suite {suite!r} in conf/suite; {alternatives(suite, known)}")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "params.yaml"
        compose_and_dump(path, str(Path("conf").resolve()), None, "config", "", [f"suite={suite}", *overrides])
        return load.load(path)
