"""One Ray session for several processes: started here, joined by children through their environment."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from cluster.session import OURS, session
from pipeline.config.schema import Cluster


@contextmanager
def shared(cluster: Cluster) -> Iterator[dict[str, str]]:
    """Variables with which a child process joins this session instead of starting its own.

    Empty where a cluster is named: there every process joins by itself. Ray started here ends with this process,
    however that ends. Children inherit its token from this process's environment.
    """
    if os.environ.get("RAY_ADDRESS") or cluster.address != "local":
        yield {}
        return
    with session(cluster):
        import ray

        address = ray.get_runtime_context().gcs_address
        yield {"RAY_ADDRESS": address, OURS: address}


def resources(cluster: Cluster) -> dict[str, float]:
    """What the cluster has, e.g. {"CPU": 2.0}, found by joining or starting it; UserError where none answers."""
    with session(cluster):
        import ray

        return ray.cluster_resources()
