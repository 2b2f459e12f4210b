"""Error rates of verdicts where the truth is known.

    python -m bench.statistics [--trials N] [--processes N] [--only KIND ...]

Answers are drawn from a probit model: a net is right on a video if accuracy + seed + difficulty + chance > 0, each
normal. Difficulty, the share rho of all but the seed, is common to all nets (drawn from 0.6 to 0.75 in each trial);
seeds shift a net by `sd` points of accuracy. Each cell is judged by pipeline.measure as a table would be.

- same: two rows of one system. Verdicts (bar: at most 8 %); coverage of the 95 % intervals of accuracy and difference
  (at least 92 %); one more run as the printed number, called below or above (at most 8 %).
- groups: the same with half of difficulty shared in groups of 5, and the groups as units.
- family: seven rows and their base, all one system, under Holm: any verdict at all (at most 10 %).
- power: a true gain, 5 seeds, chosen so that the oracle detects it in half or in 80 %. The oracle knows the variances,
  and so the mean's error and Hillis's degrees of freedom; ours must be within 5 points. The "z" oracle needs no degrees
  of freedom. No test that keeps its level is near the z oracle if seeds matter: it would have to know, from 5 seeds,
  the variance between seeds.
- elsewhere: as same, at other random settings: 60 to 6,000 videos, 3 to 12 seeds, accuracies from 20 to 98 %, rho from
  0.2 to 0.9. A part of rho may be separate for each system, seeds of two rows correlated, groups of unequal size.

"Hillis" is the published formula (degrees of freedom (S - 1) / share^2, no floor) on the same answers. With 1,000
trials a true 5 % is measured as up to 7 %. Seeded. A finished cell is kept in the temporary folder under the digest of
the code, so a stopped run resumes.
"""

import hashlib
import json
import math
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtri, stdtr, stdtrit

from bench import report
from bench.running import options
from pipeline.measure import claims, crossed
from pipeline.measure.crossed import Z, difference, row

SIZES = (268, 400, 1530, 11_522)
SEEDS = (3, 5, 10)
SDS = (0.0, 0.5, 1.0, 2.0, 6.0)
ACCURACY = 0.7
ROWS = 7
GAINS = (0.5, 0.8)  # the oracle's power
ELSEWHERE = 80
POWER_TRIALS = 4  # times as many: the bar is a difference of two powers, whose error is 1.2 points with 1,000
ALPHA = 1 - crossed.LEVEL


@dataclass(frozen=True)
class Cell:
    """One simulated comparison; shares, except `sd` in points of accuracy."""

    kind: str
    videos: int
    seeds: int
    sd: float
    accuracy: float = ACCURACY
    rho: float | None = None  # None: from 0.6 to 0.75, drawn in each trial
    system: float = 0.0  # part of rho that differs by system
    paired: float = 0.0  # correlation of the rows' seeds
    group: float = 0.0  # mean size of groups, which share half of difficulty; of equal size if whole
    oracle: float = 0.0


def main() -> None:
    args = options(__doc__, trials=1000, processes=2, only=list(KINDS))
    todo = [cell for cell in cells() if cell.kind in args.only]
    save(all_measured(todo, args.trials, args.processes), args.trials)


def cells() -> list[Cell]:
    grid = [(videos, seeds, sd) for videos in SIZES for seeds in SEEDS for sd in SDS]
    small = [(videos, seeds, sd) for videos, seeds, sd in grid if videos < 10_000 or seeds == 3]
    every = [Cell("same", *place) for place in grid]
    every += [Cell("groups", *place, group=5) for place in small]
    every += [Cell("family", *place) for place in small]
    every += [Cell("power", videos, 5, sd, oracle=power) for videos, seeds, sd in grid if seeds == 5 for power in GAINS]
    return every + list(elsewhere())


