"""Suite quick with small networks."""

from dataclasses import replace
from pathlib import Path

from pipeline.config import load

ROOT = Path(__file__).parents[2]


def quick(**experiment) -> load.Params:
    """Return suite quick with small clips and changes to row `tsm`."""
    given = load.load(ROOT / "params.yaml")
    recipe = replace(given.recipes["quick"], micro_batch=3, frames=4, size=32)
    protocol = replace(given.protocols["center"], batch=2, frames=6, size=48)
    rows = {**given.experiments, "tsm": replace(given.experiments["tsm"], **experiment)}
    return replace(given, recipes={"quick": recipe}, protocols={"center": protocol}, experiments=rows)
