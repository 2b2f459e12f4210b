"""Stage `inputs`: digests of the files that params name by path, in reports/inputs/."""

import json
import sys
from pathlib import Path

from pipeline.config import load
from pipeline.config.pretrained import is_name
from pipeline.config.schema import Params
from pipeline.digest import inputs
from pipeline.download.weights import fetch
from pipeline.errors import UserError
from stages import DATA, run


def main() -> None:
    """Write the digests; download missing registered weights that a row needs."""
    params = load.load()
    inputs.write(params, Path.cwd(), DATA)
    if fetch_absent(params):
        inputs.write(params, Path.cwd(), DATA)


def fetch_absent(params: Params) -> bool:
    """Download registered weights that are absent; return True if any came.

    DVC compares digests before it trains, so the files must be present by then. A failed download stops only the rows
    that need the file, in stage `train`.
    """
    rows = {name: row.weights for name, row in params.experiments.items() if row.weights and is_name(row.weights)}
    absent = {weights for name, weights in rows.items() if _digest(name) == inputs.NO_FILE}
    fetched = False
    for name in sorted(absent):
        try:
            fetch(name, Path.cwd())
            fetched = True
        except UserError as error:
            print(f"warning: {error}", file=sys.stderr)
    return fetched


def _digest(row: str) -> str:
    return json.loads((inputs.FOLDER / "rows" / f"{row}.json").read_text(encoding="utf-8"))["weights"]


if __name__ == "__main__":
    run(main)
