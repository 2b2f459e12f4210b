"""What a repro says of itself: what is to be done, each row's state meanwhile, at the end what ran and what failed."""

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
    """What one DVC process has said so far."""

    stage: str = ""  # that it is at
    error: str = ""  # the last line of its standard error
    commands: dict[bytes, str] = field(default_factory=dict)  # of its stages: what DVC says failed
    codes: set[int] = field(default_factory=set)  # what those that failed exited with


@dataclass
class Watch:
    """The states of the stages that aren't up to date, as DVC's processes tell them."""

    given: Params
    steps: Sequence[Step]
    jobs: int
    states: dict[str, State] = field(default_factory=dict)
    begun: dict[str, float] = field(default_factory=dict)  # stage -> when, by the monotonic clock
    took: dict[str, float] = field(default_factory=dict)  # stage -> seconds
    errors: dict[str, str] = field(default_factory=dict)  # stage -> its last line
    logs: dict[str, list[Place]] = field(default_factory=dict)  # row -> its runs' logs while they train
    console: "Console | None" = None  # where the rows are redrawn in place, and all else is printed above them

    def __post_init__(self) -> None:
        self.start = time.monotonic()
        self.states |= {step.stage: "waiting" for step in self.steps}
        self.lock = threading.RLock()
        self.speeds = speeds = estimate.measured(DATA, locked())
        self.guesses = {
            step.stage: 0.0 if step.state == "restored" else estimate.seconds(step, self.given, DATA, speeds).value
            for step in self.steps
        }

    def foreword(self) -> str:
        """How much is to be done, in a line."""
        rows = len(self._rows())
        known = [seconds for seconds in self.guesses.values() if seconds]
        cached = sum(step.state == "restored" for step in self.steps)
        parts = [f"{len(self.steps)} stages to bring up to date, of {rows} rows"]
        if cached:
            parts.append(f"{cached} from DVC's cache")
        if known:
            work = estimate.work(sum(known), self.given.cluster, self.speeds)
            parts.append(f"about {work} for {len(known)} of them")
        elif not self.speeds:
            parts.append("how long is not known before a row has trained")
        sizes = [size for step in self.steps if (size := estimate.size(step, DATA).value)]
        parts += [f"{amount(sum(sizes))} or more to keep"] * bool(sizes)
        return "; ".join([*parts, "`actionbench plan` says why"])

    def saw(self, stream: Stream, line: bytes, error: bool) -> None:
        """Takes in a line that a DVC process printed, itself or its stage."""
        with self.lock:
            if found := RUNS.match(line):
                self.ended(stream, failed=False)
                stream.stage = found[1].decode()
                self.states[stream.stage], self.begun[stream.stage] = "running", time.monotonic()
            elif line.startswith(b"> ") and stream.stage:
                stream.commands.setdefault(line[2:].strip(), stream.stage)
            elif found := FAILS.match(line):
                # Standard output may be ahead of this, and at the next stage.
                self._over(stream, stream.commands.get(found[1], stream.stage), failed=True)
                stream.codes.add(int(found[2]))
            elif found := SKIPS.match(line):
                stage = found[1].decode()
                if stage in self.states:  # else it was up to date before
                    self.states[stage] = "unchanged" if found[2] else "cached"
            elif error and line.strip() and not line.startswith((b"ERROR: ", b"WARNING: ")):
                stream.error = line.decode(errors="replace").strip()

    def ended(self, stream: Stream, failed: bool) -> None:
        """The stage that a process was at is over; `failed`: so did the process, by this stage or an earlier one."""
        with self.lock:
            self._over(stream, stream.stage, failed and not stream.codes)

    def _over(self, stream: Stream, stage: str, failed: bool) -> None:
        if stage in FIRST and not failed:  # runs each time, and is no work
            self.states.pop(stage, None)
        elif stage and self.states.get(stage) != "failed":
            self.states[stage] = "failed" if failed else "done"
            self.took[stage] = time.monotonic() - self.begun[stage]
            if failed:
                self.errors[stage], stream.error = stream.error or "it said nothing", ""
        if stage == stream.stage:
            stream.stage = ""

    def table(self) -> "Table":
        """A line a row: what it is at, epochs, clips/s, time left."""
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
        """All rows in one line."""
        with self.lock:
            rows = self._rows()
            counts = Counter(self._state(row) for row in rows)
            at = {row: self._epochs(row) for row in rows}
            left = [self._left(row, done, of) for row, (done, of, _) in at.items()]
        parts = [f"{counts.pop('done', 0)} of {len(rows)} rows done"]
        parts += [f"{count} {state}" for state, count in sorted(counts.items())]
        parts += [f"{row} at {rate:.1f} clips/s" for row, (_, _, rate) in at.items() if rate]
        if known := sum(one for one in left if one):
            unknown = sum(one is None for one in left)
            parts.append(f"about {duration(known / self.jobs)} left" + (f" and {unknown} rows" if unknown else ""))
        return ", ".join(parts)

    def summary(self) -> str:
        """What ran, what did not need to, what failed and why."""
        counts = Counter[str](self.states.values())
        parts = [f"{counts['done']} stages ran in {duration(time.monotonic() - self.start)}"]
        for state, words in (("cached", "came from DVC's cache"), ("unchanged", "did not change")):
            parts += [f"{counts[state]} {words}"] * bool(counts[state])
        if open_ := counts["waiting"] + counts["running"]:
            parts.append(f"{open_} are still to be done")
        if self.states.get("aggregate") == "done":
            parts.append(f"tables in reports/tables/{self.given.suite}")
        failed = [
            f"failed: {stage} after {duration(self.took[stage])}: {error}" for stage, error in self.errors.items()
        ]
        return "\n".join([", ".join(parts), *failed])

    @contextmanager
    def shown(self) -> Iterator[None]:
        """While the block runs: the rows in place on a terminal, if several run at once; in a log a line now and then.

        With one job the stage's own bar has the terminal.
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

        def tell() -> None:
            while not over.wait(EVERY):
                print(self.line(), flush=True)

        if self.jobs > 1:
            threading.Thread(target=tell, daemon=True).start()
        try:
            yield
        finally:
            over.set()

    def write(self, sink: BinaryIO, text: bytes) -> None:
        """Passes on what was printed: to where it would go, or above the rows."""
        if self.console is None:
            sink.write(text)
            sink.flush()
        elif text:
            from rich.text import Text

            self.console.print(Text.from_ansi(text.decode(errors="replace").rstrip("\n")))

    def _rows(self) -> list[str]:
        return list(dict.fromkeys(key(stage) for stage in self.states if noun(stage) in DOING))

    def _own(self, row: str) -> dict[str, State]:
        return {stage: state for stage, state in self.states.items() if noun(stage) in DOING and key(stage) == row}

    def _state(self, row: str) -> str:
        own = self._own(row)
        if "failed" in own.values():
            return "failed"
        running = [DOING[noun(stage)] for stage, state in own.items() if state == "running"]
        return running[0] if running else "waiting" if "waiting" in own.values() else "done"

    def _epochs(self, row: str) -> tuple[int, int, float]:
        """Of a row in training: epochs done and to be done, of all runs, and the clips a second of its last ones."""
        if self.states.get(f"train@{row}") != "running":
            return 0, 0, 0.0
        experiment = self.given.experiments[row]
        names = [f"split{split}-seed{seed}" for split in experiment.splits for seed in experiment.seeds]
        if not self.logs.get(row):
            self.logs[row] = estimate.running_logs(self.given, row, DATA)
        epochs = [lines for log in self.logs[row] if (lines := run_log.epochs(log))]
        last = [lines[-1].get("clips_per_second", 0.0) for lines in epochs]
        return sum(map(len, epochs)), self.given.recipe(experiment).epochs * len(names), sum(last)

    def _left(self, row: str, done: int, of: int) -> float | None:
        """Seconds of work, of its training's epochs so many done; None where nothing tells."""
        total = 0.0
        for stage, state in self._own(row).items():
            if state not in ("waiting", "running"):
                continue
            if noun(stage) == "train" and done:
                total += (time.monotonic() - self.begun[stage]) * (of - done) / done
            elif (guess := self.guesses.get(stage)) is not None:
                total += guess
            elif noun(stage) != "evaluate":  # which takes little beside training
                return None
        return total
