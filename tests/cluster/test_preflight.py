"""The preflight on real nodes: processes started here, each with its own folder and its own view of the files."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from cluster import preflight
from stages.commands.doctor import free_port

ROOT = Path(__file__).parents[2]
ASK = """
import sys, time
import cluster.session
from cluster.preflight import ask, wait_for
from pipeline.errors import UserError
from pipeline.schema import Cluster

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


def test_the_difference_told_is_the_one_to_mend_first() -> None:
    here = preflight.facts({}, "")
    there = {**here, "python": "3.12.1", "torch": "2.0.0", "folder": "/elsewhere"}
    first, second, third = preflight.differences(here, there)
    assert first.startswith("the folder it works in is /elsewhere") and "start Ray there" in first
    assert second.startswith("python is 3.12.1, not ") and third.startswith("torch is 2.0.0, not ")
    assert preflight.differences(here, here) == []


def test_a_folder_is_shared_where_the_token_is_read_and_an_answer_written(tmp_path: Path) -> None:
    (tmp_path / ".preflight-t").write_text("t")
    (tmp_path / ".preflight-u").write_text("of another time")
    folders = {"data": str(tmp_path), "storage": str(tmp_path / "absent")}
    found = preflight.facts(folders, "t")
    assert (found["data"], found["storage"]) == ("shared", "no such file or directory")
    assert len(list(tmp_path.glob(".preflight-t-*"))) == 1
    assert preflight.facts({"data": str(tmp_path)}, "u")["data"] == "holds something else"


def test_another_commit_is_told_though_it_does_not_load(tmp_path: Path) -> None:
    other = project(tmp_path / "other")
    told = []
    for text in ("", "this does not even parse\n"):
        with (other / "models" / "video.py").open("a") as file:
            file.write(text)
        code = "from cluster.preflight import facts; print(facts({}, '')['sources'])"
        variables = {**os.environ, "PYTHONPATH": str(other)}
        done = subprocess.run([sys.executable, "-c", code], cwd=other, env=variables, capture_output=True, text=True)
        there = {**preflight.facts({}, ""), "sources": done.stdout.strip()}
        told.append(preflight.differences(preflight.facts({}, ""), there))
    assert told[0] == [] and "same commit" in told[1][0]


def project(folder: Path) -> Path:
    """A copy of the project's code, which a node can have for itself."""
    for name in preflight.SOURCES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "kuberay", "slurm"))
    return folder


@contextmanager
def nodes(head: Path, *others: tuple[Path, dict[str, str]]) -> Iterator[dict[str, str]]:
    """Ray nodes, each in a folder and with variables of its own; yields a driver's variables."""
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
    """What a driver in `folder` is told: how many nodes, the seconds it took, a line for each wrong node."""
    command = [sys.executable, "-c", ASK, str(count), str(storage)]
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    return done.stdout.splitlines()


@pytest.mark.slow
def test_nodes_that_see_otherwise_are_named(tmp_path: Path) -> None:
    """A head as it should be, and two nodes, each wrong in a way of its own; then a driver without the token."""
    head = project(tmp_path / "project")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    packages = tmp_path / "packages"
    (packages / "torch-2.0.0.dist-info").mkdir(parents=True)
    (packages / "torch-2.0.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.0.0\n")
    views = [
        (elsewhere, {}),
        (head, {"PYTHONPATH": f"{packages}{os.pathsep}{head}"}),
    ]
    with nodes(head, *views) as driver:
        count, _, *wrong = ask(head, driver, 3, tmp_path / "storage")
        refused = ask(head, {**driver, "RAY_AUTH_TOKEN": "b" * 64}, 3, tmp_path / "storage")
    assert count == "3" and len(wrong) == 2 and all(line.startswith("node ") for line in wrong)
    folder, package = (next(line for line in wrong if word in line) for word in ("folder it", "torch is"))
    assert f"the folder it works in is {elsewhere}, not {head} as here; start Ray there from" in folder
    assert ": torch is 2.0.0, not " in package and "pip install -c constraints.txt torch" in package
    assert len(refused) == 1 and "does not take this process" in refused[0]
    assert not list(tmp_path.rglob(".preflight-*"))
