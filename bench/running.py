"""Parts of a running benchmark: options, child processes, timings."""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from cluster.session import MALLOC

ROOT = Path(__file__).parents[1]
SHELL = """\
#!/bin/sh
begun=$(date +%s.%N)
/bin/sh "$@"
code=$?
echo "$begun $(date +%s.%N) $2" >> '{log}'
exit $code
"""  # DVC runs a stage's command in $SHELL


class Timing(NamedTuple):
    """The result of a call, and its seconds by the wall clock and of CPU time."""

    result: Any
    wall: float
    cpu: float


def parser(doc: str, **options: Any) -> argparse.ArgumentParser:
    """Return a parser with an option for each keyword.

    A keyword's value is the default, or the default and a help text. A list takes several values, False is a switch,
    and a type stands for no default. A list of strings holds all values that are allowed. The description is the
    docstring's first line.
    """
    result = argparse.ArgumentParser(description=doc.splitlines()[0])
    for name, option in options.items():
        default, text = option if isinstance(option, tuple) else (option, None)
        if default is False:
            result.add_argument(f"--{name}", action="store_true", help=text)
        elif isinstance(default, type):
            result.add_argument(f"--{name}", type=default, help=text)
        elif isinstance(default, list):
            choices = default if isinstance(default[0], str) else None
            result.add_argument(
                f"--{name}", type=type(default[0]), nargs="+", choices=choices, default=default, help=text
            )
        else:
            result.add_argument(f"--{name}", type=type(default), default=default, help=text)
    return result


def options(doc: str, **defaults: Any) -> argparse.Namespace:
    """Parse the command line; see parser()."""
    return parser(doc, **defaults).parse_args()


def child(bench: str, *arguments: str, **variables: str) -> Any:
    """Return what a bench prints as JSON in a separate process."""
    command = [sys.executable, "-m", f"bench.{bench}", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | variables, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def with_malloc(bench: str, main: Callable[[], None]) -> None:
    """Run a bench with the memory settings of Ray's workers, set at a process's start."""
    if MALLOC.items() <= os.environ.items():
        main()
    else:
        os.execve(sys.executable, [sys.executable, "-m", f"bench.{bench}", *sys.argv[1:]], {**os.environ, **MALLOC})


def timed(work: Callable[..., Any], *arguments: Any) -> Timing:
    """Call a function. CPU time includes the child processes that have ended."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    result = work(*arguments)
    return Timing(result, time.perf_counter() - wall, cpu_seconds() - cpu)


def cpu_seconds() -> float:
    """Return the CPU time so far of this process and of its ended children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def cpu_by_process() -> dict[int, float]:
    """Return the CPU time so far of every running process."""
    used = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            times = process.cpu_times()
            used[process.pid] = times.user + times.system
    return used


def one_core() -> None:
    """Pin this process and its children to one core."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def machine() -> str:
    """Describe the cores that this process may use, and their load."""
    return f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[1]:.1f} meanwhile"


def codecs() -> str:
    """Return the vector instructions of this processor that codecs use."""
    flags = Path("/proc/cpuinfo")
    present = set(flags.read_text().split()) if flags.exists() else set()
    return ", ".join(name for name in ("sse4_2", "avx2", "avx512f", "neon", "asimd") if name in present) or "unknown"


def marked(variable: str, value: str) -> list[psutil.Process]:
    """Return the running processes with this value in their environment."""
    processes = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(variable) == value and process.status() != psutil.STATUS_ZOMBIE:
                processes.append(process)
    return processes


def command_line(process: psutil.Process) -> str:
    """Return a process's command line; "" if the process has ended."""
    try:
        return " ".join(process.cmdline()).strip()
    except psutil.Error:
        return ""


def emptied(folder: Path) -> Path:
    """Return a folder without content."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def noting_shell(place: Path) -> Path:
    """Write place/sh, a shell that notes begin and end of its commands; return the file that they go to."""
    log = place / "stages.log"
    (place / "sh").write_text(SHELL.format(log=log))
    (place / "sh").chmod(0o755)
    return log


def stage_seconds(log: Path) -> list[tuple[str, float]]:
    """Return command and wall seconds of each stage that ran in the shell of noting_shell()."""
    lines = [line.split(maxsplit=2) for line in log.read_text().splitlines()]
    return [(command, float(end) - float(begun)) for begun, end, command in lines]
