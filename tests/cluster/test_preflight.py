"""The preflight on real nodes, each with a separate folder and view of the files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster import preflight
from tests.support.machines.preflight import ask, nodes, project


def test_the_difference_to_fix_first_is_named() -> None:
    ours = preflight.facts({}, "")
    theirs = {**ours, "python": "3.12.1", "torch": "2.0.0", "folder": "/elsewhere"}
    first, second, third = preflight.differences(ours, theirs)
    assert first.startswith("the working folder is /elsewhere") and "start Ray there" in first
    assert second.startswith("python is 3.12.1, not ") and third.startswith("torch is 2.0.0, not ")
    assert preflight.differences(ours, ours) == []


def test_a_folder_is_shared_where_the_token_is_read_and_an_answer_written(tmp_path: Path) -> None:
    (tmp_path / ".preflight-t").write_text("t")
    (tmp_path / ".preflight-u").write_text("of another time")
    folders = {"data": str(tmp_path), "storage": str(tmp_path / "absent")}
    facts = preflight.facts(folders, "t")
    assert (facts["data"], facts["storage"]) == ("shared", "no such file or directory")
    assert len(list(tmp_path.glob(".preflight-t-*"))) == 1
    assert preflight.facts({"data": str(tmp_path)}, "u")["data"] == "holds something else"


def test_another_commit_is_named_even_if_it_does_not_load(tmp_path: Path) -> None:
    other = project(tmp_path / "other")
    lines = []
    for text in ("", "this does not even parse\n"):
        with (other / "models" / "video.py").open("a") as file:
            file.write(text)
        code = "from cluster.preflight import facts; print(facts({}, '')['sources'])"
        variables = {**os.environ, "PYTHONPATH": str(other)}
        done = subprocess.run([sys.executable, "-c", code], cwd=other, env=variables, capture_output=True, text=True)
        theirs = {**preflight.facts({}, ""), "sources": done.stdout.strip()}
        lines.append(preflight.differences(preflight.facts({}, ""), theirs))
    assert lines[0] == [] and "same commit" in lines[1][0]


@pytest.mark.slow
def test_nodes_with_another_view_are_named(tmp_path: Path) -> None:
    """The preflight names two faulty nodes next to a correct head, and a driver without the token."""
    head = project(tmp_path / "project")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    packages = tmp_path / "packages"
    (packages / "torch-2.0.0.dist-info").mkdir(parents=True)
    (packages / "torch-2.0.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.0.0\n")
    views = [(elsewhere, {}), (head, {"PYTHONPATH": f"{packages}{os.pathsep}{head}"})]
    with nodes(head, *views) as driver:
        count, _, *wrong = ask(head, driver, 3, tmp_path / "storage")
        refused = ask(head, {**driver, "RAY_AUTH_TOKEN": "b" * 64}, 3, tmp_path / "storage")
    assert count == "3" and len(wrong) == 2 and all(line.startswith("node ") for line in wrong)
    folder, package = (next(line for line in wrong if word in line) for word in ("folder is", "torch is"))
    assert f"the working folder is {elsewhere}, not {head} as here; start Ray there from" in folder
    assert ": torch is 2.0.0, not " in package and "pip install -c constraints.txt torch" in package
    assert len(refused) == 1 and "does not take this process" in refused[0]
    assert not list(tmp_path.rglob(".preflight-*"))
