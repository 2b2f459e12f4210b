"""Stage 6: the suite's metrics, plots, tables, figures and page, from predictions alone."""

from pathlib import Path

from pipeline import aggregation, params
from stages import DATA, run

REPORTS = Path("reports")


def aggregate() -> None:
    given = params.load()
    target = aggregation.Folders.of(REPORTS, given.suite)
    aggregation.aggregate(given, DATA, target, REPORTS)
    shown = aggregation.show(target, given.suite, REPORTS)
    print(f"tables in {target.tables}, pictures in {target.figures}, all tables on {shown}")


if __name__ == "__main__":
    run(aggregate)
