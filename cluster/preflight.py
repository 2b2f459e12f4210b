"""Preflight check: all nodes run the same code and see the same files."""

import importlib.metadata
import importlib.util
import os
import platform
import secrets
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from pipeline.config.schema import Cluster
from pipeline.errors import UserError
from pipeline.storage.remote import STORE, Place, place, write

PACKAGES = ("torch", "ray", "pyarrow")
SOURCES = ("models", "pipeline", "cluster")  # the code that tasks run
DATA = "data"  # all stages write below it, by a relative path
ANSWER = 60.0  # seconds that a node has; a healthy one takes one or two
# Remedies of differences, the most urgent first.
MEND = {
    "folder": "start Ray there from the project's folder, which has one path on all nodes",
    "storage": "set cluster.storage to a folder that all nodes share and may write, or to s3://bucket/name",
    "data": "put the project on a file system that all nodes share and may write; or, with cluster.storage in a store, "
    "run this stage on one machine first, without RAY_ADDRESS",
    "sources": "update that node's copy to the same commit, or remove other copies from its PYTHONPATH",
    "python": "create that node's environment with the same Python",
    **{name: f"install that version there: pip install -c constraints.txt {name}" for name in PACKAGES},
}
UNTRIED = "untried"  # a check that failed with a node's code or packages, which then differ too
SHOWN = {"folder": "the working folder", "sources": "the project's code", "storage": "cluster.storage"}


def facts(folders: Mapping[str, str], token: str) -> dict[str, str]:
    """Return the facts of this process, and its access to each folder.

    A folder, or place of a store, is "shared" if the token was read and an answer written next to it; otherwise the
    value is the reason. Nodes receive this function by value and need no project. It uses only the standard library,
    except for a store, which the node's copy of the project opens.

    Args:
        folders: name -> path.
        token: the name and content of a file in each folder.
    """
    facts_here = {"python": platform.python_version(), "folder": os.getcwd()}  # noqa: PTH109
    for name in PACKAGES:
        try:
            facts_here[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            facts_here[name] = "not installed"
    digest = sha256()
    for package in SOURCES:
        # Located without being imported: a node's copy may be of another commit, and not even load.
        spec = importlib.util.find_spec(package)
        for origin in map(Path, (spec and spec.submodule_search_locations) or []):
            for path in sorted(origin.rglob("*.py")):
                digest.update(f"{package}/{path.relative_to(origin)}".encode() + b"\0" + path.read_bytes() + b"\0")
    facts_here["sources"] = digest.hexdigest()[:12]
    for name, folder in folders.items():
        try:
            facts_here[name] = _seen(folder, token)
        except OSError as error:
            facts_here[name] = "no such file" if folder.startswith(STORE) else f"{error.strerror or error}".lower()
        except Exception as error:  # a store's error of an unknown class, or the project's copy does not load
            facts_here[name] = str(error) if str(error).startswith(STORE) else UNTRIED
    return facts_here


def _seen(folder: str, token: str) -> str:
    answer = f".preflight-{token}-{os.urandom(4).hex()}"
    if folder.startswith(STORE):
        from pipeline.storage.remote import place

        location: Place = place(folder)
    else:
        location = Path(folder)
    same = (location / f".preflight-{token}").read_text() == token
    (location / answer).write_bytes(token.encode())
    return "shared" if same else "holds something else"


def differences(ours: Mapping[str, str], theirs: Mapping[str, str]) -> list[str]:
    """List a node's differences from this process.

    Each has its remedy, the most urgent first.
    """
    names = [name for name in MEND if name in ours and ours[name] != theirs.get(name)]
    return [
        f"{theirs[name]}, in the environment of `ray start` there"  # a store's message contains the remedy
        if theirs.get(name, "").startswith(STORE)
        else f"{SHOWN.get(name, name)} is {theirs.get(name)}, not {ours[name]} as here; {MEND[name]}"
        for name in sorted(names, key=lambda name: theirs.get(name) == UNTRIED)
    ]


def preflight(cluster: Cluster, data: bool = False) -> int:
    """Check every living node of the joined cluster and return their number.

    Args:
        cluster: the settings.
        data: see session().

    Raises:
        UserError: In one line, a node has another Python, project, package or folder, doesn't see or may not write the
            storage or data/, or doesn't answer.
    """
    nodes, wrong = ask(cluster, data)
    if wrong:
        raise UserError(wrong[0] + (f" (and {len(wrong) - 1} more of {nodes} nodes)" if len(wrong) > 1 else ""))
    return nodes


def ask(cluster: Cluster, data: bool = False) -> tuple[int, list[str]]:
    """Return the number of living nodes, and a line for each faulty one."""
    import ray
    from ray import cloudpickle
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    wrong = []
    folders = {"storage": cluster.storage}
    if data or isinstance(place(cluster.storage), Path):  # otherwise tasks have separate copies of it
        folders["data"] = DATA
    with _token(folders) as token:
        here = facts(folders, token)
        task = ray.remote(facts)
        waiting = {
            task.options(
                num_cpus=0,
                max_retries=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
            ).remote(folders, token): f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
            for node in ray.nodes()
            if node["Alive"]
        }
        nodes, end = len(waiting), time.monotonic() + ANSWER
        while waiting:
            ready, _ = ray.wait(list(waiting), timeout=max(0.0, end - time.monotonic()))
            if not ready:
                wrong += [f"{name} did not answer in {ANSWER:.0f} s; see `ray status`" for name in waiting.values()]
                break
            name = waiting.pop(ready[0])
            try:
                wrong += [f"{name}: {line}" for line in differences(here, ray.get(ready[0]))[:1]]
            except ray.exceptions.RayError as error:
                wrong.append(f"{name} cannot run a task ({str(error).strip().splitlines()[-1]}); see its logs")
    return nodes, wrong


def wait_for(nodes: int, seconds: float) -> None:
    """Wait until the joined cluster has so many living nodes.

    Raises:
        UserError: It takes longer than `seconds`.
    """
    import ray

    end = time.monotonic() + seconds
    while (alive := sum(node["Alive"] for node in ray.nodes())) < nodes:
        if time.monotonic() > end:
            raise UserError(f"{alive} of {nodes} nodes joined in {seconds:.0f} s; see the logs of those that did not")
        time.sleep(0.5)


@contextmanager
def _token(folders: Mapping[str, str]) -> Iterator[str]:
    """Yield a token that exists in each folder while the block runs."""
    token = secrets.token_hex(8)
    try:
        for name, folder in folders.items():
            try:
                write(place(folder) / f".preflight-{token}", token)
            except OSError as error:
                raise UserError(f"{folder} cannot be written ({error.strerror}); {MEND[name]}") from None
        yield token
    finally:
        for folder in folders.values():
            with suppress(OSError, UserError):
                for path in place(folder).glob(f".preflight-{token}*"):
                    path.unlink(missing_ok=True)


def main(arguments: Sequence[str]) -> None:
    """Run the preflight: wait for the nodes at RAY_ADDRESS and check each.

    `python -m cluster.preflight NODES`. A failure exits with code 2.
    """
    import ray

    from pipeline.config import load

    try:
        params = load.load()
        ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False)
        wait_for(int(arguments[0]), 300.0)
        print(f"{preflight(params.cluster)} nodes have the same code and see the same files")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main(sys.argv[1:])
