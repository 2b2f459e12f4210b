"""The cells of a row, as params name them."""

from collections.abc import Iterable
from pathlib import Path

from pipeline.config.load import named
from pipeline.config.schema import Params
from pipeline.digest import files
from pipeline.errors import UserError
from pipeline.train.run import Cell


def cells(params: Params, row: str, data: Path) -> list[Cell]:
    """Return all cells of a row, splits before seeds.

    Raises:
        UserError: The row is unknown, or the data set lacks one of its splits.
    """
    experiment = named(params, row)
    recipe, protocol = params.recipes[experiment.recipe], params.protocols[experiment.protocol]
    listed = [
        Cell(row, experiment, recipe, protocol, split, seed, data)
        for split in experiment.splits
        for seed in experiment.seeds
    ]
    for cell in listed:
        if not cell.split_table.exists():
            known = sorted(path.stem for path in cell.split_table.parent.glob("split-*.parquet"))
            raise UserError(
                f"experiments.{row}: {experiment.dataset} has no split {cell.split}; "
                f"splits there: {', '.join(name.removeprefix('split-') for name in known) or 'none'}"
            )
    return listed


def verify(cells: Iterable[Cell]) -> None:
    """Check the split tables that cells read against the sums that stage splits left.

    Raises:
        UserError: One is damaged.
    """
    for path in {path for cell in cells for path in (cell.split_table, cell.class_list, cell.mirror_list)}:
        files.verify(path)
