"""`actionbench submit`: the code that git tracks travels to a Ray cluster, and `actionbench repro` runs on it there."""

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from pipeline.config import load
from pipeline.errors import UserError
from pipeline.tracking import run_record

LIMIT = 50 * 2**20  # bytes that may travel
NAMED = 5  # of the biggest files, where they are more
EPOCH = (1980, 1, 1, 0, 0, 0)  # in every entry's place for a time: the same files are the same package, sent once


def submit(arguments: Sequence[str]) -> int:
    """Hands the project in the current folder to the cluster, with the arguments of `actionbench arrive`; exit code."""
    from cluster import submit as cluster

    root, given = Path.cwd(), load.load()
    files = tracked(root)
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "code.zip"
        pack(root, files, package)
        size = package.stat().st_size / 2**20
        print(f"{len(files)} files that git tracks travel, {size:.1f} MiB packed", file=sys.stderr, flush=True)
        commit = ["--commit", found] if (found := run_record.commit(root)) else []
        return cluster.submit(given.cluster, package, ["python", "-m", "stages.cli", "arrive", *commit, *arguments])


def tracked(root: Path) -> list[str]:
    """The files that git tracks below a folder, as they are now, by path; links stay behind.

    Says which of the project's sources are not tracked yet. UserError where git knows nothing of the folder, and where
    the files are more than LIMIT, with the biggest.
    """
    files = [name for name in _git(root, "--cached") if (root / name).is_file() and not (root / name).is_symlink()]
    if fresh := [name for name in _git(root, "--others", "--exclude-standard") if name.endswith((".py", ".yaml"))]:
        more = f" and {len(fresh) - 1} more" if len(fresh) > 1 else ""
        print(f"git does not track {fresh[0]}{more}: `git add` it, or it stays here", file=sys.stderr, flush=True)
    sizes = {name: (root / name).stat().st_size for name in files}
    if sum(sizes.values()) > LIMIT:
        biggest = sorted(files, key=lambda name: -sizes[name])[:NAMED]
        told = ", ".join(f"{name} ({sizes[name] / 2**20:.1f} MiB)" for name in biggest)
        raise UserError(
            f"{sum(sizes.values()) / 2**20:.0f} MiB would travel, and {LIMIT / 2**20:.0f} may; the biggest: {told}; "
            "data belongs below data/, or into a folder that all nodes see"
        )
    return files


def pack(root: Path, files: Sequence[str], package: Path) -> None:
    """A zip of the files; the same files give the same bytes."""
    with zipfile.ZipFile(package, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, EPOCH), (root / name).read_bytes(), zipfile.ZIP_DEFLATED)


def _git(root: Path, *which: str) -> list[str]:
    command = ["git", "-C", str(root), "ls-files", "-z", *which]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        raise UserError(
            "submit sends what git tracks, and git knows nothing of this folder; run it in a clone"
        ) from None
    return sorted(filter(None, told.split("\0")))
