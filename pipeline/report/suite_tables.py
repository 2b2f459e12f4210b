"""A suite's tables: comparisons, rows against a base, and frames out of order."""

import math
from collections.abc import Mapping, Sequence
from statistics import stdev

from pipeline.config.schema import Order
from pipeline.config.schema import Table as Spec
from pipeline.measure import claims, power
from pipeline.measure.crossed import SEEDS, Estimate
from pipeline.measure.results import Difference, Result, difference
from pipeline.measure.scores import Accuracy, Precision
from pipeline.report.table import ALWAYS, BLANK, DATA, Cell, Table, interval_data, interval_read, number

CHECK = (
    "A check, without a verdict: the rows are one system, trained with other seeds. One of 20 such checks has p < 0.05."
)
SPREAD = "sd of splits: the standard deviation of the splits' own {}, in points."
FUSED = "A fusion is the weighted mean of other rows' scores; its parameters and MACs are the rows' sums."
TIME = (
    "The same trained networks on the same test videos, with their frames reversed, shuffled, or replaced by one of "
    "them (static). Only a system that uses the order of frames loses accuracy."
)


def of(name: str, spec: Spec, results: Mapping[str, Result]) -> Table:
    """Return one table in the order of its rows; a base comes first."""
    rows = [results[row] for row in rows_of(spec)]
    lines = ablation(rows[0], rows[1:], spec.check) if spec.base else comparison(rows)
    notes = [CHECK] if spec.check else []
    if splits(rows):
        kinds = sorted({row.several for row in rows})
        notes.append(SPREAD.format(" or ".join("mAP" if several else "top-1" for several in kinds)))
    if any(row.backbone == "fusion" for row in rows):
        notes.append(FUSED)
    return Table(name, spec.title, tuple(map(tuple, lines)), tuple(notes))


def rows_of(spec: Spec) -> list[str]:
    """Return the rows of a table, its base first."""
    return list(dict.fromkeys((*([spec.base] if spec.base else []), *spec.rows)))


def comparison(rows: Sequence[Result]) -> list[list[Cell]]:
    """Return a line a row: system, accuracies, costs and measurement."""
    return [
        [
            Cell("row", row.name, {"row": row.name}, ALWAYS),
            *_system(row),
            *_measures(row, rows),
            _count("params M", "parameters", row.costs.get("parameters"), 1e6),
            _count("MACs G", "macs", row.costs.get("macs"), 1e9),
            *_others(row, rows),
            *_measurement(row, rows),
        ]
        for row in rows
    ]


def ablation(base: Result, rows: Sequence[Result], check: bool = False) -> list[list[Cell]]:
    """Return a line for the base, and for each row with its difference from the base.

    Args:
        base: The base.
        rows: The rows, over which p is adjusted by Holm.
        check: Whether the rows are the base's system with other seeds, so no line has a verdict.
    """
    differences = [difference(row, base, other_seeds=check) for row in rows]
    ps = claims.adjusted([None if isinstance(less, str) or less.unlike else less.less for less in differences])
    tests = sum(p is not None for p in ps)
    starts = ALWAYS if len({row.pretrained for row in (base, *rows)}) > 1 else DATA
    return [
        [
            Cell("row", row.name, {"row": row.name}, ALWAYS),
            *_measures(row, (base, *rows)),
            *_difference(less, p, base, tests, check),
            _count("Δ params M", "delta_parameters", _less(row, base, "parameters"), 1e6, "+"),
            _count("Δ MACs G", "delta_macs", _less(row, base, "macs"), 1e9, "+"),
            *(Cell(cell.heading, cell.read, cell.data, DATA) for cell in _system(row)[:-1]),
            Cell("pre-training", row.pretrained, {"pretrained": row.pretrained}, starts),
            *_measurement(row, (base, *rows)),
        ]
        for row, less, p in zip((base, *rows), ("base", *differences), (None, *ps), strict=True)
    ]


