"""`dvc repro` with one Ray session for all stages, and rows in parallel on demand."""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from dvc.rwlock import SCHEMA as RWLOCK_SCHEMA
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from ruamel.yaml import YAML, YAMLError
from voluptuous import Invalid

from pipeline.config import load
from pipeline.errors import UserError
from stages.repro import needs, plan
from stages.repro.plan import key, noun
from stages.repro.watch import FAILS, Stream, Watch

CONFLICT = re.compile(r"(<<<<<<<|>>>>>>>|\|\|\|\|\|\|\|)( |$)")  # git's marks
GRACE = 10.0  # seconds for an interrupted stage to end by itself
# Kills its process group when its standard input ends, that is, when this process closes it or has ended.
WATCHER = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(flush=True)
sys.stdin.read()
os.killpg(0, signal.SIGKILL)
"""
# DVC's hints about git and remotes, and its list of failures, of which there is a summary: they are not shown.
CHATTER = re.compile(
    rb"\s*$|To track the changes|\s*git add |To enable auto staging|\s*dvc config core\.autostage|Use `dvc push`"
    rb"|ERROR: failed to reproduce [^:]*$|(Updating|Generating) lock file|Data and pipelines are up to date"
    rb"|WARNING: .* in RWLock-file .* had been killed"
)


def repro(targets: Sequence[str], jobs: int, keep_going: bool) -> int:
    """Bring the targets up to date; return the exit code.

    It is 0, 2 after users' errors only, or 1. With several jobs, shared stages run first, then that many rows at a
    time, then the tables. Without `keep_going`, nothing more starts after a failure, and nothing at all if a stage
    lacks videos, lists or weights.
    """
    from cluster.shared import shared

    params = load.load()
    mend()
    project = plan.project()
    chosen = plan.needed(targets, project.stages)
    steps = [step for step in plan.current(params, project) if step.stage in chosen]
    if steps and not keep_going and (absent := needs.missing(params, steps, Path())):
        print(*(f"error: {each}" for each in absent), sep="\n", file=sys.stderr, flush=True)
        return 2
    if project.first:  # --single-item and dvc.lock depend on these stages
        plan.dvc("repro", "--quiet", *plan.FIRST)
    if not steps:
        print("everything is up to date", flush=True)
        return 0
    stale, watch = [step.stage for step in steps], Watch(params, steps, jobs)
    print(watch.foreword(), flush=True)
    # Ray sets a handler of SIGTERM at its start; ours must be set later.
    with shared(params.cluster) as joined, interrupted_by_signals():
        crew = Crew(joined, watch)
        options = ["--keep-going"] if keep_going else []
        try:
            with watch.shown():
                if jobs == 1:
                    crew.dvc("repro", *options, *(stale if targets else []))
                else:
                    _side_by_side(crew, stale, jobs, options)
        finally:
            crew.stop()
            with suppress(OSError):  # the terminal may be closed
                print(watch.summary(), flush=True)
    return 0 if not crew.codes else 2 if crew.codes == {2} else 1


def mend() -> None:
    """Repair DVC's files after a crash: rename damaged locks, delete a damaged rwlock.

    DVC writes them in place and refuses to run after a crash during that. It restores results from its cache.

    Raises:
        UserError: A lock file has the marks of a merge conflict, which the user must solve.
    """
    checks: dict[str, Callable[[str], None]] = {
        ".dvc/tmp/rwlock": lambda text: RWLOCK_SCHEMA(json.loads(text)),
        **dict.fromkeys(("dvc.lock", "stages/dvc.lock"), _check_lock),
    }
    for path, check in ((Path(name), check) for name, check in checks.items()):
        for last in (False, True):  # another DVC may be writing it: check twice
            try:
                if path.exists():
                    check(path.read_text(encoding="utf-8"))
                break
            except _Conflict as conflict:
                raise UserError(
                    f"{path}, line {conflict}: a merge conflict; solve it (`git checkout --ours {path}` or --theirs is "
                    "enough, because stale stages run again), then repeat the command"
                ) from None
            except (ValueError, TypeError, Invalid, YAMLError):
                if not last:
                    time.sleep(1.0)
                elif path.name == "rwlock":
                    path.unlink(missing_ok=True)
                    print(f"{path} was half-written and is written again", file=sys.stderr, flush=True)
                else:
                    names = (path.with_name(f"{path.name}.damaged-{number}") for number in itertools.count(1))
                    aside = next(name for name in names if not name.exists())
                    path.rename(aside)
                    print(f"{path} is damaged or half-written; it is now {aside}", file=sys.stderr, flush=True)


class _Conflict(Exception):
    """The number of the first line with a mark of a merge conflict."""


def _check_lock(text: str) -> None:
    """Raise an error if a lock file is damaged; its last line may lack its end."""
    lines = text.splitlines()
    if mark := next((number for number, line in enumerate(lines, 1) if CONFLICT.match(line)), 0):
        raise _Conflict(mark)
    COMPILED_LOCKFILE_SCHEMA(YAML(typ="safe").load(text))


class Crew:
    """DVC processes and their stages, in a process group that ends with this one."""

    def __init__(self, variables: Mapping[str, str], watch: Watch) -> None:
        self.watch = watch
        self.variables = {**plan.dvc_environment(), "PYTHONUNBUFFERED": "1", **variables}
        self.codes: set[int] = set()  # exit codes of failed stages; 1 for DVC's own failures
        self.running: set[subprocess.Popen[bytes]] = set()
        self.stopping = False
        self.lock = threading.Lock()
        self.watcher = subprocess.Popen(
            [sys.executable, "-IS", "-c", WATCHER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0
        )
        assert self.watcher.stdin and self.watcher.stdout
        self.watcher.stdout.readline()

    def dvc(self, *arguments: str, label: str = "") -> bool:
        """Run DVC and forward its output, labeled by line; return True on success."""
        bar = not label and sys.stderr.isatty()
        drawn = {"TTY_COMPATIBLE": "1", "COLUMNS": str(shutil.get_terminal_size().columns)} if bar else {}
        with self.lock:
            if self.stopping:
                return False
            process = subprocess.Popen(
                plan.dvc_command(*arguments),
                env=self.variables | drawn,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                process_group=self.watcher.pid,  # Ctrl-C reaches only this process, which ends the others
            )
            self.running.add(process)
        assert process.stdout and process.stderr
        stream = Stream()
        pumps = [
            threading.Thread(target=self._pass_on, args=(source, sink, label, bar, stream), daemon=True)
            for source, sink in ((process.stdout, sys.stdout.buffer), (process.stderr, sys.stderr.buffer))
        ]
        for pump in pumps:
            pump.start()
        for pump in pumps:
            pump.join()
        failed = process.wait() != 0
        self.watch.ended(stream, failed)
        self.running.discard(process)
        if failed:
            self.codes |= stream.codes or {1}
        return not failed

    def stop(self) -> None:
        """End every process and its stage: by SIGINT, then SIGTERM, then SIGKILL."""
        with self.lock:
            self.stopping = True
        for number, seconds in ((signal.SIGINT, GRACE), (signal.SIGTERM, 2.0)):
            alive = [process for process in self.running if process.poll() is None]
            if alive:
                os.killpg(self.watcher.pid, number)
            end = time.monotonic() + seconds
            with suppress(KeyboardInterrupt):  # a second Ctrl-C ends the wait
                while time.monotonic() < end and any(process.poll() is None for process in alive):
                    time.sleep(0.05)
        self.watcher.communicate()

    def _pass_on(self, source: BinaryIO, sink: BinaryIO, label: str, bar: bool, stream: Stream) -> None:
        """Forward whole lines, and unfinished ones of a progress bar."""
        rest, error = b"", sink is sys.stderr.buffer
        while chunk := os.read(source.fileno(), 65536):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self.watch.saw(stream, line, error)
            shown = [line + b"\n" for line in lines if self._worth(line)]
            if bar and (b"\r" in rest or b"\x1b" in rest):
                shown, rest = [*shown, rest], b""
            self._write(sink, shown, label)
        self.watch.saw(stream, rest, error)
        if rest and self._worth(rest):
            self._write(sink, [rest + b"\n"], label)

    def _worth(self, line: bytes) -> bool:
        failure = FAILS.match(line)
        # A stage reports a user's error in one line; DVC's additional line is left out.
        return not self.stopping and not CHATTER.match(line) and not (failure and failure[2] == b"2")

    def _write(self, sink: BinaryIO, lines: list[bytes], label: str) -> None:
        with self.lock:
            self.watch.write(sink, b"".join((f"{label} | ".encode() if label else b"") + line for line in lines))


@contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Raise KeyboardInterrupt in the block on SIGTERM and SIGHUP, as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _side_by_side(crew: Crew, stale: Sequence[str], jobs: int, options: Sequence[str]) -> None:
    rows: dict[str, list[str]] = {}
    for stage in stale:
        if noun(stage) in ("train", "evaluate", "trajectories"):
            rows.setdefault(key(stage), []).append(stage)
    first = [stage for stage in stale if noun(stage) in ("download", "decode", "splits")]
    if first and not crew.dvc("repro", *options, *first):
        if not options:
            return
        lacking = crew.watch.lacking()
        rows = {name: stages for name, stages in rows.items() if name not in lacking}
    # --single-item: DVC locks a stage's inputs also while it runs earlier stages, so rows that share a data set would
    # block one another.
    with ThreadPoolExecutor(jobs) as pool:

        def row(name: str) -> None:
            if crew.codes and not options:
                return
            all(crew.dvc("repro", "--single-item", stage, label=name) for stage in rows[name])

        waiting = {pool.submit(row, name) for name in rows}
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=1.0, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
        except BaseException:
            crew.stop()
            raise
    if "aggregate" in stale and not crew.codes:
        crew.dvc("repro", "--single-item", "aggregate")
