"""Simulation of 1 to 256 GPUs on Kinetics-400, from measured costs.

    python -m bench.scaling [--speeds CLIPS/S ...] [--videos N] [--storage GB/S] [--node N] [--cores N]
                            [--inside GB/S] [--outside GB/S]

bench/simulation.py simulates. Decoding, loading, the spread of steps and blocks, Ray's costs and the index's are read
from results/ (cores.csv, ddp.csv, loading.csv, million.csv), by their medians: run those benchmarks first. A GPU's
training clips per second are an argument, several speeds by default; `actionbench models --measure` measures a GPU's.
Evaluating a view takes a third of training a clip of its size, by multiply-accumulates. The work is row
tsm-resnet50-kinetics400-8f as in conf/, once, and as often as suite `all` has runs on Kinetics-400.

Efficiency is one GPU's time divided by the number of GPUs times their time. The limit is the cost whose removal would
save most of the time, all else being equal. The same input gives the same bytes, also of the picture.
"""

import argparse
import csv
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from dvc.utils.hydra import compose_and_dump
from matplotlib.ticker import NullLocator
from ruamel.yaml import YAML

from bench import cores, ddp, report, simulation
from bench.simulation import Costs, Job, Machine
from models import costs as counted
from models import video
from pipeline.config.load import parse
from pipeline.config.schema import Params
from pipeline.datasets import kinetics400
from pipeline.evaluate import inference
from pipeline.report import figures

ROOT = Path(__file__).parents[1]
ROW, SECONDS, RATE = "tsm-resnet50-kinetics400-8f", 10, 30  # a clip of Kinetics, in s and frames per second
GPUS = tuple(2**n for n in range(9))
WORTH = 0.8  # of efficiency: less counts as the end of scaling


def main() -> None:
    parser = argparse.ArgumentParser(description="From 1 to 256 GPUs on Kinetics-400, simulated")
    parser.add_argument("--speeds", type=float, nargs="+", default=[100, 400, 1600], help="training clips/s of a GPU")
    parser.add_argument("--videos", type=int, default=240_000, help="training and test videos together")
    parser.add_argument("--storage", type=float, default=10, help="GB/s of the storage that all nodes share")
    parser.add_argument("--node", type=int, default=8, help="GPUs of a node")
    parser.add_argument("--cores", type=int, default=12, help="cores for each GPU")
    parser.add_argument("--inside", type=float, default=200, help="GB/s between GPUs of a node")
    parser.add_argument("--outside", type=float, default=25, help="GB/s between nodes")
    given = parser.parse_args()
    found = measured(report.RESULTS)
    machine = Machine(
        1, given.node, given.cores, *(1e9 * rate for rate in (given.storage, given.inside, given.outside))
    )
    rows, params = [], composed()
    for speed in given.speeds:
        one = job(params, given.videos, speed)
        for each in (one, replace(one, runs=runs(params))):
            for gpus in GPUS:
                here = replace(machine, gpus=gpus)
                hours = {name: seconds / 3600 for name, seconds in simulation.stages(found, each, here).items()}
                limit, saved = next(iter(simulation.losses(found, each, here).items()))
                told = {"limit": limit if saved > 0 else "nothing", "saved": saved}
                share = simulation.efficiency(found, each, here)
                rows.append({"clips_s": speed, "runs": each.runs, "gpus": gpus, **hours, "efficiency": share, **told})
    picture(rows)
    save(rows, one, machine, found)


