"""One Ray session for several processes, joined through the environment."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from cluster.session import OURS, session
from pipeline.config.schema import Cluster


@contextmanager
def shared(cluster: Cluster) -> Iterator[dict[str, str]]:
    """Yield variables with which a child process joins this session.

    Empty if a cluster is named: every process joins it separately. Ray started here ends with this process, in any
    case. Children inherit its token from this process's environment.
    """
    if os.environ.get("RAY_ADDRESS") or cluster.address != "local":
        yield {}
        return
    with session(cluster):
        import ray

        address = ray.get_runtime_context().gcs_address
        yield {"RAY_ADDRESS": address, OURS: address}


def resources(cluster: Cluster) -> dict[str, float]:
    """Return the cluster's resources, e.g. {"CPU": 2.0}.

    Raises:
        UserError: The cluster does not answer.
    """
    with session(cluster):
        import ray

        return ray.cluster_resources()