def without_time(suite: str, forward: Mapping[str, Result], probes: Mapping[Order, Mapping[str, Result]]) -> Table:
    """Return a line a row: its accuracy, and its loss under other orders of frames.

    Args:
        suite: The suite's name.
        forward: The rows, by name.
        probes: Order -> the rows that were tested under it.
    """
    lines = []
    for name in (name for name in forward if any(name in rows for rows in probes.values())):
        row = forward[name]
        line = [Cell("row", name, {"row": name}, ALWAYS), *_measures(row, [row])[:1]]
        for order, rows in probes.items():
            less = difference(rows[name], row) if name in rows else "not run"
            estimate = None if isinstance(less, str) else less.less
            text = str(less) if estimate is None else interval_read(estimate, sign="+")
            p = "" if estimate is None else f"{estimate.p:.6g}"
            line.append(Cell(f"Δ {order}", text, {**interval_data(order, estimate), f"{order}_p": p}, ALWAYS))
        lines.append((*line, *_measurement(row, list(forward.values()))))
    return Table("time", f"Suite {suite}: accuracy with frames out of order", tuple(lines), (TIME,))


def splits(rows: Sequence[Result]) -> list[int]:
    """Return all splits of the rows; none if every row has a single one."""
    return sorted({split for row in rows for split in row.splits}) if any(len(row.splits) > 1 for row in rows) else []


def estimate_cells(name: str, key: str, estimate: Estimate | None, otherwise: str = BLANK) -> list[Cell]:
    """Return a value with its interval, and its standard deviation over seeds."""
    sd = estimate.sd if estimate and estimate.seeds > 1 else math.nan
    read = interval_read(estimate) if estimate else otherwise
    return [
        Cell(f"{name} %", read, interval_data(key, estimate), ALWAYS),
        Cell("sd of seeds", number(100 * sd, 1) or BLANK, {"sd_of_seeds": number(100 * sd, 4)}),
    ]


def _system(row: Result) -> list[Cell]:
    return [
        Cell("data set", row.dataset, {"data_set": row.dataset}),
        Cell("backbone", row.backbone, {"backbone": row.backbone}),
        Cell("attention", row.attention or BLANK, {"attention": row.attention or BLANK}),
        Cell("pre-training", row.pretrained, {"pretrained": row.pretrained}),
    ]


def _measures(row: Result, rows: Sequence[Result]) -> list[Cell]:
    """Return the row's main accuracy with its spread, or the reason for none."""
    kinds, accuracy = {other.several for other in rows}, row.accuracy
    status = {"status": accuracy if isinstance(accuracy, str) else "ok"}
    cells: list[Cell] = []
    for several, name, key in ((False, "top-1", "top1"), (True, "mAP", "map")):
        if several in kinds:
            same = row.several == several
            estimate = None if isinstance(accuracy, str) or not same else accuracy.main
            value, spread = estimate_cells(name, key, estimate, str(accuracy) if same and estimate is None else BLANK)
            cells.append(Cell(value.heading, value.read, {**status, **value.data}, ALWAYS))
            status = {}
            if same or len(kinds) == 1:
                spread_cell = spread
    by_seed = {} if isinstance(accuracy, str) else dict(zip(sorted(row.seeds), accuracy.main.by_seed, strict=True))
    seeds = sorted({seed for other in rows for seed in other.seeds})
    data = {f"seed_{seed}": number(100 * by_seed.get(seed, math.nan), 4) for seed in seeds}
    return [*cells, Cell(spread_cell.heading, spread_cell.read, {**spread_cell.data, **data})]


def _others(row: Result, rows: Sequence[Result]) -> list[Cell]:
    """Return chance, top-5, mean class accuracy or wAP, and the spread over splits."""
    kinds, cells = {other.several for other in rows}, []
    if False in kinds:
        top = row.accuracy if isinstance(row.accuracy, Accuracy) else None
        above = top.top1.low > top.chance if top else False
        read = BLANK if top is None else number(100 * top.chance, 1) + ("" if above else ", not beaten")
        beaten = "" if top is None else "yes" if above else "no"
        chance = number(100 * top.chance, 4) if top else ""
        cells.append(Cell("chance %", read, {"chance": chance, "above_chance": beaten}))
        cells.append(_percent("top-5 %", "top5", top.top5.value if top and top.top5 else math.nan))
        cells.append(_percent("mean class %", "mean_class", top.mean_class if top else math.nan))
    if True in kinds:
        value = estimate_cells("wAP", "wap", row.accuracy.wap if isinstance(row.accuracy, Precision) else None)[0]
        cells.append(Cell(value.heading, value.read, value.data))
    if numbers := splits(rows):
        by_split = {} if isinstance(row.accuracy, str) else row.accuracy.by_split
        spread = _percent("sd of splits", "sd_of_splits", stdev(by_split.values()) if len(by_split) > 1 else math.nan)
        shares = {f"split_{split}": number(100 * by_split.get(split, math.nan), 4) for split in numbers}
        cells.append(Cell(spread.heading, spread.read, {**spread.data, **shares}))
    return cells


