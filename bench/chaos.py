"""Loss of time and correctness of runs disturbed at a random moment.

    python -m bench.chaos [--runs 66] [--kinds K ...] [--minutes M] [--folder F]    # as root; continues its CSV

Three real Ray nodes (bench/nodes.py) run a small project on a separate file system (bench/victim.py). Each run removes
the outputs of one stage, starts `dvc repro`, and disturbs it during that stage; stage and moment are drawn from the
run's number. Then everything is repaired as by an operator (bench/havoc.py), and `dvc repro` is called until it
succeeds, at most twice. The second time it is `actionbench repro`, which repairs DVC's files first. A run is good if
- tables, frames, splits, weights and predictions are byte-identical to the undisturbed ones,
- every output can be read in full by its reader, with no half-written file left,
- MLflow holds no number and no run twice, and
- no process is left, neither before the next `dvc repro` nor at the end.
The loss is the seconds of all calls of `dvc repro`, minus the median of undisturbed ones from that stage on. The
operator's time is not included.

- training worker, task: SIGKILL to a busy Ray worker.  - stage: to the stage's process.  - MLflow: to its server.
- driver: to dvc or actionbench.  - node: to every process of a node; a new one comes when the run is over, or after two
minutes.  - network: a node's link is down from then on.
- disk: the project's file system is filled up.
"""

import argparse
import csv
import random
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from bench import havoc, report, victim
from bench.ground import Bench
from bench.havoc import Run
from pipeline.tracking import run_record

ROOT = Path(__file__).parents[1]
STAGES = tuple(victim.MADE)
ON_NODES = ("download", "decode", "train", "evaluate")
KINDS = {
    "training worker": ("train",),
    "node": ON_NODES,
    "driver": STAGES,
    "disk": STAGES,
    "network": ON_NODES,
    "task": ("download", "decode", "evaluate"),
    "stage": STAGES,
    "MLflow": ("train", "evaluate"),
}
REPAIRS = 2
SECONDS = 10.0  # assumed for a stage that was not seen undisturbed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=66)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="which of them are made now")
    parser.add_argument("--minutes", type=float, default=600.0, help="begin no run after so many")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/chaos"), help="of what it works on")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    end = time.monotonic() + 60 * given.minutes
    done = read()
    bench = Bench(given.folder)
    try:
        bench.open()
        for number in range(-len(STAGES), given.runs + 1):  # those up to 0 are undisturbed
            wanted = planned(number)[0].kind in (*given.kinds, "nothing")
            if wanted and time.monotonic() < end and number not in {run.run for run in done}:
                done.append(made(bench, number, done))
                save(done)
                print(*asdict(done[-1]).values(), sep=" | ", flush=True)
    finally:
        bench.close()


def planned(number: int) -> tuple[Run, random.Random]:
    """Return run `number`, and the generator of its moment."""
    rng = random.Random(f"chaos {number}")
    if number <= 0:
        return Run(number, "nothing", ("train", *STAGES)[-number], 2 if number == 0 else 1), rng
    kind = list(KINDS)[(number - 1) % len(KINDS)]
    stage = rng.choice(KINDS[kind])
    return Run(number, kind, stage, rng.choice((1, 1, 2)) if stage == "train" else 1), rng


def made(bench: Bench, number: int, done: Sequence[Run]) -> Run:
    run, rng = planned(number)
    run.commit = run_record.commit(ROOT)[:7]
    place = bench.undisturbed(run.workers)
    victim.put_back(place, bench.project, run.stage)
    if run.kind == "MLflow":
        bench.serve()
    alike = undisturbed(done, run)
    seen = "tasks_s" if run.kind in havoc.AT_WORK else "after_s" if run.kind in havoc.AFTER else "stage_s"
    usual = statistics.median(getattr(one, seen) for one in alike) if alike else SECONDS
    wrong = []
    run.ended = code = havoc.repro(bench, run, rng, usual)
    wrong += havoc.left(bench, run)
    havoc.mend(bench, run)
    while code and run.repairs < REPAIRS:
        run.repairs += 1
        code = havoc.repro(bench, run, program="dvc" if run.repairs == 1 else "actionbench")
        wrong += havoc.left(bench, run)
    if code:
        wrong.append(f"dvc repro still ends with {code}")
    wrong += victim.faults(bench.project, victim.results(place))
    twice, behind = victim.logged(bench.store if run.kind == "MLflow" else bench.project / "mlflow.db")
    run.epochs_behind = behind if run.stage == "train" else 0
    run.faults = "; ".join([*wrong, *twice][:6])
    bench.rest()
    return run


def undisturbed(runs: Sequence[Run], like: Run) -> list[Run]:
    return [one for one in runs if one.kind == "nothing" and (one.stage, one.workers) == (like.stage, like.workers)]


def read() -> list[Run]:
    path = report.RESULTS / "chaos.csv"
    if not path.exists():
        return []
    kinds: dict[str, Any] = {each.name: each.type for each in fields(Run)}
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    return [Run(**{name: kind(line[name]) for name, kind in kinds.items()}) for line in lines]


def save(done: Sequence[Run]) -> None:
    """Write the report: a line per kind, and one per fault."""
    rows, lines = [], []
    for run in sorted(done, key=lambda run: run.run):
        base = [one.seconds for one in undisturbed(done, run)]
        lost = round(run.seconds - statistics.median(base), 1) if base and run.kind != "nothing" else ""
        rows.append({**asdict(run), "lost": lost})
    struck = [row for row in rows if row["hit"]]
    for kind in KINDS:
        own = [row for row in struck if row["kind"] == kind]
        lost = [row["lost"] for row in own if row["lost"] != ""]
        if own:
            stages = ", ".join(f"{stage} {n}" for stage in STAGES if (n := sum(row["stage"] == stage for row in own)))
            cells = [kind, len(own), stages, sum(not row["faults"] for row in own)]
            cells += [sum(row["repairs"] == n for row in own) for n in range(REPAIRS + 1)]
            times = f"{statistics.median(lost):.0f} ({min(lost):.0f} to {max(lost):.0f})" if lost else "–"
            lines.append([str(cell) for cell in (*cells, times)])
    bad = [f"run {row['run']}, {row['kind']} in {row['stage']}: {row['faults']}." for row in struck if row["faults"]]
    missed = sum(row["kind"] != "nothing" for row in rows) - len(struck)
    behind = [row for row in struck if row["epochs_behind"]]
    text = (
        f"{len(struck)} disturbed runs, {sum(not row['faults'] for row in struck)} good; of {missed} more the "
        f"stage was over before its moment came. {' '.join(bad)} MLflow lacked epochs at the end of {len(behind)} runs "
        f"({sum(row['kind'] == 'MLflow' for row in behind)} of them with its server killed). Runs on commit "
        f"{', '.join(f'{name}: {n}' for name, n in Counter(row['commit'] for row in struck).items())}."
    )
    head = [
        "struck",
        "runs",
        "in stage",
        "good",
        "0 repairs",
        "1 repair",
        "2 repairs",
        "lost s, median (least to most)",
    ]
    report.save("chaos", "Runs disturbed at a random moment", text, head, lines, rows)


if __name__ == "__main__":
    main()
