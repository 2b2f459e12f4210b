"""All papers' tables, claims and scoreboard as reference results."""

from collections.abc import Mapping
from pathlib import Path

from pipeline.aggregate.suite import measured
from pipeline.config.schema import Params
from pipeline.papers import claims
from pipeline.papers import tables as replication


def save(reports: Path, suites: Mapping[str, tuple[Params, Path]]) -> None:
    """Write the papers' tables and figures, claims and scoreboard, whatever has run.

    Args:
        reports: The folder of printed numbers, counted costs and reference results.
        suites: Paper -> its suite's params, and the folder of predictions and splits.
    """
    root, replicas = reports / "reference", []
    for name, (params, data) in suites.items():
        tables, figures = root / name / "tables", root / name / "figures"
        results = measured(params, data)
        replicas += replication.save(tables, figures, params, results, reports / "papers", reports / "parity.csv")
    claims.save(root, replicas)
