"""The runs of a row of params."""

from collections.abc import Iterable
from pathlib import Path

from pipeline.config.load import named
from pipeline.config.schema import Params
from pipeline.digest import files
from pipeline.errors import UserError
from pipeline.train.run import Run


def runs(params: Params, row: str, data: Path) -> list[Run]:
    """Return all runs of a row, splits before seeds.

    Raises:
        UserError: The row is unknown, or the data set lacks one of its splits.
    """
    experiment = named(params, row)
    recipe, protocol = params.recipe(experiment), params.protocols[experiment.protocol]
    listed = [
        Run(row, experiment, recipe, protocol, split, seed, data)
        for split in experiment.splits
        for seed in experiment.seeds
    ]
    for run in listed:
        if not run.split_table.exists():
            known = sorted(path.stem for path in run.split_table.parent.glob("split-*.parquet"))
            if not known:
                raise UserError(
                    f"experiments.{row}: {experiment.dataset} has no splits yet; `actionbench repro` makes them"
                )
            raise UserError(
                f"experiments.{row}: {experiment.dataset} has no split {run.split}; "
                f"splits there: {', '.join(name.removeprefix('split-') for name in known)}"
            )
    return listed


def verify(runs: Iterable[Run]) -> None:
    """Check the split tables that runs read against the checksums of stage splits.

    Raises:
        UserError: One is damaged.
    """
    for path in {path for run in runs for path in (run.split_table, run.class_list, run.mirror_list)}:
        files.verify(path)
