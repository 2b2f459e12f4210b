"""Hostile and damaged inputs, and their outcomes: right, one clear line, or worse.

    python -m bench.attacks [--kinds K ...] [--seed S] [--minutes M] [--folder F]

Every attack runs in a process of its own and has a minute (bench/attack/judge.py). Its outcome is one of these:
- right: the result is that of the whole input.  - line: refused with one line.  - refused: so, though it is whole.
- silent: accepted with a wrong result, or accepted though it must be refused.  - hung: no end within a minute.
- traceback: any other exception, a message of several lines, or the death of the process.

Kinds: archives, downloads, weights, names, numbers, videos; damaged, every kind of stored file of a small project that
has run; kills, SIGKILL to a process of `actionbench repro` at a random moment, and `actionbench repro` again until it
ends well (--minutes bounds them). A kind that is run replaces its lines in the results; others stay.
"""

import argparse
import csv
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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=30.0, help="begin no kill after so many")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/attacks"), help="of the small project")
    parser.add_argument("--first", type=int, help="of each kind only so many, printed and not saved")
    parser.add_argument("--again", action="store_true", help="only those that ended badly the last time")
    given = parser.parse_args()
    torch.set_num_threads(1)
    end = time.monotonic() + 60 * given.minutes
    for kind in given.kinds:
        rng = random.Random(f"{kind} {given.seed}")
        before = {outcome.name: outcome for outcome in read() if outcome.kind == kind} if given.again else {}
        bad = {name for name, outcome in before.items() if outcome.outcome not in GOOD}
        if kind == "kills":
            found = kills.outcomes(given.folder, rng, end)
        else:
            made = damaged.attacks(given.folder, rng) if kind == "damaged" else MAKERS[kind](rng)
            found = (before[one.name] if before.keys() - bad >= {one.name} else judged(one) for one in made)
        done = []
        for outcome in itertools.islice(found, given.first):
            done.append(outcome)
            if len(done) % 10 == 0 and given.first is None:  # whoever ends it here has what came so far
                save([outcome for outcome in read() if outcome.kind != kind] + done)
            if outcome.outcome not in GOOD:
                print(outcome.kind, outcome.name, outcome.outcome, outcome.said[-300:], sep=" | ", file=sys.stderr)
        if given.first is None:
            save([outcome for outcome in read() if outcome.kind != kind] + done)
        else:
            print(*(f"{outcome.kind}: {outcome.outcome}" for outcome in done), sep="\n")


def read() -> list[Outcome]:
    """The outcomes of an earlier run."""
    path = report.RESULTS / "attacks.csv"
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [Outcome(**{**line, "seconds": float(line["seconds"])}) for line in csv.DictReader(file)]


def save(done: list[Outcome]) -> None:
    """The report: a line a kind; every attack in the CSV."""
    done, lines = sorted(done, key=lambda outcome: KINDS.index(outcome.kind)), []
    for kind in (*KINDS, "all"):
        own = [outcome.outcome for outcome in done if kind in (outcome.kind, "all")]
        if own:
            lines.append([kind, str(len(own)), *(str(own.count(outcome)) for outcome in OUTCOMES)])
    bad = [outcome for outcome in done if outcome.outcome not in GOOD]
    faults = [f"{outcome.kind}, {outcome.name}: {outcome.outcome}." for outcome in bad]
    good = len(done) - len(bad)
    text = " ".join([f"{good} of {len(done)} attacks end right or with one clear line.", *faults])
    head = ["attacked", "attacks", "right", "one line", "refused though whole", "silent", "hung", "traceback"]
    report.save("attacks", "Hostile and damaged inputs", text, head, lines, [asdict(outcome) for outcome in done])


if __name__ == "__main__":
    main()
