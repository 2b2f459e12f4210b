"""Training of every paper's own rows by their published recipes, for some steps on drawn clips.

    python -m bench.rehearsal [--steps 60] [--suites istpa ...] [--full ROW ...]

Rows with one net and recipe train once. Learning rate, batch, micro batch, frames, losses, frozen stages and
augmentation are the recipe's. Warm-up and steps down are left out, so all steps have the highest rate. Clips are the
data set shapes at 64 pixels, and nets are the tiny members of their backbones, from random weights. `--full` trains the
given rows with the published net and size in their place, and a batch of 8 by the linear rule. A row passes if loss and
gradient are finite at every step, and the mean loss of the last tenth of steps is below that of the first. Where
an attention adds losses, the classification loss is given as well: ISTPA's have no lower bound, and follow the size of
the maps.

A row that fails, and starts from pre-trained weights as published, is trained again from such weights: those of its
backbone without a module, after EPOCHS epochs on the same clips. Both results are given.

Rows that are in the report's CSV already, under the same code, are kept; so are those of suites that are not asked for.
"""

import argparse
import csv
import hashlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from bench.report import RESULTS, save
from models.video import VideoNet
from pipeline.config.schema import Experiment, Protocol, Recipe
from pipeline.digest import code
from pipeline.errors import UserError
from pipeline.train import loop
from pipeline.train.run import Run
from stages.commands.trial import classification
from stages.repro.compose import composed
from tests.support import project

SYSTEMS = ("maagn", "istpa", "eam", "action", "st_manet")  # each has a suite of its paper
SUITES = ("maagn", "istpa", "eam", "action_net", "st_manet")
SIZE, BATCH, EPOCHS = 64, 8, 24
FALLS, RISES = "trains", "loss doesn't fall"
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Trained:
    """A net and recipe of a suite, and the rows that share them."""

    suite: str
    rows: tuple[str, ...]
    experiment: Experiment
    recipe: Recipe
    protocol: Protocol
    net: str
    pretrained: bool  # as published

    @property
    def recipe_name(self) -> str:
        return str(self.experiment.recipe)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--suites", nargs="+", default=SUITES, choices=SUITES)
    parser.add_argument("--full", nargs="*", default=[], help="rows to train at full size too")
    args = parser.parse_args()
    torch.set_num_threads(1)
    todo = [each for suite in SUITES for each in own_rows(suite, args.full)]
    digest, done = code.files(ROOT)["stages/train"], earlier()
    keys = [key(each, args.steps, digest) for each in todo]
    results = {number: {**done[name], **facts(todo[number])} for number, name in enumerate(keys) if name in done}
    asked = [number for number, each in enumerate(todo) if each.suite in args.suites]
    with tempfile.TemporaryDirectory() as place:
        clips = decoded(Path(place) / "project") if {*asked} - {*results} else None
        for number in asked:
            if clips and number not in results:
                each = todo[number]
                results[number] = {**facts(each), **rehearsed(each, args.steps, clips), "key": keys[number]}
                print(f"{number + 1} of {len(todo)}: {each.rows[0]}: {results[number]['state']}", flush=True)
                report([results[number] for number in sorted(results)], args.steps, len(todo))
    report([results[number] for number in sorted(results)], args.steps, len(todo))


def key(each: Trained, steps: int, digest: str) -> str:
    """Return a result's key: of its settings and of the code that trains."""
    settings = json.dumps([steps, digest, asdict(each.experiment), asdict(each.recipe)], sort_keys=True)
    return hashlib.sha256(settings.encode()).hexdigest()[:16]


def own_rows(suite: str, full: list[str]) -> Iterator[Trained]:
    """Yield each distinct net and recipe of a suite's own systems, with tiny nets and published recipes."""
    published, small = composed(suite), composed(suite, "tier=mini")
    grouped: dict[str, list[str]] = {}
    for name, experiment in published.experiments.items():
        if experiment.attention in SYSTEMS:
            recipe = published.recipe(experiment)
            shrunk = replace(small.experiments[name], weights=None, dataset="shapes", splits=(1,), seeds=(0,))
            shrunk = replace(shrunk, recipe=experiment.recipe)
            trained = asdict(replace(recipe, epochs=1, steps=(), train=("train",)))
            same = replace(shrunk, recipe="", protocol="")
            grouped.setdefault(json.dumps([asdict(same), trained], sort_keys=True), []).append(name)
    for rows in grouped.values():
        experiment = published.experiments[rows[0]]
        recipe, protocol = published.recipe(experiment), published.protocols[experiment.protocol]
        recipe = replace(recipe, train=("train",), steps=(), warmup_epochs=0)
        tiny = replace(small.experiments[rows[0]], weights=None, recipe=experiment.recipe)
        names = tuple(rows)
        at = replace(recipe, size=SIZE)
        starts = experiment.weights is not None
        yield Trained(suite, names, tiny, at, protocol, f"{tiny.backbone}-{tiny.variant}, {SIZE} px", starts)
        if wanted := sorted({*rows} & {*full}):
            micro = min(BATCH, recipe.micro_batch)
            less = replace(recipe, batch=BATCH, micro_batch=micro, lr=recipe.lr * BATCH / recipe.batch)
            net = f"{experiment.backbone}-{experiment.variant}, {recipe.size} px"
            yield Trained(suite, tuple(wanted), replace(experiment, weights=None), less, protocol, net, False)


def decoded(folder: Path) -> Path:
    """Return the data folder of a new project with the drawn clips and their flow."""
    params = project.load()
    params["datasets"]["shapes"]["decode"]["flow"] = {"algorithm": "dis", "bound": 20.0, "compensated": True}
    project.copy(folder, params)
    variables = {**os.environ, "PYTHONPATH": str(folder)}
    for stage in ("code", "download", "decode", "splits"):
        arguments = [] if stage == "code" else ["shapes"]
        command = [sys.executable, "-m", f"stages.{stage}", *arguments]
        subprocess.run(command, cwd=folder, env=variables, check=True, stdout=subprocess.DEVNULL)
    return folder / "data"


