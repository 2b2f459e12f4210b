"""The house's rules: layers, file lengths, names, and that a stage depends on exactly the files it imports."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
PACKAGES = ("stages", "cluster", "pipeline", "models")
LONGEST = 400  # lines; a longer file is split by noun
STAGES = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]


def sources() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


@cache
def imported(path: Path) -> frozenset[Path]:
    """The project's files that a file imports, anywhere in it; packages' __init__.py only where they hold code."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    files = set()
    for name in names:
        if name.split(".")[0] in PACKAGES:
            parts = name.split(".")
            places = [ROOT.joinpath(*parts[:end], "__init__.py") for end in range(1, len(parts) + 1)]
            files |= {file for file in (ROOT.joinpath(*parts).with_suffix(".py"), *places) if file.exists()}
    return frozenset(file for file in files if file.read_text().strip())


def closure(path: Path) -> set[Path]:
    """A file, all it imports, all those import, and so on."""
    seen: set[Path] = set()
    queue = [path, *(init for init in [path.parent / "__init__.py"] if init.exists() and init.read_text().strip())]
    while queue:
        file = queue.pop()
        if file not in seen:
            seen.add(file)
            queue += imported(file)
    return seen


PLUGINS = {  # what a stage loads by name; a row depends on its own, and every row on what they share
    "models/named.py": ("models/attention", "models/backbones"),
    "pipeline/datasets/__init__.py": ("pipeline/datasets",),
}


def needed(stage: str) -> set[str]:
    """All files that a stage may run, but for the plug-ins themselves."""
    files = closure(ROOT / "stages" / f"{stage}.py")
    plugins = {
        path
        for owner, folders in PLUGINS.items()
        if ROOT / owner in files
        for folder in folders
        for path in (ROOT / folder).glob("*.py")
        if path.stem != "__init__"
    }
    files |= {file for plugin in plugins for file in closure(plugin)} - plugins
    return {path.relative_to(ROOT).as_posix() for path in files}


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_a_stage_depends_on_exactly_what_it_imports(stage: str) -> None:
    body = STAGES[stage].get("do", STAGES[stage])
    declared = {dep for dep in body["deps"] if dep.endswith(".py") and "${" not in dep}
    assert declared == needed(stage)


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_file_is_short_and_says_what_it_is_for(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= LONGEST
    assert not text.strip() or ast.get_docstring(ast.parse(text))
    assert path.stem not in {"utils", "util", "helpers", "common", "base", "misc"}


def test_heavy_packages_have_one_home() -> None:
    homes = {
        "ray": {"cluster"},
        "mlflow": {"pipeline/tracking.py"},
        "decord": {"pipeline/decoders.py"},
        "dvc": set(),
    }
    for path in sources():
        name = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            found = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for package in {name.split(".")[0] for name in found} & homes.keys():
                assert name in homes[package] or name.split("/")[0] in homes[package], f"{name} imports {package}"


def test_what_reads_frames_is_free_of_polars() -> None:
    code = "import sys; import pipeline.training, pipeline.predict, cluster.fit; sys.exit('polars' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_imports_point_one_way() -> None:
    done = subprocess.run([Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
