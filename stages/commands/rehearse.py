"""Rehearsal of a suite: each distinct net and recipe for some steps at full size."""

import json
import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from cluster.session import MALLOC
from pipeline.config.schema import Params
from pipeline.config.signature import views_per_video
from stages import DATA
from stages.commands.trial import Rehearsal, Row, rehearsal, row_of
from stages.repro.estimate import cores
from stages.terminal import amount, show_json, show_table

EACH = 8 << 30  # bytes of free memory for each of several nets at a time; with one clip none of the papers' takes more


@dataclass(frozen=True)
class Rehearsed:
    """A net and recipe, the rows that share them, and their cost on this device.

    Attributes:
        weights: "loaded", "none", "missing: <path>" or "not fetched: <URL>".
        hours: Of this device, for all runs of the rows; None if the number of clips or a rate is unknown.
        dollars: The same at the price of an hour.
    """

    rows: tuple[str, ...]
    net: str
    recipe: str
    weights: str
    found: Rehearsal
    hours: float | None
    dollars: float | None


def show(params: Params, steps: int, clips: int | None, price: float | None, json_: bool) -> bool:
    """Rehearse a suite and print a table or JSON; return True if a row would fail."""
    done = list(rehearse(params, steps, clips, price))
    failing = [each for each in done if each.found.error]
    lacking = sorted({each.weights for each in done if each.weights.startswith(("missing", "not fetched"))})
    known = [each.hours for each in done if each.hours is not None]
    if json_:
        document = {"suite": params.suite, "steps": steps, "clips": clips, "price": price}
        show_json({**document, "hours": sum(known), "rehearsed": [asdict(each) for each in done]})
        return bool(failing)
    heads = ["rows", "net", "recipe", "weights", "loss", "clips/s", "views/s", "memory", "hours", "$"]
    show_table(heads, (_line(each) for each in done))
    device = next((each.found.device for each in done if each.found.device), "no device")
    cost = f", ${sum(known) * price:,.2f}" if price is not None else ""
    print(f"\n{device}: {sum(known):,.1f} device-hours{cost} for {len(known)} of {len(done)} nets and recipes")
    if uncounted := [each.rows[0] for each in done if any(_windowed(params, row) for row in each.rows)]:
        print(f"hours count one clip a test video, where its length decides the number: {_first(uncounted)}")
    for words in lacking:
        print(f"weights {words}")
    for each in failing:
        print(f"would fail: {', '.join(each.rows)}: {each.found.error}")
    if not failing:
        print("no row would fail")
    return bool(failing)


def rehearse(params: Params, steps: int, clips: int | None, price: float | None) -> Iterator[Rehearsed]:
    """Rehearse each distinct net and recipe in a separate process; report on stderr.

    Args:
        params: The suite's params.
        steps: Training steps on one batch of noise.
        clips: Of a step and of an evaluation batch, for small devices; default: as published. The learning rate follows
            by the linear rule. Given, a machine without a GPU rehearses several nets at a time, as runs train there,
            each on its share of the cores.
        price: Dollars per hour of the device.
    """
    grouped: dict[str, list[str]] = {}
    for name, experiment in params.experiments.items():
        built = experiment.backbone, experiment.variant, experiment.attention, experiment.knobs, experiment.weights
        protocol = params.protocols[experiment.protocol]
        tested = protocol.frames, protocol.size, protocol.batch
        recipe = asdict(params.recipe(experiment)) | {"trained": experiment.recipe is not None}
        grouped.setdefault(json.dumps([built, tested, recipe], sort_keys=True), []).append(name)
    places = 1 if clips is None else at_a_time()
    found = [_weights(params.experiments[rows[0]].weights) for rows in grouped.values()]
    trials = _trials(params, [rows[0] for rows in grouped.values()], [path for path, _ in found], steps, clips, places)
    for number, (rows, (_, weights), trial) in enumerate(zip(grouped.values(), found, trials, strict=True), 1):
        experiment = params.experiments[rows[0]]
        if trial.error and weights.startswith(("missing", "not fetched")):
            trial = replace(trial, error=f"{trial.error} (from random weights, because its weights are missing)")
        hours = None if trial.error else _hours(params, rows, trial)
        net = f"{experiment.backbone}-{experiment.variant}, {experiment.attention}"
        dollars = None if hours is None or price is None else hours * price
        done = Rehearsed(tuple(rows), net, experiment.recipe or "none", weights, trial, hours, dollars)
        outcome = trial.error or f"{_losses(trial)}, {amount(trial.memory)}"
        print(f"{number} of {len(grouped)}: {rows[0]}: {outcome}", file=sys.stderr, flush=True)
        yield done


