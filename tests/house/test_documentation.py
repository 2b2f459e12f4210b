"""README and docs/: commands and examples run, options exist, links resolve, words are plain."""

import ast
import inspect
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import dvc.cli
import pytest
import torch
import typer
from dvc.cli import DvcParserError, parse_args
from dvc.utils.hydra import compose_and_dump
from ruamel.yaml import YAML
from typer.exceptions import TyperException

from cluster import shared
from models import registry, video
from pipeline.config.load import parse
from stages import cli
from stages.cli import app
from tests.support import project

ROOT = Path(__file__).parents[2]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("*.md"))]
MAKEFILE = (ROOT / "Makefile").read_text()
PLAIN = {"cd", "git"}  # commands that a block may have without a mark
# Written about before they are here; the test of this name fails once they are, so that this set gets empty.
COMING: set[str] = set()  # commands and pages that are announced and not there yet
# STYLE of the project: words that a reader stumbles over.
BANNED = ["beside", "besides", "anew", "told", "said", "come to", "comes to", "but for", "of its own", "goes on from"]
BANNED += ["what there is", "the like", "does so", "as a rule", "hence"]


# Why a block of commands is not run here: the comment above it names one of these.
REASONS = {
    "needs a cluster",
    "needs a GPU",
    "needs a bucket",
    "needs a shared folder",
    "needs data",
    "needs a trained network",
    "needs the internet",
    "starts a server",
    "takes minutes",
}
MACHINE = ("actionbench", "doctor")  # its exit code depends on the machine


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    language: str
    content: str
    reason: str  # why it is not run; "" for none

    def commands(self) -> Iterator[tuple[str, ...]]:
        for line in self.content.splitlines():
            yield from split(line)


@dataclass(frozen=True)
class Command:
    """A command that a page asks its reader to type."""

    page: str
    words: tuple[str, ...]
    marked: bool  # its block has a reason not to run
    block: bool  # of a block, not within a sentence


