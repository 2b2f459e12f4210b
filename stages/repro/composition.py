"""The params of a suite, composed from conf/ as `dvc exp run -S suite=...` composes them."""

import tempfile
from pathlib import Path

from pipeline.config import load
from pipeline.config.schema import Params
from pipeline.errors import UserError, alternatives


def composed(suite: str, conf: Path = Path("conf")) -> Params:
    """Return a suite's params; UserError for one that isn't in conf/suite/."""
    from dvc.utils.hydra import compose_and_dump

    known = [path.stem for path in (conf / "suite").glob("*.yaml")]
    if suite not in known:
        raise UserError(f"no suite {suite!r} in {conf / 'suite'}; {alternatives(suite, known)}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "params.yaml"
        compose_and_dump(str(path), str(conf.absolute()), None, "config", "", [f"suite={suite}"])
        return load.load(path)
