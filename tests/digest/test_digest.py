"""Digests of code: which edits change them, and which modules they cover."""

import shutil
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

from pipeline.digest import closure, code, files, key, syntax
from pipeline.errors import UserError
from pipeline.storage import atomic

ROOT = Path(__file__).parents[2]
# Every kind of syntax that Python versions differ in, or that formatting touches.
MODULE = '''
"""A module."""
import math

async def view(x: "Tensor", /, scale: float = 1e-3, *rest, width=0x10, **more) -> int | None:
    """A docstring."""
    # a comment
    label = f"{x!r:>{width}}{scale=}" f"tail" "end" + u"text" + rb"raw".decode()
    match x:
        case {"a": [1, *others], **left} if others: return +1 or not -2j
        case str() | None: pass
    try:
        with (open("a") as one, open("b") as two): x[1:2, ...] @= one
    except* (OSError, ValueError) as error: raise error from None
    finally: global where; where = [y async for y in x if y] and (lambda *, z=3: (yield z))
    return (n := 10) if n < 3 <= 4 else {**{}, "k": {1, 2}}
'''


def meaning(text: str) -> str:
    return syntax.digest(text)


@pytest.mark.parametrize(
    "other",
    [
        '"""Another."""\ndef f(a, b=2):\n    return a + b\n',
        "def f(a, b=2):\n    # why\n    return a + b\n",
        "def f(\n    a,\n    b=2,\n):\n\n    return (a\n        + b)\n",
        'def f(a, b=2):\n    """Add."""\n    return a + b\n',
        'def f(a, b=2):\n    "first"\n    "second"\n    return a + b\n',
        "def f(a, b=0x2): return a + b  # one line",
    ],
)
def test_what_nobody_runs_changes_no_meaning(other: str) -> None:
    assert meaning("def f(a, b=2):\n    return a + b\n") == meaning(other)


@pytest.mark.parametrize(
    "other",
    [
        "def f(a, b=3):\n    return a + b\n",
        "def f(a, b=2.0):\n    return a + b\n",
        "def f(a, b=True + 1):\n    return a + b\n",
        "def f(a, b=2):\n    return b + a\n",
        "def f(a, b=2):\n    return a - b\n",
        "def f(a, *, b=2):\n    return a + b\n",
        "def f(a, b: int = 2):\n    return a + b\n",
        "def f(a, b=2) -> int:\n    return a + b\n",
        "@cache\ndef f(a, b=2):\n    return a + b\n",
        "def g(a, b=2):\n    return a + b\n",
        "async def f(a, b=2):\n    return a + b\n",
    ],
)
def test_what_runs_changes_the_meaning(other: str) -> None:
    assert meaning("def f(a, b=2):\n    return a + b\n") != meaning(other)


def test_constants_of_equal_value_and_other_type_differ() -> None:
    constants = ["1", "1.0", "True", "'1'", "b'1'", "1j", "-1", "0", "0.0", "-0.0", "False", "None", "...", "''"]
    assert len({meaning(f"x = {constant}") for constant in constants}) == len(constants)


def test_text_that_is_a_value_counts() -> None:
    assert meaning("x = 'a'") != meaning("x = 'b'")
    assert meaning("def f(): return 'a'") != meaning("def f(): return 'b'")
    assert meaning("f('a')") != meaning("f('b')")
    assert meaning("x = f'{a}-'") != meaning("x = f'{a}'")
    assert meaning("x = f'{a:>3}'") != meaning("x = f'{a:<3}'")
    assert meaning("x = 'a' 'b'") == meaning("x = 'ab'")


def test_the_meaning_is_the_same_on_every_python() -> None:
    # Computed on Python 3.11, 3.12 and 3.13.
    assert meaning(MODULE) == "9a01e602ab809e15020e4c0e52159596b25c8b125a9d918a61188e36c13ff240"