def elsewhere() -> Iterator[Cell]:
    rng = np.random.default_rng(23)
    for _ in range(ELSEWHERE):
        videos = int(60 * 100 ** rng.random())
        accuracy = float(rng.choice([0.2, 0.5, 0.8, 0.9, 0.95, 0.98]))
        sd = float(rng.choice([0, 0.3, 1, 3])) * min(1, 10 * accuracy * (1 - accuracy))
        rho = float(rng.choice([0.2, 0.5, 0.7, 0.9]))
        group = float(rng.choice([0, 0, 2.5, 6.5])) if videos > 500 else 0.0
        system, paired = rho * float(rng.choice([0, 0.1, 0.4])), float(rng.choice([0, 0, 0.5]))
        yield Cell("elsewhere", videos, int(rng.integers(3, 13)), round(sd, 2), accuracy, rho, system, paired, group)


def answers(cell: Cell, rng: np.random.Generator, rows: int, gain: float = 0.0) -> tuple[list[np.ndarray], np.ndarray]:
    """Draw the rows' answers, seeds x videos each, and the videos' groups.

    The last row is better by `gain`. The first row has one more seed, the last: a run that a paper printed.
    """
    rho = rng.uniform(0.6, 0.75) if cell.rho is None else cell.rho
    groups = grouped(cell, rng)
    shared = rng.standard_normal(cell.videos)
    if cell.group:
        shared = np.sqrt(0.5) * (shared + rng.standard_normal(groups[-1] + 1)[groups])
    common = rng.standard_normal(cell.seeds)
    drawn = []
    for number in range(rows):
        accuracy = cell.accuracy + (gain if number == rows - 1 else 0.0)
        seeds = rng.standard_normal(cell.seeds + (number == 0))
        seeds[: cell.seeds] = np.sqrt(cell.paired) * common + np.sqrt(1 - cell.paired) * seeds[: cell.seeds]
        spread = shift(cell.sd / 100, accuracy)
        difficulty = np.sqrt(rho - cell.system) * shared
        if cell.system:
            difficulty = difficulty + np.sqrt(cell.system) * rng.standard_normal(cell.videos)
        level = ndtri(accuracy) * np.sqrt(1 + spread**2) + spread * seeds  # so that the mean over seeds is accuracy
        limit = (-(level[:, None] + difficulty) / np.sqrt(1 - rho)).astype(np.float32)
        drawn.append(rng.standard_normal(limit.shape, np.float32) > limit)
    return drawn, groups


def shift(sd: float, accuracy: float) -> float:
    """Return the seeds' sd on the probit scale."""
    return float(sd * np.sqrt(2 * np.pi) * np.exp(ndtri(accuracy) ** 2 / 2))


def grouped(cell: Cell, rng: np.random.Generator) -> np.ndarray:
    if not cell.group:
        return np.arange(cell.videos)
    if cell.group == int(cell.group):
        return np.arange(cell.videos) // int(cell.group)
    return np.cumsum(rng.random(cell.videos) < 1 / cell.group)  # geometric sizes


def rates(cell: Cell, trials: int) -> dict[str, float]:
    """Return the error rates of two rows of one system."""
    rng, counts = generator(cell), np.zeros(6)
    for _ in range(trials):
        (ours, other), groups = answers(cell, rng, 2)
        units = groups if cell.group else None
        gain = difference(other, ours[:-1], units)
        mean = row(ours[:-1], units)
        word = claims.number(mean, float(ours[-1].mean())).verdict
        counts += [
            claims.systems(gain, gain.p, 1.0) in (claims.BETTER, claims.WORSE),
            hillis(gain) < ALPHA,
            gain.low <= 0 <= gain.high,
            mean.low <= cell.accuracy <= mean.high,
            word in (claims.BELOW, claims.ABOVE),
            word == claims.REPRODUCED,
        ]
    names = ("verdicts", "hillis", "covered_gain", "covered_accuracy", "replication_off", "replication_reproduced")
    return dict(zip(names, counts / trials, strict=True))


