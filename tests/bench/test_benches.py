"""Every bench starts: a bench that nobody runs breaks unseen."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCHES = sorted(
    path.stem for path in (ROOT / "bench").glob("*.py") if 'if __name__ == "__main__":' in path.read_text()
)


def start(name: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", f"bench.{name}", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("name", BENCHES)
def test_it_starts(name: str) -> None:
    done = start(name, "--help")
    assert (done.returncode, done.stdout.split()[:1]) == (0, ["usage:"]), done.stderr
