"""Generated pages: configuration, command line and the tree of files.

mkdocs runs this file as a hook. In a page of docs/, the comment `tree` becomes the tree of packages, and `modules` the
modules that a row can name.
"""

import ast
import dataclasses
import inspect
import io
import sys
import tokenize
import typing
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import typer
from mkdocs.structure.files import File, Files
from pydantic import TypeAdapter
from typer.cli import get_docs_for_click

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the project is an application that runs from its clone

from pipeline.config.schema import Params  # noqa: E402
from stages.cli import app  # noqa: E402

PACKAGES = ("models", "pipeline", "cluster", "stages", "bench")
SYMBOLS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def on_files(files: Files, config: Any) -> Files:
    """Add the pages without a file."""
    for name, text in {"configuration.md": configuration(), "command-line.md": command_line()}.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in the generated parts of a page."""
    for name, part in (("tree", tree), ("modules", modules)):
        if (mark := f"<!-- {name} -->") in markdown:
            markdown = markdown.replace(mark, part())
    return markdown


def command_line() -> str:
    """Return the page of commands, from their help texts."""
    command = typer.main.get_command(app)
    command.commands = {name: inner for name, inner in command.commands.items() if not inner.hidden}  # type: ignore[attr-defined]
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="actionbench", title="Command line")
    return text + "\nAn error of yours ends with one line and exit code 2.\n"


def configuration() -> str:
    """Return the page of params.yaml: the schema's types, ranges and comments."""
    schema = TypeAdapter(Params).json_schema()
    parts = [
        "# Configuration reference",
        "`params.yaml` holds these keys. An unknown, missing or mistyped key is an error that names its neighbors. "
        "This page is generated from the schema.",
    ]
    for kind in schema_classes(Params):
        properties = (schema if kind is Params else schema["$defs"][kind.__name__])["properties"]
        comments = described(kind)
        parts.append(f"## {kind.__name__}")
        if kind.__doc__ and not kind.__doc__.startswith(f"{kind.__name__}("):
            parts.append(inspect.cleandoc(kind.__doc__))
        lines = ["| key | type | default | description |", "|---|---|---|---|"]
        for field in dataclasses.fields(kind):
            cells = [
                f"`{field.name}`",
                shown_type(properties[field.name]),
                default(field),
                comments.get(field.name, ""),
            ]
            lines.append(f"| {' | '.join(escaped(cell) for cell in cells)} |")
        parts.append("\n".join(lines))
    parts += [
        "## Knobs",
        "A row's `knobs` are parameters of its attention module's `attach()`. The module's docstring says what each "
        "means, and which of them are choices that a paper leaves open.",
        "\n".join(["| attention | knobs and their defaults |", "|---|---|", *map(knobs, plugins("models/attention"))]),
    ]
    return "\n\n".join(parts) + "\n"


def knobs(path: Path) -> str:
    """Return an attention module's line of the table of knobs."""
    attach = import_module(f"models.attention.{path.stem}").attach
    given = inspect.signature(attach).parameters.values()
    named = (f"`{knob.name}: {in_yaml(knob.default)}`" for knob in given if knob.default is not knob.empty)
    return f"| `{path.stem}` | {', '.join(named) or 'none'} |"


def escaped(text: str) -> str:
    """Escape a cell of a Markdown table: column separators and tags such as <file>."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def schema_classes(kind: type) -> list[type]:
    """Return a dataclass and those of its fields, in reading order."""
    classes = [kind]
    for hint in typing.get_type_hints(kind).values():
        for inner in nested(hint):
            classes += [other for other in schema_classes(inner) if other not in classes]
    return classes


def nested(hint: Any) -> Iterator[type]:
    """Yield the dataclasses in a type hint, such as Dataset in dict[str, Dataset]."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        yield hint
    for inner in typing.get_args(hint):
        yield from nested(inner)


def described(kind: type) -> dict[str, str]:
    """Return each field's comment: on its line, or on the lines above it."""
    source = inspect.getsource(sys.modules[kind.__module__])
    (body,) = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == kind.__name__)
    comments: dict[int, tuple[bool, str]] = {}  # line -> does the comment stand alone, and its text
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and not token.string.startswith("# type:"):
            comments[token.start[0]] = (not token.line[: token.start[1]].strip(), token.string.lstrip("# "))
    texts = {}
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            lines = [comments[line][1] for line in range(node.lineno, (node.end_lineno or 0) + 1) if line in comments]
            above = node.lineno - 1
            while comments.get(above, (False, ""))[0]:
                lines.insert(0, comments[above][1])
                above -= 1
            texts[node.target.id] = " ".join(lines)
    return texts


def shown_type(schema: dict[str, Any]) -> str:
    """Describe a JSON schema in a few words, with its range."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if "anyOf" in schema:
        return " or ".join(shown_type(inner) for inner in schema["anyOf"])
    if "allOf" in schema:
        return shown_type(schema["allOf"][0])
    if "prefixItems" in schema:
        return "[" + ", ".join(shown_type(inner) for inner in schema["prefixItems"]) + "]"
    if schema.get("type") == "array":
        return f"list of {shown_type(schema.get('items', {}))}"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"name: {shown_type(schema['additionalProperties'])}"
    limits = [f"{symbol} {schema[key]:g}" for key, symbol in SYMBOLS.items() if key in schema]
    return " ".join([schema.get("type", "any"), *limits])


def default(field: Any) -> str:
    """Return a field's default in YAML."""
    if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
        return "required"
    value = field.default_factory() if field.default is dataclasses.MISSING else field.default
    return "its defaults" if dataclasses.is_dataclass(value) else f"`{in_yaml(value)}`"


def in_yaml(value: Any) -> str:
    """Return a plain value as params.yaml has it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(in_yaml, value))}]"
    return str(value)


def plugins(folder: str) -> list[Path]:
    """Return the modules of a folder of plug-ins."""
    return [path for path in sorted((ROOT / folder).glob("*.py")) if path.stem != "__init__"]


def tree() -> str:
    """Return the tree of modules, each with the first line of its docstring."""
    lines = []
    for package in PACKAGES:
        for folder in sorted({path.parent for path in (ROOT / package).rglob("*.py")}):
            inside = [path for path in sorted(folder.glob("*.py")) if path.stem != "__init__"]
            lines.append(f"{folder.relative_to(ROOT).as_posix()}/")
            lines += [f"  {path.name:<24} {first_line(path)}".rstrip() for path in inside]
    return "```text\n" + "\n".join(lines) + "\n```"


def modules() -> str:
    """Return the attention modules, backbones and data sets with their first lines."""
    lines = []
    for title, folder in (
        ("Attention modules", "models/attention"),
        ("Backbones", "models/backbones"),
        ("Data sets", "pipeline/datasets"),
    ):
        lines += [f"**{title}** (`{folder}/`)", "", "| name | what it is |", "|---|---|"]
        lines += [f"| `{path.stem}` | {first_line(path).replace('|', '')} |" for path in plugins(folder)] + [""]
    return "\n".join(lines)


def first_line(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
