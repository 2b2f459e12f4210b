"""Verdicts that a suite's seeds and test videos can reach, and missing seeds."""

from pathlib import Path

from pipeline.aggregate import planning
from pipeline.aggregate.papers import measured
from pipeline.config import load
from stages import DATA
from stages.terminal import screen, show_json, show_view, typed

REPORTS = Path("reports")


def show(suite: str | None, seed_sd: float, discordant: float, as_json: bool) -> None:
    """Print the plan of params.yaml's suite, or of another of conf/.

    Variances come from results in data/, or from the suite's reference results.
    """
    from stages.repro.compose import composed

    params = composed(suite) if suite else load.load()
    assumed = planning.Assumed(seed_sd, discordant)
    results, kept = measured(params, DATA), REPORTS / "reference" / params.suite
    if all(row.accuracy == "not run" for row in results.values()) and kept.is_dir():
        results = measured(params, kept)
    table = planning.table(params, results, REPORTS, assumed)
    if as_json:
        show_json(typed(table.records()))
        return
    show_view(table)
    screen().print(*table.notes, sep="\n", markup=False)
