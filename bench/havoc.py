"""Where bench/chaos.py makes its runs: a file system, nodes, MLflow's server; what strikes them, and what mends.

Every process bears a mark in its environment, by which it is found however it was orphaned.
"""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench import victim
from bench.nodes import BIN, Nodes

AT_WORK = ("training worker", "task", "node", "network")  # kinds that strike where a node is at work
WORKERS = {"training worker": ("ray::train_cell", "ray::RayTrainWorker"), "task": ("ray::_call", "ray::_block")}
SERVICES = ("raylet", "bin/ray start", "ray::DashboardAgent", "ray::RuntimeEnvAgent", "log_monitor", "ray::IDLE")
PATIENCE, GRACE = 900.0, 20.0  # s: for a `dvc repro` to end; for processes to be gone after it
MARK, MLFLOW = "ACTIONBENCH_CHAOS", "http://127.0.0.1:5000"


@dataclass
class Run:
    """What was planned for a run, and what came of it."""

    run: int
    kind: str
    stage: str
    workers: int
    seconds_into: float = 0.0  # from the first sign of the stage, or of its tasks, to the disturbance
    hit: str = ""
    ended: int = 0  # exit status of the disturbed `dvc repro`
    repairs: int = 0
    seconds: float = 0.0  # of all calls of `dvc repro`
    stage_s: float = 0.0  # of an undisturbed one: from the stage's first sign to the driver's end
    tasks_s: float = 0.0  # from the first to the last sign of tasks on the nodes
    epochs_behind: int = 0  # that MLflow lacks
    faults: str = ""


@dataclass
class Bench:
    """The file system, the nodes on it, and MLflow's server."""

    root: Path
    nodes: Nodes = field(init=False)

    def __post_init__(self) -> None:
        self.disk, self.kept = self.root / "disk", self.root / "kept"
        self.project, self.empty, self.store = self.disk / "project", self.root / "empty.db", self.root / "server.db"
        self.nodes = Nodes("chaos", self.project, (0, 2, 2), {MARK: "nodes"})

    def open(self) -> None:
        self.disk.mkdir(parents=True, exist_ok=True)
        image = self.root / "disk.img"
        image.write_bytes(b"")
        os.truncate(image, 400 * 2**20)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, self.disk], check=True)
        self.project.mkdir()
        victim.make(self.project)
        if not self.empty.exists():
            victim.empty_store(self.empty)
        self.nodes.start()
        for workers in (1, 2):
            if not (self.kept / str(workers)).exists():
                victim.set_workers(self.project, workers)
                if workers == 2:
                    victim.put_back(self.kept / "1", self.project, "train")
                    victim.set_workers(self.project, workers)
                assert self.repro("reference").wait() == 0, (self.root / "log").read_text()[-3000:]
                victim.keep(self.project, self.kept / str(workers))
                shutil.copy(self.empty, self.kept / str(workers) / "mlflow.db")

    def close(self) -> None:
        self.rest()
        self.nodes.stop()
        subprocess.run(["umount", self.disk], check=True)

    def repro(self, mark: str, program: str = "dvc", mlflow: str = "") -> subprocess.Popen[bytes]:
        """A driver on the head, the leader of a process group."""
        variables = {
            **self.nodes.variables,
            **({"MLFLOW_TRACKING_URI": mlflow} if mlflow else {}),
            "RAY_ADDRESS": self.nodes.head,
            "DVC_SITE_CACHE_DIR": str(self.root / "site"),
            "DVC_NO_ANALYTICS": "1",
            MARK: mark,
        }
        command = self.nodes.inside(0, BIN / program, "repro")
        with (self.root / "log").open("a") as log:
            print(f"--- {mark}: {program} repro", file=log, flush=True)
            return subprocess.Popen(
                command, cwd=self.project, env=variables, stdout=log, stderr=log, start_new_session=True
            )

    def serve(self) -> None:
        """MLflow's server, on the head's loopback; an empty one, but for what it was told in this run."""
        if not self.store.exists():
            shutil.copy(self.empty, self.store)
        command = [BIN / "mlflow", "server", "--host=127.0.0.1", "--port=5000", "--workers=1"]
        command.append(f"--backend-store-uri=sqlite:///{self.store}")
        variables = {**self.nodes.variables, MARK: "server"}
        inside = self.nodes.inside(0, *command)
        with (self.root / "log").open("a") as log:
            server = subprocess.Popen(inside, cwd=self.root, env=variables, stdout=log, stderr=log)
        asked = self.nodes.inside(0, "curl", "-sf", f"{MLFLOW}/health")
        while server.poll() is None and subprocess.run(asked, capture_output=True).returncode:
            time.sleep(0.5)

    def rest(self) -> None:
        """Ends the server that only some runs have, and forgets what it was told."""
        for process in marked("server"):
            process.kill()
        self.store.unlink(missing_ok=True)

    def fill(self, spare: int) -> str:
        free = shutil.disk_usage(self.disk).free
        with (self.disk / "ballast").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(free - spare, 4096))
        return f"{spare // 1024} KiB left"


