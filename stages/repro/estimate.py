"""Estimates of a stage's time and of its output in bytes, with their sources."""

import json
import math
import os
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.auto import Placed, at_once, resolved
from pipeline.aggregate import speeds as logged
from pipeline.aggregate.speeds import gpus
from pipeline.config.schema import AUTO, Cluster, Params, planes
from pipeline.errors import UserError
from pipeline.tracking import run_log
from stages.repro.plan import Step, key, noun, settings
from stages.terminal import duration

if TYPE_CHECKING:
    from models.video import VideoNet
    from pipeline.storage.remote import Place

FORWARD = 1 / 3  # of a training step's cost: the backward pass takes twice the forward's
# Seconds of a stage that aren't training or testing: imports, Ray, nets, DVC. bench/results/repro.md has what the 30
# stages of suite quick took beyond their work, and between them.
START = 8.0


@dataclass(frozen=True)
class Estimate:
    """An estimate and its source; for an unknown value (None), the reason."""

    value: float | None
    source: str


@dataclass(frozen=True)
class Net:
    """Everything that determines the cost of a clip."""

    backbone: str
    variant: str
    attention: str
    knobs: str  # as JSON
    frames: int
    size: int
    precision: str
    planes: int


@dataclass(frozen=True)
class Speed:
    """A row's training speed, from its log."""

    row: str
    net: Net
    clips_per_second: float
    workers: int = 1  # together
    reference: bool = False  # of the reference machine, instead of this one


def seconds(step: Step, params: Params, data: Path, speeds: Mapping[str, Speed]) -> Estimate:
    """Estimate the seconds of all runs of a step, one after the other.

    The speed is the row's measured one if its net is unchanged; otherwise the nearest row's, scaled by MACs.
    """
    if noun(step.stage) not in ("train", "evaluate"):
        return Estimate(None, "nothing is measured for this stage")
    row = key(step.stage)
    experiment = params.experiments[row]
    recipe, protocol = params.recipe(experiment), params.protocols[experiment.protocol]
    training = noun(step.stage) == "train"
    if training and experiment.recipe is None:
        return Estimate(0.0, "weights are only converted")
    counts = [videos(data / "splits" / experiment.dataset, split) for split in experiment.splits]
    if not all(counts):
        expected = expected_videos(experiment.dataset, params)
        counts = [count or expected.get(split, {}) for split, count in zip(experiment.splits, counts, strict=True)]
    if not all(counts):
        return Estimate(None, "the splits do not exist yet")
    parts = recipe.train if training else ("test",)
    clips = len(experiment.seeds) * sum(count.get(part, 0) for count in counts for part in parts)
    if training:
        clips *= recipe.epochs
    else:
        from pipeline.config.signature import views_per_video

        views = views_per_video(protocol)
        if views is None:
            return Estimate(None, "the number of windows depends on a video's length")
        clips *= views * (1 + len(protocol.probes))
    shape = net(asdict(experiment), asdict(recipe), recipe.size if training else protocol.size)
    rate = _rate(row, shape, speeds)
    if rate.value is None:
        return rate
    return Estimate(clips / rate.value * (1 if training else FORWARD), rate.source)


def work(seconds: float, cluster: Cluster, speeds: Mapping[str, Speed]) -> str:
    """Format seconds of sequential runs, also as hours of the devices that they use."""
    if cluster.gpus_per_worker == AUTO and not local(cluster):
        return f"{duration(seconds)} of work"  # only the cluster knows which devices it holds
    placed = here(cluster)
    kind, each = ("GPU", placed.gpus_per_worker) if placed.gpus_per_worker else ("CPU", placed.cpus_per_worker)
    hours = seconds / 3600 * statistics.median(speed.workers for speed in speeds.values()) * each
    return f"{duration(seconds)} of work ({hours:.2g} {kind}-hours)"


def wall(known: Iterable[tuple[Step, float]], cluster: Cluster) -> float | None:
    """Return the seconds of stages one after another on this machine, from the work of each; None elsewhere.

    Speeds are of runs that shared the machine as these will.
    """
    slots = side_by_side(cluster)
    if slots is None:
        return None
    shared = not here(cluster).gpus_per_worker and here(cluster).team[1] == 1

    def parallel(step: Step) -> float:
        if not (runs := len(step.runs)):
            return slots
        return runs / math.ceil(runs / (at_once(runs, slots) if shared and noun(step.stage) == "train" else slots))

    return sum(START + seconds / parallel(step) for step, seconds in known)


