"""Stage 6: a suite's metrics, plots, tables, figures and page, from predictions."""

from pathlib import Path

from pipeline.aggregate import suite
from pipeline.config import load
from stages import DATA, run

REPORTS = Path("reports")


def aggregate() -> None:
    params = load.load()
    target = suite.Folders.of(REPORTS, params.suite)
    suite.aggregate(params, DATA, target, REPORTS)
    page = suite.show(target, params.suite, REPORTS)
    print(f"tables in {target.tables}, figures in {target.figures}, all tables on {page}")


if __name__ == "__main__":
    run(aggregate)
