"""`auto` in cluster settings, and how many runs share a machine, from what the machines have."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from pydantic.dataclasses import dataclass

from pipeline.config.schema import AUTO, STRICT, Cluster

LOADERS = 8  # at most, for each worker: more wait for the disk or for the GPU


@dataclass(frozen=True, config=STRICT)
class Placed(Cluster):
    """Cluster settings without `auto`."""

    workers: int | tuple[int, int] = 1
    gpus_per_worker: float = 0.0
    loader_workers: int = 0


def placed(cluster: Cluster, runs: int = 1) -> Placed:
    """Resolve `auto` with the nodes of the Ray session; without `auto`, no session is needed.

    Args:
        cluster: The settings.
        runs: Number of runs that share the machines.
    """
    if AUTO not in (cluster.workers, cluster.gpus_per_worker, cluster.loader_workers):
        return resolved(cluster, [])
    import ray
    import torch

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not torch.backends.cuda.is_built():  # all nodes have this build; it has no use for their GPUs
        nodes = [{**node, "GPU": 0.0} for node in nodes]
    return resolved(cluster, nodes, runs)


def resolved(cluster: Cluster, nodes: Sequence[Mapping[str, float]], runs: int = 1) -> Placed:
    """Resolve `auto` with the resources of nodes, such as {"CPU": 16.0, "GPU": 1.0}.

    A node has a place for each `gpus_per_worker` GPUs and `cpus_per_worker` CPUs. A worker takes one; the runs share
    them all. Loaders are a place's share of its node's cores, less `cpus_per_worker`, on the node with the fewest.
    Without GPUs a run has one worker, without loaders.
    """
    gpus, cpus = cluster.gpus_per_worker, cluster.cpus_per_worker
    if isinstance(gpus, str):
        gpus = 1.0 if any(node.get("GPU", 0) >= 1 for node in nodes) else 0.0
    workers, loaders = cluster.workers, cluster.loader_workers
    places = [min(int(node.get("GPU", 0) / gpus), int(node.get("CPU", 0) / cpus)) if gpus else 0 for node in nodes]
    if isinstance(workers, str):
        most = sum(places) // runs
        workers = (1, most) if most > 1 else 1
    if isinstance(loaders, str):
        left = [int(node["CPU"] / count) - cpus for node, count in zip(nodes, places, strict=True) if count]
        loaders = max(0, min([*left, LOADERS])) if left else 0
    settings = asdict(cluster) | {"workers": workers, "gpus_per_worker": gpus, "loader_workers": loaders}
    return Placed(**settings)


def at_once(runs: int, places: int) -> int:
    """Return how many of a row's runs to train at once on a machine whose CPUs have `places` for them.

    Up to half as many more may share the places if all runs end sooner: of three runs at two places, two at once take
    two rounds, in the second of which a place is idle; three at once take the time of one and a half. Of five, three
    and then two take the time of two and a half.
    """

    def time(count: int) -> int:
        rounds, rest = divmod(runs, count)
        return rounds * max(count, places) + (max(rest, places) if rest else 0)

    return min(range(places, places * 3 // 2 + 1), key=time)
