"""Canonical syntax of a Python module, without comments and docstrings.

Formatting does not count. `ast.dump` differs between Python versions, which add fields and move positions; this walker
gives the same text on Python 3.11 to 3.14. Annotations stay, because pydantic reads them.
"""

import ast
import hashlib

# Fields without effect: the kind prefix of u"", type comments, and load or store, which the position implies.
UNSEEN = frozenset(("ctx", "kind", "type_comment", "type_ignores"))


def digest(source: str) -> str:
    """Return the sha256 of a module's canonical syntax, as hex digits.

    Raises:
        SyntaxError: The source is not Python.
    """
    return hashlib.sha256(canonical(ast.parse(source)).encode("utf-8", "surrogatepass")).hexdigest()


def canonical(node: ast.AST) -> str:
    """Return a node as text that is equal for equal meaning."""
    return _text(node)


def _text(value: object) -> str:
    if isinstance(value, ast.Constant):
        return f"{type(value.value).__name__}:{value.value!r}"
    if isinstance(value, ast.JoinedStr):
        return f"JoinedStr({_list(_joined(value.values))})"
    if isinstance(value, ast.AST):
        fields = ((name, getattr(value, name, None)) for name in value._fields if name not in UNSEEN)
        # Fields that are absent or empty are left out: a newer Python has more of them.
        inner = ",".join(f"{name}={_text(field)}" for name, field in fields if field is not None and field != [])
        return f"{type(value).__name__}({inner})"
    if isinstance(value, list):
        return _list([item for item in value if not _is_text(item)])
    return repr(value)


def _list(values: list) -> str:
    return "[" + ",".join(map(_text, values)) + "]"


def _joined(values: list[ast.expr]) -> list[ast.expr]:
    """Join an f-string's neighboring parts, in which Python versions differ."""
    parts: list[ast.expr] = []
    for value in values:
        last = parts[-1] if parts else None
        if isinstance(value, ast.Constant) and isinstance(last, ast.Constant):
            parts[-1] = ast.Constant(str(last.value) + str(value.value))
        elif not (isinstance(value, ast.Constant) and value.value == ""):
            parts.append(value)
    return parts


def _is_text(statement: object) -> bool:
    """Return true for a docstring, or another string statement, which has no effect."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
