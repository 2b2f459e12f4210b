"""SIGKILL to a process of `actionbench repro` at a random moment, with real DVC and Ray, and the same command again.

The project's path holds a blank, a percent sign and a letter beyond ASCII; the locale is C.
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
from bench.attack.judge import Outcome

MOST = 30
PATIENCE = 420.0  # seconds for one `actionbench repro`
GONE = 60.0  # seconds for the processes of one that has ended
CALLS = 3  # of `actionbench repro` after the kill
MARK = "ACTIONBENCH_ATTACK"
# Whom to kill -> words of its command line.
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
    """Kills until `end` (time.monotonic()), MOST at most."""
    base = _project(folder)
    for number in range(MOST):
        stage, target, share = rng.choice(list(victim.MADE)), rng.choice(list(VICTIMS)), rng.random()
        if time.monotonic() > end:
            return
        yield _killed(base, folder / "killed %41 ü", f"{number}: {target} in {stage}", stage, target, share)


def _project(folder: Path) -> Path:
    """The folder with the finished project, which is made once for a state of the code."""
    fresh = folder / "new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    victim.make(fresh)
    base = folder / f"project-{victim.code(fresh)}"
    if not (base / "done").exists():
        base.mkdir(exist_ok=True)
        code = _waited(_repro(fresh, f"{fresh}"), f"{fresh}")
        if code:
            raise SystemExit(f"the undisturbed repro ends with {code}: {(fresh / 'log').read_text()[-2000:]}")
        (fresh / "log").unlink()
        fresh.rename(base / "done")
    return base


def _killed(base: Path, work: Path, name: str, stage: str, target: str, share: float) -> Outcome:
    begin = time.monotonic()
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(base / "done", work, symlinks=True)
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
    wrong += [f"repro ends with {code}"] if code else list(victim.faults(work, victim.results(base / "done")))
    outcome = "hung" if code == 124 else "silent" if wrong and not code else "right"
    if "Traceback (most recent call last)" in log or (code and code != 124):
        outcome = "traceback"
        wrong.append(log[log.find("Traceback") :][-300:])
    said = f"{struck}; {calls} more calls" + (f"; {' '.join(wrong)}" if wrong else "")
    return Outcome("kills", name, "right", outcome, round(time.monotonic() - begin, 1), " ".join(said.split())[:700])


def _repro(work: Path, mark: str) -> "subprocess.Popen[bytes]":
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
    variables |= {"PYTHONPATH": str(work), "DVC_NO_ANALYTICS": "1", "OMP_NUM_THREADS": "1", MARK: mark}
    variables["LC_ALL"] = "C"
    variables["DVC_SITE_CACHE_DIR"] = str(work.parent / "site")
    command = [str(Path(sys.executable).with_name("actionbench")), "repro"]
    with (work / "log").open("ab") as log:
        return subprocess.Popen(command, cwd=work, env=variables, stdout=log, stderr=log, start_new_session=True)


def _strike(driver: "subprocess.Popen[bytes]", mark: str, stage: str, target: str, share: float) -> str:
    """Kill a process of the kind once the stage is at work, at a share of some seconds after that."""
    working = re.compile(rf"-m stages\.{stage}\b")
    while driver.poll() is None and not any(working.search(line) for _, line in _marked(mark)):
        time.sleep(0.2)
    moment = time.monotonic() + 12 * share
    pattern = re.compile(VICTIMS[target])
    while driver.poll() is None:
        found = [(process, line) for process, line in _marked(mark) if line and pattern.search(line)]
        if found and time.monotonic() > moment:
            process, line = random.Random(share).choice(found)
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
        for process, _ in _marked(mark):
            process.kill()
        return 124


def _left(mark: str) -> list[str]:
    """The processes that are left, once they had time to go."""
    end = time.monotonic() + GONE
    while found := _marked(mark):
        if time.monotonic() > end:
            for process, _ in found:
                process.kill()
            return [f"left behind: {line[:60]}" for _, line in found]
        time.sleep(0.3)
    return []


def _marked(mark: str) -> list[tuple[psutil.Process, str]]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append((process, " ".join(process.cmdline())))
        except psutil.Error:
            continue
    return found
