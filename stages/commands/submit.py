"""`actionbench submit`: the tracked files go to a Ray cluster, where repro runs."""

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from pipeline.config import load
from pipeline.errors import UserError
from pipeline.tracking import run_record

LIMIT = 50 * 2**20  # bytes of a submission
NAMED = 5  # largest files in the error
EPOCH = (1980, 1, 1, 0, 0, 0)  # the time of every entry, so that equal files give an equal package, which is sent once


def submit(arguments: Sequence[str]) -> int:
    """Submit the project with options of `actionbench arrive`; return the exit code."""
    from cluster import submit as cluster

    root, params = Path.cwd(), load.load()
    files = tracked(root)
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "code.zip"
        pack(root, files, package)
        size = package.stat().st_size / 2**20
        print(f"sending {len(files)} files that git tracks, {size:.1f} MiB packed", file=sys.stderr, flush=True)
        commit = ["--commit", commit_id] if (commit_id := run_record.commit(root)) else []
        return cluster.submit(params.cluster, package, ["python", "-m", "stages.cli", "arrive", *commit, *arguments])


def tracked(root: Path) -> list[str]:
    """Return the paths of the files that git tracks below a folder, without links.

    Untracked sources are reported.

    Raises:
        UserError: The folder is in no git repository, or the files exceed LIMIT; with the largest.
    """
    files = [name for name in _git(root, "--cached") if (root / name).is_file() and not (root / name).is_symlink()]
    if fresh := [name for name in _git(root, "--others", "--exclude-standard") if name.endswith((".py", ".yaml"))]:
        more = f" and {len(fresh) - 1} more" if len(fresh) > 1 else ""
        print(f"git does not track {fresh[0]}{more}; `git add` it to send it", file=sys.stderr, flush=True)
    sizes = {name: (root / name).stat().st_size for name in files}
    if sum(sizes.values()) > LIMIT:
        biggest = sorted(files, key=lambda name: -sizes[name])[:NAMED]
        listing = ", ".join(f"{name} ({sizes[name] / 2**20:.1f} MiB)" for name in biggest)
        raise UserError(
            f"{sum(sizes.values()) / 2**20:.0f} MiB to send, the limit is {LIMIT / 2**20:.0f}; the largest: {listing}; "
            "move data below data/, or to a folder that all nodes share"
        )
    return files


def pack(root: Path, files: Sequence[str], package: Path) -> None:
    """Write a zip of the files; equal files give equal bytes."""
    with zipfile.ZipFile(package, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, EPOCH), (root / name).read_bytes(), zipfile.ZIP_DEFLATED)


def _git(root: Path, *which: str) -> list[str]:
    command = ["git", "-C", str(root), "ls-files", "-z", *which]
    try:
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        raise UserError(
            "submit sends the files that git tracks, but this folder is in no repository; run it in a clone"
        ) from None
    return sorted(filter(None, listing.split("\0")))
