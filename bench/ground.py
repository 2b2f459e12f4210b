"""Environment of bench/chaos.py: a file system, nodes, MLflow's server.

Every process has a mark in its environment, which identifies it even if it is orphaned.
"""

import os
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench import victim
from bench.nodes import BIN, Nodes
from bench.running import marked

MARK, MLFLOW = "ACTIONBENCH_CHAOS", "http://127.0.0.1:5000"


@dataclass
class Bench:
    """The file system, the nodes on it, and MLflow's server."""

    root: Path
    nodes: Nodes = field(init=False)

    def __post_init__(self) -> None:
        self.disk, self.empty, self.store = self.root / "disk", self.root / "empty.db", self.root / "server.db"
        self.project = self.disk / "project"
        self.nodes = Nodes(self.root.name, self.project, (0, 1, 1), {MARK: self.mark("nodes")})

    def mark(self, what: str) -> str:
        return f"{self.root} {what}"

    def open(self) -> None:
        self.nodes.stop()  # left by a killed run
        self.disk.mkdir(parents=True, exist_ok=True)
        subprocess.run(["umount", "-q", self.disk])
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

    def undisturbed(self, workers: int) -> Path:
        """Return an undisturbed run's output, made once per code and number of workers."""
        kept = self.root / f"kept-{victim.code(self.project)}"
        place = kept / str(workers)
        if not place.exists():
            if workers > 1:
                victim.put_back(self.undisturbed(1), self.project, "train")
                victim.set_workers(self.project, workers)
            assert self.repro("reference").wait() == 0, (self.root / "log").read_text()[-3000:]
            victim.keep(self.project, kept / "new")
            shutil.copy(self.empty, kept / "new" / "mlflow.db")
            (kept / "new").rename(place)
        return place

    def close(self) -> None:
        self.rest()
        self.nodes.stop()
        subprocess.run(["umount", "--lazy", self.disk], check=True)  # a killed driver may still hold it

    def repro(self, mark: str, program: str = "dvc", mlflow: str = "") -> subprocess.Popen[bytes]:
        """Start a driver on the head as the leader of a process group."""
        variables = {
            **self.nodes.variables,
            **({"MLFLOW_TRACKING_URI": mlflow} if mlflow else {}),
            "RAY_ADDRESS": self.nodes.head,
            "DVC_SITE_CACHE_DIR": str(self.root / "site"),
            "DVC_NO_ANALYTICS": "1",
            MARK: self.mark(mark),
        }
        command = self.nodes.inside(0, BIN / program, "repro")
        with (self.root / "log").open("a") as log:
            print(f"--- {mark}: {program} repro", file=log, flush=True)
            return subprocess.Popen(
                command, cwd=self.project, env=variables, stdout=log, stderr=log, start_new_session=True
            )

    def serve(self) -> None:
        """Start MLflow's server on the head's loopback.

        It is empty except for this run's content.
        """
        if not self.store.exists():
            shutil.copy(self.empty, self.store)
        command = [BIN / "mlflow", "server", "--host=127.0.0.1", "--port=5000", "--workers=1"]
        command.append(f"--backend-store-uri=sqlite:///{self.store}")
        variables = {**self.nodes.variables, MARK: self.mark("server")}
        inside = self.nodes.inside(0, *command)
        with (self.root / "log").open("a") as log:
            server = subprocess.Popen(inside, cwd=self.root, env=variables, stdout=log, stderr=log)
        health = self.nodes.inside(0, "curl", "-sf", f"{MLFLOW}/health")
        while server.poll() is None and subprocess.run(health, capture_output=True).returncode:
            time.sleep(0.5)

    def rest(self) -> None:
        """Stop the server that only some runs have, and delete its content."""
        for process in self.marked("server"):
            process.kill()
        self.store.unlink(missing_ok=True)

    def fill(self, spare: int) -> str:
        free = shutil.disk_usage(self.disk).free
        with (self.disk / "ballast").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(free - spare, 4096))
        return f"{spare // 1024} KiB left"

    def marked(self, mark: str) -> list[psutil.Process]:
        return marked(MARK, self.mark(mark))
