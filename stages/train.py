"""Stage 4, for one row: trains its splits x seeds side by side."""

from pathlib import Path

from cluster.fit import fit
from cluster.session import session
from pipeline import params
from pipeline.cells import cells
from stages import DATA, run


def train(row: str) -> None:
    given = params.load()
    todo = cells(given, row, DATA.absolute())
    weights = Path(todo[0].experiment.weights) if todo[0].experiment.weights else None
    with session(given.cluster):
        fit(todo, weights, given.cluster, watch=lambda: None)


if __name__ == "__main__":
    run(train)
