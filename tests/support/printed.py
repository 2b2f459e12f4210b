"""Tables and figure texts, read back from their files."""

import csv
from pathlib import Path
from xml.etree import ElementTree


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def texts(path: Path) -> list[str]:
    """Return the texts of an SVG."""
    nodes = ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")
    return ["".join(node.itertext()).strip() for node in nodes]
