"""A DVC project whose stages do nothing but leave a file, for tests of the command line."""

from pipeline.report.table import ALWAYS, Cell, Table, dumps


def row(name: str, value: str, low: str, high: str) -> tuple[Cell, ...]:
    return (
        Cell("row", name, {"row": name}, ALWAYS),
        Cell("data set", "shapes"),
        Cell("top-1 %", f"{value} [{low}, {high}]", {"top1": value}, ALWAYS),
        Cell("protocol", "1 clip"),
    )


ROWS = (row("a", "37.8", "35.8", "39.8"), row("b", "79.0", "77.0", "81.0"))
TABLE = dumps(Table("comparison", "Systems", ROWS, ("What the columns say.",)))
DVC = """\
stages:
  download:
    foreach: ${datasets}
    do:
      cmd: python step.py download ${key} data/raw/${key}
      outs: ["data/raw/${key}"]
  decode:
    foreach: ${datasets}
    do:
      cmd: python step.py decode ${key} data/frames/${key}
      deps: ["data/raw/${key}"]
      outs: ["data/frames/${key}"]
  splits:
    foreach: ${datasets}
    do:
      cmd: python step.py splits ${key} data/splits/${key}
      deps: ["data/raw/${key}"]
      outs: ["data/splits/${key}"]
  train:
    foreach: ${experiments}
    do:
      cmd: python step.py train ${key} data/runs/${key}
      deps: ["data/frames/${item.dataset}", "data/splits/${item.dataset}"]
      outs: ["data/runs/${key}"]
  evaluate:
    foreach: ${experiments}
    do:
      cmd: python step.py evaluate ${key} data/predictions/${key}
      deps: ["data/runs/${key}"]
      outs: ["data/predictions/${key}"]
  aggregate:
    cmd: python step.py aggregate all reports/tables/quick/comparison.json
    deps: [data/predictions]
    outs: [reports/tables/quick: {cache: false}]
"""
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
