"""SIGKILL to a random process of `actionbench repro`, then the command again.

DVC and Ray are real. The project's path has a blank, a percent sign and a letter beyond ASCII; the locale is C.
"""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from bench import victim
from bench.attack.judge import LONGEST, Outcome
from bench.running import command_line, marked

MOST = 30
PATIENCE = 420.0  # seconds for one `actionbench repro`
GONE = 60.0  # seconds for the processes of one that has ended
CALLS = 3  # of `actionbench repro` after the kill
MARK = "ACTIONBENCH_ATTACK"
# Process to kill -> pattern of its command line.
VICTIMS = {
    "driver": r"bin/actionbench repro",
    "DVC": r"bin/dvc ",
    "stage": r"^\S*python\S* -m stages\.",
    "Ray's head": r"gcs_server",
    "Ray's node": r"raylet/raylet",
    "task": r"^ray::(?!IDLE)",
    "any": r"",
}


def outcomes(folder: Path, rng: random.Random, end: float) -> Iterator[Outcome]:
    """Kill until `end` (time.monotonic()), at most MOST times."""
    done = _project(folder)
    for number in range(MOST):
        stage, target, share = rng.choice(list(victim.MADE)), rng.choice(list(VICTIMS)), rng.random()
        if time.monotonic() > end:
            return
        yield _killed(done, folder / "killed %41 ü", f"{number}: {target} in {stage}", stage, target, share)


def _project(folder: Path) -> Path:
    """Return the finished project, made once for a state of the code."""
    fresh, kept = victim.prepared(folder, "project")
    if not (kept / "done").exists():
        if code := _waited(_repro(fresh, f"{fresh}"), f"{fresh}"):
            raise SystemExit(f"the undisturbed repro ends with {code}: {(fresh / 'log').read_text()[-2000:]}")
        (fresh / "log").unlink()
        fresh.rename(kept / "done")
    return kept / "done"


def _killed(done: Path, work: Path, name: str, stage: str, target: str, share: float) -> Outcome:
    begin = time.monotonic()
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(done, work, symlinks=True)
    victim.forget(work, stage)
    mark = f"{work} {name}"
    driver = _repro(work, mark)
    struck = _strike(driver, mark, stage, target, share)
    code = _waited(driver, mark)
    wrong, calls = _left(mark), 0
    while not wrong and (calls == 0 or code) and calls < CALLS:
        calls += 1
        code = _waited(_repro(work, mark), mark)
        wrong = _left(mark)
    log = (work / "log").read_text(errors="replace")
    wrong += [f"repro ends with {code}"] if code else list(victim.faults(work, victim.results(done)))
    outcome = "hung" if code == 124 else "silent" if wrong and not code else "right"
    if "Traceback (most recent call last)" in log or (code and code != 124):
        outcome = "traceback"
        wrong.append(log[log.find("Traceback") :][-300:])
    message = f"{struck}; {calls} more calls" + (f"; {' '.join(wrong)}" if wrong else "")
    seconds = round(time.monotonic() - begin, 1)
    return Outcome("kills", name, "right", outcome, seconds, " ".join(message.split())[:LONGEST])


def _repro(work: Path, mark: str) -> "subprocess.Popen[bytes]":
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
    variables |= {"PYTHONPATH": str(work), "DVC_NO_ANALYTICS": "1", "OMP_NUM_THREADS": "1", MARK: mark}
    variables["LC_ALL"] = "C"
    variables["DVC_SITE_CACHE_DIR"] = str(work.parent / "site")
    command = [str(Path(sys.executable).with_name("actionbench")), "repro"]
    with (work / "log").open("ab") as log:
        return subprocess.Popen(command, cwd=work, env=variables, stdout=log, stderr=log, start_new_session=True)


def _strike(driver: "subprocess.Popen[bytes]", mark: str, stage: str, target: str, share: float) -> str:
    """Kill a process of the kind, some seconds after the stage has started."""
    working = re.compile(rf"-m stages\.{stage}\b")
    while driver.poll() is None and not any(working.search(line) for line in _lines(mark).values()):
        time.sleep(0.2)
    moment = time.monotonic() + 12 * share
    pattern = re.compile(VICTIMS[target])
    while driver.poll() is None:
        victims = [(process, line) for process, line in _lines(mark).items() if line and pattern.search(line)]
        if victims and time.monotonic() > moment:
            process, line = random.Random(share).choice(victims)
            try:
                process.send_signal(signal.SIGKILL)
            except psutil.Error:
                continue
            return f"killed {' '.join(line.split())[-40:]}"
        time.sleep(0.1)
    return "the stage was over before"


def _waited(driver: "subprocess.Popen[bytes]", mark: str) -> int:
    try:
        return driver.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        for process in marked(MARK, mark):
            process.kill()
        return 124


def _left(mark: str) -> list[str]:
    """Return the processes that are left after a grace period, and kill them."""
    end = time.monotonic() + GONE
    while lines := _lines(mark):
        if time.monotonic() > end:
            for process in lines:
                process.kill()
            return [f"left behind: {line[:60]}" for line in lines.values()]
        time.sleep(0.3)
    return []


def _lines(mark: str) -> dict[psutil.Process, str]:
    """Return the processes of a repro with their command lines."""
    return {process: command_line(process) for process in marked(MARK, mark)}
