"""Three real Ray nodes give the bytes of one node, with any number of workers."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import victim
from bench.nodes import BIN, Nodes


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    if not sys.platform.startswith("linux") or os.geteuid() or not shutil.which("ip"):
        pytest.skip("network namespaces need Linux, root and iproute2")
    (tmp_path / "three").mkdir()
    cluster = Nodes(f"t{os.getpid()}-", tmp_path / "three", (0, 2, 2), {})
    victim.make(cluster.project, micro_batch=2)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.mark.slow
def test_three_nodes_give_what_one_gives(nodes: Nodes, tmp_path: Path) -> None:
    single = tmp_path / "one"
    victim.make(single, micro_batch=2)
    alone = {name: value for name, value in nodes.variables.items() if not name.startswith("RAY_")}
    subprocess.run([BIN / "dvc", "repro"], cwd=single, env={**alone, "PYTHONPATH": str(single)}, check=True)
    joined = {**nodes.variables, "RAY_ADDRESS": nodes.head}
    repro = nodes.inside(0, BIN / "dvc", "repro")
    subprocess.run(repro, cwd=nodes.project, env=joined, check=True)
    expected = victim.results(single)
    assert victim.results(nodes.project) == expected and any(name.endswith("ablation.csv") for name in expected)
    victim.keep(nodes.project, tmp_path / "kept")
    for workers in (2, 4):
        victim.put_back(tmp_path / "kept", nodes.project, "train")
        victim.set_workers(nodes.project, workers)
        subprocess.run(repro, cwd=nodes.project, env=joined, check=True)
        assert victim.results(nodes.project) == expected