def marked(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def stage_of(run: Run) -> list[psutil.Process]:
    return [each for each in marked(f"run {run.run}") if line(each).startswith(f"python -m stages.{run.stage}")]


def line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()).strip()
    except psutil.Error:
        return ""


def at_work(bench: Bench, words: Sequence[str] = ()) -> Iterator[tuple[int, psutil.Process]]:
    """(node, process) of what isn't Ray's own there, or whose command line starts with one of the words."""
    for number in (1, 2):
        for process in bench.nodes.members(number):
            said = line(process)
            if said and (said.startswith(tuple(words)) if words else not any(word in said for word in SERVICES)):
                yield number, process


def disturb(bench: Bench, run: Run, rng: random.Random, driver: subprocess.Popen[bytes], usual: float) -> None:
    """Waits for the moment and strikes; `hit` stays empty where the stage was over before."""

    def found() -> list[tuple[int, psutil.Process]]:
        if run.kind in AT_WORK:
            return list(at_work(bench, WORKERS.get(run.kind, ())))
        return [(0, process) for process in stage_of(run)]

    while not found() and driver.poll() is None:
        time.sleep(0.2)
    begin = time.monotonic()
    time.sleep(rng.uniform(0, usual))
    while not (there := found()) and driver.poll() is None:
        time.sleep(0.2)
    if not there or driver.poll() is not None:
        return
    node, process = rng.choice(sorted(there, key=lambda pair: pair[1].pid))
    if run.kind == "driver":
        process = psutil.Process(driver.pid)
    run.seconds_into, run.hit = round(time.monotonic() - begin, 2), line(process)[-40:]
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
        for server in marked("server"):
            server.kill()
    else:
        process.send_signal(signal.SIGKILL)


def watch(bench: Bench, run: Run, driver: subprocess.Popen[bytes]) -> None:
    """How long an undisturbed stage and its tasks show themselves."""
    stage, tasks = list[float](), list[float]()
    while driver.poll() is None:
        now = time.monotonic()
        stage += [now] if stage or stage_of(run) else []
        tasks += [now] if any(at_work(bench)) else []
        time.sleep(0.2)
    run.stage_s, run.tasks_s = (round(seen[-1] - seen[0], 1) if seen else 0.0 for seen in (stage, tasks))


def mend(bench: Bench, run: Run) -> None:
    """What an operator does: room on the disk, a new node for the lost one, MLflow's server up again."""
    (bench.disk / "ballast").unlink(missing_ok=True)
    if run.kind in ("node", "network") and run.hit:
        number = int(run.hit[-1])
        bench.nodes.kill(number)
        bench.nodes.link(number, up=True)
        bench.nodes.start_node(number)
    if run.kind == "MLflow" and run.hit:
        bench.serve()


def left(bench: Bench, run: Run) -> Iterator[str]:
    """Processes of a run that has ended, once they had time to go."""
    end = time.monotonic() + GRACE
    cut = int(run.hit[-1]) if run.kind == "network" and run.hit and not run.repairs else 0  # can't know yet
    while there := [*marked(f"run {run.run}"), *(process for node, process in at_work(bench) if node != cut)]:
        if time.monotonic() > end:
            yield from (f"left behind: {line(process)[:60]}" for process in there if process.is_running())
            for process in there:
                process.kill()
            return
        time.sleep(0.2)


def repro(bench: Bench, run: Run, rng: random.Random | None = None, usual: float = 0.0, program: str = "dvc") -> int:
    """One `dvc repro`, disturbed where there is a generator; its exit status, and its time onto the run's."""
    begin = time.monotonic()
    if rng and run.kind == "driver":
        program = rng.choice(("dvc", "actionbench"))
    driver = bench.repro(f"run {run.run}", program, MLFLOW if run.kind == "MLflow" else "")
    if run.kind == "nothing":
        watch(bench, run, driver)
    elif rng:
        disturb(bench, run, rng, driver, usual)
    try:
        code = driver.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        code = 124
        for process in marked(f"run {run.run}"):
            process.kill()
    run.seconds = round(run.seconds + time.monotonic() - begin, 1)
    return code
