"""Which verdicts a suite can reach with its seeds and test videos, and how many seeds would tell."""

from pathlib import Path

from pipeline.aggregate import planning
from pipeline.aggregate.papers import measured
from pipeline.config import load
from stages import DATA
from stages.terminal import screen, show_json, show_view, typed

REPORTS = Path("reports")


def show(suite: str | None, seed_sd: float, discordant: float, as_json: bool) -> None:
    """Print the plan of params.yaml's suite, or of another of conf/.

    Results in data/ give the variances, or else the suite's reference results.
    """
    from stages.repro.compose import composed

    given = composed(suite) if suite else load.load()
    assumed = planning.Assumed(seed_sd, discordant)
    found, kept = measured(given, DATA), REPORTS / "reference" / given.suite
    if all(row.accuracy == "not run" for row in found.values()) and kept.is_dir():
        found = measured(given, kept)
    table = planning.table(given, found, REPORTS, assumed)
    if as_json:
        show_json(typed(table.records()))
        return
    show_view(table)
    screen().print(*table.notes, sep="\n", markup=False)
