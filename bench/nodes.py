"""Real Ray nodes on one machine, in networks that can be cut off.

    python -m bench.nodes --cpus 0 2 2 -- dvc repro    # a command on a head and two nodes, started from this folder

Linux network namespaces, joined by a bridge in the head's: every node has a separate loopback, address, ports,
temporary folder, object store and resources. Files are shared, as on a cluster with one file system. Needs root, and
`ip`.
"""

import argparse
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

BIN = Path(sys.executable).parent
PORT = 6379  # of the head, inside its network
TRIES = 20  # times to start a node: Ray gives it 30 s, which on a loaded machine may be too few
# A node counts as lost after 5 to 20 s without a sign of life, not after Ray's half a minute: this is often waited for.
HEALTH = {
    "RAY_health_check_initial_delay_ms": "5000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "5",
}


class Nodes:
    """A head without CPUs and some nodes, started from one folder.

    `stop` leaves nothing behind.
    """

    def __init__(self, name: str, project: Path, cpus: Sequence[int], variables: Mapping[str, str]) -> None:
        """Describe the nodes.

        Args:
            name: of the namespaces.
            project: the folder.
            cpus: of the head and of each node.
            variables: set in every process.
        """
        self.name, self.project, self.cpus = name, project, cpus
        self.head = f"10.77.0.1:{PORT}"
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self.variables = {
            **clean,
            **token,
            **HEALTH,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
            "OMP_NUM_THREADS": "1",
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(project),
            **variables,
        }

    def start(self) -> None:
        """Start the networks and every node.

        Raises:
            RuntimeError: A node fails; with the log's end.
        """
        self.stop()  # left by a killed run of the same name
        self._networks()
        for number in range(len(self.cpus)):
            self.start_node(number)

    def inside(self, number: int, *command: str | Path) -> list[str]:
        """Return a command line that runs a command in a node's network."""
        return ["nsenter", f"--net=/run/netns/{self.name}{number}", *map(str, command)]

    def start_node(self, number: int) -> None:
        """Start a node, again if it exceeded Ray's fixed 30 s.

        Raises:
            RuntimeError: It fails; with the log's end.
        """
        role = (
            ["--head", f"--port={PORT}", "--include-dashboard=false", "--no-monitor"]
            if number == 0
            else [f"--address={self.head}"]
        )
        command = self.inside(number, BIN / "ray", "start", "--block", *role)
        command += [f"--node-ip-address=10.77.0.{number + 1}", f"--temp-dir={self.place(number)}"]
        command += [f"--num-cpus={self.cpus[number]}", "--object-store-memory=80000000"]
        command += ["--min-worker-port=0", "--max-worker-port=0", "--include-log-monitor=false"]
        log = self.place(number) / "start.log"
        for _ in range(TRIES):
            self.kill(number)
            shutil.rmtree(self.place(number), ignore_errors=True)
            self.place(number).mkdir(parents=True)
            with log.open("w") as file:
                process = subprocess.Popen(
                    command, cwd=self.project, env=self.variables, stdout=file, stderr=file, start_new_session=True
                )
            self.processes[number] = process
            while process.poll() is None:
                if "Ray runtime started" in log.read_text():
                    return
                time.sleep(0.2)
        raise RuntimeError(f"node {number} did not start: {log.read_text()[-2000:]}")

    def place(self, number: int) -> Path:
        return Path(f"/tmp/{self.name}{number}")  # short: it is part of the paths of sockets

    def members(self, number: int) -> list[psutil.Process]:
        """List all processes in a node's network; the head's includes the drivers."""
        pids = subprocess.run(["ip", "netns", "pids", f"{self.name}{number}"], capture_output=True, text=True)
        processes = []
        for pid in map(int, pids.stdout.split()):
            try:
                processes.append(psutil.Process(pid))
            except psutil.NoSuchProcess:
                continue
        return processes

    def kill(self, number: int) -> None:
        """Send SIGKILL to all of a node at once."""
        for process in self.members(number):
            try:
                process.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
        if number in self.processes:
            self.processes.pop(number).wait()

    def link(self, number: int, up: bool) -> None:
        """Set a node's network link up or down."""
        ip("-n", f"{self.name}0", "link", "set", f"v{number}", "up" if up else "down")

    def stop(self) -> None:
        for number in reversed(range(len(self.cpus))):
            while self.members(number):
                self.kill(number)
                time.sleep(0.2)
            subprocess.run(["ip", "netns", "del", f"{self.name}{number}"], capture_output=True)
            shutil.rmtree(self.place(number), ignore_errors=True)

    def _networks(self) -> None:
        for number in range(len(self.cpus)):
            ip("netns", "add", f"{self.name}{number}")
            ip("-n", f"{self.name}{number}", "link", "set", "lo", "up")
        head = f"{self.name}0"
        ip("-n", head, "link", "add", "br0", "type", "bridge")
        ip("-n", head, "addr", "add", "10.77.0.1/24", "dev", "br0")
        ip("-n", head, "link", "set", "br0", "up")
        for number in range(1, len(self.cpus)):
            node = f"{self.name}{number}"
            ip("-n", head, "link", "add", f"v{number}", "type", "veth", "peer", "name", "eth0", "netns", node)
            ip("-n", head, "link", "set", f"v{number}", "master", "br0", "up")
            ip("-n", node, "addr", "add", f"10.77.0.{number + 1}/24", "dev", "eth0")
            ip("-n", node, "link", "set", "eth0", "up")


def ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cpus", type=int, nargs="+", default=[0, 2, 2], help="of the head and of each node")
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    nodes = Nodes(f"n{os.getpid()}-", Path.cwd(), args.cpus, {})
    try:
        nodes.start()
        variables = {**nodes.variables, "RAY_ADDRESS": nodes.head}
        sys.exit(subprocess.run(nodes.inside(0, *args.command), env=variables).returncode)
    finally:
        nodes.stop()


if __name__ == "__main__":
    main()
