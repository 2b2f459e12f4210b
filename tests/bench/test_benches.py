"""Every bench starts, so that a broken one is noticed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from stages.repro.compose import composed

ROOT = Path(__file__).parents[2]
BENCHES = sorted(
    path.stem for path in (ROOT / "bench").glob("*.py") if 'if __name__ == "__main__":' in path.read_text()
)


def start(name: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", f"bench.{name}", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_every_bench_starts() -> None:
    """Every bench answers --help; one process imports torch and Ray once for all."""
    script = f"""
import importlib, sys
for name in {BENCHES}:
    sys.argv = [name, "--help"]
    print("bench", name)
    try:
        importlib.import_module(f"bench.{{name}}").main()
    except SystemExit as error:
        assert not error.code, name
    else:
        raise AssertionError(f"{{name}} --help does not end")
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    started = dict(part.split("\n", 1) for part in done.stdout.split("bench ")[1:] if "\n" in part)
    assert {name for name, text in started.items() if text.startswith("usage: ")} == {*BENCHES}


def test_attacks_judge_their_first_inputs() -> None:
    kinds = ["archives", "downloads", "weights", "names", "numbers", "videos"]
    done = start("attacks", "--first", "2", "--kinds", *kinds)
    assert done.returncode == 0, done.stderr
    outcomes = [line.partition(": ") for line in done.stdout.splitlines()]
    assert [kind for kind, _, _ in outcomes] == [kind for kind in kinds for _ in range(2)]
    assert {outcome for _, _, outcome in outcomes} <= {"right", "line"}


def test_an_attack_is_judged_by_what_it_does(tmp_path: Path) -> None:
    """Each outcome is judged on a function that causes it."""
    script = """
import time
from bench.attack.judge import Attack, judged
from pipeline.errors import UserError
def line(_):
    raise UserError("no such row")
def lines(_):
    raise UserError("no such row\\nand more")
def left(_):
    raise SystemExit("error: no such row")
def bug(_):
    raise KeyError("row")
def died(_):
    import os
    os.kill(os.getpid(), 9)
def hung(_):
    time.sleep(60)
cases = {"right": lambda _: "", "silent": lambda _: "other numbers", "line": line, "left": left, "lines": lines,
         "bug": bug, "died": died, "hung": hung}
for wants in ("right", "line"):
    print(wants, *(judged(Attack("k", "n", wants, act, 1.0)).outcome for act in cases.values()))
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    same = "line line traceback traceback traceback hung"
    expected = [f"right right silent {same.replace('line', 'refused')}", f"line silent silent {same}"]
    assert done.stdout.splitlines() == expected, done.stderr


def test_the_gpu_script_runs_its_suite_at_224_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    script = (ROOT / "bench" / "gpu.sh").read_text()
    suite, *overrides = re.findall(r"-S (\S+)", script)
    monkeypatch.chdir(ROOT)
    params = composed(suite.removeprefix("suite="), *overrides)
    assert params.suite == "mobilenet"
    assert {recipe.size for recipe in params.recipes.values()} == {224}
    assert {protocol.size for protocol in params.protocols.values()} == {224}
    for name, row in params.experiments.items():
        assert row.knobs.get("positions", 7) == 7, f"{name}: the side of the last map at 224 pixels"
