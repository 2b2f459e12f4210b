"""README and docs/: every command exists with its options, examples work, links lead somewhere, words are plain."""

import ast
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import typer
from dvc.cli import DvcParserError, parse_args
from dvc.utils.hydra import compose_and_dump
from ruamel.yaml import YAML
from typer.exceptions import TyperException

from models import registry, video
from pipeline.config.load import parse
from stages.cli import app

ROOT = Path(__file__).parents[2]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("*.md"))]
MAKEFILE = (ROOT / "Makefile").read_text()
PLAIN = {"cd", "git"}  # commands that a block may have without a mark
# Written about before they are here; the test of this name fails once they are, so that this set gets empty.
COMING: set[str] = set()  # commands and pages that are announced and not there yet
# STYLE of the project: words that a reader stumbles over.
BANNED = ["beside", "besides", "anew", "told", "said", "come to", "comes to", "but for", "of its own", "goes on from"]
BANNED += ["what there is", "the like", "does so", "as a rule", "hence"]


@dataclass(frozen=True)
class Command:
    """A command that a page asks its reader to type."""

    page: str
    words: tuple[str, ...]
    marked: bool  # its block says what it needs
    block: bool  # of a block, not within a sentence


def blocks(text: str) -> Iterator[tuple[str, str, bool]]:
    """Language, content and mark of each fenced block."""
    for match in re.finditer(r"(<!-- needs: .+? -->\n)?^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield match[2], match[3], bool(match[1])


def split(line: str) -> Iterator[tuple[str, ...]]:
    """The commands of a shell line, without comments, variables and the path of .venv."""
    words: list[str] = []
    for word in [*shlex.split(re.sub(r"<[\w ]+>", "NAME", line), comments=True), ";"]:
        if word.rstrip(";") in ("", "&&", "|") or word.endswith(";"):
            words += [word.rstrip(";")] if word.rstrip(";") not in ("", "&&", "|") else []
            if words:
                yield tuple(words)
            words = []
        elif words or not re.match(r"\w+=", word):
            words.append(word.removeprefix(".venv/bin/"))


def commands() -> list[Command]:
    found = []
    for page in PAGES:
        text, name = page.read_text(), page.relative_to(ROOT).as_posix()
        for language, content, marked in blocks(text):
            if not language:
                found += [Command(name, words, marked, True) for line in content.splitlines() for words in split(line)]
        prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
        for span in re.findall(r"`((?:actionbench|dvc|make) [^`]+)`", prose):
            found += [Command(name, words, True, False) for words in split(span)]
    return found


def check_actionbench(words: tuple[str, ...], whole: bool) -> None:
    """Parse without running: unknown commands, options and values raise. `whole`: arguments must be complete too."""
    context = typer.Context(typer.main.get_command(app))
    arguments = list(words)
    while arguments and hasattr(context.command, "commands"):
        name, command, arguments = context.command.resolve_command(context, arguments)
        try:
            context = command.make_context(name, arguments, parent=context)
        except TyperException as error:
            if whole or type(error).__name__ != "MissingParameter":
                raise
            return
        arguments = [*context._protected_args, *context.args]


def check(command: Command) -> None:
    first, *rest = command.words
    if " ".join(command.words[:2]) in COMING:
        return
    match first:
        case "actionbench":
            check_actionbench(tuple(rest), command.block)
        case "dvc":
            parse_args(rest)
        case "make":
            targets = {word for word in rest if "=" not in word}
            assert targets and targets <= set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE)), targets
        case "python" | "pytest" | "pip":
            if first == "python" and rest[0] == "-m":
                assert rest[1] == "pip" or (ROOT / f"{rest[1].replace('.', '/')}.py").exists(), rest[1]
            for word in rest:
                assert not word.endswith(".py") or (ROOT / word).exists(), word
        case _:
            assert first in PLAIN or command.marked, f"{first}: say what the block needs, or leave it out"
            for word in rest:
                assert not word.startswith("cluster/") or (ROOT / word).exists(), word


@pytest.mark.parametrize("command", commands(), ids=lambda command: f"{command.page}: {' '.join(command.words)}")
def test_every_command_exists_with_its_options(command: Command) -> None:
    try:
        check(command)
    except (TyperException, DvcParserError, SystemExit) as error:
        pytest.fail(f"{command.page}: {' '.join(command.words)}: {error}")


@pytest.mark.parametrize(
    "words",
    [
        ("actionbench", "plam"),
        ("actionbench", "plan", "--jason"),
        ("actionbench", "explain", "ablation"),
        ("dvc", "repro", "--all-of-it"),
        ("make", "it"),
    ],
    ids=" ".join,
)
def test_a_command_that_does_not_exist_is_found(words: tuple[str, ...]) -> None:
    with pytest.raises((TyperException, DvcParserError, AssertionError)):
        check(Command("", words, False, True))