def _measurement(row: Result, rows: Sequence[Result]) -> list[Cell]:
    """Return n, test units, seeds, splits, decoded, frames and protocol."""
    accuracy = None if isinstance(row.accuracy, str) else row.accuracy
    units = accuracy.main.units if accuracy else None
    # The column always shows if videos can't be decoded, since they count as wrong.
    decoded = ALWAYS if any(_decoded(other) not in ("all", BLANK) for other in rows) else DATA
    return [
        Cell("n", str(accuracy.videos) if accuracy else BLANK, {"n": str(accuracy.videos) if accuracy else ""}),
        Cell("units", str(units or BLANK), {"units": str(units or "")}),
        Cell("seeds", str(len(row.seeds)), {"seeds": str(len(row.seeds))}),
        Cell("splits", str(len(row.splits)), {"splits": str(len(row.splits))}),
        Cell("decoded", _decoded(row), {"decoded": str(accuracy.decoded) if accuracy else ""}, decoded),
        Cell("frames", str(row.frames or BLANK), {"frames": str(row.frames or BLANK)}, DATA),
        Cell("protocol", row.protocol, {"protocol": row.protocol}, DATA),
    ]


def _decoded(row: Result) -> str:
    if isinstance(row.accuracy, str):
        return BLANK
    every = row.accuracy.decoded == row.accuracy.videos
    return "all" if every else f"{row.accuracy.decoded} of {row.accuracy.videos}"


def _difference(delta: Difference | str, p: float | None, base: Result, tests: int, check: bool) -> list[Cell]:
    """Return the difference or the word in its place, p, verdict and resolution."""
    heading = "Δ mAP" if base.several else "Δ top-1"
    if isinstance(delta, str):
        return [
            Cell(heading, delta, interval_data("delta", None), ALWAYS),
            Cell("p", BLANK, {"p": "", "p_holm": "", "p_nets": ""}),
            Cell("verdict", BLANK, {"verdict": delta, "seeds_missing": "", "pairs": ""}, ALWAYS),
            Cell("could tell", BLANK, {"smallest": ""}),
        ]
    less = delta.less
    verdict = "" if check else delta.unlike or claims.systems(less, p, delta.nets)
    read = verdict if check or delta.unlike else claims.with_lacking(verdict, less.seeds)
    missing = {"seeds_missing": str(max(SEEDS - less.seeds, 0)), "pairs": str(delta.videos)}
    known = less.seeds >= SEEDS and less.units > 1
    smallest = power.detectable(power.planned(less.spread, less.seeds), max(tests, 1)) if known else math.nan
    shown = less.p if check else p
    holm = "" if p is None or check else f"{p:.6g}"
    return [
        Cell(heading, interval_read(less, sign="+"), interval_data("delta", less), ALWAYS),
        Cell(
            "p",
            BLANK if shown is None else f"{shown:.3g}",
            {"p": f"{less.p:.6g}", "p_holm": holm, "p_nets": f"{delta.nets:.6g}"},
        ),
        Cell("verdict", read or BLANK, {"verdict": verdict, **missing}, ALWAYS),
        Cell("could tell", "none", {"smallest": number(100 * smallest, 4)})
        if smallest > 1  # more than any two systems differ
        else _percent("could tell", "smallest", smallest),
    ]


def _percent(heading: str, key: str, share: float) -> Cell:
    """Return a share in %; blank if it is NaN."""
    return Cell(heading, number(100 * share, 1) or BLANK, {key: number(100 * share, 4)})


def _count(heading: str, key: str, value: float | None, unit: float, sign: str = "") -> Cell:
    """Return parameters or MACs: in millions or billions to read, whole in the CSV."""
    if value is None:
        return Cell(heading, BLANK, {key: ""})
    # Attention often adds a few thousandths of the whole, so a difference has a digit more.
    return Cell(heading, number(value / unit, 3 if sign else 2, sign), {key: str(round(value))})


def _less(row: Result, base: Result, cost: str) -> float | None:
    return row.costs[cost] - base.costs[cost] if cost in row.costs and cost in base.costs else None
