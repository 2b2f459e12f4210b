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

import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.ticker import NullLocator

from bench import cores, ddp, report, simulation
from bench.report import column
from bench.running import options
from bench.simulation import Costs, Job, Machine
from models import costs as counted
from models import video
from pipeline.config.schema import Params
from pipeline.datasets import kinetics400
from pipeline.evaluate import inference
from pipeline.report import figures
from stages.repro.compose import composed

ROW, SECONDS, RATE = "tsm-resnet50-kinetics400-8f", 10, 30  # a clip of Kinetics, in s and frames per second
GPUS = tuple(2**n for n in range(9))
WORTH = 0.8  # of efficiency: less counts as the end of scaling


def main() -> None:
    args = options(
        __doc__,
        speeds=([100.0, 400.0, 1600.0], "training clips/s of a GPU"),
        videos=(240_000, "training and test videos together"),
        storage=(10.0, "GB/s of the storage that all nodes share"),
        node=(8, "GPUs of a node"),
        cores=(12, "cores for each GPU"),
        inside=(200.0, "GB/s between GPUs of a node"),
        outside=(25.0, "GB/s between nodes"),
    )
    costs = measured(report.RESULTS)
    machine = Machine(1, args.node, args.cores, 1e9 * args.storage, 1e9 * args.inside, 1e9 * args.outside)
    rows, params = [], composed("all", "tier=full")
    for speed in args.speeds:
        single = job(params, args.videos, speed)
        for work in (single, replace(single, runs=runs(params))):
            for gpus in GPUS:
                cluster = replace(machine, gpus=gpus)
                hours = {name: seconds / 3600 for name, seconds in simulation.stages(costs, work, cluster).items()}
                limit, saved = next(iter(simulation.losses(costs, work, cluster).items()))
                cells = {"clips_s": speed, "runs": work.runs, "gpus": gpus, **hours}
                cells["efficiency"] = simulation.efficiency(costs, work, cluster)
                rows.append({**cells, "limit": limit if saved > 0 else "nothing", "saved": saved})
    picture(rows)
    save(rows, single, machine, costs)


def measured(results: Path) -> Costs:
    """Read the costs from the benchmarks' CSVs."""
    tasks, videos, loads, trains = (rows(results / f"{name}.csv") for name in ("cores", "million", "loading", "ddp"))

    def values(what: str, way: str, workers: object = "") -> list[float]:
        return [float(value) for value in column(tasks, "value", what=what, way=way, workers=str(workers))]

    def relative(costs: Sequence[float]) -> tuple[float, ...]:
        return tuple(cost / statistics.mean(costs) for cost in costs)

    first, last = cores.AHEAD[0], cores.AHEAD[-1]
    few, many = (statistics.median(values("hand out", "Ray", ahead)) for ahead in (first, last))
    slope = max(0.0, many - few) / (last - first)
    largest = max(int(row["videos"]) for row in videos)

    def indexed(step: str) -> float:
        return statistics.median(map(float, column(videos, "cpu_s", step=step, videos=str(largest)))) / largest

    clips = column(loads, "cpu_clips_s", size="224", loader="store, uint8")
    paces = " ".join(column(trains, "paces", way=ddp.SAME, workers="1")).split()
    return Costs(
        decode=tuple(values("decode", "processes, an item", 1)),
        load=1 / statistics.median(map(float, clips)),
        steps=relative([float(pace) for pace in paces]),
        evaluate=relative(values("evaluate", "processes, an item", 1)),
        task=few - slope * first,
        ahead=slope,
        start=statistics.median(values("task", "Ray")),
        process=statistics.median(values("process", "Ray")),
        trainer=statistics.median(map(float, column(trains, "start_s", way=ddp.RAY))),
        finish=indexed("finish"),
        open=indexed("open frames"),
        list=indexed("training list"),
        video_bytes=values("file", "bytes")[0],
        frame_bytes=values("frame", "bytes")[0],
    )


def rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        raise SystemExit(f"{path} is absent; run python -m bench.{path.stem} first")
    return report.read(path)


def runs(params: Params) -> int:
    """Return the number of training runs on Kinetics-400: rows x splits x seeds."""
    experiments = [row for row in params.experiments.values() if row.dataset == "kinetics400"]
    return sum(len(row.splits) * len(row.seeds) for row in experiments)


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
                shares = [100 * share for share in column(rows, "efficiency", clips_s=speed, runs=count)]
                label = f"{count} run{'s' if count > 1 else ''}, {speed:g} clips/s a GPU"
                axes.plot(GPUS, shares, dash, marker=".", color=colour, label=label)
        axes.set_xscale("log", base=2)
        axes.set_xticks(GPUS, [str(gpus) for gpus in GPUS])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_ylim(0, 105)
        axes.set_xlabel("GPUs")
        axes.set_ylabel("efficiency %, simulated")
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def save(rows: list[dict[str, Any]], job: Job, machine: Machine, costs: Costs) -> None:
    lines, ends = [], []
    for speed, count in dict.fromkeys((row["clips_s"], row["runs"]) for row in rows):
        shown = report.select(rows, clips_s=speed, runs=count)
        short = next((row for row in shown if row["efficiency"] < WORTH), None)
        limit = f"from {short['gpus']} GPUs on, by the {short['limit']}" if short else "not up to the last"
        ends.append(f"- {count} run{'s' if count > 1 else ''}, {speed:g} clips/s: {limit}")
        for row in shown:
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
        f"- decoding a video {statistics.mean(costs.decode):.2f} s of a core ({min(costs.decode):.2f} to "
        f"{max(costs.decode):.2f}), loading a clip {1000 * costs.load:.1f} ms; {costs.video_bytes / 1e6:.1f} MB a "
        f"video, {costs.frame_bytes / 1000:.1f} kB a stored frame",
        f"- a task {1000 * costs.task:.2f} ms of the driver, and {1e6 * costs.ahead:.2f} us more for each handed out "
        f"ahead; {1000 * costs.start:.1f} ms there and back",
        f"- a process {costs.process:.1f} s to begin, Ray Train {costs.trainer:.1f} s",
        f"- for each video {1e6 * costs.finish:.0f} us to merge the index, {1e6 * costs.open:.0f} us to read it, "
        f"{1e6 * costs.list:.0f} us to list it for training",
        "",
        "![efficiency by GPUs](scaling.svg)\n\n",
    ])  # fmt: skip
    head = ["clips/s", "runs", "GPUs", "decode, h", "train, h", "evaluate, h", "efficiency", "without it, less time"]
    report.save("scaling", "From 1 to 256 GPUs on Kinetics-400, simulated", text, head, lines, rows)


if __name__ == "__main__":
    main()
