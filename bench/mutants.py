"""The share of seeded mutants that the tests of their room detect.

    python -m bench.mutants [--mutants 60] [--seed 21] [--jobs 2] [--rooms measure clips decode train]

A mutant is one edit of a source file of pipeline/<room>: a constant, a default, an operator or a condition, drawn by
tests/support/mutants.py. Rooms take turns, and so do the modules of a room. Each mutant is tested in a copy of the
project with tests/<room>, without the slow tests. The module's own test file runs first; the first failing test ends
the run. A mutant that takes more than `--limit` seconds counts as killed. The report lists the survivors' edits.
"""

import ast
import difflib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from bench.report import save
from bench.running import options
from tests.support.mutants import mutation

ROOT = Path(__file__).parents[1]
ROOMS = ("measure", "clips", "decode", "train")
COPIED = ("pipeline", "models", "cluster", "stages", "tests", "bench", "conf", "docs")


def main() -> None:
    limit = (900, "seconds after which a mutant counts as killed")
    args = options(__doc__, mutants=60, seed=21, jobs=2, limit=limit, rooms=list(ROOMS))
    drawn = draw(args.rooms, args.mutants, args.seed)
    with ThreadPoolExecutor(args.jobs) as pool:
        tried = partial(verdict, limit=args.limit)
        states = pool.map(tried, [{"room": room} for room in args.rooms])
        failing = [test for (state, test) in states if state != "survived"]
        if failing:
            raise SystemExit(f"{', '.join(failing)} fail without a mutant; fix them first")
        results = []
        for mutant, (state, test) in zip(drawn, pool.map(tried, drawn), strict=True):
            results.append({**mutant, "state": state, "test": test})
            print(f"{len(results)} of {len(drawn)}: {mutant['module']}, {mutant['edit']}: {state} {test}", flush=True)
            report(results, len(drawn), args.rooms, args.seed)


def report(results: list[dict[str, Any]], planned: int, rooms: list[str], seed: int) -> None:
    """Write the report of the mutants tried so far, of `planned` ones."""
    lines = []
    for room in rooms:
        states = [result["state"] for result in results if result["room"] == room]
        killed = sum(state != "survived" for state in states)
        lines.append([room, str(len(states)), str(killed), f"{100 * killed / max(1, len(states)):.0f} %"])
    survivors = [f"{r['module']}, {r['edit']}: `{r['diff']}`" for r in results if r["state"] == "survived"]
    tried = f"{len(results)} of {planned} planned mutants tried, {len(results) - len(survivors)} killed"
    text = f"{tried} (seed {seed}). Survivors: {'; '.join(survivors) or 'none'}."
    rows = [{name: value for name, value in result.items() if name != "text"} for result in results]
    save("mutants", "Mutants killed by their room's tests", text, ["room", "mutants", "killed", "rate"], lines, rows)


def draw(rooms: list[str], count: int, seed: int) -> list[dict[str, Any]]:
    """Return `count` different mutants, taking rooms and the modules of a room in turn."""
    rng, mutants, seen = random.Random(seed), list[dict[str, Any]](), set[str]()
    modules = {room: sources(room, rng) for room in rooms}
    turn = 0
    while len(mutants) < count:
        room = rooms[turn % len(rooms)]
        path = modules[room][turn // len(rooms) % len(modules[room])]
        turn += 1
        source = path.read_text()
        mutated = mutation(source, rng)
        if mutated is None or mutated[1] in seen or ast.dump(ast.parse(mutated[1])) == ast.dump(ast.parse(source)):
            continue
        edit, text = mutated
        seen.add(text)
        before = ast.unparse(ast.parse(source)).splitlines()
        changes = [line for line in difflib.ndiff(before, text.splitlines()) if line[0] in "-+"]
        module = path.relative_to(ROOT).as_posix()
        diff = " -> ".join(line[1:].strip() for line in changes)
        mutants.append({"room": room, "module": module, "edit": edit, "diff": diff, "text": text})
    return mutants


def sources(room: str, rng: random.Random) -> list[Path]:
    """Return the modules of a room that can be mutated, shuffled."""
    paths = [path for path in sorted((ROOT / "pipeline" / room).glob("*.py")) if mutation(path.read_text(), rng)]
    rng.shuffle(paths)
    return paths


def verdict(mutant: dict[str, Any], limit: int) -> tuple[str, str]:
    """Return "killed", "hung" or "survived", and the test that failed.

    Without the key `module`, test the room unchanged.
    """
    with tempfile.TemporaryDirectory(prefix="mutant-") as place:
        folder = copy(Path(place) / "project")
        tests = sorted((folder / "tests" / mutant["room"]).glob("test_*.py"))
        if module := mutant.get("module"):
            (folder / module).write_text(mutant["text"])
            tests.sort(key=lambda path: path.stem != f"test_{Path(module).stem}")
        command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *map(str, tests)]
        variables = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
        with subprocess.Popen(
            command,
            cwd=folder,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as tests_run:
            try:
                text, _ = tests_run.communicate(timeout=limit)
            except subprocess.TimeoutExpired:
                os.killpg(tests_run.pid, signal.SIGKILL)
                return "hung", ""
    failed = [line for line in text.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if tests_run.returncode == 0:
        return "survived", ""
    return "killed", failed[0].split(" - ")[0].partition(" ")[2] if failed else f"exit {tests_run.returncode}"


def copy(folder: Path) -> Path:
    """Return a copy of the project's code and settings, without data and results."""
    folder.mkdir()
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, folder)
    return folder


if __name__ == "__main__":
    main()