def size(step: Step, data: Path) -> Estimate:
    """Estimate a step's output in bytes from its last output, or from the videos."""
    places = {
        "decode": ["frames/{}"],
        "splits": ["splits/{}"],
        "train": ["runs/{}"],
        "evaluate": ["predictions/{}"],
        "trajectories": ["predictions/{}"],
    }
    folders = [data / place.format(key(step.stage)) for place in places.get(noun(step.stage), [])]
    total = sum(path.stat().st_size for place in folders for path in place.rglob("*") if path.is_file())
    if total:
        return Estimate(total, "the last run")
    if noun(step.stage) in ("download", "decode"):
        total = manifest_bytes(data / "raw" / key(step.stage) / "manifest.csv")
        if total:
            return Estimate(total, "the videos" if noun(step.stage) == "download" else "the videos; frames take more")
    return Estimate(None, "no output yet")


def measured(data: Path, locked: Mapping[str, Any]) -> dict[str, Speed]:
    """Return row -> training speed, for rows with a log.

    `locked` are the stages of dvc.lock, with the settings of the runs.
    """
    speeds = {}
    for folder in sorted((data / "runs").glob("*")):
        ran = settings(locked.get(f"train@{folder.name}", {}))
        experiment = ran.get(f"experiments.{folder.name}")
        recipe = next((value for name, value in ran.items() if name.startswith("recipes.")), None)
        if recipe and experiment and (speed := logged.measured(data, folder.name)):
            speeds[folder.name] = Speed(folder.name, net(experiment, recipe), *speed)
    return speeds


def known(params: Params, data: Path, locked: Mapping[str, Any], reports: Path = Path("reports")) -> dict[str, Speed]:
    """Return the speeds measured here; before the first training, the reference machine's.

    Those are of CPUs, so they say nothing about GPUs or the machines of a named cluster.
    """
    here_measured = measured(data, locked)
    if here_measured or not local(params.cluster) or here(params.cluster).gpus_per_worker:
        return here_measured
    return referenced(reports, params.suite)


def referenced(reports: Path, suite: str) -> dict[str, Speed]:
    """Return row -> training speed of a suite's reference run; without one, of another suite's."""
    from pipeline.config import load

    saved = sorted((reports / "reference").glob(f"*/{logged.FILE}"), key=lambda path: path.parent.name != suite)
    for path in saved:
        params = load.load(path.parent / "params.yaml")
        rows = {row: speed for row, speed in logged.load(path).items() if row in params.experiments}
        return {
            row: Speed(row, net(asdict(experiment), asdict(params.recipe(experiment))), *rows[row], reference=True)
            for row, experiment in params.experiments.items()
            if row in rows
        }
    return {}


def origin(speeds: Mapping[str, Speed]) -> str:
    """Return a remark on speeds that were not measured here, or ""."""
    if not any(speed.reference for speed in speeds.values()):
        return ""
    return f"from the reference machine's speeds; {cores()} cores here"


def net(experiment: Mapping[str, Any], recipe: Mapping[str, Any], size: int | None = None) -> Net:
    """Return the part of a row's params that determines the cost of a clip."""
    return Net(
        backbone=experiment["backbone"],
        variant=experiment["variant"],
        attention=experiment["attention"],
        knobs=json.dumps(experiment["knobs"], sort_keys=True),
        frames=recipe["frames"],
        size=size or recipe["size"],
        precision=recipe.get("precision", "auto"),
        planes=planes(**{name: recipe[name] for name in ("input", "stack") if name in recipe}),
    )


def cores() -> int:
    """Return the number of CPU cores that this process may use.

    macOS has no affinity: all of them.
    """
    if sys.platform == "darwin":
        return os.cpu_count() or 1
    return len(os.sched_getaffinity(0))


def side_by_side(cluster: Cluster) -> int | None:
    """Return the number of runs that fit on this machine; None for a named cluster."""
    if not local(cluster):
        return None
    placed = here(cluster)
    workers = placed.team[1]  # of a range, Ray gives the first runs as many as possible
    slots = cores() // (workers * placed.cpus_per_worker)
    if placed.gpus_per_worker:
        slots = min(slots, int(gpus() / (workers * placed.gpus_per_worker)))
    return max(1, slots)


def local(cluster: Cluster) -> bool:
    """Return true if Ray is started on this machine."""
    return not os.environ.get("RAY_ADDRESS") and cluster.address == "local"


def here(cluster: Cluster) -> Placed:
    """Resolve `auto` with this machine's resources, for one worker a run."""
    return resolved(cluster, [{"CPU": cores(), "GPU": gpus()}], runs=max(1, gpus()))


