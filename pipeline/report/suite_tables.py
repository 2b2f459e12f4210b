"""A suite's tables: systems side by side, rows against a base, two rows of one system, and frames out of order."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import stdev

from pipeline.config.schema import Order
from pipeline.config.schema import Table as Spec
from pipeline.measure import claims, power
from pipeline.measure.crossed import SEEDS, Estimate
from pipeline.measure.results import Difference, Result, difference
from pipeline.measure.scores import Accuracy, Precision
from pipeline.report.table import ALWAYS, BLANK, DATA, Cell, Table, number, save

CHECK = (
    "A check, without a verdict: the rows are one system, trained with other seeds. One of 20 such checks has p < 0.05."
)
SPREAD = "sd of splits: the standard deviation of the splits' own {}, in points."
FUSED = "A fusion is the weighted mean of other rows' scores; its parameters and MACs are the rows' sums."
TIME = (
    "The same trained networks on the same test videos, whose frames come in another order: reversed, shuffled, or one "
    "frame repeated (static). A system that uses the order of frames loses accuracy; one that is blind to it does not."
)


def save_all(folder: Path, specs: Mapping[str, Spec], results: Mapping[str, Result]) -> None:
    """Write every table of a suite."""
    for name, spec in specs.items():
        save(folder, of(name, spec, results))


def of(name: str, spec: Spec, results: Mapping[str, Result]) -> Table:
    """One table, in the order of its rows; a base comes first. A row without a result says why."""
    rows = [results[row] for row in dict.fromkeys((*([spec.base] if spec.base else []), *spec.rows))]
    lines = ablation(rows[0], rows[1:], spec.check) if spec.base else comparison(rows)
    notes = [CHECK] if spec.check else []
    if splits(rows):
        kinds = sorted({row.several for row in rows})
        notes.append(SPREAD.format(" or ".join("mAP" if several else "top-1" for several in kinds)))
    if any(row.backbone == "fusion" for row in rows):
        notes.append(FUSED)
    return Table(name, spec.title, tuple(map(tuple, lines)), tuple(notes))


def comparison(rows: Sequence[Result]) -> list[list[Cell]]:
    """A line a row: the system, its accuracies with interval and spread, its costs, how it was measured."""
    return [
        [
            Cell("row", row.name, {"row": row.name}, ALWAYS),
            *_system(row),
            *_measures(row, rows),
            _count("params M", "parameters", row.costs.get("parameters"), 1e6),
            _count("MACs G", "macs", row.costs.get("macs"), 1e9),
            *_others(row, rows),
            *_made(row, rows),
        ]
        for row in rows
    ]


def ablation(base: Result, rows: Sequence[Result], check: bool = False) -> list[list[Cell]]:
    """The base, then a line a row: its top-1 or mAP, and its difference from the base's; p is Holm's over the rows."""
    found = [difference(row, base, other_seeds=check) for row in rows]
    ps = claims.adjusted([None if isinstance(one, str) or one.unlike else one.less for one in found])
    tests = sum(p is not None for p in ps)
    return [
        [
            Cell("row", row.name, {"row": row.name}, ALWAYS),
            *_measures(row, (base, *rows)),
            *_difference(less, p, base, tests, check),
            _count("Δ params M", "delta_parameters", _less(row, base, "parameters"), 1e6, "+"),
            _count("Δ MACs G", "delta_macs", _less(row, base, "macs"), 1e9, "+"),
            *(Cell(cell.heading, cell.read, cell.data, DATA) for cell in _system(row)),
            *_made(row, (base, *rows)),
        ]
        for row, less, p in zip((base, *rows), ("base", *found), (None, *ps), strict=True)
    ]


def without_time(suite: str, forward: Mapping[str, Result], probes: Mapping[Order, Mapping[str, Result]]) -> Table:
    """A line a row: its accuracy, and what it loses under each other order of frames.

    Args:
        suite: The suite's name.
        forward: The rows, by name.
        probes: Order -> the rows that were tested under it.
    """
    lines = []
    for name in (name for name in forward if any(name in found for found in probes.values())):
        row = forward[name]
        line = [Cell("row", name, {"row": name}, ALWAYS), *_measures(row, [row])[:1]]
        for order, found in probes.items():
            less = difference(found[name], row) if name in found else "not run"
            estimate = None if isinstance(less, str) else less.less
            text = str(less) if estimate is None else _read(estimate, "+")
            p = "" if estimate is None else f"{estimate.p:.6g}"
            line.append(Cell(f"Δ {order}", text, {**_interval(order, estimate), f"{order}_p": p}, ALWAYS))
        lines.append((*line, *_made(row, list(forward.values()))))
    return Table("time", f"Suite {suite}: what is left when time is taken away", tuple(lines), (TIME,))


def splits(rows: Sequence[Result]) -> list[int]:
    """All splits of the rows, if one of them has several; else none, for there is no spread to print."""
    return sorted({split for row in rows for split in row.splits}) if any(len(row.splits) > 1 for row in rows) else []


def estimate_cells(name: str, key: str, found: Estimate | None, otherwise: str = BLANK) -> list[Cell]:
    """A value with its interval, and its standard deviation over seeds."""
    sd = found.sd if found and found.seeds > 1 else math.nan
    return [
        Cell(f"{name} %", _read(found) if found else otherwise, _interval(key, found), ALWAYS),
        Cell("sd of seeds", BLANK if math.isnan(sd) else number(100 * sd, 1), {"sd_of_seeds": _points(sd)}),
    ]


def _system(row: Result) -> list[Cell]:
    return [
        Cell("data set", row.dataset, {"data_set": row.dataset}),
        Cell("backbone", row.backbone, {"backbone": row.backbone}),
        Cell("attention", row.attention or BLANK, {"attention": row.attention or BLANK}),
        Cell("pre-training", row.pretrained, {"pretrained": row.pretrained}),
    ]


def _measures(row: Result, rows: Sequence[Result]) -> list[Cell]:
    """The row's main accuracy with interval, spread and every seed's value; the words for it where there is none."""
    kinds, found = {other.several for other in rows}, row.accuracy
    status = {"status": found if isinstance(found, str) else "ok"}
    cells: list[Cell] = []
    for several, name, key in ((False, "top-1", "top1"), (True, "mAP", "map")):
        if several in kinds:
            own = row.several == several
            estimate = None if isinstance(found, str) or not own else found.main
            value, spread = estimate_cells(name, key, estimate, str(found) if own and estimate is None else BLANK)
            cells.append(Cell(value.heading, value.read, {**status, **value.data}, ALWAYS))
            status = {}
            if own or len(kinds) == 1:
                spread_cell = spread
    by_seed = {} if isinstance(found, str) else dict(zip(sorted(row.seeds), found.main.by_seed, strict=True))
    seeds = sorted({seed for other in rows for seed in other.seeds})
    data = {f"seed_{seed}": _points(by_seed.get(seed, math.nan)) for seed in seeds}
    return [*cells, Cell(spread_cell.heading, spread_cell.read, {**spread_cell.data, **data})]


def _others(row: Result, rows: Sequence[Result]) -> list[Cell]:
    """Chance, top-5, mean class accuracy or wAP, and the spread over splits."""
    kinds, found, cells = {other.several for other in rows}, row.accuracy, []
    if False in kinds:
        one = found if isinstance(found, Accuracy) else None
        above = one.top1.low > one.chance if one else False
        read = BLANK if one is None else number(100 * one.chance, 1) + ("" if above else ", not beaten")
        data = {"chance": _points(one.chance if one else math.nan), "above_chance": "yes" if above else "no"}
        cells.append(Cell("chance %", read, data if one else dict.fromkeys(data, "")))
        cells.append(_percent("top-5 %", "top5", one.top5.value if one and one.top5 else None))
        cells.append(_percent("mean class %", "mean_class", one.mean_class if one else None))
    if True in kinds:
        several = found if isinstance(found, Precision) else None
        value = estimate_cells("wAP", "wap", several.wap if several else None)[0]
        cells.append(Cell(value.heading, value.read, value.data))
    if numbers := splits(rows):
        own = {} if isinstance(found, str) else found.by_split
        spread = stdev(own.values()) if len(own) > 1 else math.nan
        shares = {f"split_{split}": _points(own.get(split, math.nan)) for split in numbers}
        read = BLANK if math.isnan(spread) else number(100 * spread, 1)
        cells.append(Cell("sd of splits", read, {"sd_of_splits": _points(spread), **shares}))
    return cells


def _made(row: Result, rows: Sequence[Result]) -> list[Cell]:
    """n, test units, seeds, splits, decoded, frames and protocol: on how much, and how, a row was measured."""
    found = None if isinstance(row.accuracy, str) else row.accuracy
    units = found.main.units if found else None
    # Videos that count as wrong because they can't be decoded are never passed over in silence.
    decoded = ALWAYS if any(_decoded(other) not in ("all", BLANK) for other in rows) else DATA
    return [
        Cell("n", str(found.videos) if found else BLANK, {"n": str(found.videos) if found else ""}),
        Cell("units", str(units or BLANK), {"units": str(units or "")}),
        Cell("seeds", str(len(row.seeds)), {"seeds": str(len(row.seeds))}),
        Cell("splits", str(len(row.splits)), {"splits": str(len(row.splits))}),
        Cell("decoded", _decoded(row), {"decoded": str(found.decoded) if found else ""}, decoded),
        Cell("frames", str(row.frames or BLANK), {"frames": str(row.frames or BLANK)}, DATA),
        Cell("protocol", row.protocol, {"protocol": row.protocol}, DATA),
    ]


def _decoded(row: Result) -> str:
    if isinstance(row.accuracy, str):
        return BLANK
    every = row.accuracy.decoded == row.accuracy.videos
    return "all" if every else f"{row.accuracy.decoded} of {row.accuracy.videos}"


def _difference(found: Difference | str, p: float | None, base: Result, tests: int, check: bool) -> list[Cell]:
    """The difference, p, verdict and smallest difference; for the base, or without a difference, the word for that."""
    heading = "Δ mAP" if base.several else "Δ top-1"
    if isinstance(found, str):
        word = found
        return [
            Cell(heading, word, _interval("delta", None), ALWAYS),
            Cell("p", BLANK, {"p": "", "p_holm": "", "p_nets": ""}),
            Cell("verdict", BLANK, {"verdict": word, "seeds_missing": "", "pairs": ""}, ALWAYS),
            Cell("could tell", BLANK, {"smallest": ""}),
        ]
    less = found.less
    lacking = claims.lacking(less.seeds)
    verdict = "" if check else found.unlike or claims.systems(less, p, found.nets)
    read = verdict or BLANK
    if not check and not found.unlike and lacking:
        read = f"{verdict} ({lacking})"
    smallest = power.detectable(less.spread, max(tests, 1)) if less.seeds >= SEEDS and less.units > 1 else math.nan
    shown = less.p if check else p
    return [
        Cell(heading, _read(less, "+"), _interval("delta", less), ALWAYS),
        Cell(
            "p",
            BLANK if shown is None else f"{shown:.3g}",
            {
                "p": f"{less.p:.6g}",
                "p_holm": "" if p is None or check else f"{p:.6g}",
                "p_nets": f"{found.nets:.6g}",
            },
        ),
        Cell(
            "verdict",
            read,
            {
                "verdict": verdict,
                "seeds_missing": str(max(SEEDS - less.seeds, 0)),
                "pairs": str(found.videos),
            },
            ALWAYS,
        ),
        Cell(
            "could tell", BLANK if math.isnan(smallest) else number(100 * smallest, 1), {"smallest": _points(smallest)}
        ),
    ]


def _percent(heading: str, key: str, share: float | None) -> Cell:
    if share is None:
        return Cell(heading, BLANK, {key: ""})
    return Cell(heading, number(100 * share, 1), {key: _points(share)})


def _count(heading: str, key: str, value: float | None, unit: float, sign: str = "") -> Cell:
    """Parameters or MACs: in millions or billions to read, whole in the CSV."""
    if value is None:
        return Cell(heading, BLANK, {key: ""})
    # What attention adds is often a few thousandths of the whole: a difference has a digit more.
    return Cell(heading, number(value / unit, 3 if sign else 2, sign), {key: str(round(value))})


def _less(row: Result, base: Result, cost: str) -> float | None:
    return row.costs[cost] - base.costs[cost] if cost in row.costs and cost in base.costs else None


def _read(found: Estimate, sign: str = "") -> str:
    value, low, high = (number(100 * share, 1, sign) for share in (found.value, found.low, found.high))
    return f"{value} [{low}, {high}]"


def _interval(key: str, found: Estimate | None) -> dict[str, str]:
    shares = (found.value, found.low, found.high) if found else (math.nan,) * 3
    return {name: _points(share) for name, share in zip((key, f"{key}_low", f"{key}_high"), shares, strict=True)}


def _points(share: float) -> str:
    return "" if math.isnan(share) else number(100 * share, 4)
