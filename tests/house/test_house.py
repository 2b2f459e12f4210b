"""The house's rules: layers, file lengths, names, and that stages depend on digests."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
PACKAGES = ("stages", "cluster", "pipeline", "models")
LONGEST = 400  # lines; a longer file is split by noun
STAGES = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]


def sources() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_a_stage_depends_on_its_digest_and_on_no_source(stage: str) -> None:
    deps = STAGES[stage].get("do", STAGES[stage])["deps"]
    assert f"reports/code/stages/{stage}" in deps
    assert not [dep for dep in deps if dep.endswith(".py") or dep.split("/")[0] in PACKAGES]


def test_the_graph_is_short_enough_to_read() -> None:
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) < 150


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_file_is_short_and_says_what_it_is_for(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= LONGEST
    assert not text.strip() or ast.get_docstring(ast.parse(text))
    assert path.stem not in {"utils", "util", "helpers", "common", "base", "misc"}


def test_heavy_packages_have_one_home() -> None:
    homes = {
        "ray": {"cluster"},
        "mlflow": {"pipeline/tracking/mlflow_mirror.py"},
        "decord": {"pipeline/decode/decoders.py"},
        "dvc": {"stages/repro/plan.py", "stages/repro/compose.py"},
    }
    for path in sources():
        name = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            found = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for package in {name.split(".")[0] for name in found} & homes.keys():
                assert name in homes[package] or name.split("/")[0] in homes[package], f"{name} imports {package}"


def test_what_reads_frames_is_free_of_polars() -> None:
    code = "import sys; import pipeline.train.loop, pipeline.evaluate.inference, cluster.fit; sys.exit('polars' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_imports_point_one_way() -> None:
    done = subprocess.run([Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
