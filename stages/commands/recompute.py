"""Tables, figures and pages from predictions alone: the reference results', or this workspace's."""

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
    """Write the reference tables of one suite or of all, and their page; print what that changed."""
    wanted = [suite] if suite else [name for name in references.suites(REPORTS) if _has_predictions(name)]
    total = 0
    for name in wanted:
        changed = references.recompute(REPORTS, name)
        total += references.size(REPORTS, name)
        print(
            f"{name}: {f'{len(changed)} files changed, {changed[0]} first' if changed else 'the bytes that were there'}"
        )
    if not suite and Path("conf/suite").is_dir():
        papers()
    shown = references.show(REPORTS)
    if lacking := [name for name in references.suites(REPORTS) if not _has_predictions(name) and name not in PAPERS]:
        print(f"without reference predictions, so kept as they are: {', '.join(lacking)}")
    print(f"from {amount(total)} of predictions; all tables on {shown}")


def papers() -> None:
    """Write the five papers' tables, claims and scoreboard into reports/reference, whatever has run."""
    from stages.repro.compose import composed

    suites = {}
    for name in PAPERS:
        kept = REPORTS / "reference" / name
        own = references.has_predictions(REPORTS, name) if (kept / "tables").is_dir() else False
        suites[name] = (load.load(kept / "params.yaml"), kept) if own else (composed(name), DATA)
    replicas.save(REPORTS, suites)
    print(f"{', '.join(PAPERS)}: tables in {REPORTS / 'reference'}, claims in {REPORTS / 'reference' / 'claims.md'}")


def workspace(suite: str | None) -> None:
    """Write the tables of the suite in params.yaml from the predictions in data/."""
    given = load.load()
    if suite not in (None, given.suite):
        raise UserError(f"params.yaml is of suite {given.suite!r}, not {suite!r}; for the maintainers': --reference")
    target = Folders.of(REPORTS, given.suite)
    aggregate(given, DATA, target, REPORTS)
    print(f"tables in {target.tables}, all tables on {show(target, given.suite, REPORTS)}")


def save() -> None:
    """Make the results here the reference results of their suite; UserError where some of them are stale."""
    from stages.repro.plan import current, project

    if stale := [step.stage for step in current(load.load(), project())]:
        raise UserError(f"{stale[0]} is stale; `actionbench repro` first, so that the digests are those of the results")
    print(f"reference results in {references.save(Path())}")


def _has_predictions(suite: str) -> bool:
    return references.has_predictions(REPORTS, suite)
