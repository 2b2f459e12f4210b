"""A DVC project whose stages only write a file, for tests of the command line."""

import json

from ruamel.yaml import YAML

from pipeline.report.table import ALWAYS, Cell, Table, dumps
from tests.support.project import ROOT


def row(name: str, value: str, low: str, high: str) -> tuple[Cell, ...]:
    return (
        Cell("row", name, {"row": name}, ALWAYS),
        Cell("data set", "shapes"),
        Cell("top-1 %", f"{value} [{low}, {high}]", {"top1": value}, ALWAYS),
        Cell("protocol", "1 clip"),
    )


ROWS = (row("a", "37.8", "35.8", "39.8"), row("b", "79.0", "77.0", "81.0"))
TABLE = dumps(Table("comparison", "Systems", ROWS, ("What the columns say.",)))


def _graph() -> str:
    """Return the project's graph as JSON, without trajectories; each stage only writes a file in its first output."""
    stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
    del stages["trajectories"]
    for name, stage in stages.items():
        body, key = (stage["do"], "${key}") if "do" in stage else (stage, "all")
        first = body["outs"][0]
        out = first if isinstance(first, str) else next(iter(first))
        file = f"{out}/comparison.json" if name == "aggregate" else out
        deps = [dep for dep in body["deps"] if dep.startswith("data/")]
        outs = [{out: {"cache": name != "aggregate"}}]
        body.clear()
        body |= {"cmd": f"python step.py {name} {key} {file}", "deps": deps, "outs": outs}
    return json.dumps({"stages": stages})


DVC = _graph()
STEP = """\
import os, pathlib, sys, time
noun, key, place = sys.argv[1:]
if noun == "train":
    pathlib.Path(f"pid-{key}").write_text(str(os.getpid()))
    while len(list(pathlib.Path().glob("pid-*"))) < int(os.environ.get("TOGETHER", 0)):
        time.sleep(0.05)
name, _, code = os.environ.get("FAIL", "").partition(":")
if name == f"{noun}@{key}":
    sys.exit(print("error: this row can't be trained", file=sys.stderr) or int(code))
path = pathlib.Path(place)
path.parent.mkdir(parents=True, exist_ok=True)
path.write_text(pathlib.Path("table.json").read_text() if noun == "aggregate" else noun + key)
"""
