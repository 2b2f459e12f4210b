"""An edit of a source file changes exactly the digests that depend on it."""

import ast
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.digest import code
from tests.support import mutants
from tests.support.mutants import harmless, mutation, path_of

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    for name in ("models", "pipeline", "cluster", "stages"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "constraints.txt", folder)
    return folder


@pytest.fixture(scope="module")
def readers() -> dict[str, set[str]]:
    return mutants.readers()


def changed(project: Path, path: Path, text: str, before: dict[str, str]) -> set[str]:
    """Return the digests that a file's new text changes, then restore the file."""
    old = path.read_text()
    path.write_text(text)
    try:
        return {name for name, listing in code.files(project).items() if listing != before[name]}
    finally:
        path.write_text(old)


def sources(project: Path, readers: dict[str, set[str]]) -> Iterator[tuple[str, Path]]:
    for name in sorted(readers):
        if path_of(name, project).read_text().strip():
            yield name, path_of(name, project)


def test_a_mutation_changes_exactly_the_digests_that_cover_it(project: Path, readers: dict[str, set[str]]) -> None:
    before, rng, made, kinds = code.files(project), random.Random(20), 0, set[str]()
    for round_ in range(2):
        for name, path in sources(project, readers):
            source = path.read_text()
            if (mutated := mutation(source, rng)) is None:
                assert round_ or name == "models.attention.none", f"{name} has nothing to mutate"
                continue
            what, text = mutated
            assert ast.dump(ast.parse(text)) != ast.dump(ast.parse(source)), (name, what)
            assert changed(project, path, text, before) == readers[name], (name, what)
            made += 1
            kinds.add(what.partition(" ")[0])
    assert made >= 120
    assert kinds == {"constant", "operator", "default", "condition"}


def test_an_edit_that_changes_nothing_changes_no_digest(project: Path, readers: dict[str, set[str]]) -> None:
    before, rng, kinds = code.files(project), random.Random(4), set[str]()
    for name, path in sources(project, readers):
        kind, text = harmless(path.read_text(), rng)
        assert text != path.read_text(), (name, kind)
        assert changed(project, path, text, before) == set(), (name, kind)
        kinds.add(kind)
    assert len(kinds) == 6


def test_an_edit_outside_of_what_computes_changes_no_digest(project: Path, readers: dict[str, set[str]]) -> None:
    """Unused imports, log texts, bounds, and edits of excluded modules, stages/ and cluster/ change no digest."""
    before, rng, made = code.files(project), random.Random(1), 0
    outside = [path for package in ("stages", "cluster") for path in sorted((project / package).rglob("*.py"))]
    outside += [path_of(name, project) for name in code.LEFT_OUT]
    for path in outside:
        source = path.read_text()
        texts = [f"import json as unused\n{source}" if "__future__" not in source else source]
        if source.strip() and (mutated := mutation(source, rng)):
            texts.append(mutated[1])
        for text in texts:
            assert changed(project, path, text, before) == set(), path
            made += 1
    assert made >= 60


def test_a_new_plugin_is_a_new_digest_and_changes_no_other(project: Path) -> None:
    before, path = code.files(project), project / "models/attention/brand_new.py"
    path.write_text("def attach(net, frames):\n    return net\n")
    try:
        after = code.files(project)
    finally:
        path.unlink()
    assert after.keys() - before.keys() == {"attention/brand_new"}
    assert {name for name in before if before[name] != after[name]} == set()
