"""Clips per second of loader threads and of DataLoader's processes, alone and during a training step.

    python -m bench.loaders [--loaders 1 2 4] [--turns 5]

All read the same micro batches of this project's frame store, in turns. Threads are loading.read_ahead(); processes are
torch's DataLoader with so many workers, as a user would take. "During a step" runs a forward and backward pass of a
small network after each micro batch, with the interpreter's lock. A time is the wall clock's, with the loaders' start
and end. A ratio is the median over turns of threads' speed by that of as many processes.
"""

import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from bench import report
from bench.loading import RECIPE, VIDEOS, prepare
from bench.running import machine, options, timed
from pipeline.clips import loading
from pipeline.decode.frame_store import FrameStore

CLIPS = 192
SIZES = (224, 112)
Micros = list[list[tuple[int, int]]]


def main() -> None:
    args = options(__doc__, loaders=[1, 2, 4], turns=5)
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        store, items = FrameStore(Path(folder) / "store"), [(f"{n}.mp4", [0]) for n in range(VIDEOS)]
        for size in SIZES:
            clips = loading.TrainClips(store, items, replace(RECIPE, size=size), 0, mirrored=[0])
            for turn in range(args.turns):
                keys = [(turn, n % VIDEOS) for n in range(CLIPS)]
                micros = [keys[at : at + RECIPE.micro_batch] for at in range(0, CLIPS, RECIPE.micro_batch)]
                for count in (0, *args.loaders):
                    for kind, read in KINDS.items() if count else (("threads", loading.read_ahead),):
                        for place, work in WORK.items():
                            wall = timed(deque, map(work, read(clips, micros, count)), 0).wall
                            cells = {"size": size, "turn": turn, "loaders": count, "kind": kind, "place": place}
                            rows.append({**cells, "clips_s": CLIPS / wall})
    save(rows, args.loaders)


def processes(clips: loading.TrainClips, micros: Micros, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    yield from DataLoader(clips, sampler=micros, batch_size=None, num_workers=count)  # type: ignore[arg-type]


def step(batch: tuple[Tensor, Tensor]) -> None:
    x = loading.normalise(batch[0][:1], (110.0,) * 3, (60.0,) * 3)
    NET(x.flatten(0, 1)).mean().backward()


NET = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), nn.Conv2d(16, 16, 3, stride=2))
KINDS: dict[str, Callable[..., Iterator[tuple[Tensor, Tensor]]]] = {
    "threads": loading.read_ahead,
    "processes": processes,
}
WORK: dict[str, Callable[[tuple[Tensor, Tensor]], object]] = {"alone": lambda batch: None, "during a step": step}


def save(rows: list[dict[str, object]], counts: list[int]) -> None:
    lines = []
    for size in SIZES:
        for place in WORK:
            own = {"size": size, "place": place}
            none = report.median(rows, "clips_s", ".0f", **own, loaders=0)
            lines.append([size, place, 0, none, "", ""])
            for count in counts:
                each = {kind: report.column(rows, "clips_s", **own, loaders=count, kind=kind) for kind in KINDS}
                medians = (report.median(rows, "clips_s", ".0f", **own, loaders=count, kind=kind) for kind in KINDS)
                ratio = report.spread(report.ratios(each["threads"], each["processes"]))
                lines.append([size, place, count, *medians, ratio])
    text = f"{VIDEOS} videos, 8 frames a clip, micro batches of {RECIPE.micro_batch}; {machine()}."
    head = ["input", "where", "loaders", "threads, clips/s", "processes, clips/s", "threads are faster by"]
    report.save("loaders", "Loaders: threads or processes", text, head, lines, rows)


if __name__ == "__main__":
    main()