def at_a_time() -> int:
    """Return the number of nets that this machine rehearses at a time."""
    import torch

    if torch.cuda.is_available():
        return 1
    return max(1, min(cores(), psutil.virtual_memory().available // EACH))


def _trials(
    params: Params, names: Sequence[str], weights: Sequence[Path | None], steps: int, clips: int | None, places: int
) -> Iterator[Rehearsal]:
    """Yield the rehearsals of rows in order, `places` at a time."""
    threads = max(1, cores() // places)
    with ThreadPoolExecutor(places) as pool:
        waiting = [
            pool.submit(in_process, row_of(params, name, DATA), path, steps, clips, threads)
            for name, path in zip(names, weights, strict=True)
        ]
        try:
            for each in waiting:
                yield each.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _weights(source: str | None) -> tuple[Path | None, str]:
    """Return a row's present file of weights, and its state in words."""
    from pipeline.config import places

    if source is None:
        return None, "none"
    if places.remote(source):
        return None, f"not fetched: {source.partition('#')[0]}"
    path = places.path_of(Path(), source)
    return (path, "loaded") if path.is_file() else (None, f"missing: {source}")


def in_process(row: Row, weights: Path | None, steps: int, clips: int | None, threads: int) -> Rehearsal:
    """Return the rehearsal of a row from a separate process, which may crash."""
    os.environ.update({name: os.environ.get(name, value) for name, value in MALLOC.items()})  # as in training
    # Forks of a process that has done slow imports; an optimizer's first step imports torch._dynamo.
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipeline.train.loop", "stages.commands.trial", "torch._dynamo"])
    try:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            return pool.submit(rehearsal, row, weights, steps, clips, threads).result()
    except BrokenProcessPool:
        return Rehearsal(error="its process was killed, perhaps by lack of memory; fewer --clips may fit")


def _hours(params: Params, rows: Sequence[str], trial: Rehearsal) -> float | None:
    """Return the hours of all runs of these rows at the measured rates."""
    seconds = 0.0
    for name in rows:
        experiment = params.experiments[name]
        recipe, protocol = params.recipe(experiment), params.protocols[experiment.protocol]
        views = (views_per_video(protocol) or 1) * (1 + len(protocol.probes))
        for split in experiment.splits:
            parts = _parts(params, name, split)
            trained, tested = sum(parts.get(part, 0) for part in recipe.train), parts.get("test", 0)
            if not trained or not tested or not trial.views_per_second:
                return None
            seconds += len(experiment.seeds) * tested * views / trial.views_per_second
            if experiment.recipe and not trial.clips_per_second:
                return None
            if experiment.recipe:
                seconds += len(experiment.seeds) * trained * recipe.epochs / trial.clips_per_second
    return seconds / 3600


def _windowed(params: Params, row: str) -> bool:
    return views_per_video(params.protocols[params.experiments[row].protocol]) is None


def _parts(params: Params, row: str, split: int) -> dict[str, int]:
    """Count the videos of each part of a row's split: by its table, or as plan expects them."""
    from stages.repro.estimate import expected_videos, videos

    name = params.experiments[row].dataset
    return videos(DATA / "splits" / name, split) or expected_videos(name, params).get(split, {})


def _first(names: Sequence[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _losses(trial: Rehearsal) -> str:
    """Format the first and the last loss; "–" for a row without training."""
    return f"{trial.losses[0]:.4g} -> {trial.losses[-1]:.4g}" if trial.losses else "–"


def _line(each: Rehearsed) -> list[str]:
    trial, names = each.found, _first(each.rows)
    rates = [f"{rate:.3g}" if rate else "–" for rate in (trial.clips_per_second, trial.views_per_second)]
    money = [f"{value:,.1f}" if value is not None else "–" for value in (each.hours, each.dollars)]
    state = each.weights.partition(":")[0]
    if trial.error:
        return [names, each.net, each.recipe, state, "fails", *rates, "–", *money]
    return [names, each.net, each.recipe, state, _losses(trial), *rates, amount(trial.memory), *money]
