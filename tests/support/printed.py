"""Tables as they are printed."""

import csv
from pathlib import Path


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
