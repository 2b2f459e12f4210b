"""Seeded edits of source files: mutations, which change a meaning, and harmless edits."""

import ast
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import grimp

from pipeline.digest import closure, code

ROOT = Path(__file__).parents[2]
COMPARED = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}
COMPARED |= {ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In}
COMPUTED = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Div}
COMPUTED |= {ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr, ast.MatMult: ast.Add}
Mutation = tuple[str, str]  # what was changed where, and the new source


def mutation(source: str, rng: random.Random) -> Mutation | None:
    """Return one mutation of a module: a constant, an operator, a default or a condition; None if it has none."""
    tree = ast.parse(source)
    places = list(_places(tree))
    if not places:
        return None
    kind = rng.choice(sorted({kind for kind, *_ in places}))
    _, line, change = rng.choice([place for place in places if place[0] == kind])
    change()
    return f"{kind} at line {line}", ast.unparse(ast.fix_missing_locations(tree)) + "\n"


def _places(tree: ast.Module) -> Iterator[tuple[str, int, Callable[[], None]]]:
    """Yield (kind, line, function that edits it) of every mutable place of a tree."""
    texts = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
    defaults = {
        id(default)
        for node in ast.walk(tree)
        if isinstance(node, ast.arguments)
        for default in (*node.defaults, *node.kw_defaults)
        if default is not None
    }
    annotations = {
        id(inner)
        for node in ast.walk(tree)
        for name in ("annotation", "returns")
        if isinstance(getattr(node, name, None), ast.AST)
        for inner in ast.walk(getattr(node, name))
    }
    formatted = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in annotations or id(node) in formatted:
            continue
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Constant) and id(node) not in texts and node.value is not Ellipsis:
            yield ("default" if id(node) in defaults else "constant"), line, lambda node=node: _other(node)
        elif isinstance(node, ast.BinOp) and type(node.op) in COMPUTED:
            yield "operator", line, lambda node=node: setattr(node, "op", COMPUTED[type(node.op)]())
        elif isinstance(node, ast.Compare):
            yield "operator", line, lambda node=node: setattr(node, "ops", [COMPARED[type(op)]() for op in node.ops])
        elif isinstance(node, ast.If | ast.IfExp | ast.While) and "TYPE_CHECKING" not in ast.unparse(node.test):
            yield "condition", line, lambda node=node: setattr(node, "test", ast.UnaryOp(ast.Not(), node.test))


def _other(node: ast.Constant) -> None:
    value = node.value
    if isinstance(value, bool):
        node.value = not value
    elif isinstance(value, int | float | complex):
        node.value = value * 2 + 1
    elif isinstance(value, str | bytes):
        node.value = value + type(value)(b"x" if isinstance(value, bytes) else "x")
    else:
        node.value = 0


def harmless(source: str, rng: random.Random) -> Mutation:
    """Return one edit of a module that changes no behavior."""
    kind = rng.choice(["comment", "blank lines", "docstring", "formatting", "inner docstring", "no docstrings"])
    lines = source.splitlines(keepends=True)
    tree = ast.parse(source)
    statements = [node.lineno for node in tree.body if isinstance(node, ast.stmt) and node.col_offset == 0]
    statements = [line for line in statements if not lines[line - 1].startswith(("from __future__",))]
    at = rng.choice(statements[1:] or statements) - 1 if statements else 0
    if kind == "comment":
        lines.insert(at, f"# a note, {rng.random()}\n")
        return kind, "".join(lines)
    if kind == "blank lines":
        lines.insert(at, "\n" * rng.randint(1, 4))
        return kind, "".join(lines)
    if kind == "formatting":
        return kind, ast.unparse(tree) + "\n"
    owners = [
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef)
    ]
    text = ast.Expr(ast.Constant(f"Another text, {rng.random()}."))
    if kind == "no docstrings":
        for owner in (tree, *owners):
            if ast.get_docstring(owner) is not None and len(owner.body) > 1:
                del owner.body[0]
    else:
        owner = rng.choice(owners) if kind == "inner docstring" and owners else tree
        if ast.get_docstring(owner) is not None:
            owner.body[0] = text
        else:
            owner.body.insert(0, text)
    return kind, ast.unparse(ast.fix_missing_locations(tree)) + "\n"


def readers() -> dict[str, set[str]]:
    """Return module -> the digests that cover it, by grimp's import graph instead of pipeline.digest."""
    graph = grimp.build_graph("models", "pipeline", cache_dir=None, exclude_type_checking_imports=True)
    roots = {f"stages/{stage}": names for stage, names in code.ROOTS.items()}
    for package in code.PLUGINS.values():
        for path in ROOT.joinpath(*package.split(".")).glob("*.py"):
            if path.stem != "__init__":
                roots[f"{package.rpartition('.')[2]}/{path.stem}"] = (f"{package}.{path.stem}",)
    digests: dict[str, set[str]] = {}
    for digest, names in roots.items():
        seen, queue = set[str](), list(names)
        while queue:
            name = queue.pop()
            if name not in seen and not closure.is_below(name, code.LEFT_OUT):
                seen.add(name)
                packages = [".".join(name.split(".")[:end]) for end in range(1, name.count(".") + 1)]
                queue += [*graph.find_modules_directly_imported_by(name), *packages]
        for name in seen:
            digests.setdefault(name, set()).add(digest)
    return digests


def path_of(name: str, project: Path) -> Path:
    """Return a module's file in a project."""
    place = project.joinpath(*name.split("."))
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
