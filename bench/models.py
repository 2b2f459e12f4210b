"""Forward and training time of the papers' nets, against plain versions.

    python -m bench.models

Clips have the papers' sizes. The straightforward version is a reader's first implementation: eager, float32, contiguous
memory, every module's published order of operations, nothing in place. TSM's shift copies slices into zeros. ACTION's
shift is a convolution over time on permuted axes, and its paths x + x*mask are computed one by one. 3D convolutions are
the papers'.
Both have the same weights, and must give the same logits in double precision. Ours is the code of `train` and
`evaluate`: the nets of models/, channels-last. "bf16" is ours under autocast, with --compiled by torch.compile too. On
a CPU `train` refuses it for nets with kernels over time (EAM, TPN, MAAGN, ST-MANet), whose gradients are wrong there.

The versions of a net take turns in one process, each pass twice, of which the second counts; a ratio is the median over
turns of a turn's ratio. Clips are noise in memory, SCALE times as many on a GPU. A training step is forward, loss,
backward and SGD. On a CPU all use all cores and keep freed memory (cluster/session.py's MALLOC). Memory is the peak of
one training step. On a GPU its allocator reports it. On a CPU it is the RAM of a separate process beyond that before it
built the net. That varies, so it is the median of some runs, with the smallest and largest.

"Convolutions" is their share of our training step, by torch's profiler. "Limit" is our speed-up over the
straightforward version if all but its convolutions took no time. "Roofline" is the minimum time of a pass divided by
its time. Each layer counts the larger of two times. One is its arithmetic at this machine's highest measured rate, of a
matrix product and of two convolutions. The other is one read and write of its maps at the rate of a measured copy. A
training step is three passes.
"""

import json
import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch

from bench import report
from bench.nets import COMPILED, CUDA, DEVICE, NETS, PASSES, SCALE, VERSIONS, Net, agree, built, passes
from bench.report import column, ratios, spread
from bench.roofline import layers, least
from bench.running import child, parser, timed, with_malloc
from stages.commands import trial
from stages.commands.trial import resident

BAR = 1.3  # the required speed-up of ours
RUNS = 3  # processes for a version's memory on a CPU


def main() -> None:
    command = parser(
        __doc__,
        turns=5,
        compiled=(False, "bf16 by torch.compile too: minutes for each net"),
        memory=(str, "only print the bytes that a training step of this version takes"),
    )
    command.add_argument("nets", nargs="*", choices=[[], *NETS], default=[])
    args = command.parse_args()
    if args.memory:
        return print(json.dumps(memory(NETS[args.nets[0]], args.memory)))
    rows: list[dict[str, Any]] = []
    lines: list[list[str]] = []
    failed: list[str] = []
    versions = (*VERSIONS, COMPILED) if args.compiled else VERSIONS
    for name in args.nets or NETS:
        try:
            timings, share, held, uncompiled = race(name, versions, args.turns)
        except Exception as error:  # the other nets' times must not be lost
            failed.append(f"{name}: {reason(error)}")
        else:
            failed += [f"{name}, {COMPILED}: {uncompiled}"] if uncompiled else []
            net = NETS[name]
            work = layers(built(net), (net.clips * SCALE, net.frames, 3, net.size, net.size))
            rows += [{**row, "training_bytes": statistics.median(held[row["version"]])} for row in timings]
            lines += [line(name, passed, versions, timings, held, share, work) for passed in PASSES]
        if rows:
            save(args.turns, versions, lines, rows, failed)  # after each net, so that an abort loses none
    if failed:
        raise SystemExit("\n".join(failed))


def save(
    turns: int, versions: Sequence[str], lines: list[list[str]], rows: list[dict[str, Any]], failed: list[str]
) -> None:
    """Write the table of the nets measured so far."""
    device = torch.cuda.get_device_name() if CUDA else f"{torch.get_num_threads()} CPU threads"
    sizes = "; ".join(
        f"{name} {net.backbone} {net.variant}, {net.clips * SCALE} x {net.frames}x{net.size}x{net.size}"
        for name, net in NETS.items()
        if any(cells[0] == name for cells in lines)
    )
    text = f"{device}, torch {torch.__version__}, {turns} turns. Clips: {sizes}."
    text += "".join(f" Not measured: {each}." for each in failed)
    if slow := [f"{cells[0]}'s {cells[1]}" for cells in lines if float(cells[4].partition("x")[0]) < BAR]:
        text += f" Less than {BAR}x: {', '.join(slow)}; the table has the share of torch's convolutions."
    head = ["net", "pass", "straightforward, ms", "ours, ms", "ours is faster by (least to most of the turns)"]
    head += [f"{version} is faster by" for version in versions[2:]]
    head += [f"memory, {version}" for version in versions]
    head += ["convolutions", "limit", *(f"roofline, {version}" for version in versions)]
    name = "models-gpu" if CUDA else "models"
    report.save(name, "The nets' speed, against a straightforward version", text, head, lines, rows)


