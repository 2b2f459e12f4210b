"""Ray's cost per training step: plain PyTorch, our loop, a Ray task, Ray Train.

    python -m bench.overhead

All do the same steps on the same clips, one worker and one thread, in turns. "Plain" is a user's shortest loop: the
same loader, normalizing, forward, backward, clipping and SGD step. A step's time is the median of the epochs' after the
first, which is robust against bursts of other load; a ratio is the median over turns. Start-up, all outside the epochs,
is listed separately.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import ray
import torch

from bench import report, training
from bench.running import options, timed, with_malloc
from bench.training import STEPS, on_ray
from cluster import fit
from cluster.session import session
from pipeline.config.schema import Cluster
from pipeline.tracking import run_log
from pipeline.train.run import Run

PLAIN = "plain PyTorch"
WAYS: dict[str, Callable[[Run, Path], object]] = {
    PLAIN: training.plain,
    "this loop, no Ray": training.same_loop,
    "Ray task (one worker)": lambda run, folder: ray.get(ray.remote(fit.train_run).remote(on_ray(run, folder))),
    "Ray Train (one worker)": lambda run, folder: fit.train_distributed(on_ray(run, folder)),
}


def main() -> None:
    args = options(__doc__, turns=5, epochs=4)
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as root, session(Cluster()):
        run = training.prepare(Path(root), args.epochs)
        for turn in range(args.turns):
            for way, train in WAYS.items():
                folder = Path(root) / f"{turn}-{way}".replace(" ", "-")
                folder.mkdir()
                wall = timed(train, run, folder).wall
                step = training.seconds_per_step(run_log.epochs(folder / fit.LOG))
                rest = wall - step * STEPS * args.epochs
                rows.append({"turn": turn, "loop": way, "ms_a_step": 1000 * step, "rest_s": rest})
    base, lines = report.column(rows, "ms_a_step", loop=PLAIN), []
    for way in WAYS:
        over = report.overhead(report.column(rows, "ms_a_step", loop=way), base)
        lines.append(
            [
                way,
                report.median(rows, "ms_a_step", ".1f", loop=way),
                over,
                report.median(rows, "rest_s", ".1f", loop=way),
            ]
        )
    text = f"Per loop, {training.described(run)}, {args.turns} turns."
    head = ["loop", "ms a step", "over plain PyTorch (least to most)", "start-up and end, s"]
    report.save("overhead", "What Ray costs a training step", text, head, lines, rows)


if __name__ == "__main__":
    with_malloc("overhead", main)