def family(cell: Cell, trials: int) -> dict[str, float]:
    """Return the error rates of seven rows against their base, all one system."""
    rng, wrong, plain = generator(cell), 0, 0
    for _ in range(trials):
        (base, *others), _ = answers(cell, rng, ROWS + 1)
        gains = [difference(other, base[:-1]) for other in others]
        wrong += any(p is not None and p < ALPHA for p in claims.adjusted(gains))
        plain += min(hillis(gain) for gain in gains) < ALPHA / ROWS
    return {"family": wrong / trials, "hillis": plain / trials}


def power(cell: Cell, trials: int) -> dict[str, float]:
    """Return the power of ours and of two oracles for a true gain.

    All see the same trials.
    """
    rng, gain = generator(cell), 0.0
    for size in (100, 400):  # the variances depend a little on the gain
        pilot = [parts(cell, rng, gain)[1] for _ in range(size)]
        error, threshold = oracle(cell, pilot)
        gain = min((threshold + ndtri(cell.oracle)) * error, 0.97 - cell.accuracy)
    seen, variances, values = [], [], []
    for _ in range(trials):
        estimate, variance = parts(cell, rng, gain)
        seen.append(claims.systems(estimate, estimate.p, 1.0) == claims.BETTER)
        variances.append(variance)
        values.append(estimate.value)
    error, threshold = oracle(cell, variances)
    result = {"gain": gain, "ours": float(np.mean(seen))}
    for name, times in (("oracle_t", threshold), ("oracle_z", Z)):
        result[name] = float(np.mean(np.array(values) > times * error))
    return result


def oracle(cell: Cell, variances: list[tuple[float, float]]) -> tuple[float, float]:
    """Return the difference's true error, and the oracle's threshold in units of it."""
    of_seeds, between = np.maximum(np.mean(variances, axis=0), 0.0)
    variance = of_seeds + between
    degrees = crossed.degrees(of_seeds / variance, cell.seeds, exponent=2)
    return math.sqrt(variance), float(-stdtrit(degrees, ALPHA / 2))


def parts(cell: Cell, rng: np.random.Generator, gain: float) -> tuple[crossed.Estimate, tuple[float, float]]:
    """Return the difference, and unbiased estimates of its variance's two parts."""
    (ours, other), _ = answers(cell, rng, 2, gain)
    estimate = difference(other, ours[:-1])
    spread = estimate.spread
    return estimate, (spread.of_seeds, spread.of_units - spread.of_rest)


def hillis(estimate: crossed.Estimate) -> float:
    """Return the p value of the published formula."""
    spread = estimate.spread
    if not spread.variance:
        return 1.0
    degrees = crossed.degrees(spread.of_seeds / spread.variance, spread.seeds, exponent=2)
    return 2 * float(stdtr(degrees, -abs(estimate.value) / math.sqrt(spread.variance)))


KINDS: dict[str, Callable[[Cell, int], dict[str, float]]] = {
    "same": rates, "groups": rates, "family": family, "power": power, "elsewhere": rates,
}  # fmt: skip


def generator(cell: Cell) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(repr(cell).encode()).digest()[:8], "big"))


def measured(cell: Cell, trials: int) -> dict[str, Any]:
    trials *= POWER_TRIALS if cell.kind == "power" else 1
    return {**asdict(cell), "trials": trials, **KINDS[cell.kind](cell, trials)}


def all_measured(todo: list[Cell], trials: int, processes: int) -> list[dict[str, Any]]:
    """Return every cell's rates, in order.

    Those measured before by the same code are read.
    """
    sources = (Path(__file__), Path(crossed.__file__), Path(claims.__file__))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    kept = Path(tempfile.gettempdir()) / f"actionbench-statistics-{digest}-{trials}.jsonl"
    done: dict[str, dict[str, Any]] = {}
    if kept.exists():
        for line in kept.read_text().splitlines():
            entry = json.loads(line)
            done[entry["cell"]] = entry["row"]
    left = sorted((cell for cell in todo if repr(cell) not in done), key=lambda cell: -cell.videos * cell.seeds)
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # before the workers import numpy
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context) as pool, kept.open("a") as file:
        futures = {pool.submit(measured, cell, trials): cell for cell in left}
        for future in as_completed(futures):
            done[repr(futures[future])] = future.result()
            file.write(json.dumps({"cell": repr(futures[future]), "row": future.result()}) + "\n")
            file.flush()
    return [done[repr(cell)] for cell in todo]