@pytest.mark.parametrize("version", ["3.12", "3.13", "3.14"])
def test_other_pythons_here_agree(version: str) -> None:
    nearby = Path(sys.base_prefix).parent.glob(f"*{version}*/bin/python{version}")  # as pyenv and uv keep them
    python = next(map(str, nearby), None) or shutil.which(f"python{version}")
    script = "import sys; from pipeline.digest import syntax; print(syntax.digest(sys.stdin.read()))"
    command = [python or "", "-c", script]
    if not python or subprocess.run([python, "-c", ""], capture_output=True).returncode:
        pytest.skip(f"no Python {version} here")
    for path in [*sorted((ROOT / "pipeline").rglob("*.py")), *sorted((ROOT / "models").rglob("*.py"))][::10]:
        source = path.read_text()
        done = subprocess.run(command, input=source, capture_output=True, text=True, cwd=ROOT, check=True)
        assert done.stdout.strip() == meaning(source), path


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a project of two packages."""
    sources = {
        "models/__init__.py": "",
        "models/net.py": "import torch\nfrom . import layers\n",
        "models/layers.py": "SCALE = 2\n",
        "pipeline/__init__.py": "",
        "pipeline/loop.py": (
            "from typing import TYPE_CHECKING\nfrom models import net\nfrom pipeline.data import load\n"
            "if TYPE_CHECKING:\n    from pipeline import shown\nelse:\n    from pipeline import otherwise\n"
            "def f():\n    import pipeline.late.lazily\n"
        ),
        "pipeline/data/__init__.py": "def load(): pass\n",
        "pipeline/late/__init__.py": "LATE = True\n",
        "pipeline/late/lazily.py": "HERE = True\n",
        "pipeline/shown.py": "HERE = True\n",
        "pipeline/otherwise.py": "import pipeline.leaf\n",
        "pipeline/leaf.py": "HERE = True\n",
    }
    for name, text in sources.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_a_closure_has_what_may_run(project: Path) -> None:
    assert set(closure.closure(["pipeline.loop"], project=project)) == {
        "models.net",
        "models.layers",
        "pipeline.loop",
        "pipeline.data",
        "pipeline.late",
        "pipeline.late.lazily",
        "pipeline.otherwise",
        "pipeline.leaf",
    }


def test_what_is_left_out_is_not_followed(project: Path) -> None:
    modules = closure.closure(["pipeline.loop"], ["pipeline.otherwise", "pipeline.late"], project)
    assert set(modules) == {"models.net", "models.layers", "pipeline.loop", "pipeline.data"}


def test_a_root_without_a_file_is_an_error(project: Path) -> None:
    with pytest.raises(ValueError, match=r"no module 'pipeline\.gone'"):
        closure.closure(["pipeline.gone"], project=project)


def upstream(graph: grimp.ImportGraph, root: str) -> set[str]:
    """Return the modules below a root by grimp, an independent reader of imports."""
    seen: set[str] = set()
    queue = [root]
    while queue:
        name = queue.pop()
        if name in seen or closure.is_below(name, code.LEFT_OUT):
            continue
        seen.add(name)
        above = [".".join(name.split(".")[:end]) for end in range(1, name.count(".") + 1)]
        queue += [*graph.find_modules_directly_imported_by(name), *above]
    sources = {name: ROOT.joinpath(*name.split(".")) for name in seen}
    return {name for name, path in sources.items() if not path.is_dir() or (path / "__init__.py").read_text().strip()}


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("models", "pipeline", cache_dir=None, exclude_type_checking_imports=True)


def test_closures_are_those_of_an_import_graph(graph: grimp.ImportGraph) -> None:
    roots = [*code.ROOTS.values()]
    roots += [(f"{package}.{path.stem}",) for package in code.PLUGINS.values() for path in plugins(package)]
    for names in roots:
        assert set(code.modules(names)) == set().union(*(upstream(graph, name) for name in names)), names


def plugins(package: str) -> list[Path]:
    return [path for path in ROOT.joinpath(*package.split(".")).glob("*.py") if path.stem != "__init__"]


def test_importing_a_root_loads_nothing_beyond_its_closure() -> None:
    for names in code.ROOTS.values():
        script = (
            f"import sys, {', '.join(names)}; print(*(n for n in sys.modules if n.split('.')[0] in {closure.PROJECT}))"
        )
        done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
        covered = set(code.modules(names))
        for name in set(done.stdout.split()) - covered:
            path = ROOT.joinpath(*name.split("."))
            empty = path.is_dir() and not (path / "__init__.py").read_text().strip()
            below_left_out = closure.is_below(name, code.LEFT_OUT) or name in set(closure.closure(code.LEFT_OUT))
            assert empty or below_left_out, f"{names} loads {name}"


def test_numeric_roots_reach_neither_cluster_nor_stages_nor_what_is_left_out() -> None:
    for names in code.ROOTS.values():
        for module in code.modules(names):
            assert not closure.is_below(module, ("cluster", "stages", *code.LEFT_OUT)), module


def test_what_is_left_out_exists_and_says_why() -> None:
    for name, why in code.LEFT_OUT.items():
        place = ROOT.joinpath(*name.split("."))
        assert place.with_suffix(".py").is_file() or (place / "__init__.py").is_file(), name
        assert why
        assert not name.startswith(("cluster", "stages", "models"))


def test_what_trains_needs_neither_evaluation_nor_tables_nor_params() -> None:
    train, evaluate = set(code.modules(code.ROOTS["train"])), set(code.modules(code.ROOTS["evaluate"]))
    for name in (
        "pipeline.evaluate.inference",
        "pipeline.measure.scores",
        "pipeline.report.table",
        "pipeline.config.load",
        "pipeline.decode.shards",
    ):
        assert name not in train
    for name in (
        "pipeline.train.loop",
        "pipeline.train.optimizer",
        "pipeline.train.reduction",
        "pipeline.config.load",
        "pipeline.report.table",
    ):
        assert name not in evaluate


def test_every_package_is_numeric_or_can_not_change_a_result() -> None:
    roots = [name for names in code.ROOTS.values() for name in names]
    roots += [f"{package}.{path.stem}" for package in code.PLUGINS.values() for path in plugins(package)]
    used = code.packages(code.modules(roots).values())
    assert used <= code.NUMERIC.keys() | code.OTHER_PACKAGES.keys()
    assert not code.NUMERIC.keys() & code.OTHER_PACKAGES.keys()


def test_a_digest_changes_with_a_pin_that_its_closure_uses(tmp_path: Path) -> None:
    for name in ("models", "pipeline"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    pins = (ROOT / "constraints.txt").read_text()
    (tmp_path / "constraints.txt").write_text(pins)
    before = code.files(tmp_path)

    def changed(line: str, other: str) -> set[str]:
        assert f"{line}\n" in pins
        (tmp_path / "constraints.txt").write_text(pins.replace(f"{line}\n", f"{other}\n"))
        return {name for name, text in code.files(tmp_path).items() if text != before[name]}

    torch = next(line for line in pins.splitlines() if line.startswith("torch=="))
    assert {"stages/train", "stages/evaluate", "attention/tsm", "backbones/resnet"} <= changed(torch, "torch==9.9")
    assert not {"stages/decode", "stages/splits"} & changed(torch, "torch==9.9")
    ffmpeg = next(line for line in pins.splitlines() if line.startswith("ffmpeg-python=="))
    assert {"stages/decode"} <= changed(ffmpeg, "ffmpeg-python==9.9")
    assert "stages/train" not in changed(ffmpeg, "ffmpeg-python==9.9")
    pytest_pin = next(line for line in pins.splitlines() if line.startswith("pytest=="))
    assert changed(pytest_pin, "pytest==0.0") == set()


def test_a_key_changes_with_each_of_its_parts() -> None:
    base = {"code": ["a"], "settings": {"lr": 0.1}, "inputs": {"weights": "0"}}
    others = [{"code": ["b"]}, {"code": ["a", "a"]}, {"settings": {"lr": 0.2}}, {"inputs": {"weights": "1"}}]
    others += [{"inputs": {"list": "0"}}, {"settings": {}}]
    assert len({key.key(**base), *(key.key(**{**base, **other}) for other in others)}) == len(others) + 1
    assert key.key(["a"], {"x": 1, "y": 2}, {}) == key.key(["a"], {"y": 2, "x": 1}, {})


def test_sums_leave_out_sums_that_are_being_written(tmp_path: Path) -> None:
    (tmp_path / "one.pt").write_bytes(b"one")
    (tmp_path / ".hidden").write_bytes(b"content")
    with atomic.writing(tmp_path / files.SUMS) as temporary:  # another process
        temporary.write_text("half of a li")
        files.write_sums(tmp_path)
        assert files.sums(tmp_path).keys() == {"one.pt", ".hidden"}


def test_sums_find_what_changed(tmp_path: Path) -> None:
    (tmp_path / "one.pt").write_bytes(b"one")
    (tmp_path / "two.pt").write_bytes(b"two")
    files.write_sums(tmp_path)
    command = ["sha256sum", "--check", "--quiet", files.SUMS]
    assert subprocess.run(command, cwd=tmp_path).returncode == 0
    assert files.verify(tmp_path / "one.pt") == files.sha256(tmp_path / "one.pt")
    (tmp_path / "one.pt").write_bytes(b"onE")
    with pytest.raises(UserError, match=r"one\.pt is damaged"):
        files.verify(tmp_path / "one.pt")
    (tmp_path / "one.pt").unlink()
    with pytest.raises(UserError, match=r"one\.pt is missing"):
        files.verify(tmp_path / "one.pt")
    with pytest.raises(UserError, match=r"does not list three\.pt"):
        files.verify(tmp_path / "three.pt")
    (tmp_path / files.SUMS).write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="SHA256SUMS is damaged"):
        files.verify(tmp_path / "two.pt")
    (tmp_path / files.SUMS).unlink()
    with pytest.raises(UserError, match="SHA256SUMS is missing"):
        files.verify(tmp_path / "two.pt")
