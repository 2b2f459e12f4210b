"""Tables, figures and pages from the predictions of reference results or a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.aggregate import papers as replicas
from pipeline.aggregate import reference as references
from pipeline.aggregate.suite import Folders, aggregate, show
from pipeline.config import load
from pipeline.config.schema import Params
from pipeline.digest.files import sha256
from pipeline.digest.inputs import FOLDER
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
        papers(here=False)
    shown = references.show(REPORTS)
    if lacking := [name for name in references.suites(REPORTS) if not _has_predictions(name) and name not in PAPERS]:
        print(f"without reference predictions, so unchanged: {', '.join(lacking)}")
    print(f"from {amount(total)} of predictions; all tables on {shown}")


def papers(here: bool = True) -> None:
    """Write the papers' tables, claims and scoreboard to reports/reference.

    A paper's results are those in data/, if asked for and any of its rows has run `here`, otherwise the saved ones.
    """
    replicas.save(REPORTS, {name: results(name, here) for name in PAPERS})
    print(f"{', '.join(PAPERS)}: tables in {REPORTS / 'reference'}, claims in {REPORTS / 'reference' / 'claims.md'}")


def results(paper: str, here: bool) -> tuple[Params, Path]:
    """Return the params of a paper's suite, and the folder of its predictions and splits."""
    from stages.repro.compose import composed

    kept = REPORTS / "reference" / paper
    saved = (kept / "tables").is_dir() and references.has_predictions(REPORTS, paper)
    if saved and not here:
        return load.load(kept / "params.yaml"), kept
    present = load.load() if here else None
    params = present if present and present.suite == paper else composed(paper)
    ran = any((DATA / "predictions" / row).is_dir() for row in (*params.experiments, *params.trajectories))
    return (params, DATA) if ran or not saved else (load.load(kept / "params.yaml"), kept)


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

    Rows that never ran here keep the results of an earlier save, as where their data set is absent.

    Raises:
        UserError: A result is stale.
    """
    from stages.repro import plan

    params, project = load.load(), plan.project()
    steps = plan.current(params, project)
    of_rows = [step for step in steps if plan.noun(step.stage) in ("train", "evaluate", "trajectories")]
    never = {plan.key(step.stage) for step in of_rows if step.reasons == plan.NEVER}
    absent = [row for row in (*params.experiments, *params.trajectories) if row in never]
    rows = params.experiments | params.trajectories
    without = {row.dataset for row in rows.values()} - {row.dataset for name, row in rows.items() if name not in never}
    allowed = {"train": never, "evaluate": never, "trajectories": never, "aggregate": {""} if absent else set()}
    if stale := [
        step.stage for step in steps if plan.key(step.stage) not in allowed.get(plan.noun(step.stage), without)
    ]:
        raise UserError(f"{stale[0]} is stale; run `actionbench repro` first, so that the digests fit the results")
    locked = plan.locked()
    origins = {row: _origin(row, params, locked) for row in (*params.experiments, *params.trajectories)}
    target = references.save(Path(), origins, absent)
    kept = [row for row in absent if (target / "predictions" / row).is_dir()]
    missing = [row for row in absent if row not in kept]
    print(f"reference results in {target}")
    for what, names in (("kept from an earlier save", kept), ("not run", missing)):
        if names:
            print(f"{what}: {', '.join(names)}")


def _origin(row: str, params: Params, locked: Mapping[str, Any]) -> dict[str, str]:
    """Return what a row's results depend on: path -> digest, of data by DVC if they are here, of code and settings."""
    if row in params.experiments:
        experiment = params.experiments[row]
        plugins = f"attention/{experiment.attention}", f"backbones/{experiment.backbone}"
        code, data, kind = ["stages/train", "stages/evaluate", *plugins], experiment.dataset, "rows"
    else:
        code, data, kind = ["stages/trajectories"], params.trajectories[row].dataset, "trajectories"
    files = [*(REPORTS / "code" / name for name in code), FOLDER / kind / f"{row}.json"]
    outputs = [out for stage in (f"decode@{data}", f"splits@{data}") for out in locked.get(stage, {}).get("outs", [])]
    return {out["path"]: out["md5"] for out in outputs} | {path.as_posix(): sha256(path) for path in files}


def _has_predictions(suite: str) -> bool:
    return references.has_predictions(REPORTS, suite)
