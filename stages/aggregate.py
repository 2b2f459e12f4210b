"""Stage 6: the suite's metrics, plots, tables, figures and page, from predictions alone."""

from pathlib import Path

from pipeline.aggregate import suite
from pipeline.config import load
from stages import DATA, run

REPORTS = Path("reports")


def aggregate() -> None:
    given = load.load()
    target = suite.Folders.of(REPORTS, given.suite)
    suite.aggregate(given, DATA, target, REPORTS)
    shown = suite.show(target, given.suite, REPORTS)
    print(f"tables in {target.tables}, pictures in {target.figures}, all tables on {shown}")


if __name__ == "__main__":
    run(aggregate)
