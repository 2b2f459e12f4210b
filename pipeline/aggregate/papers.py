"""All five papers' tables, claims and scoreboard as reference results, from whatever predictions there are."""

from collections.abc import Mapping
from pathlib import Path

from pipeline.config.schema import Params
from pipeline.measure import late_fusion, results
from pipeline.measure.results import Result
from pipeline.papers import claims
from pipeline.papers import tables as replication


def save(reports: Path, suites: Mapping[str, tuple[Params, Path]]) -> None:
    """Write reports/reference/<paper>/tables and figures, claims and scoreboard.

    Args:
        reports: The folder of printed numbers and counted costs, and of reference results.
        suites: Paper -> its suite's params, and the folder of predictions and splits.
    """
    root, replicas = reports / "reference", []
    for name, (given, data) in suites.items():
        found = measured(given, data)
        folder = root / name
        where = reports / "papers", reports / "parity.csv"
        replication.save(folder / "tables", folder / "figures", given, found, *where)
        replicas.append(replication.replica(name, given, found, *where))
    claims.save(root, replicas)


def measured(given: Params, data: Path) -> dict[str, Result]:
    """Every row of a suite, with its result or why there is none."""
    rows = (*given.experiments, *given.trajectories)
    found = {row: results.measure(results.read(given, row, data)) for row in rows}
    return found | {row: results.measure(late_fusion.read(given, row, data)) for row in given.fusions}
