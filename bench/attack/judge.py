"""Attacks and their outcomes, each in a process with limited time and memory."""

import multiprocessing
import os
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.decode.integrity import Damaged
from pipeline.errors import UserError

LIMIT = 60.0  # seconds for an attack
MEMORY = 8 << 30  # bytes of address space beyond what the parent has
LONGEST = 700  # characters of a message
OUTCOMES = ("right", "line", "refused", "silent", "hung", "traceback")


@dataclass(frozen=True)
class Attack:
    """An input, and the code that receives it.

    Attributes:
        kind: The attacked part of the project.
        name: The input.
        wants: "right" for a whole input, "line" for one that must be refused, "either".
        act: Gets an empty folder; returns "" for a right result, otherwise the silent fault.
        seconds: The time limit.
    """

    kind: str
    name: str
    wants: str
    act: Callable[[Path], str]
    seconds: float = LIMIT


@dataclass(frozen=True)
class Outcome:
    """The outcome of an attack."""

    kind: str
    name: str
    wants: str
    outcome: str  # one of OUTCOMES
    seconds: float
    message: str


def judged(attack: Attack) -> Outcome:
    """Run an attack in a fork of this process."""
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="attack-", ignore_cleanup_errors=True) as folder:
        verdict = Path(folder) / "verdict"
        inside = Path(folder) / "inside"
        inside.mkdir()
        process = multiprocessing.get_context("fork").Process(target=_child, args=(attack, inside, verdict))
        process.start()
        process.join(attack.seconds)
        if process.is_alive():
            process.kill()
            process.join()
            outcome, words = "hung", f"no end after {attack.seconds:.0f} s"
        elif not verdict.exists():
            outcome, words = "traceback", f"its process died with {process.exitcode}"
        else:
            outcome, _, words = verdict.read_text(errors="replace").partition("\n")
    seconds = round(time.monotonic() - begin, 2)
    return Outcome(attack.kind, attack.name, attack.wants, outcome, seconds, " ".join(words.split())[-LONGEST:])


def _child(attack: Attack, inside: Path, verdict: Path) -> None:
    os.setpgid(0, 0)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        os.dup2(null, stream)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    outcome, words = "traceback", ""
    try:
        words = attack.act(inside)
        outcome = "silent" if words or attack.wants == "line" else "right"
        words = words or ("was accepted" if attack.wants == "line" else "")
    except (UserError, Damaged) as error:
        outcome, words = _line(attack, str(error))
    except SystemExit as left:
        outcome, words = _line(attack, str(left.code))
    except BaseException:
        words = traceback.format_exc()
    verdict.write_text(f"{outcome}\n{words}")
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
    os._exit(0)


def _line(attack: Attack, words: str) -> tuple[str, str]:
    if not words.strip() or "\n" in words or len(words) > LONGEST or "Traceback" in words:
        return "traceback", f"no clear line: {words}"
    return ("refused" if attack.wants == "right" else "line"), words
