"""Hostile and damaged inputs, and their outcomes: right, one clear line, or worse.

    python -m bench.attacks [--kinds K ...] [--seed S] [--minutes M] [--folder F]

Every attack runs for at most a minute in a separate process (bench/attack/judge.py). Its outcome is one of these:
- right: the result is that of the whole input.  - line: refused with one line.  - refused: the same, for a whole input.
- silent: accepted with a wrong result, or accepted instead of refused.  - hung: no end within a minute.
- traceback: any other exception, a message of several lines, or the death of the process.

Kinds: archives, downloads, weights, names, numbers, videos. "damaged" is every kind of stored file of a small project
that has run. "kills" sends SIGKILL to a process of `actionbench repro` at a random moment, then calls it again until it
succeeds; --minutes bounds them. A kind that is run replaces its lines in the results; others stay.
"""

import itertools
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import torch

from bench import report
from bench.attack import archives, damaged, downloads, kills, settings, videos, weights
from bench.attack.judge import OUTCOMES, Attack, Outcome, judged
from bench.running import options

MAKERS: dict[str, Callable[[random.Random], Iterator[Attack]]] = {
    "archives": archives.attacks,
    "downloads": downloads.attacks,
    "weights": weights.attacks,
    "names": settings.names,
    "numbers": settings.numbers,
    "videos": videos.attacks,
}
GOOD = ("right", "line")
KINDS = (*MAKERS, "damaged", "kills")


def main() -> None:
    args = options(
        __doc__,
        kinds=list(KINDS),
        seed=0,
        minutes=(30.0, "begin no kill after so many"),
        folder=(Path("/tmp/attacks"), "working folder of the small project"),
        first=(int, "of each kind only so many, printed and not saved"),
        again=(False, "only those that ended badly the last time"),
    )
    torch.set_num_threads(1)
    end = time.monotonic() + 60 * args.minutes
    for kind in args.kinds:
        rng = random.Random(f"{kind} {args.seed}")
        before = {outcome.name: outcome for outcome in read() if outcome.kind == kind} if args.again else {}
        bad = {name for name, outcome in before.items() if outcome.outcome not in GOOD}
        if kind == "kills":
            outcomes = kills.outcomes(args.folder, rng, end)
        else:
            attacks = damaged.attacks(args.folder, rng) if kind == "damaged" else MAKERS[kind](rng)
            known = before.keys() - bad
            outcomes = (before[attack.name] if attack.name in known else judged(attack) for attack in attacks)
        done = []
        for outcome in itertools.islice(outcomes, args.first):
            done.append(outcome)
            if len(done) % 10 == 0 and args.first is None:  # an interruption keeps these
                save([outcome for outcome in read() if outcome.kind != kind] + done)
            if outcome.outcome not in GOOD:
                print(outcome.kind, outcome.name, outcome.outcome, outcome.message[-300:], sep=" | ", file=sys.stderr)
        if args.first is None:
            save([outcome for outcome in read() if outcome.kind != kind] + done)
        else:
            print(*(f"{outcome.kind}: {outcome.outcome}" for outcome in done), sep="\n")


def read() -> list[Outcome]:
    return report.records("attacks", Outcome)


def save(done: list[Outcome]) -> None:
    """Write the report: a line per kind, and every attack in the CSV."""
    done, lines = sorted(done, key=lambda outcome: KINDS.index(outcome.kind)), []
    for kind in (*KINDS, "all"):
        outcomes = [outcome.outcome for outcome in done if kind in (outcome.kind, "all")]
        if outcomes:
            lines.append([kind, len(outcomes), *(outcomes.count(outcome) for outcome in OUTCOMES)])
    bad = [outcome for outcome in done if outcome.outcome not in GOOD]
    faults = [f"{outcome.kind}, {outcome.name}: {outcome.outcome}." for outcome in bad]
    good = len(done) - len(bad)
    text = " ".join([f"{good} of {len(done)} attacks end right or with one clear line.", *faults])
    head = ["attacked", "attacks", "right", "one line", "refused though whole", "silent", "hung", "traceback"]
    report.save("attacks", "Hostile and damaged inputs", text, head, lines, [asdict(outcome) for outcome in done])


if __name__ == "__main__":
    main()
