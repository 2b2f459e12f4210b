"""Disturbances of bench/chaos.py's runs, their repair, and checks of leftovers."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import psutil

from bench.ground import MLFLOW, Bench
from bench.running import command_line

AFTER = ("driver", "disk")  # kinds that may strike after the stage, while DVC still records its outputs
AT_WORK = ("training worker", "task", "node", "network")  # kinds that strike a busy node
WORKERS = {"training worker": ("ray::train_run", "ray::RayTrainWorker"), "task": ("ray::_call", "ray::_block")}
SERVICES = (
    *("raylet", "bin/ray start", "ray::DashboardAgent", "ray::RuntimeEnvAgent", "ray::IDLE"),
    *("dashboard/agent.py", "runtime_env/agent/main.py"),  # the agents, while they start
)
PATIENCE, GRACE = 900.0, 60.0  # s: for a `dvc repro` to end; for processes to be gone after it
REPLACED = 120.0  # s without a lost node, after which a run that still continues, or waits for it, has a new one


@dataclass
class Run:
    """The plan of a run, and its outcome."""

    run: int
    kind: str
    stage: str
    workers: int
    seconds_into: float = 0.0  # from the first sign of the stage, or of its tasks, to the disturbance
    hit: str = ""
    ended: int = 0  # exit status of the disturbed `dvc repro`
    repairs: int = 0
    seconds: float = 0.0  # of all calls of `dvc repro`
    stage_s: float = 0.0  # of an undisturbed one: from the first to the last sign of the stage
    tasks_s: float = 0.0  # and of its tasks on the nodes
    after_s: float = 0.0  # and from the stage's first sign to the driver's end
    epochs_behind: int = 0  # that MLflow lacks
    faults: str = ""
    commit: str = ""  # of the disturbed code


def stage_of(bench: Bench, run: Run) -> list[psutil.Process]:
    return [
        each
        for each in bench.marked(f"run {run.run}")
        if command_line(each).startswith(f"python -m stages.{run.stage}")
    ]


def at_work(bench: Bench, words: Sequence[str] = ()) -> Iterator[tuple[int, psutil.Process]]:
    """Yield (node, process) of processes that are not Ray's.

    With words, yield those whose command line starts with one.
    """
    for number in (1, 2):
        for process in bench.nodes.members(number):
            line = command_line(process)
            if line and (line.startswith(tuple(words)) if words else not any(word in line for word in SERVICES)):
                yield number, process


def disturb(bench: Bench, run: Run, rng: random.Random, driver: subprocess.Popen[bytes], usual: float) -> None:
    """Wait for the moment and strike; `hit` stays empty if the stage was over before."""

    def candidates() -> list[tuple[int, psutil.Process]]:
        if run.kind in AT_WORK:
            return list(at_work(bench, WORKERS.get(run.kind, ())))
        return [(0, process) for process in stage_of(bench, run)]

    while not candidates() and driver.poll() is None:
        time.sleep(0.2)
    begin = time.monotonic()
    time.sleep(rng.uniform(0, usual))
    victims = [] if run.kind in AFTER else candidates()
    while run.kind not in AFTER and not victims and driver.poll() is None:
        time.sleep(0.2)
        victims = candidates()
    if driver.poll() is not None:
        return
    node, process = rng.choice(sorted(victims, key=lambda pair: pair[1].pid)) if victims else (0, None)
    run.seconds_into, run.hit = round(time.monotonic() - begin, 2), command_line(process)[-40:] if process else run.kind
    if run.kind == "node":
        run.hit = f"node {node}"
        bench.nodes.kill(node)
    elif run.kind == "network":
        run.hit = f"node {node}"
        bench.nodes.link(node, up=False)
    elif run.kind == "disk":
        run.hit = bench.fill(rng.randrange(0, 128 * 1024))
    elif run.kind == "MLflow":
        run.hit = "server"
        for server in bench.marked("server"):
            server.kill()
    else:
        os.kill(process.pid if process else driver.pid, signal.SIGKILL)


def watch(bench: Bench, run: Run, driver: subprocess.Popen[bytes]) -> None:
    """Record the time that an undisturbed stage and its tasks are visible."""
    stage, tasks = list[float](), list[float]()
    while driver.poll() is None:
        now = time.monotonic()
        stage += [now] if stage_of(bench, run) else []
        tasks += [now] if any(at_work(bench)) else []
        time.sleep(0.2)
    run.stage_s, run.tasks_s = (round(seen[-1] - seen[0], 1) if seen else 0.0 for seen in (stage, tasks))
    run.after_s = round(time.monotonic() - stage[0], 1)


def mend(bench: Bench, run: Run) -> None:
    """Repair as an operator does: free disk space, a new node, a new MLflow server."""
    (bench.disk / "ballast").unlink(missing_ok=True)
    if run.kind in ("node", "network") and run.hit:
        number = int(run.hit[-1])
        bench.nodes.kill(number)
        bench.nodes.link(number, up=True)
        bench.nodes.start_node(number)
    if run.kind == "MLflow" and run.hit:
        bench.serve()


def replace(bench: Bench, run: Run, driver: subprocess.Popen[bytes]) -> None:
    """Replace a lost node, as a launcher or operator does.

    A full-size training waits for it.
    """
    try:
        driver.wait(REPLACED)
    except subprocess.TimeoutExpired:
        mend(bench, run)


def leftovers(bench: Bench, run: Run) -> Iterator[str]:
    """Yield the processes of a run that has ended, after a grace period."""
    end = time.monotonic() + GRACE
    cut = int(run.hit[-1]) if run.kind == "network" and run.hit and not run.repairs else 0  # can't know yet
    while left := [*bench.marked(f"run {run.run}"), *(process for node, process in at_work(bench) if node != cut)]:
        if time.monotonic() > end:
            yield from (f"left behind: {command_line(process)[:60]}" for process in left if process.is_running())
            for process in left:
                process.kill()
            return
        time.sleep(0.2)


def repro(bench: Bench, run: Run, rng: random.Random | None = None, usual: float = 0.0, program: str = "dvc") -> int:
    """Run one `dvc repro`, disturbed if there is a generator.

    Return its status and add its time.
    """
    begin = time.monotonic()
    if rng and run.kind == "driver":
        program = rng.choice(("dvc", "actionbench"))
    driver = bench.repro(f"run {run.run}", program, MLFLOW if run.kind == "MLflow" else "")
    if run.kind == "nothing":
        watch(bench, run, driver)
    elif rng:
        disturb(bench, run, rng, driver, usual)
    try:
        if run.kind == "node" and run.hit and not run.repairs:
            replace(bench, run, driver)
        code = driver.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        code = 124
        for process in bench.marked(f"run {run.run}"):
            process.kill()
    run.seconds = round(run.seconds + time.monotonic() - begin, 1)
    return code
