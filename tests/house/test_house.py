"""House rules: layers, sizes of folders and files, names, words, and what tests may use."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
PACKAGES = ("stages", "cluster", "pipeline", "models")
PYTHON = (*PACKAGES, "bench", "docs", "tests")
MOST = 15  # modules of a folder
FULL = {"models/attention", "models/backbones", "pipeline/datasets", "bench"}  # a plug-in or a measurement a file
LONGEST = 400  # lines; a longer file is split by noun
OPENINGS = ("What", "Where", "Whether", "How", "Which")  # of a docstring, which states what the thing is or does
BANNED = r"beside|anew|told|said|come to|but for|of its own|goes on from|what there is|the like|does so|as a rule|hence"
STAGES = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders or PACKAGES for path in (ROOT / folder).rglob("*.py"))


def trees(*folders: str) -> Iterator[tuple[str, ast.Module]]:
    """Yield each file's path from the root, and its syntax."""
    for path in sources(*folders):
        yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text())


def docstrings(*folders: str) -> Iterator[tuple[str, str]]:
    """Yield the location and the text of each docstring."""
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for path, tree in trees(*folders):
        for node in ast.walk(tree):
            if isinstance(node, documented) and (text := ast.get_docstring(node)):
                yield f"{path}:{getattr(node, 'lineno', 1)}", text


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_a_stage_depends_on_its_digest_and_on_no_source(stage: str) -> None:
    deps = STAGES[stage].get("do", STAGES[stage])["deps"]
    assert f"reports/code/stages/{stage}" in deps
    assert not [dep for dep in deps if dep.endswith(".py") or dep.split("/")[0] in PACKAGES]


def test_the_graph_is_short_enough_to_read() -> None:
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) < 150


def test_folders_and_files_are_small() -> None:
    sizes = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in sources(*PYTHON)}
    assert not {path: lines for path, lines in sizes.items() if lines > LONGEST}
    modules = [path.parent for path in sources(*PYTHON) if path.name != "__init__.py"]
    counts = {folder.relative_to(ROOT).as_posix(): modules.count(folder) for folder in set(modules)}
    assert {folder for folder, count in counts.items() if count > MOST} <= FULL


def test_a_file_says_what_it_is_for() -> None:
    documented = {path.split(":")[0] for path, _ in docstrings() if path.endswith(":1")}
    assert not [path for path, tree in trees() if tree.body and path not in documented]
    assert not {path.stem for path in sources()} & {"utils", "util", "helpers", "common", "base", "misc"}


def test_heavy_packages_have_one_home() -> None:
    homes = {
        "ray": {"cluster"},
        "mlflow": {"pipeline/tracking/mlflow_mirror.py"},
        "decord": {"pipeline/decode/decoders.py"},
        "dvc": {"stages/repro/plan.py", "stages/repro/compose.py", "stages/repro/driver.py"},
    }
    for path, tree in trees():
        for package in {name.split(".")[0] for name in imports(tree)} & homes.keys():
            assert path in homes[package] or path.split("/")[0] in homes[package], f"{path} imports {package}"


def imports(tree: ast.Module) -> Iterator[str]:
    """Yield the modules that a file imports, and the names that it imports from them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_what_reads_frames_is_free_of_polars() -> None:
    code = "import sys; import pipeline.train.loop, pipeline.evaluate.inference, cluster.fit; sys.exit('polars' in sys.modules)"  # noqa: E501
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_imports_point_one_way() -> None:
    done = subprocess.run([Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_no_test_imports_another() -> None:
    pairs = [(path, name) for path, tree in trees("tests") for name in imports(tree)]
    wrong = [f"{path}: {name}" for path, name in pairs if name.startswith("tests.") and ".test_" in name]
    assert not wrong, "\n".join(wrong)


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def private_uses(tree: ast.Module) -> Iterator[str]:
    """Yield the private names of the project that a test imports, reads or replaces."""
    modules = set()
    for name in imports(tree):
        *_, last = name.split(".")
        if name.split(".")[0] in PACKAGES:
            modules.add(last)
            if private(last):
                yield name
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and private(node.attr):
            dotted = ast.unparse(node)
            if re.fullmatch(r"[\w.]+", dotted) and dotted.split(".")[0] in modules:
                yield dotted
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".setattr"):
            texts = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
            yield from (text for text in texts if private(text.split(".")[-1]))


def test_no_test_uses_a_private_name() -> None:
    wrong = [f"{path}: {name}" for path, tree in trees("tests") for name in private_uses(tree)]
    assert not wrong, "\n".join(wrong)


def test_a_private_use_is_noticed() -> None:
    source = """
from pipeline.train import loop
from pipeline.splits import _read
loop._seed(1)
patch.setattr(loop, "_rate", 2)
own._field = 3
loop.Line(1)._replace(a=2)
"""
    assert sorted(private_uses(ast.parse(source))) == ["_rate", "loop._seed", "pipeline.splits._read"]


def test_a_docstring_opens_with_what_the_thing_is() -> None:
    openings = [f"{place}: {text.splitlines()[0]}" for place, text in docstrings(*PYTHON)]
    wrong = [opening for opening in openings if opening.partition(": ")[2].split()[0] in OPENINGS]
    assert not wrong, "\n".join(wrong)


def test_banned_words() -> None:
    pattern = re.compile(rf"\b({BANNED})\b", re.IGNORECASE)
    texts = docstrings(*PACKAGES, "bench", "docs")
    wrong = [f"{place}: {match[0]}" for place, text in texts for match in pattern.finditer(text)]
    assert not wrong, "\n".join(wrong)
