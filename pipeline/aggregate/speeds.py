"""Training speeds: of a row's logs, and the file of the reference run's."""

import json
import statistics
from collections.abc import Iterable
from pathlib import Path

from pipeline.errors import reading
from pipeline.storage.atomic import write
from pipeline.tracking import run_log

FILE = "speeds.json"  # in a suite's folder of reports/reference
Speed = tuple[float, int]  # clips/s of a run, and its workers


def measured(data: Path, row: str) -> Speed | None:
    """Return a row's median training speed over its runs' epochs; None without timings."""
    files = run_log.places(data, row).values()
    lines = [line for both in files for line in run_log.epochs(*both) if "clips_per_second" in line]
    if not lines:
        return None
    rate = statistics.median(line["clips_per_second"] for line in lines)
    return rate, statistics.median_low([line.get("world", 1) for line in lines])


def save(path: Path, data: Path, rows: Iterable[str], earlier: Path) -> None:
    """Write the rows' speeds on CPUs; no file without timings, or on a machine with GPUs.

    Rows without timings in `data` keep their speed in the file `earlier`.
    """
    before = load(earlier) if earlier.is_file() else {}
    speeds = {row: speed for row in rows if (speed := measured(data, row) or before.get(row))}
    if speeds and not gpus():
        lines = {row: {"clips_per_second": round(rate, 1), "workers": world} for row, (rate, world) in speeds.items()}
        write(path, json.dumps(lines, indent=2) + "\n")


def load(path: Path) -> dict[str, Speed]:
    """Return row -> speed of a file that save() wrote."""
    with reading(path, f"`git checkout {path}` restores it"):
        lines = json.loads(path.read_text(encoding="utf-8"))
        return {row: (float(line["clips_per_second"]), int(line["workers"])) for row, line in lines.items()}


def gpus() -> int:
    """Return the number of this machine's NVIDIA GPUs, without asking torch or Ray."""
    return len(list(Path("/dev").glob("nvidia[0-9]*")))
