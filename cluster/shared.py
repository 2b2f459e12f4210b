"""One Ray session for several processes: started here, joined by children through their environment."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from cluster.session import session
from pipeline.errors import UserError
from pipeline.params import Cluster

PATIENCE = 5.0  # seconds that a named cluster's port has to take a connection


@contextmanager
def shared(cluster: Cluster) -> Iterator[dict[str, str]]:
    """Variables with which a child process joins this session instead of starting its own.

    Empty where a cluster is named: there every process joins by itself, and UserError says if none answers. Ray started
    here ends with this process, however that ends. Its token, if any, lies where ray.init() put it, and children
    inherit the mode.
    """
    if os.environ.get("RAY_ADDRESS") or cluster.address != "local":
        knock(cluster)
        yield {}
        return
    with session(cluster):
        import ray

        yield {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}


def resources(cluster: Cluster) -> dict[str, float]:
    """What the cluster has, e.g. {"CPU": 2.0}, found by joining or starting it; UserError where none answers."""
    knock(cluster)
    with session(cluster):
        import ray

        return ray.cluster_resources()


def knock(cluster: Cluster) -> None:
    """Raises UserError where the named cluster's port takes no connection: Ray would go on trying for many minutes."""
    address = os.environ.get("RAY_ADDRESS") or cluster.address
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():  # "local", "auto"
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
    except OSError as error:
        raise UserError(
            f"no Ray cluster answers at {address} ({error.strerror or error}); "
            "start one (`ray start --head`), unset RAY_ADDRESS, or set cluster.address to local"
        ) from None
