"""A cluster of several nodes on this machine, each with a separate view of the project."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from cluster import preflight
from stages.commands.doctor import free_port

ROOT = Path(__file__).parents[3]


ASK = """
import sys, time
import cluster.session
from cluster.preflight import ask, wait_for
from pipeline.errors import UserError
from pipeline.config.schema import Cluster

def all_of(given, data):
    wait_for(int(sys.argv[1]), 120)
    begin = time.monotonic()
    nodes, wrong = ask(given, data)
    print(nodes, time.monotonic() - begin, *sorted(wrong), sep="\\n")

cluster.session.preflight = all_of
try:
    with cluster.session.session(Cluster(storage=sys.argv[2])):
        pass
except UserError as error:
    print(error)
"""


def project(folder: Path) -> Path:
    """Copy the project's code for a node."""
    for name in preflight.SOURCES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "kuberay", "slurm"))
    return folder


@contextmanager
def nodes(head: Path, *others: tuple[Path, dict[str, str]]) -> Iterator[dict[str, str]]:
    """Start Ray nodes, each with its folder and variables; yield a driver's variables."""
    temporary = Path(f"/tmp/preflight-{os.getpid()}-{time.time_ns() % 10**6}")  # sockets' paths must be short
    port = free_port()
    base = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        **{"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 64, "RAY_USAGE_STATS_ENABLED": "0"},
        **{"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "PYTHONPATH": str(head)},
    }
    common = ["--block", "--num-cpus=1", "--object-store-memory=80000000", "--min-worker-port=0", "--max-worker-port=0"]
    ray = str(Path(sys.executable).parent / "ray")
    processes = []

    def start(folder: Path, variables: dict[str, str], *arguments: str) -> None:
        command = [ray, "start", *arguments, *common, f"--dashboard-agent-listen-port={free_port()}"]
        log = (head / f"ray-{len(processes)}.log").open("w")
        processes.append(
            subprocess.Popen(command, cwd=folder, env={**base, **variables}, stdout=log, stderr=log, process_group=0)
        )

    try:
        start(head, {}, "--head", f"--port={port}", f"--temp-dir={temporary}", "--include-dashboard=false")
        driver = {**base, "RAY_ADDRESS": f"{address()}:{port}"}
        while subprocess.run([ray, "health-check", "--address", driver["RAY_ADDRESS"]], env=driver).returncode:
            assert processes[0].poll() is None, (head / "ray-0.log").read_text()
            time.sleep(0.5)
        for number, (folder, variables) in enumerate(others, 1):
            start(folder, variables, f"--address={driver['RAY_ADDRESS']}")
            log = head / f"ray-{number}.log"
            while "Ray runtime started" not in log.read_text():  # one by one: Ray gives a node half a minute to start
                assert processes[-1].poll() is None, log.read_text()
                time.sleep(0.2)
        yield driver
    finally:
        for process in processes:
            family = [process, *psutil.Process(process.pid).children(recursive=True)] if process.poll() is None else []
            for member in reversed(family):
                member.kill()
            process.wait()
        shutil.rmtree(temporary, ignore_errors=True)


def address() -> str:
    import ray

    return ray.util.get_node_ip_address()


def ask(folder: Path, variables: dict[str, str], count: int, storage: Path | str) -> list[str]:
    """Return a driver's view: number of nodes, seconds, a line for each wrong node."""
    command = [sys.executable, "-c", ASK, str(count), str(storage)]
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    return done.stdout.splitlines()