def line(
    name: str,
    passed: str,
    versions: Sequence[str],
    timings: list[dict[str, Any]],
    held: dict[str, list[int]],
    share: float,
    work: list[tuple[int, int]],
) -> list[str]:
    """Return a line of the table; empty cells for a version that `held` lacks."""
    ms = {version: column(timings, "ms", version=version, **{"pass": passed}) for version in held}
    middle = {version: statistics.median(values) for version, values in ms.items()}
    faster = {version: ratios(ms[VERSIONS[0]], values) for version, values in ms.items()}
    training = passed == "training"
    ideal = {version: least(work, passed, version, DEVICE) for version in held}
    return [
        name,
        passed,
        *(f"{middle[version]:.4g}" for version in VERSIONS[:2]),
        spread(faster["ours"]),
        *(f"{statistics.median(faster[version]):.2f}x" if version in held else "" for version in versions[2:]),
        *(mebibytes(held[version]) if training and version in held else "" for version in versions),
        f"{100 * share:.0f} %" if training else "",
        f"{middle[VERSIONS[0]] / middle['ours'] / share:.2f}x" if training else "",
        *(f"{100 * ideal[version] / middle[version]:.0f} %" if version in held else "" for version in versions),
    ]


def reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def mebibytes(counts: list[int]) -> str:
    return spread([count / 2**20 for count in counts], ".0f", " MiB")


def race(
    name: str, versions: Sequence[str], turns: int
) -> tuple[list[dict[str, Any]], float, dict[str, list[int]], str]:
    """Measure a net's versions and passes.

    Returns:
        Every turn's ms, the convolutions' share of our step, the versions' bytes, and the reason that the compiled
        version is missing, or "".
    """
    agree(name)
    actors: dict[str, dict[str, Callable[[], Any]]] = {}
    held: dict[str, list[int]] = {}
    uncompiled = ""
    for version in versions:
        before = torch.cuda.memory_allocated() if CUDA else 0
        if CUDA:
            torch.cuda.reset_peak_memory_stats()
        try:
            actor = passes(NETS[name], version)
            for _ in range(2):  # the second with the optimizer's state
                actor["training"]()
            peak = torch.cuda.max_memory_allocated() - before if CUDA else 0
            actor["forward"]()
        except Exception as error:
            if version != COMPILED:
                raise
            uncompiled = reason(error)
        else:
            actors[version], held[version] = actor, [peak]
    rows = in_turns(name, actors, turns)
    share = convolutions(actors["ours"]["training"])
    if not CUDA:
        held = {version: [apart(name, version) for _ in range(RUNS)] for version in actors}
    return rows, share, held, uncompiled


def in_turns(name: str, actors: dict[str, dict[str, Callable[[], Any]]], turns: int) -> list[dict[str, Any]]:
    rows = []
    for turn in range(turns):
        for passed in PASSES:
            for version, actor in actors.items():
                actor[passed]()  # fills the caches, which another version used
                timing = timed(trial.timed, actor[passed], DEVICE)
                cells = {"net": name, "version": version, "pass": passed, "turn": turn}
                rows.append({**cells, "ms": 1000 * timing.result, "cpu_ms": 1000 * timing.cpu})
    return rows


def convolutions(step: Callable[[], Any]) -> float:
    """Return the share of a step that convolutions take, by torch's profiler."""
    activity = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities={activity.CPU, activity.CUDA} if CUDA else {activity.CPU}) as seen:
        step()
    spent = {
        event.key: event.self_device_time_total if CUDA else event.self_cpu_time_total
        for event in seen.key_averages()
        if event.device_type == torch.autograd.DeviceType.CPU  # calls, which include the GPU kernels that they start
    }
    return sum(time for key, time in spent.items() if "conv" in key) / (sum(spent.values()) or math.nan)


def memory(net: Net, version: str) -> int:
    """Return the peak RAM of a training step in bytes, with the net and its clips."""
    before = resident()
    step = passes(net, version)["training"]
    for _ in range(2):  # the second with the optimizer's state
        step()
    return resident("VmHWM") - before


def apart(name: str, version: str) -> int:
    """Return the same, from a separate process."""
    return int(child("models", name, "--memory", version))


if __name__ == "__main__":
    with_malloc("models", main)
