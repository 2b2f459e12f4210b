"""A copy of the project with other params, for tests and measurements that run its graph."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
FOLDERS = ("models", "pipeline", "cluster", "stages", "conf/weights", "reports/papers", "reports/templates")
FILES = ("dvc.yaml", ".dvcignore", "constraints.txt", "reports/parity.csv", "reports/parity.json")
STAND_IN = """
import sys
from pathlib import Path
for out in map(Path, sys.argv[1:]):
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(f"{out}")
"""


def copy(folder: Path, settings: Mapping[str, Any]) -> Path:
    """Return `folder` with the project's code, graph and these params; no stage has run."""
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "dvc.lock"))
    for name in FILES:
        shutil.copy(ROOT / name, folder / name)
    save(folder, settings)
    (folder / ".dvc").mkdir()
    (folder / ".dvc" / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    return folder


def stand_in(folder: Path) -> None:
    """Make every stage but `code` and `inputs` only write a small file for each output."""
    yaml = YAML(typ="safe")
    graph = yaml.load((folder / "dvc.yaml").read_text())
    for stage in graph["stages"].values():
        body = stage.get("do", stage)
        body["cmd"] = f"python stand_in.py {' '.join(_files(body))}"
    yaml.default_flow_style = False
    with (folder / "dvc.yaml").open("w") as file:
        yaml.dump(graph, file)
    (folder / "stand_in.py").write_text(STAND_IN)


def load(folder: Path = ROOT) -> dict[str, Any]:
    """Return a project's params, by default this one's."""
    return YAML(typ="safe").load((folder / "params.yaml").read_text())


def save(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write a project's params, without aliases."""
    yaml = YAML(typ="safe")
    yaml.default_flow_style = False
    with (folder / "params.yaml").open("w") as file:
        yaml.dump(json.loads(json.dumps(settings)), file)


def _files(stage: Mapping[str, Any]) -> list[str]:
    """Return a file for each output of a stage, inside it if it is a folder."""
    outs = [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]
    paths = [out if isinstance(out, str) else next(iter(out)) for out in outs]
    return [path if "." in Path(path).name else f"{path}/x" for path in paths]
