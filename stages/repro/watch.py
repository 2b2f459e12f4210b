"""Progress of a repro: the work ahead, each row's state, and a summary."""

import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Literal

from pipeline.config.schema import Params
from pipeline.storage.remote import Place
from pipeline.tracking import run_log
from stages import DATA
from stages.repro import estimate
from stages.repro.plan import FIRST, Step, key, locked, noun
from stages.terminal import amount, duration

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

EVERY = 30.0  # seconds from one line to the next in a log
State = Literal["waiting", "running", "done", "cached", "unchanged", "failed"]
DOING = {"train": "training", "evaluate": "evaluating", "trajectories": "describing"}
RUNS = re.compile(rb"Running stage '(.+)':")
FAILS = re.compile(rb"(?:ERROR|WARNING): .*failed to run: (.+), exited with (-?\d+)")
SKIPS = re.compile(rb"Stage '(.+)' (?:(didn't change)|is cached)")


@dataclass
class Stream:
    """State of a DVC process, from its output."""

    stage: str = ""  # the running one
    error: str = ""  # the last line of its standard error
    commands: dict[bytes, str] = field(default_factory=dict)  # command -> stage, to attribute failures
    codes: set[int] = field(default_factory=set)  # exit codes of failed stages


@dataclass
class Watch:
    """States of the stages that are not up to date, from DVC's output."""

    params: Params
    steps: Sequence[Step]
    jobs: int
    states: dict[str, State] = field(default_factory=dict)
    begun: dict[str, float] = field(default_factory=dict)  # stage -> when, by the monotonic clock
    took: dict[str, float] = field(default_factory=dict)  # stage -> seconds
    errors: dict[str, str] = field(default_factory=dict)  # stage -> its last line
    logs: dict[str, list[Place]] = field(default_factory=dict)  # row -> its runs' logs while they train
    console: "Console | None" = None  # shows the rows in place, other output above them

    def __post_init__(self) -> None:
        self.start = time.monotonic()
        self.states |= {step.stage: "waiting" for step in self.steps}
        self.lock = threading.RLock()
        self.speeds = speeds = estimate.known(self.params, DATA, locked())
        self.guesses = {
            step.stage: 0.0 if step.state == "restored" else estimate.seconds(step, self.params, DATA, speeds).value
            for step in self.steps
        }

    def foreword(self) -> str:
        """Return a line on the work ahead."""
        rows = len(self._rows())
        known = [(step, seconds) for step in self.steps if (seconds := self.guesses[step.stage])]
        cached = sum(step.state == "restored" for step in self.steps)
        parts = [f"{len(self.steps)} stages to bring up to date, of {rows} rows"]
        if cached:
            parts.append(f"{cached} from DVC's cache")
        if known:
            work = estimate.work(sum(seconds for _, seconds in known), self.params.cluster, self.speeds)
            wall, origin = estimate.wall(known, self.params.cluster), estimate.origin(self.speeds)
            side_by_side = "" if wall is None else f", side by side in about {duration(wall)}"
            parts.append(f"about {work} for {len(known)} of them{side_by_side}" + (f" ({origin})" if origin else ""))
        elif not self.speeds:
            parts.append("the time is unknown until a row has trained")
        sizes = [size for step in self.steps if (size := estimate.size(step, DATA).value)]
        parts += [f"{amount(sum(sizes))} or more of output"] * bool(sizes)
        return "; ".join([*parts, "`actionbench plan` has the reasons"])

    def saw(self, stream: Stream, line: bytes, error: bool) -> None:
        """Read a line that a DVC process or its stage printed."""
        with self.lock:
            if match := RUNS.match(line):
                self.ended(stream, failed=False)
                stream.stage = match[1].decode()
                self.states[stream.stage], self.begun[stream.stage] = "running", time.monotonic()
            elif line.startswith(b"> ") and stream.stage:
                stream.commands.setdefault(line[2:].strip(), stream.stage)
            elif match := FAILS.match(line):
                # Standard output may have reached the next stage already.
                self._over(stream, stream.commands.get(match[1], stream.stage), failed=True)
                stream.codes.add(int(match[2]))
            elif match := SKIPS.match(line):
                stage = match[1].decode()
                if stage in self.states:  # otherwise it was up to date before
                    self.states[stage] = "unchanged" if match[2] else "cached"
            elif error and line.strip() and not line.startswith((b"ERROR: ", b"WARNING: ")):
                stream.error = line.decode(errors="replace").strip()

    def ended(self, stream: Stream, failed: bool) -> None:
        """Note the end of a process.

        It `failed` by its present stage or by an earlier one.
        """
        with self.lock:
            self._over(stream, stream.stage, failed and not stream.codes)

    def _over(self, stream: Stream, stage: str, failed: bool) -> None:
        if stage in FIRST and not failed:  # they run each time and are not counted
            self.states.pop(stage, None)
        elif stage and self.states.get(stage) != "failed":
            self.states[stage] = "failed" if failed else "done"
            self.took[stage] = time.monotonic() - self.begun[stage]
            if failed:
                self.errors[stage], stream.error = stream.error or "no message", ""
        if stage == stream.stage:
            stream.stage = ""

    def lacking(self) -> set[str]:
        """Return the rows whose data set failed."""
        failed = {key(stage) for stage in self.errors if noun(stage) not in DOING}
        rows = self.params.experiments | self.params.trajectories
        return {name for name, row in rows.items() if row.dataset in failed}

    def table(self) -> "Table":
        """Return a table of rows: state, epochs, clips/s, time left."""
        from rich.table import Table

        table = Table("row", "state", "epochs", "clips/s", "left", box=None, pad_edge=False)
        with self.lock:
            for row in self._rows():
                at, (done, of, rate) = self._state(row), self._epochs(row)
                left = self._left(row, done, of)
                numbers = (f"{done} of {of}", f"{rate:.1f}" if rate else "") if of else ("", "")
                table.add_row(row, at, *numbers, duration(left) if left else "")
            table.caption = self.line()
        return table

    def line(self) -> str:
        """Summarize all rows in a line."""
        with self.lock:
            rows = self._rows()
            counts = Counter(self._state(row) for row in rows)
            at = {row: self._epochs(row) for row in rows}
            left = [self._left(row, done, of) for row, (done, of, _) in at.items()]
        parts = [f"{counts.pop('done', 0)} of {len(rows)} rows done"]
        parts += [f"{count} {state}" for state, count in sorted(counts.items())]
        parts += [f"{row} at {rate:.1f} clips/s" for row, (_, _, rate) in at.items() if rate]
        if known := sum(seconds for seconds in left if seconds):
            unknown = sum(seconds is None for seconds in left)
            parts.append(f"about {duration(known / self.jobs)} left" + (f" and {unknown} rows" if unknown else ""))
        return ", ".join(parts)

    def summary(self) -> str:
        """Return the summary: stages that ran, were skipped or failed, with errors."""
        counts = Counter[str](self.states.values())
        parts = [f"{counts['done']} stages ran in {duration(time.monotonic() - self.start)}"]
        for state, words in (("cached", "came from DVC's cache"), ("unchanged", "did not change")):
            parts += [f"{counts[state]} {words}"] * bool(counts[state])
        if open_ := counts["waiting"] + counts["running"]:
            parts.append(f"{open_} are not done")
        if self.states.get("aggregate") == "done":
            parts.append(f"tables in reports/tables/{self.params.suite}")
        failed = [
            f"failed: {stage} after {duration(self.took[stage])}: {error}" for stage, error in self.errors.items()
        ]
        return "\n".join([", ".join(parts), *failed])

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the rows while the block runs.

        With several jobs, a terminal shows them in place, and a log gets a line now and then. With one job, the stage's
        progress bar has the terminal.
        """
        if self.jobs > 1 and sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self.console = Console(file=sys.stderr, highlight=False)
            with Live(get_renderable=self.table, console=self.console, refresh_per_second=1):
                yield
            self.console = None
            return
        over = threading.Event()

        def report() -> None:
            while not over.wait(EVERY):
                print(self.line(), flush=True)

        if self.jobs > 1:
            threading.Thread(target=report, daemon=True).start()
        try:
            yield
        finally:
            over.set()

    def write(self, sink: BinaryIO, text: bytes) -> None:
        """Forward output to its stream, or above the rows."""
        if self.console is None:
            sink.write(text)
            sink.flush()
        elif text:
            from rich.text import Text

            self.console.print(Text.from_ansi(text.decode(errors="replace").rstrip("\n")))

    def _rows(self) -> list[str]:
        return list(dict.fromkeys(key(stage) for stage in self.states if noun(stage) in DOING))

    def _stages(self, row: str) -> dict[str, State]:
        return {stage: state for stage, state in self.states.items() if noun(stage) in DOING and key(stage) == row}

    def _state(self, row: str) -> str:
        states = self._stages(row)
        if "failed" in states.values():
            return "failed"
        running = [DOING[noun(stage)] for stage, state in states.items() if state == "running"]
        return running[0] if running else "waiting" if "waiting" in states.values() else "done"

    def _epochs(self, row: str) -> tuple[int, int, float]:
        """Return a row's finished and total epochs, and its clips/s, while it trains."""
        if self.states.get(f"train@{row}") != "running":
            return 0, 0, 0.0
        experiment = self.params.experiments[row]
        names = [f"split{split}-seed{seed}" for split in experiment.splits for seed in experiment.seeds]
        if not self.logs.get(row):
            self.logs[row] = estimate.running_logs(self.params, row, DATA)
        epochs = [lines for log in self.logs[row] if (lines := run_log.epochs(log))]
        last = [lines[-1].get("clips_per_second", 0.0) for lines in epochs]
        return sum(map(len, epochs)), self.params.recipe(experiment).epochs * len(names), sum(last)

    def _left(self, row: str, done: int, of: int) -> float | None:
        """Estimate the remaining seconds of a row; None if unknown."""
        total = 0.0
        for stage, state in self._stages(row).items():
            if state not in ("waiting", "running"):
                continue
            if noun(stage) == "train" and done:
                total += (time.monotonic() - self.begun[stage]) * (of - done) / done
            elif (guess := self.guesses.get(stage)) is not None:
                total += guess
            elif noun(stage) != "evaluate":  # which is short compared with training
                return None
        return total