# bar: kind, column, true if the column must stay below, and the limit
BARS: tuple[tuple[str, str, str, bool, float], ...] = (
    ("verdicts between two rows of one system", "same", "verdicts", True, 0.08),
    ("any verdict among 7 rows of one system", "family", "family", True, 0.10),
    ("95 % interval of accuracy holds the truth", "same", "covered_accuracy", False, 0.92),
    ("95 % interval of a difference holds the truth", "same", "covered_gain", False, 0.92),
    ("a perfect replication called below or above", "same", "replication_off", True, 0.08),
    ("verdicts, groups of 5", "groups", "verdicts", True, 0.08),
    ("accuracy's interval, groups of 5", "groups", "covered_accuracy", False, 0.92),
    ("verdicts elsewhere", "elsewhere", "verdicts", True, 0.08),
    ("accuracy's interval elsewhere", "elsewhere", "covered_accuracy", False, 0.92),
    ("a replication called below or above, elsewhere", "elsewhere", "replication_off", True, 0.08),
    ("power short of the oracle's, 5 seeds", "power", "short_t", True, 0.05),
    ("power short of the z oracle's, 5 seeds, out of any test's reach", "power", "short_z", True, math.inf),
    ("for comparison: Hillis's formula, two rows", "same", "hillis", True, math.inf),
    ("for comparison: Hillis's formula, 7 rows", "family", "hillis", True, math.inf),
    ("for comparison: Hillis's formula, elsewhere", "elsewhere", "hillis", True, math.inf),
)


def judged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return each bar with its worst cell."""
    result = []
    for text, kind, column, below, limit in BARS:
        picked = [{**entry, **shortfall(entry)} for entry in rows if entry["kind"] == kind]
        if not picked:
            continue
        worst = (max if below else min)(picked, key=lambda entry: entry[column])
        holds = worst[column] <= limit if below else worst[column] >= limit
        mean = float(np.mean([entry[column] for entry in picked]))
        result.append({"bar": text, "limit": limit, "below": below, "cells": len(picked), "mean": mean,
                       "worst": worst[column], "cell": worst, "holds": holds})  # fmt: skip
    return result


def shortfall(entry: dict[str, Any]) -> dict[str, float]:
    if "ours" not in entry:
        return {}
    return {"short_t": entry["oracle_t"] - entry["ours"], "short_z": entry["oracle_z"] - entry["ours"]}


def save(rows: list[dict[str, Any]], trials: int) -> None:
    lines = []
    for bar in judged(rows):
        cell = bar["cell"]
        sign = "at most" if bar["below"] else "at least"
        lines.append([
            bar["bar"], f"{sign} {100 * bar['limit']:.0f} %" if math.isfinite(bar["limit"]) else "–", str(bar["cells"]),
            f"{100 * bar['mean']:.1f} %", f"{100 * bar['worst']:.1f} %",
            f"{cell['videos']:,} videos, {cell['seeds']} seeds, sd {cell['sd']:g}, {100 * cell['accuracy']:g} %",
            "–" if math.isinf(bar["limit"]) else "yes" if bar["holds"] else "NO",
        ])  # fmt: skip
    head = ["what", "bar", "cells", "mean", "worst cell", "which", "holds"]
    text = f"{trials:,} trials a cell, {POWER_TRIALS * trials:,} where power is measured; {len(rows)} cells."
    report.save("statistics", "Error rates of verdicts where the truth is known", text, head, lines, rows)


if __name__ == "__main__":
    main()