def test_what_is_coming_is_not_here_yet() -> None:
    names = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    here = {f"actionbench {name}" for name in names} | {
        f"make {name}" for name in re.findall(r"^[a-z-]+(?=:)", MAKEFILE, re.M)
    }
    assert not COMING & here and not any((ROOT / name).exists() for name in COMING)


def test_readmes_table_is_the_reference_results() -> None:
    table = [line for line in (ROOT / "README.md").read_text().splitlines() if re.match(r"\| (tsn|action) ", line)]
    printed = (ROOT / "reports/reference/quick/tables/ablation.md").read_text().splitlines()
    assert len(table) == 2 and set(table) <= set(printed)


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")), ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
        assert (ROOT / link).exists() or link.startswith(tuple(COMING)), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_words_are_plain(page: Path) -> None:
    text = re.sub(r"^```.*?^```|`[^`]*`|^\|[-| ]+\|$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"\s+", " ", text)
    used = [word for word in BANNED if re.search(rf"\b{word}\b", text, re.IGNORECASE)]
    assert not used


@pytest.fixture(scope="module")
def generate() -> Iterator[ModuleType]:
    pytest.importorskip("mkdocs", reason="mkdocs comes with the extra docs")
    sys.path.insert(0, str(ROOT / "docs"))
    import generate

    yield generate
    sys.path.remove(str(ROOT / "docs"))


def test_the_configuration_page_has_every_key_with_its_comment(generate: ModuleType) -> None:
    page = generate.configuration()
    for name in ("Params", "Dataset", "Decode", "Recipe", "Protocol", "Experiment", "Cluster"):
        assert f"## {name}\n" in page
    assert re.search(r"^\| `batch` \| integer.*\| required \| clips per step over all workers", page, re.MULTILINE)
    assert "&lt;file>" in page and "[Augment](#augment)" in page


def test_the_command_page_has_every_command(generate: ModuleType) -> None:
    page = generate.command_line()
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        assert (f"## `actionbench {name}`" in page) != command.hidden


def test_the_tree_has_every_module(generate: ModuleType) -> None:
    listed = generate.tree()
    for package in ("models", "pipeline", "cluster", "stages", "bench"):
        for path in (ROOT / package).rglob("*.py"):
            assert path.stem == "__init__" or f"  {path.name}" in listed


def test_a_reader_finds_the_files_of_25_questions() -> None:
    rows = re.findall(r"^\| Wh.+\? \| `(.+)` \| `(.+)` \|$", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE)
    assert len(rows) == 25
    for path, name in rows:
        defined = {getattr(node, "name", "") for node in ast.parse((ROOT / path).read_text()).body}
        assert name in defined, f"{path} defines no {name}"


def test_the_example_of_a_module_attaches_and_trains(generate: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    text = generate.on_page_markdown((ROOT / "docs/your-module.md").read_text())
    (code,) = (content for language, content, _ in blocks(text) if language == "python")
    module: Any = ModuleType("models.attention.gate")
    exec(compile(code, "gate.py", "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, "models.attention.gate", module)
    monkeypatch.setattr(registry, "known", lambda kind: ["gate", "resnet"])
    net = video.build("resnet", "tiny", "gate", frames=2, classes=3)
    net(torch.zeros(1, 2, 3, 32, 32)).sum().backward()
    gates = [parameter for name, parameter in net.named_parameters() if name.endswith("exit.weight")]
    assert gates and all(parameter.grad is not None for parameter in gates)


def test_the_example_of_a_suite_composes(tmp_path: Path) -> None:
    import shutil

    text = (ROOT / "docs/your-data.md").read_text()
    (suite,) = (content for language, content, _ in blocks(text) if language == "yaml")
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    (tmp_path / "conf/suite/mine.yaml").write_text(suite)
    target = tmp_path / "params.yaml"
    compose_and_dump(str(target), str(tmp_path / "conf"), None, "config", "", ["suite=mine"])
    params = parse(YAML(typ="safe").load(target.read_text()))
    assert params.suite == "mine" and params.datasets["mine"].source == "/data/my-videos"
    assert params.experiments["mine-tsm"].attention == "tsm"


def test_the_documentation_builds(generate: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    build(load_config(str(ROOT / "mkdocs.yml"), strict=True, site_dir=str(tmp_path)))
    assert "uniform_clips" in (tmp_path / "architecture" / "index.html").read_text()
    assert not [path for path in tmp_path.rglob("*.html") if re.search(r"\{(defines|module|tree)\b", path.read_text())]
