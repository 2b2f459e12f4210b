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

import random
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bench import havoc, report, victim
from bench.ground import Bench
from bench.havoc import Run
from bench.report import column, select
from bench.running import ROOT, options
from pipeline.tracking import run_record

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
    args = options(
        __doc__,
        runs=66,
        kinds=(list(KINDS), "kinds of runs to make now"),
        minutes=(600.0, "begin no run after so many"),
        folder=(Path("/tmp/chaos"), "working folder"),
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    end = time.monotonic() + 60 * args.minutes
    done = report.records("chaos", Run)
    bench = Bench(args.folder)
    try:
        bench.open()
        for number in range(-len(STAGES), args.runs + 1):  # those up to 0 are undisturbed
            chosen = planned(number)[0].kind in (*args.kinds, "nothing")
            if chosen and time.monotonic() < end and number not in {run.run for run in done}:
                done.append(disturbed(bench, number, done))
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


def disturbed(bench: Bench, number: int, done: Sequence[Run]) -> Run:
    run, rng = planned(number)
    run.commit = run_record.commit(ROOT)[:7]
    place = bench.undisturbed(run.workers)
    victim.put_back(place, bench.project, run.stage)
    if run.kind == "MLflow":
        bench.serve()
    alike = undisturbed(done, run)
    seen = "tasks_s" if run.kind in havoc.AT_WORK else "after_s" if run.kind in havoc.AFTER else "stage_s"
    usual = statistics.median(getattr(other, seen) for other in alike) if alike else SECONDS
    wrong = []
    run.ended = code = havoc.repro(bench, run, rng, usual)
    wrong += havoc.leftovers(bench, run)
    havoc.mend(bench, run)
    while code and run.repairs < REPAIRS:
        run.repairs += 1
        code = havoc.repro(bench, run, program="dvc" if run.repairs == 1 else "actionbench")
        wrong += havoc.leftovers(bench, run)
    if code:
        wrong.append(f"dvc repro still ends with {code}")
    wrong += victim.faults(bench.project, victim.results(place))
    twice, behind = victim.logged(bench.store if run.kind == "MLflow" else bench.project / "mlflow.db")
    run.epochs_behind = behind if run.stage == "train" else 0
    run.faults = "; ".join([*wrong, *twice][:6])
    bench.rest()
    return run


def undisturbed(runs: Sequence[Run], like: Run) -> list[Run]:
    return [run for run in runs if run.kind == "nothing" and (run.stage, run.workers) == (like.stage, like.workers)]


def save(done: Sequence[Run]) -> None:
    """Write the report: a line per kind, and one per fault."""
    rows, lines = [], []
    for run in sorted(done, key=lambda run: run.run):
        base = [other.seconds for other in undisturbed(done, run)]
        lost = round(run.seconds - statistics.median(base), 1) if base and run.kind != "nothing" else ""
        rows.append({**asdict(run), "lost": lost})
    struck = [row for row in rows if row["hit"]]
    for kind in KINDS:
        runs = select(struck, kind=kind)
        lost = [seconds for seconds in column(runs, "lost") if seconds != ""]
        if runs:
            stages = ", ".join(f"{stage} {n}" for stage in STAGES if (n := len(select(runs, stage=stage))))
            repairs = [len(select(runs, repairs=n)) for n in range(REPAIRS + 1)]
            times = report.spread(lost, ".0f", "") if lost else "–"
            lines.append([kind, len(runs), stages, len(select(runs, faults="")), *repairs, times])
    bad = [f"run {row['run']}, {row['kind']} in {row['stage']}: {row['faults']}." for row in struck if row["faults"]]
    missed = sum(row["kind"] != "nothing" for row in rows) - len(struck)
    behind = [row for row in struck if row["epochs_behind"]]
    text = (
        f"{len(struck)} disturbed runs, {len(select(struck, faults=''))} good; of {missed} more the "
        f"stage was over before its moment came. {' '.join(bad)} MLflow lacked epochs at the end of {len(behind)} runs "
        f"({len(select(behind, kind='MLflow'))} of them with its server killed). Runs on commit "
        f"{', '.join(f'{name}: {n}' for name, n in Counter(column(struck, 'commit')).items())}."
    )
    head = ["struck", "runs", "in stage", "good", "0 repairs", "1 repair", "2 repairs"]
    head += ["lost s, median (least to most)"]
    report.save("chaos", "Runs disturbed at a random moment", text, head, lines, rows)


if __name__ == "__main__":
    main()
