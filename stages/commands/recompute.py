"""Tables, figures and pages from the predictions of reference results or a run."""

from pathlib import Path

from pipeline.aggregate import papers as replicas
from pipeline.aggregate import reference as references
from pipeline.aggregate.suite import Folders, aggregate, show
from pipeline.config import load
from pipeline.errors import UserError
from pipeline.papers.published import PAPERS
from stages import DATA
from stages.terminal import amount

REPORTS = Path("reports")


def reference(suite: str | None) -> None:
    """Write the reference tables of one suite or all, and their page; print changes."""
    suites_to_write = [suite] if suite else [name for name in references.suites(REPORTS) if _has_predictions(name)]
    total = 0
    for name in suites_to_write:
        changed = references.recompute(REPORTS, name)
        total += references.size(REPORTS, name)
        print(f"{name}: {f'{len(changed)} files changed, {changed[0]} first' if changed else 'equal bytes'}")
    if not suite and Path("conf/suite").is_dir():
        papers()
    shown = references.show(REPORTS)
    if lacking := [name for name in references.suites(REPORTS) if not _has_predictions(name) and name not in PAPERS]:
        print(f"without reference predictions, so unchanged: {', '.join(lacking)}")
    print(f"from {amount(total)} of predictions; all tables on {shown}")


def papers() -> None:
    """Write the papers' tables, claims and scoreboard to reports/reference."""
    from stages.repro.compose import composed

    suites = {}
    for name in PAPERS:
        kept = REPORTS / "reference" / name
        predicted = references.has_predictions(REPORTS, name) if (kept / "tables").is_dir() else False
        suites[name] = (load.load(kept / "params.yaml"), kept) if predicted else (composed(name), DATA)
    replicas.save(REPORTS, suites)
    print(f"{', '.join(PAPERS)}: tables in {REPORTS / 'reference'}, claims in {REPORTS / 'reference' / 'claims.md'}")


def workspace(suite: str | None) -> None:
    """Write the tables of the suite in params.yaml from the predictions in data/."""
    params = load.load()
    if suite not in (None, params.suite):
        raise UserError(
            f"params.yaml is of suite {params.suite!r}, not {suite!r}; --reference reads the maintainers' results"
        )
    target = Folders.of(REPORTS, params.suite)
    aggregate(params, DATA, target, REPORTS)
    print(f"tables in {target.tables}, all tables on {show(target, params.suite, REPORTS)}")


def save() -> None:
    """Make the present results the reference results of their suite.

    Raises:
        UserError: A result is stale.
    """
    from stages.repro.plan import current, project

    if stale := [step.stage for step in current(load.load(), project())]:
        raise UserError(f"{stale[0]} is stale; run `actionbench repro` first, so that the digests fit the results")
    print(f"reference results in {references.save(Path())}")


def _has_predictions(suite: str) -> bool:
    return references.has_predictions(REPORTS, suite)
