"""A Ray session: on this machine by default, or on a named cluster."""

import logging
import os
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import psutil

from cluster.background import TOKEN, joined
from cluster.preflight import preflight
from pipeline.config.schema import Cluster
from pipeline.errors import UserError

OURS = "ACTIONBENCH_RAY"  # the address of a Ray that a parent process started on this machine, for itself only
LONGEST = 28  # characters; a socket's path has at most 107, and Ray's names below take 78
# For a Ray of this machine only: its ports are on loopback (Ray names that switch after the systems where it is the
# default), and its metrics ports, which need no token, are off.
CLOSED = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_enable_metrics_collection": "0",
    "AUTOSCALER_METRIC_PORT": "-1",  # no port: those of the autoscaler and of the dashboard have no switch
    "DASHBOARD_METRIC_PORT": "-1",
}
TRIES = 5  # times to start a node here
# A training step frees memory that the next one needs. By default glibc returns such blocks to the kernel, and their
# page faults take a tenth to a quarter of a step on a CPU. Workers inherit these.
MALLOC = {
    "MALLOC_TOP_PAD_": "268435456",
    "MALLOC_TRIM_THRESHOLD_": "1073741824",
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
}


@contextmanager
def session(cluster: Cluster, data: bool = False) -> Iterator[None]:
    """Connect to RAY_ADDRESS or cluster.address.

    "local" starts Ray here and stops it at the end; stages of one `dvc` command share it. A Ray that is started here
    listens on loopback, and accepts only its random token, which other users can't read. Its files are in a folder that
    only this user can open.

    Args:
        cluster: the settings.
        data: tasks read and write data/, so every node must see it, even with cluster.storage in a store.

    Raises:
        UserError: The named cluster doesn't answer, has another Python, Ray or token, or has a node that fails the
            preflight.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    for name, value in MALLOC.items():
        os.environ.setdefault(name, value)
    address = os.environ.get("RAY_ADDRESS") or cluster.address
    running: AbstractContextManager[Mapping[str, str]] = joined() if address == "local" else nullcontext({})
    with (
        running as about,
        session_files(address := about.get("address", address)) as options,
    ):
        if about:
            os.environ |= CLOSED | {name: about[name] for name in TOKEN}
        import ray  # which reads these variables

        if options or about:
            from ray._private import ray_constants
            from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

            # This process may have read them before: Ray reads some when it is imported.
            ray_constants.ENABLE_RAY_CLUSTER = False
            Config.initialize("")
            AuthenticationTokenLoader.instance().reset_cache()
        try:
            knock(address)
            _init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
        except (ConnectionError, ray.exceptions.AuthenticationError) as error:
            raise UserError(_refusal(address, error)) from None
        except OSError as error:
            ray.shutdown()
            raise UserError(
                f"Ray can't start: {' '.join(str(error).split())[:300]}; set RAY_TMPDIR to a short folder that can be "
                "written, and give a HOME that can be written, or RAY_AUTH_TOKEN"
            ) from None
        try:
            if address not in ("local", os.environ.get(OURS), about.get("address")):
                preflight(cluster, data)
            yield
        finally:
            ray.shutdown()


def _refusal(address: str, error: Exception) -> str:
    """Return the message for a cluster that doesn't answer, or refuses this process."""
    cause = error.__cause__ or error  # Ray's ConnectionError has no details; its cause does
    message = " ".join(str(cause).split())
    if "authenticat" in message.lower():
        message = "its token is another; put it into ~/.ray/auth_token or RAY_AUTH_TOKEN, with RAY_AUTH_MODE=token"
        return f"the Ray cluster at {address!r} does not take this process: {message}"
    if "version mismatch" in message.lower():
        return f"the Ray cluster at {address!r} does not take this process: {message}"
    return (
        f"no Ray cluster answers at {address!r} ({message}); "
        "start one (`ray start --head`), unset RAY_ADDRESS, or set cluster.address to local"
    )


@contextmanager
def session_files(address: str) -> Iterator[dict[str, Any]]:
    """Yield options of ray.init(): for a local Ray, a private folder and token."""
    if address != "local":
        yield {}
        return
    place = temporary()
    try:
        private = tempfile.mkdtemp(prefix="ab", dir=place)  # 0700; Ray makes its folder, and others, 0777
    except OSError as error:
        raise UserError(
            f"{place} can't be written ({error.strerror}); set RAY_TMPDIR to a short folder that can be"
        ) from None
    # Ray reads a process's token once, so a process keeps it; children inherit it, and nothing is written.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ |= CLOSED
    try:
        yield {"object_store_memory": 256 * 2**20, "include_dashboard": False, "_temp_dir": f"{private}/r"}
    finally:
        shutil.rmtree(private, ignore_errors=True)


def temporary() -> Path:
    """Return the folder for Ray's files on this machine.

    Raises:
        UserError: It is too long for the sockets below it.
    """
    place = Path(os.environ.get("RAY_TMPDIR") or ("/tmp" if sys.platform == "darwin" else tempfile.gettempdir()))
    if len(os.fsencode(place)) > LONGEST:
        raise UserError(
            f"{place} has {len(os.fsencode(place))} characters, too many for Ray's sockets; set RAY_TMPDIR to a short "
            f"folder of {LONGEST} at most, such as /tmp"
        )
    return place


def _init(**options: Any) -> None:
    """Run ray.init(), again if a node exceeds Ray's fixed 30 s on a loaded machine.

    Raises:
        UserError: Every attempt exceeded it.
    """
    import ray

    me = psutil.Process()
    before = set(me.children(recursive=True))
    for _ in range(TRIES):
        try:
            ray.init(**options)
            return
        except Exception as error:  # Ray raises no narrower one for this
            if "timed out during startup" not in str(error):
                raise
            ray.shutdown()
            for process in set(me.children(recursive=True)) - before:  # Ray would leave them until this process ends
                with suppress(psutil.Error):
                    process.kill()
    raise UserError(
        f"Ray did not come up in {TRIES} times 30 s, because this machine is overloaded; wait for its other work "
        "to end, then repeat the command"
    )


def knock(address: str) -> None:
    """Raise ConnectionError if nothing listens at a host:port.

    Ray would try for minutes and end the process.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host:
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except (OSError, ValueError) as error:
            raise ConnectionError(str(error)) from None
