"""A Ray session: this machine by default, an existing cluster where one is named."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cluster.preflight import preflight
from pipeline.errors import UserError
from pipeline.schema import Cluster

OURS = "ACTIONBENCH_RAY"  # the address of a Ray that a parent process started on this machine, for itself alone
TRIES = 5  # times to start a node here
# A training step frees what the next one asks for again. Left alone, glibc gives such blocks back to the kernel, and
# the page faults of getting them anew take a tenth to a quarter of a step on a CPU. Workers inherit these.
MALLOC = {
    "MALLOC_TOP_PAD_": "268435456",
    "MALLOC_TRIM_THRESHOLD_": "1073741824",
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
}


@contextmanager
def session(cluster: Cluster, data: bool = False) -> Iterator[None]:
    """Connects to RAY_ADDRESS, else cluster.address; "local" starts Ray here and stops it at the end.

    `data`: its tasks read and write data/ themselves; every node has to see it, even with cluster.storage in a store.
    Ray's ports are open on all of the machine's interfaces, but answer only who has its token (~/.ray/auth_token).
    Raises UserError where the named cluster doesn't answer, has another Python, Ray or token, or has a node that fails
    the preflight.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    for name, value in MALLOC.items():
        os.environ.setdefault(name, value)
    import ray

    address = os.environ.get("RAY_ADDRESS") or cluster.address
    here = address == "local"
    local: dict[str, Any] = {"object_store_memory": 256 * 2**20, "include_dashboard": False} if here else {}
    try:
        knock(address)
        _init(address=address, log_to_driver=False, logging_level=logging.ERROR, **local)
    except (ConnectionError, ray.exceptions.AuthenticationError) as error:
        cause = error.__cause__ or error  # Ray's ConnectionError says nothing; what lies behind it does
        said = " ".join(str(cause).split())
        if "authenticat" in said.lower():
            said = "its token is another; put it into ~/.ray/auth_token or RAY_AUTH_TOKEN, with RAY_AUTH_MODE=token"
            raise UserError(f"the Ray cluster at {address!r} does not take this process: {said}") from None
        if "version mismatch" in said.lower():
            raise UserError(f"the Ray cluster at {address!r} does not take this process: {said}") from None
        raise UserError(
            f"no Ray cluster answers at {address!r} ({said}); "
            "start one (`ray start --head`), unset RAY_ADDRESS, or set cluster.address to local"
        ) from None
    try:
        if not here and os.environ.get(OURS) != address:
            preflight(cluster, data)
        yield
    finally:
        ray.shutdown()


def _init(**options: Any) -> None:
    """ray.init(), again where a node did not come up within Ray's fixed 30 s, as on a machine under load."""
    import ray

    for left in range(TRIES - 1, -1, -1):
        try:
            ray.init(**options)
            return
        except Exception as error:  # Ray raises no narrower one for this
            if not left or "timed out during startup" not in str(error):
                raise
            ray.shutdown()


def knock(address: str) -> None:
    """ConnectionError where nothing listens at a host:port; Ray itself would try for minutes and end the process."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host:
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except (OSError, ValueError) as error:
            raise ConnectionError(str(error)) from None