@cache
def videos(splits: Path, split: int) -> dict[str, int]:
    """Count the videos of each part of a split; empty for a missing or damaged table."""
    import pyarrow.parquet

    path = splits / f"split-{split}.parquet"
    if not path.is_file():
        return {}
    try:
        counts = pyarrow.parquet.read_table(path, columns=["part"])["part"].value_counts().to_pylist()
    except (pyarrow.ArrowException, OSError):
        return {}
    return {count["values"]: count["counts"] for count in counts}


def expected_videos(name: str, params: Params) -> dict[int, dict[str, int]]:
    """Return each split's videos by part before the splits stage: by options, lists, or as published."""
    from pipeline import datasets, subset
    from pipeline.config import places

    dataset, part = params.datasets[name], params.tier.subset
    plugin = datasets.loaded(dataset.file)
    each = 2 if dataset.direction else 1  # rows of a video
    if dataset.source == "generated" or not plugin.COUNTS:
        with suppress(UserError, OSError):  # absent lists
            whole = plugin.splits(places.lists(dataset, Path(), Path("data") / "videos" / name), dataset.options)
            rows = (subset.reduced(whole, part) if part else whole).rows
            return {split: dict(Counter(row.part for row in listed * each)) for split, listed in rows.items()}
    return {
        split: {
            name: each * (min(count, part.classes * (part.train if name == "train" else part.test)) if part else count)
            for name, count in counts.items()
        }
        for split, counts in plugin.COUNTS.items()
    }


def manifest_bytes(path: Path) -> int:
    """Return the bytes of a manifest's videos; 0 for a missing or damaged one."""
    from pipeline.download import sources

    with suppress(UserError):
        return sum(entry.bytes for entry in sources.read(path))
    return 0


def running_logs(params: Params, row: str, data: Path) -> list["Place"]:
    """Return the logs of a row's runs while they train.

    Their path has the key of code, settings and inputs.
    """
    from pipeline.digest import inputs
    from pipeline.storage import notes
    from pipeline.train import keys, rows

    try:
        if (taken := notes.read(data.parent / inputs.FOLDER / "rows" / f"{row}.json")) is None:
            return []
        runs = rows.runs(params, row, data)
        weights = taken.get("weights")
        return [keys.state(run, params.cluster, keys.training(run, weights)) / run_log.RUNNING for run in runs]
    except (OSError, UserError):  # its frames, splits or inputs do not exist yet
        return []


def kept(step: Step, params: Params, data: Path) -> int:
    """Return the number of epochs that the next training of a row resumes from."""
    if noun(step.stage) != "train":
        return 0
    with suppress(OSError, UserError):  # a store that can't be reached
        return sum(len(run_log.epochs(log)) for log in running_logs(params, key(step.stage), data))
    return 0


def built(net: Net, classes: int) -> "VideoNet":
    """Build the net on the meta device: shapes without values.

    Raises:
        ValueError: There is no such net.
    """
    import torch

    from models import video

    with torch.device("meta"):
        return video.build(
            *(net.backbone, net.variant, net.attention, net.frames, classes),
            knobs=json.loads(net.knobs),
            planes=net.planes,
        )


@cache
def macs(net: Net) -> int:
    """Return a clip's multiply-accumulates with a head of one class."""
    from models import costs

    return costs.macs(built(net, classes=1), (1, net.frames, net.planes, net.size, net.size))


def _rate(row: str, shape: Net, speeds: Mapping[str, Speed]) -> Estimate:
    """Estimate the clips per second in training a net."""
    same = sorted((speed for speed in speeds.values() if speed.net == shape), key=lambda speed: speed.row != row)
    if same:
        measured_for = "measured" if same[0].row == row else f"as measured for {same[0].row}"
        return Estimate(same[0].clips_per_second, f"{measured_for}{_elsewhere(same[0])}")
    near = _nearest(row, shape, speeds.values())
    if near is None:
        return Estimate(None, "no row has been trained yet")
    try:
        factor = macs(near.net) / macs(shape)
    except ValueError as error:
        return Estimate(None, str(error))
    return Estimate(near.clips_per_second * factor, f"from {near.row} by MACs{_elsewhere(near)}")


def _elsewhere(speed: Speed) -> str:
    return " on the reference machine" if speed.reference else ""


def _nearest(row: str, shape: Net, speeds: Iterable[Speed]) -> Speed | None:
    """Return the speed of the row itself, of one with its backbone, or of any row."""

    def distance(speed: Speed) -> tuple[bool, ...]:
        return speed.row != row, speed.net.backbone != shape.backbone, speed.net.variant != shape.variant

    return min(speeds, key=distance, default=None)