def facts(each: Trained) -> dict[str, Any]:
    knobs = ", ".join(f"{key} {value}" for key, value in each.experiment.knobs.items())
    recipe = each.recipe
    return {
        "suite": each.suite,
        "rows": " ".join(each.rows),
        "net": each.net,
        "attention": each.experiment.attention + (f" ({knobs})" if knobs else ""),
        "recipe": each.recipe_name,
        "batch": recipe.batch,
        "frames": recipe.frames,
        "lr": f"{recipe.lr:g}",
    }


def rehearsed(each: Trained, steps: int, data: Path) -> dict[str, Any]:
    """Return the result of a row, trained again from weights if need be."""
    first = trained(each, steps, data)
    if first["state"] != RISES or not each.pretrained:
        return first
    with tempfile.TemporaryDirectory() as place:
        again = trained(each, steps, data, pretrained(each, data, Path(place) / "weights.pt"))
    both = {key: f"{first[key]}; from weights {again[key]}" for key in ("loss", "classification") if first[key]}
    return {**again, **both, "state": f"{again['state']} from weights"}


def pretrained(each: Trained, data: Path, path: Path) -> Path:
    """Train the row's backbone without a module on the clips; write the row's net with its weights to path."""
    recipe = replace(each.recipe, epochs=EPOCHS, steps=(EPOCHS * 3 // 4,), batch=16, micro_batch=16, lr=0.02)
    recipe = replace(recipe, clip_grad=20.0, frozen=(), dropout=0.0)
    own = replace(each.experiment, dataset="shapes", splits=(1,), seeds=(0,))
    plain = replace(own, attention="none", knobs={})
    for epoch in loop.epochs(Run("plain", plain, recipe, each.protocol, 1, 0, data), None, None, torch.device("cpu")):
        state = epoch.state["model"]
    torch.manual_seed(0)
    fresh = Run(each.rows[0], own, each.recipe, each.protocol, 1, 0, data).net(None).state_dict()
    torch.save(fresh | {name: value for name, value in state.items() if not name.startswith("head.")}, path)
    return path


def trained(each: Trained, steps: int, data: Path, weights: Path | None = None) -> dict[str, Any]:
    """Return the state, losses and largest gradient norm of a training."""
    videos = project.load()["datasets"]["shapes"]["options"]["train"]
    epochs = math.ceil(steps / (videos // each.recipe.batch))
    experiment = replace(each.experiment, dataset="shapes", splits=(1,), seeds=(0,))
    run = Run(each.rows[0], experiment, replace(each.recipe, epochs=epochs), each.protocol, 1, 0, data)
    began, lines = time.perf_counter(), list[loop.Line]()
    try:
        with penalties() as terms:
            for epoch in loop.epochs(run, weights, None, torch.device("cpu")):
                lines += [line for line in epoch.lines if line["kind"] == "steps"]
    except UserError as error:
        return {"state": f"fails: {error}", "loss": "", "classification": "", "grad_norm": "", "seconds": ""}
    losses = [float(line["loss"]) for line in lines]
    without = classification(losses, terms)[:steps]
    first, last = ends(losses[:steps])
    norm = max(float(line["grad_norm"]) for line in lines)
    return {
        "state": FALLS if last < first else RISES,
        "loss": f"{first:.4g} -> {last:.4g}",
        "classification": "{:.4g} -> {:.4g}".format(*ends(without)) if any(terms) else "",
        "grad_norm": f"{norm:.3g}",
        "seconds": round(time.perf_counter() - began, 1),
    }


def ends(losses: list[float]) -> tuple[float, float]:
    """Return the means of the first and of the last tenth."""
    tenth = max(1, len(losses) // 10)
    return fmean(losses[:tenth]), fmean(losses[-tenth:])


@contextmanager
def penalties() -> Iterator[list[float]]:
    """Yield a list to which every micro batch's penalties are added."""
    terms, original = list[float](), VideoNet.penalty

    def recorded(net: VideoNet, criterion: Callable[[Tensor], Tensor]) -> Tensor:
        penalty = original(net, criterion)
        terms.append(float(penalty.detach()))
        return penalty

    VideoNet.penalty = recorded  # type: ignore[method-assign]
    try:
        yield terms
    finally:
        VideoNet.penalty = original  # type: ignore[method-assign]


def earlier() -> dict[str, dict[str, Any]]:
    """Return the rows of the report's CSV, by their key."""
    path = RESULTS / "rehearsal.csv"
    if not path.exists():
        return {}
    with path.open() as file:
        return {row["key"]: dict(row) for row in csv.DictReader(file)}


def report(measured: list[dict[str, Any]], steps: int, planned: int) -> None:
    passed = sum(str(result["state"]).startswith(FALLS) for result in measured)
    text = f"{passed} of {len(measured)} nets and recipes train, {steps} steps each; {planned} are planned."
    cells = ["net", "attention", "recipe", "batch", "lr", "loss", "classification", "grad_norm", "state"]
    head = ["suite", "row", *(cell.replace("grad_norm", "largest gradient norm") for cell in cells)]
    lines = []
    for result in measured:
        first, *others = str(result["rows"]).split()
        name = f"{first} and {len(others)} more" if others else first
        named = [str(result.get(cell, "")) for cell in cells]
        lines.append([str(result["suite"]), name, *named])
    save("rehearsal", "Every own row trains by its published recipe", text, head, lines, measured)


if __name__ == "__main__":
    main()