def measured(results: Path) -> Costs:
    """Read the costs from the benchmarks' CSVs."""
    cored = rows(results / "cores.csv")
    millions, loads, trains = (rows(results / f"{name}.csv") for name in ("million", "loading", "ddp"))

    def values(what: str, way: str, workers: object = "") -> list[float]:
        own = [row for row in cored if (row["what"], row["way"], row["workers"]) == (what, way, str(workers))]
        return [float(row["value"]) for row in own]

    def relative(found: Sequence[float]) -> tuple[float, ...]:
        return tuple(value / statistics.mean(found) for value in found)

    first, last = cores.AHEAD[0], cores.AHEAD[-1]
    few, many = (statistics.median(values("hand out", "Ray", ahead)) for ahead in (first, last))
    slope = max(0.0, many - few) / (last - first)
    largest = max(int(row["videos"]) for row in millions)

    def indexed(step: str) -> float:
        own = [row for row in millions if (row["step"], int(row["videos"])) == (step, largest)]
        return statistics.median(float(row["cpu_s"]) for row in own) / largest

    starts = [float(row["start_s"]) for row in trains if row["way"] == ddp.RAY]
    paces = [row["paces"].split() for row in trains if (row["way"], row["workers"]) == (ddp.SAME, "1")]
    clips = [row for row in loads if (row["size"], row["loader"]) == ("224", "store, uint8")]
    return Costs(
        decode=tuple(values("decode", "processes, an item", 1)),
        load=1 / statistics.median(float(row["cpu_clips_s"]) for row in clips),
        steps=relative([float(pace) for each in paces for pace in each]),
        evaluate=relative(values("evaluate", "processes, an item", 1)),
        task=few - slope * first,
        ahead=slope,
        start=statistics.median(values("task", "Ray")),
        process=statistics.median(values("process", "Ray")),
        trainer=statistics.median(starts),
        finish=indexed("finish"),
        open=indexed("open frames"),
        list=indexed("training list"),
        video_bytes=values("file", "bytes")[0],
        frame_bytes=values("frame", "bytes")[0],
    )


def rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        raise SystemExit(f"{path} is absent; run python -m bench.{path.stem} first")
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def composed() -> Params:
    """Return all papers' rows as published."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "params.yaml"
        compose_and_dump(str(path), str(ROOT / "conf"), None, "config", "", ["suite=all", "tier=full"])
        return parse(YAML(typ="safe").load(path.read_text()))


def runs(params: Params) -> int:
    """Return the number of training runs on Kinetics-400: rows x splits x seeds."""
    own = [row for row in params.experiments.values() if row.dataset == "kinetics400"]
    return sum(len(row.splits) * len(row.seeds) for row in own)


def job(params: Params, videos: int, speed: float) -> Job:
    """Return the row's job, on so many videos and a GPU of so many training clips/s.

    The validation list's videos are the test.
    """
    row = params.experiments[ROW]
    recipe, protocol = params.recipe(row), params.protocols[row.protocol]
    with torch.device("meta"):
        net = video.build(row.backbone, row.variant, row.attention, recipe.frames, 400, knobs=row.knobs)
    frames = protocol.frames or recipe.frames
    clip, view = (
        counted.macs(net, (1, t, 3, side, side)) for t, side in ((recipe.frames, recipe.size), (frames, protocol.size))
    )
    test = kinetics400.COUNTS[1]["test"]
    return Job(
        train=videos - test,
        test=test,
        frames=SECONDS * RATE,
        shard=params.datasets[row.dataset].decode.videos_per_shard,
        epochs=recipe.epochs,
        batch=recipe.batch,
        micro_batch=recipe.micro_batch,
        clip=recipe.frames,
        block=inference.BLOCK,
        views=protocol.clips * {"center": 1, "three": 3, "ten": 10}[protocol.crops],
        view=frames,
        train_clip=1 / speed,
        evaluate_view=view / clip / 3 / speed,
        weights=4 * counted.parameters(net),
    )


def picture(rows: list[dict[str, Any]]) -> None:
    speeds = dict.fromkeys(row["clips_s"] for row in rows)
    counts = list(dict.fromkeys(row["runs"] for row in rows))
    with figures.drawing(report.RESULTS / "scaling.svg", 7.0, 3.4) as figure:
        axes = figure.subplots()
        for speed, colour in zip(speeds, figures.COLOURS, strict=False):
            for count, dash in zip(counts, ("--", "-"), strict=True):
                own = [row for row in rows if (row["clips_s"], row["runs"]) == (speed, count)]
                shares = [100 * row["efficiency"] for row in own]
                label = f"{count} run{'s' if count > 1 else ''}, {speed:g} clips/s a GPU"
                axes.plot([row["gpus"] for row in own], shares, dash, marker=".", color=colour, label=label)
        axes.set_xscale("log", base=2)
        axes.set_xticks(GPUS, [str(gpus) for gpus in GPUS])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_ylim(0, 105)
        axes.set_xlabel("GPUs")
        axes.set_ylabel("efficiency %, simulated")
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def save(rows: list[dict[str, Any]], job: Job, machine: Machine, found: Costs) -> None:
    lines, ends = [], []
    for speed, count in dict.fromkeys((row["clips_s"], row["runs"]) for row in rows):
        own = [row for row in rows if (row["clips_s"], row["runs"]) == (speed, count)]
        short = next((row for row in own if row["efficiency"] < WORTH), None)
        said = f"from {short['gpus']} GPUs on, by the {short['limit']}" if short else "not up to the last"
        ends.append(f"- {count} run{'s' if count > 1 else ''}, {speed:g} clips/s: {said}")
        for row in own:
            hours = [f"{row[stage]:.2f}" for stage in ("decode", "train", "evaluate")]
            limit = f"{row['limit']}, {100 * row['saved']:.0f} %" if row["saved"] >= 0.005 else "–"
            lines.append(
                [f"{speed:g}", str(count), str(row["gpus"]), *hours, f"{100 * row['efficiency']:.0f} %", limit]
            )
    text = "\n".join([
        f"A simulation of row {ROW} on {job.train:,} training and {job.test:,} test videos of {job.frames} frames: "
        f"{job.epochs} epochs, steps of {job.batch} clips in micro batches of {job.micro_batch}, {job.views} views a "
        f"test video; tasks of {job.shard} videos to decode and of {job.block} to evaluate.",
        "",
        f"Efficiency falls below {100 * WORTH:.0f} %:",
        "",
        *ends,
        "",
        "Assumed, not measured:",
        "",
        "- a GPU's clips/s in training, as the table has them; a view costs a third, in the ratio of their "
        "multiply-accumulates",
        f"- nodes of {machine.node} GPUs, with {machine.cores} cores for each, as fast as those measured here",
        f"- storage that all share, {machine.storage / 1e9:g} GB/s in all, served in turn; nothing is cached on a node",
        f"- {machine.inside / 1e9:g} GB/s between GPUs of a node, {machine.outside / 1e9:g} GB/s between nodes; "
        f"gradients of {job.weights / 1e6:.0f} MB round a ring, not hidden behind the backward pass",
        "- training clips are loaded by a GPU's cores during its work, test views before it, by one core",
        "- steps and blocks scatter on a GPU as they did here; no node fails; stages follow one another",
        "",
        "Measured, from the other tables here:",
        "",
        f"- decoding a video {statistics.mean(found.decode):.2f} s of a core ({min(found.decode):.2f} to "
        f"{max(found.decode):.2f}), loading a clip {1000 * found.load:.1f} ms; {found.video_bytes / 1e6:.1f} MB a "
        f"video, {found.frame_bytes / 1000:.1f} kB a stored frame",
        f"- a task {1000 * found.task:.2f} ms of the driver, and {1e6 * found.ahead:.2f} us more for each handed out "
        f"ahead; {1000 * found.start:.1f} ms there and back",
        f"- a process {found.process:.1f} s to begin, Ray Train {found.trainer:.1f} s",
        f"- for each video {1e6 * found.finish:.0f} us to merge the index, {1e6 * found.open:.0f} us to read it, "
        f"{1e6 * found.list:.0f} us to list it for training",
        "",
        "![efficiency by GPUs](scaling.svg)\n\n",
    ])  # fmt: skip
    head = ["clips/s", "runs", "GPUs", "decode, h", "train, h", "evaluate, h", "efficiency", "without it, less time"]
    every = [{key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()} for row in rows]
    report.save("scaling", "From 1 to 256 GPUs on Kinetics-400, simulated", text, head, lines, every)


if __name__ == "__main__":
    main()
