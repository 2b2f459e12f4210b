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

from pipeline import records
from pipeline.schema import Params
from pipeline.storage import place
from stages import DATA, estimate
from stages.plan import Step, key, locked, noun
from stages.terminal import duration

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

EVERY = 30.0  # seconds from one line to the next in a log
State = Literal["waiting", "running", "done", "cached", "unchanged", "failed"]
DOING = {"train": "training", "evaluate": "evaluating", "trajectories": "describing"}
RUNS = re.compile(rb"Running stage '(.+)':")
FAILS = re.compile(rb"(?:ERROR|WARNING): .*exited with ")
SKIPS = re.compile(rb"Stage '(.+)' (?:(didn't change)|is cached)")


@dataclass
class Stream:
    """What one DVC process has said so far."""

    stage: str = ""  # that it is at
    error: str = ""  # the last line of its standard error


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
    console: "Console | None" = None  # where the rows are redrawn in place, and all else is printed above them

    def __post_init__(self) -> None:
        self.start = time.monotonic()
        self.states |= {step.stage: "waiting" for step in self.steps}
        self.lock = threading.RLock()
        speeds = estimate.measured(DATA, locked())
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
            parts.append(f"about {estimate.work(sum(known), self.given.cluster)} for {len(known)} of them")
        return "; ".join([*parts, "`actionbench plan` says why"])

    def saw(self, stream: Stream, line: bytes, error: bool) -> None:
        """Takes in a line that a DVC process printed, itself or its stage."""
        with self.lock:
            if found := RUNS.match(line):
                self.ended(stream, failed=False)
                stream.stage, stream.error = found[1].decode(), ""
                self.states[stream.stage], self.begun[stream.stage] = "running", time.monotonic()
            elif found := SKIPS.match(line):
                stage = found[1].decode()
                if stage in self.states:  # else it was up to date before
                    self.states[stage] = "unchanged" if found[2] else "cached"
            elif FAILS.match(line):
                self.ended(stream, failed=True)
            elif error and line.strip() and not line.startswith((b"ERROR: ", b"WARNING: ")):
                stream.error = line.decode(errors="replace").strip()

    def ended(self, stream: Stream, failed: bool) -> None:
        """The stage that a process was at is over."""
        with self.lock:
            if stream.stage:
                self.states[stream.stage] = "failed" if failed else "done"
                self.took[stream.stage] = time.monotonic() - self.begun[stream.stage]
                if failed:
                    self.errors[stream.stage] = stream.error or "it said nothing"
            stream.stage = ""

    def table(self) -> "Table":
        """A line a row: what it is at, epochs, clips/s, time left."""
        from rich.table import Table

        table = Table("row", "state", "epochs", "clips/s", "left", box=None, pad_edge=False)
        for row in self._rows():
            done, of, rate = self._epochs(row)
            left = self._left(row)
            at = self._state(row)
            numbers = (f"{done} of {of}", f"{rate:.1f}" if rate else "") if at == "training" else ("", "")
            table.add_row(row, at, *numbers, duration(left) if left else "")
        table.caption = self.line()
        return table

    def line(self) -> str:
        """All rows in one line."""
        rows = self._rows()
        counts = Counter(self._state(row) for row in rows)
        left = [self._left(row) for row in rows]
        parts = [f"{counts.pop('done', 0)} of {len(rows)} rows done"]
        parts += [f"{count} {state}" for state, count in sorted(counts.items())]
        rates = {row: self._epochs(row)[2] for row in rows if self._state(row) == "training"}
        parts += [f"{row} at {rate:.1f} clips/s" for row, rate in rates.items() if rate]
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
        """Epochs done and to be done, of all cells of a row, and the clips per second that its last ones took."""
        if row not in self.given.experiments:
            return 0, 0, 0.0
        experiment = self.given.experiments[row]
        names = [f"split{split}-seed{seed}" for split in experiment.splits for seed in experiment.seeds]
        folder = place(self.given.cluster.storage) / row
        logs = [list(records.epochs(folder / name / "log.jsonl")) for name in names]
        last = [log[-1]["clips_per_second"] for log in logs if log]
        return sum(map(len, logs)), self.given.recipes[experiment.recipe].epochs * len(names), sum(last)

    def _left(self, row: str) -> float | None:
        """Seconds of work; None where nothing tells."""
        total = 0.0
        for stage, state in self._own(row).items():
            if state not in ("waiting", "running"):
                continue
            done, of, _ = self._epochs(row) if noun(stage) == "train" and state == "running" else (0, 0, 0.0)
            if done:
                total += (time.monotonic() - self.begun[stage]) * (of - done) / done
            elif (guess := self.guesses.get(stage)) is not None:
                total += guess
            elif noun(stage) != "evaluate":  # which takes little beside training
                return None
        return total
