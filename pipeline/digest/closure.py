"""Static import closure: the project's modules that a module may run."""

import ast
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pipeline.digest import syntax

ROOT = Path(__file__).parents[2]
PROJECT = ("models", "pipeline", "cluster", "stages")
EMPTY = syntax.digest("")


@dataclass(frozen=True)
class Module:
    """A module as read from its source."""

    name: str  # models.attention.tsm
    path: str  # models/attention/tsm.py, from the project's root
    meaning: str  # syntax.digest()
    imports: frozenset[str]  # dotted names, of the project's modules and of packages


def closure(
    roots: Iterable[str],
    left_out: Collection[str] = (),
    project: Path = ROOT,
    modules: dict[str, Module | None] | None = None,
) -> dict[str, Module]:
    """Return the modules that importing `roots` may run, by name.

    They are in alphabetical order. Imports inside functions count, those under TYPE_CHECKING don't. A module without
    code, as most packages' __init__.py, is not listed.

    Args:
        roots: names of modules.
        left_out: modules, or packages with all below them, that are neither included nor followed.
        project: the project's root.
        modules: cache of modules read, for further closures of the same sources.

    Raises:
        ValueError: A root has no source file.
    """
    modules = {} if modules is None else modules
    covered: dict[str, Module] = {}
    queue = list(roots)
    for root in queue:
        if _module(root, project, modules) is None:
            raise ValueError(f"no module {root!r} in {project}")
    while queue:
        name = queue.pop()
        if name in covered or is_below(name, left_out) or (module := _module(name, project, modules)) is None:
            continue
        covered[name] = module
        queue += [imported for imported in module.imports if imported.partition(".")[0] in PROJECT]
    return {name: covered[name] for name in sorted(covered) if covered[name].meaning != EMPTY}


def is_below(name: str, packages: Iterable[str]) -> bool:
    """Return true if a dotted name is one of `packages` or below one of them."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _module(name: str, project: Path, modules: dict[str, Module | None]) -> Module | None:
    if name not in modules:
        place = project.joinpath(*name.split("."))
        path = next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)
        text = path.read_text(encoding="utf-8") if path else ""
        modules[name] = _read(name, path.relative_to(project).as_posix(), text) if path else None
    return modules[name]


@cache
def _read(name: str, path: str, source: str) -> Module:
    package = name if path.endswith("/__init__.py") else name.rpartition(".")[0]
    parents = name.split(".")
    above = {".".join(parents[:end]) for end in range(1, len(parents))}  # importing a module runs its packages first
    return Module(name, path, syntax.digest(source), frozenset({*_imports(ast.parse(source), package), *above}))


def _imports(node: ast.AST, package: str) -> Iterator[str]:
    if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        for statement in node.orelse:
            yield from _imports(statement, package)
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        levels = package.split(".")
        start = ".".join(levels[: len(levels) - node.level + 1]) if node.level else ""
        module = ".".join(part for part in (start, node.module or "") if part)
        yield module
        yield from (f"{module}.{alias.name}" for alias in node.names)  # perhaps a module of that name
    for child in ast.iter_child_nodes(node):
        yield from _imports(child, package)