def blocks(page: str, text: str) -> Iterator[Block]:
    for match in re.finditer(r"(?:<!-- not run: (.+?) -->\n)?^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield Block(page, match[2], match[3], match[1] or "")


BLOCKS = [block for page in PAGES for block in blocks(page.relative_to(ROOT).as_posix(), page.read_text())]
RUN = [block for block in BLOCKS if block.language == "sh" and not block.reason]


def split(line: str) -> Iterator[tuple[str, ...]]:
    """Yield the commands of a shell line, without comments, variables and the path of .venv."""
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
    typed = [
        Command(block.page, words, bool(block.reason), True)
        for block in BLOCKS
        if block.language == "sh"
        for words in block.commands()
    ]
    for page in PAGES:
        prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for span in re.findall(r"`((?:actionbench|dvc|make) [^`]+)`", prose):
            typed += [Command(page.relative_to(ROOT).as_posix(), words, True, False) for words in split(span)]
    return typed


def check_actionbench(words: tuple[str, ...], whole: bool) -> None:
    """Parse without running: unknown commands, options and values raise; with `whole`, incomplete arguments too."""
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


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a clone with two rows of suite quick, whose results are the reference results."""
    folder, reference = tmp_path_factory.mktemp("workspace"), ROOT / "reports/reference/quick"
    project.copy(folder, two_rows(project.load()))
    for name in (".gitignore", "dvc.lock"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "reports/code", folder / "reports/code")
    shutil.copytree(reference, folder / "reports/reference/quick")
    project.save(folder / "reports/reference/quick", two_rows(project.load(reference)))
    for name in ("predictions", "runs", "splits", "tracking"):
        shutil.copytree(reference / name, folder / "data" / name)
    for name in ("tables", "figures", "metrics", "plots"):
        shutil.copytree(reference / name, folder / "reports" / name / "quick")
    (folder / ".dvc/config").write_text("[core]\n    analytics = false\n")
    (folder / ".dvc/.gitignore").write_text("/config.local\n/tmp\n/cache\n")
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "Results"]):
        subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments], cwd=folder, check=True)
    return folder


def two_rows(settings: dict[str, Any]) -> dict[str, Any]:
    """Return params with rows tsn and tsm, and their table."""
    table = {**settings["tables"]["ablation"], "rows": ["tsm"]}
    rows = {name: settings["experiments"][name] for name in ("tsn", "tsm")}
    return {**settings, "experiments": rows, "tables": {"ablation": table}}


@cache
def exit_code(folder: Path, words: tuple[str, ...]) -> int:
    """Run a command in this process, each command once."""
    first, *arguments = words
    with chdir(folder), pytest.MonkeyPatch.context() as patch:
        if first == "dvc":
            return dvc.cli.main(arguments)
        if first == "git":
            return subprocess.run(words, stdout=subprocess.DEVNULL).returncode
        patch.setattr(sys, "argv", list(words))
        patch.setattr(shared, "resources", lambda _: {"CPU": 8.0})  # starting Ray takes long
        with pytest.raises(SystemExit) as end:
            cli.main()
        return int(end.value.code or 0)


@pytest.mark.parametrize("block", RUN, ids=lambda block: f"{block.page}: {block.content.split('#')[0].strip()}")
def test_a_block_without_a_mark_runs(block: Block, workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in block.commands():
        code = exit_code(workspace, words)
        assert code == 0 or (words[:2] == MACHINE and code == 1), f"{words}: {capsys.readouterr()}"


def test_every_reason_not_to_run_is_known_and_used() -> None:
    assert {block.reason for block in BLOCKS} - {""} == REASONS
    assert {block.language for block in BLOCKS} == {"sh", "python", "text", "yaml"}
    assert not [page for page in PAGES if re.search("<!-- needs:", page.read_text())]


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


def test_every_interval_in_the_documentation_is_of_a_reference_table() -> None:
    """A number in words goes stale when results are saved anew."""
    pattern = re.compile(r"\[[-+]?\d+\.\d, [-+]?\d+\.\d\]")
    saved = {
        text
        for path in (ROOT / "reports/reference").glob("*/tables/*.md")
        for text in pattern.findall(path.read_text())
    }
    shown = {text for page in ("README.md", "docs/suites.md") for text in pattern.findall((ROOT / page).read_text())}
    assert shown and not shown - saved


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


def test_the_configuration_page_has_every_knob_with_its_default(generate: ModuleType) -> None:
    lines = generate.configuration().partition("## Knobs")[2].splitlines()
    for path in (ROOT / "models" / "attention").glob("*.py"):
        if path.stem == "__init__":
            continue
        (line,) = (line for line in lines if line.startswith(f"| `{path.stem}` |"))
        given = inspect.signature(import_module(f"models.attention.{path.stem}").attach).parameters.values()
        knobs = [knob.name for knob in given if knob.default is not knob.empty]
        assert re.findall(r"`(\w+): ", line) == knobs
    assert "`normed: false`" in "".join(lines) and "`paths: [ste, ce, me]`" in "".join(lines)


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
    (code,) = (block.content for block in blocks("", text) if block.language == "python")
    module: Any = ModuleType("models.attention.gate")
    exec(compile(code, "gate.py", "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, "models.attention.gate", module)
    monkeypatch.setattr(registry, "known", lambda kind: ["gate", "resnet"])
    net = video.build("resnet", "tiny", "gate", frames=2, classes=3)
    net(torch.zeros(1, 2, 3, 32, 32)).sum().backward()
    gates = [parameter for name, parameter in net.named_parameters() if name.endswith("exit.weight")]
    assert gates and all(parameter.grad is not None for parameter in gates)


def test_the_example_of_a_suite_composes(tmp_path: Path) -> None:
    text = (ROOT / "docs/your-data.md").read_text()
    (suite,) = (block.content for block in blocks("", text) if block.language == "yaml")
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
    assert not [path for path in tmp_path.rglob("*.html") if re.search(r"<!-- (modules|tree) -->", path.read_text())]
