"""The README promises nothing that isn't there, and its table is the one that was made."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_its_table_is_the_committed_one() -> None:
    table = [line for line in README.splitlines() if line.startswith("| tsn ") or line.startswith("| action ")]
    made = (ROOT / "reports/reference/quick/tables/ablation.md").read_text().splitlines()
    assert table and set(table) <= set(made)


def test_its_tree_has_every_file_and_no_other() -> None:
    folder, told = ROOT, set()
    for line in README.split("## The tree")[1].split("```")[1].strip().splitlines():
        name = line.split()[0]
        path = folder / name if line.startswith(" ") else ROOT / name
        folder = folder if line.startswith(" ") else path
        told.add(path)
    folders = [
        "models",
        "models/backbones",
        "models/attention",
        "pipeline",
        "pipeline/datasets",
        "cluster",
        "stages",
        "bench",
    ]
    there = {path for name in folders for path in (ROOT / name).glob("*.py") if path.stem != "__init__"}
    assert {path for path in told if path.suffix == ".py"} == there
    assert all(path.exists() for path in told if path.name != "data")


def test_its_make_targets_and_commands_are_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^make ([a-z-]+)", README, re.MULTILINE)) <= targets
    cli = "".join((ROOT / "stages" / name).read_text() for name in ("cli.py", "showing.py"))
    for command in re.findall(r"(?:bin/|`|:6379 )actionbench ([a-z]+)", README):
        assert f"def {command}(" in cli, command


def test_its_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link
