"""Another user of the machine can neither use a stage's Ray nor read its files."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NOBODY = 65534
HOLDER = """
import json, os, sys, tempfile
import psutil
from cluster.session import session
from pipeline.config.schema import Cluster
def task():
    return 1
with session(Cluster()):
    import ray
    assert ray.get([ray.remote(task).remote() for _ in range(4)]) == [1] * 4
    me = psutil.Process()
    pids = [me.pid, *(child.pid for child in me.children(recursive=True))]
    ports = [(c.laddr.ip, c.laddr.port) for c in psutil.net_connections("inet")
             if c.status == "LISTEN" and c.pid in pids]
    print(json.dumps({"pids": pids, "ports": ports, "token": os.environ["RAY_AUTH_TOKEN"]}), flush=True)
    sys.stdin.read()
"""
# Imports first: the interpreter's own files may be out of reach afterwards.
PROBER = """
import encodings.idna, json, os, socket, sys
import grpc, grpc._channel
about = json.loads(sys.stdin.read())
try:
    grpc.insecure_channel("127.0.0.1:1").unary_unary("/x/y")(b"", timeout=1)
except grpc.RpcError:
    pass
os.setgroups([]); os.setgid(NOBODY); os.setuid(NOBODY); os.chdir("/")
METHODS = ("NodeManagerService/GetNodeStats", "NodeManagerService/ShutdownRaylet", "CoreWorkerService/KillActor",
           "InternalKVGcsService/InternalKVKeys", "NodeInfoGcsService/GetAllNodeInfo",
           "JobInfoGcsService/GetAllJobInfo",
           "CoreWorkerService/GetCoreWorkerStats", "CoreWorkerService/PushTask", "ObjectManagerService/Pull",
           "ReporterService/GetTraceback", "LogService/ListLogs", "RuntimeEnvGcsService/PinRuntimeEnvURI")
found = {"answered": [], "health": [], "refused": 0, "read": [], "listed": [], "environments": []}
for ip, port in about["ports"]:
    host = ip.removeprefix("::ffff:")
    with socket.create_connection((host, port), timeout=10) as wire:
        wire.settimeout(10)
        wire.sendall(b"GET /api/version HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
        head = wire.recv(200)
    if head.startswith(b"HTTP/"):
        found["refused" if b" 401 " in head[:20] or b" 403 " in head[:20] else "answered"] += (
            1 if b" 401 " in head[:20] or b" 403 " in head[:20] else [f"{port} {head[:60]!r}"])
        continue
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        for method in (*("ray.rpc." + name for name in METHODS), "grpc.health.v1.Health/Check"):
            try:
                channel.unary_unary("/" + method)(b"", timeout=10)
                found["health" if "health" in method else "answered"].append(f"{port} {method}")
            except grpc.RpcError as error:
                found["refused"] += error.code() == grpc.StatusCode.UNAUTHENTICATED
for pid in about["pids"]:
    for name in ("environ", "mem", "fd", "cwd", "maps"):
        try:
            path = f"/proc/{pid}/{name}"
            os.listdir(path) if name == "fd" else os.readlink(path) if name == "cwd" else open(path, "rb").read(1)
            found["read"].append(path)
        except OSError:
            pass
    try:
        if about["token"] in open(f"/proc/{pid}/cmdline").read():
            found["environments"].append(pid)
    except OSError:
        pass
for above in ("/tmp", "/dev/shm"):
    for name in os.listdir(above):
        path, status = os.path.join(above, name), os.lstat(os.path.join(above, name))
        if name in about["new"][above]:
            try:
                open(path, "rb").close() if os.path.isfile(path) else os.listdir(path)
                found["listed"].append(path)
            except OSError:
                pass
            try:
                os.rename(path, path + "-moved")
                found["read"].append("moved " + path)
            except OSError:
                pass
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def attempts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    if os.geteuid() != 0:
        pytest.skip("only root can act as another user")
    variables = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    variables |= {"RAY_TMPDIR": "/tmp", "PYTHONPATH": str(ROOT)}
    before = {above: set(os.listdir(above)) for above in ("/tmp", "/dev/shm")}  # noqa: PTH208
    folder = tmp_path_factory.mktemp("session")
    with (folder / "log").open("w") as log:
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=variables,
            cwd=folder,
        )
    assert holder.stdout
    try:
        line = holder.stdout.readline()
        assert line, (folder / "log").read_text()
        about = json.loads(line)
        after = {above: set(os.listdir(above)) for above in before}  # noqa: PTH208
        about["new"] = {above: sorted(after[above] - before[above]) for above in before}
        prober = [sys.executable, "-c", PROBER.replace("NOBODY", str(NOBODY))]
        done = subprocess.run(prober, input=json.dumps(about), capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        yield {**about, **json.loads(done.stdout)}
    finally:
        holder.communicate("")


def test_no_port_answers_without_the_token(attempts: dict[str, Any]) -> None:
    assert len(attempts["ports"]) > 3 and attempts["refused"] > 10
    assert attempts["answered"] == []


def test_health_checks_alone_need_no_token(attempts: dict[str, Any]) -> None:
    print("HEALTH", attempts["health"], attempts["ports"], attempts["new"])
    """SECURITY.md names them."""
    assert all("grpc.health.v1" in answer for answer in attempts["health"])


def test_no_file_of_the_session_can_be_read_or_moved(attempts: dict[str, Any]) -> None:
    assert any(name.startswith("ab") for name in attempts["new"]["/tmp"])
    assert (attempts["read"], attempts["listed"], attempts["environments"]) == ([], [], [])
