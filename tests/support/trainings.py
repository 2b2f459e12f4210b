"""A cell's training as fit() hands it to a process, in a folder of the test's choice."""

from pathlib import Path

from cluster.fit import Training
from pipeline.config.schema import Cluster
from pipeline.digest import state
from pipeline.storage.remote import Place, write
from pipeline.train import keys
from pipeline.train.run import Cell


def training(cell: Cell, folder: Place, cluster: Cluster | None = None) -> Training:
    """Write the token that its process looks for, too."""
    token = folder / "token"
    write(token, "token")
    return Training(cell, None, cluster or Cluster(), folder, keys.training(cell, None), token)


def trained(training: Training) -> bytes:
    """Return the weights file that a finished training left."""
    content = state.get(training.folder / "weights.pt", training.key)
    assert content is not None
    return content.partition(b"\n")[2]


def folder(cell: Cell, cluster: Cluster) -> Place:
    """Return where fit() keeps its state."""
    return keys.state(cell, cluster, keys.training(cell, None))


def bind(path: Path) -> Path:
    """Give a file that a test wrote its SHA256SUMS."""
    from pipeline.digest.files import write_sums

    write_sums(path.parent)
    return path
