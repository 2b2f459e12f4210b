"""Checks of the requirements of a run, each with its result and a fix."""

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pipeline.config import load
from pipeline.config.pretrained import is_name, located
from pipeline.config.schema import Cluster, Params
from pipeline.errors import UserError
from stages.repro import needs
from stages.repro.compose import composed
from stages.repro.estimate import cores
from stages.repro.plan import dvc

GIB = 2**30
LITTLE, TOO_LITTLE = 20 * GIB, GIB  # free bytes below which to warn, and to fail
STORE = "sqlite:///mlflow.db"
OLDEST, BEYOND = (3, 11), (3, 14)  # of Python
DATABASES = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}  # their usual ports


@dataclass(frozen=True)
class Check:
    name: str
    state: Literal["ok", "warning", "broken"]
    found: str
    mend: str = ""


def checks(port: int = 5000, suite: str | None = None) -> Iterator[Check]:
    """Yield all checks as they finish; an unexpected exception is a broken check.

    Args:
        port: The port for MLflow's UI.
        suite: A suite of conf/; None for that of params.yaml.
    """
    params, first = _params(suite)
    yield first
    cluster = params.cluster if params else Cluster()
    decoders = sorted({dataset.decode.decoder for dataset in params.datasets.values()}) if params else []
    todo: list[tuple[str, Callable[[], Check]]] = [
        ("python", python),
        ("torch", torch_build),
        ("git", git),
        ("dvc", dvc_project),
        ("ffmpeg", ffmpeg),
        *((name, lambda name=name: decoder(name, used=name in decoders)) for name in ("ffmpeg", "decord")),
        ("disk", lambda: disk(Path())),
        ("clone", lambda: clone(Path())),
        ("home", home),
        ("temporary", temporary),
        ("sources", lambda: sources(params)),
        ("weights", lambda: weights(params)),
        ("ray", lambda: ray(cluster)),
        ("tracking", lambda: tracking(os.environ.get("MLFLOW_TRACKING_URI") or STORE)),
        ("mlflow", lambda: mlflow_port(port)),
    ]
    for name, check in todo:
        try:
            yield check()
        except UserError as error:
            yield Check(name, "broken", str(error), "follow this line")
        except Exception as error:  # the other checks must run
            message = str(error).strip().partition("\n")[0]
            yield Check(
                name, "broken", f"{type(error).__name__}: {message}", "`pip install -e .` in a fresh environment"
            )


def _params(suite: str | None) -> tuple[Params | None, Check]:
    name = "conf/suite" if suite else "params.yaml"
    try:
        params = composed(suite) if suite else load.load()
    except UserError as error:
        return None, Check(name, "broken", str(error), "correct the line it names")
    return params, Check(name, "ok", f"suite {params.suite}, {len(params.experiments)} rows")


def python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    if not OLDEST <= sys.version_info[:2] < BEYOND:
        return Check(
            "python", "broken", version, f"make the environment with Python {OLDEST[0]}.{OLDEST[1]} (`make env`)"
        )
    return Check("python", "ok", f"{version}, {cores()} CPU cores usable")


def torch_build() -> Check:
    import torch

    cards = [path for path in Path("/dev").glob("nvidia[0-9]*")]
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
        return Check("torch", "ok", f"{torch.__version__}, {names}; bf16: {_word(torch.cuda.is_bf16_supported())}")
    build = f"{torch.__version__}, no GPU; bf16 on this CPU: {_word(torch.ops.mkldnn._is_mkldnn_bf16_supported())}"
    if cards:
        return Check("torch", "warning", f"{build}, though there are {len(cards)}", "install torch's CUDA build")
    return Check("torch", "ok", build)


def git() -> Check:
    exe = shutil.which("git")
    if not exe:
        return Check("git", "broken", "not on PATH", "install git; DVC and the runs' commit tags need it")
    done = subprocess.run([exe, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    if done.returncode:
        return Check("git", "broken", "not a git repository with a commit", "clone the project instead of copying it")
    return Check("git", "ok", f"at {done.stdout.strip()}")


def dvc_project() -> Check:
    try:
        stages = dvc("stage", "list", "--name-only", "--fail").split()
    except UserError as error:
        return Check("dvc", "broken", str(error), "run from the project's root; `git status` lists changes")
    return Check("dvc", "ok", f"{dvc('--version').strip()}, {len(stages)} stages")


def ffmpeg() -> Check:
    from pipeline.executable import ffmpeg_exe

    path, version = ffmpeg_exe()
    return Check("ffmpeg", "ok", f"{version}, {path}")


def decoder(name: str, used: bool) -> Check:
    """Write a clip of two frames and decode it."""
    import numpy as np

    from pipeline.config.schema import Decode
    from pipeline.datasets.shapes import encode
    from pipeline.decode.video import decode, opened

    settings = Decode(short_side=32, quality=90, decoder=name, videos_per_shard=1, max_failed=0.0)  # type: ignore[arg-type]
    label = f"decoder {name}"
    try:
        with tempfile.TemporaryDirectory() as folder, opened(settings, 60.0) as decoding:
            clip = Path(folder) / "clip.mp4"
            encode(np.zeros((2, 64, 64, 3), np.uint8), clip, 12)
            video = decode(clip, decoding)
        if len(video.jpegs) != 2:
            raise ValueError(f"{len(video.jpegs)} frames of 2")
    except Exception as error:  # any fault of a native library is this check's result
        state: Literal["warning", "broken"] = "broken" if used else "warning"
        return Check(
            label, state, f"can't decode a clip: {error}", "set datasets.<name>.decode.decoder to the other one"
        )
    return Check(label, "ok", f"{video.decoder_version}, decodes a clip" + ("" if used else "; not used by this suite"))


def disk(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free
    free_space = f"{free / GIB:.1f} GiB free here"
    if free < TOO_LITTLE:
        return Check("disk", "broken", free_space, "make room; `dvc gc --workspace` deletes files that no result uses")
    if free < LITTLE:
        return Check("disk", "warning", free_space, "frames of a large data set take more; see `actionbench plan`")
    return Check("disk", "ok", free_space)


def clone(folder: Path) -> Check:
    """Check that the project's folder is writable."""
    if _writable(folder):
        return Check("clone", "ok", "can be written")
    return Check(
        "clone", "broken", f"{folder.absolute()} can't be written", "clone the project to a folder that you can write"
    )


def home() -> Check:
    place = Path(os.environ.get("HOME", "/nowhere"))
    if _writable(place):
        return Check("home", "ok", "can be written")
    mend = "set HOME to a folder that can be written; to join a cluster without one, RAY_AUTH_TOKEN"
    return Check("home", "warning", f"HOME, {place}, can't be written", mend)


def temporary() -> Check:
    from cluster.session import temporary

    place = temporary()
    if _writable(place):
        return Check("temporary", "ok", f"{place}, short enough for Ray's sockets")
    return Check("temporary", "broken", f"{place} can't be written", "set RAY_TMPDIR to a short folder that can be")


def sources(params: Params | None) -> Check:
    """Check the data sets that are neither drawn nor downloaded."""
    named = params.datasets if params else {}
    absent = [each for name, dataset in named.items() for each in needs.videos(name, dataset, Path())]
    absent += [each for name, dataset in named.items() for each in needs.listed(name, dataset, Path())]
    return _check("sources", absent) or Check(
        "sources", "ok", f"{len(named)} data set{'' if len(named) == 1 else 's'}, no missing videos"
    )


def weights(params: Params | None) -> Check:
    """Check the rows' files of weights; published ones are downloaded on demand."""
    if absent := _check("weights", needs.weights(params, params.experiments, Path()) if params else []):
        return absent
    named = sorted({row.weights for row in params.experiments.values() if row.weights}) if params else []
    to_fetch = [name for name in named if is_name(name) and not located(name, Path()).is_file()]
    if to_fetch:
        mend = f"`actionbench weights {' '.join(to_fetch)}` downloads them now, `actionbench repro` when it trains"
        return Check("weights", "warning", f"not downloaded: {', '.join(to_fetch)}", mend)
    return Check("weights", "ok", f"{len(named)} files, none missing")


def _check(name: str, absent: list[needs.Missing]) -> Check | None:
    """Return the broken check of absent files."""
    if not absent:
        return None
    return Check(name, "broken", "; ".join(each.what for each in absent), "; ".join(each.remedy for each in absent))


def ray(cluster: Cluster) -> Check:
    from cluster.auto import resolved
    from cluster.shared import resources

    address = os.environ.get("RAY_ADDRESS") or cluster.address
    begin = time.perf_counter()
    try:
        has = resources(cluster)
    except UserError as error:
        return Check("ray", "broken", str(error), "`actionbench doctor` again once it runs")
    cpus, gpus = has.get("CPU", 0), has.get("GPU", 0)
    where = f"starts in {time.perf_counter() - begin:.0f} s" if address == "local" else f"answers at {address}"
    resources_found = f"{where}: {cpus:.0f} CPUs, {gpus:.0f} GPUs"
    placed = resolved(cluster, [has])
    fewest = placed.team[0]
    needed = fewest * placed.cpus_per_worker, fewest * placed.gpus_per_worker
    if needed[0] > cpus or needed[1] > gpus:
        mend = "lower cluster.workers, cpus_per_worker or gpus_per_worker, or add nodes"
        return Check(
            "ray", "broken", f"{resources_found}; one training needs {needed[0]} CPUs and {needed[1]:g} GPUs", mend
        )
    return Check("ray", "ok", resources_found)


def tracking(uri: str) -> Check:
    """Check MLflow's store; a failure is only a warning, because training continues."""
    from pipeline.tracking.run_record import clean

    shown = clean(uri)
    if uri.startswith("sqlite:///"):
        path = Path(uri.removeprefix("sqlite:///")).absolute()
        if not _writable(path.parent) or (path.exists() and not os.access(path, os.W_OK)):
            return Check(
                "tracking", "warning", f"{shown} can't be written", "make it writable, or set MLFLOW_TRACKING_URI"
            )
        if path.exists() and (why := _unreadable(path)):
            mend = "move it away; `actionbench mlflow sync` restores it from the runs' files"
            return Check("tracking", "warning", f"{shown} is damaged ({why})", mend)
        return Check("tracking", "ok", f"{shown}, " + ("writable" if path.exists() else "created by the first run"))
    if uri.startswith(("http://", "https://")):
        import urllib.request

        try:
            with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=5):
                return Check("tracking", "ok", f"{shown} answers")
        except (OSError, ValueError) as error:
            mend = "start that server, or unset MLFLOW_TRACKING_URI"
            return Check("tracking", "warning", f"{shown} does not answer ({error})", mend)
    parts = urlsplit(uri)
    if parts.hostname and (port := parts.port or DATABASES.get(parts.scheme.partition("+")[0])):
        try:
            socket.create_connection((parts.hostname, port), timeout=5).close()
        except OSError as error:
            mend = "start that database, or unset MLFLOW_TRACKING_URI"
            return Check("tracking", "warning", f"{shown} does not answer ({error})", mend)
        return Check("tracking", "ok", f"{shown} answers")
    return Check("tracking", "ok", f"{shown} (not tried)")


def _unreadable(database: Path) -> str:
    """Return the reason that SQLite can't read a database, or ""."""
    try:
        with closing(sqlite3.connect(database.as_uri() + "?mode=ro", uri=True, timeout=5)) as store:
            (verdict,) = store.execute("PRAGMA quick_check(1)").fetchone()
            return "" if verdict == "ok" else str(verdict).splitlines()[0]
    except sqlite3.Error as error:
        return str(error)


def mlflow_port(port: int) -> Check:
    if port_is_free(port):
        return Check("mlflow", "ok", f"port {port} is free for `actionbench mlflow`")
    return Check("mlflow", "warning", f"port {port} is in use", f"`actionbench mlflow --port {free_port()}`")


def port_is_free(port: int) -> bool:
    with socket.socket() as server:
        # As servers do: bind a port that connections of a closed server still hold.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def _writable(folder: Path) -> bool:
    """Return True if a file can be made in a folder.

    Permissions are not enough, e.g. on a read-only file system.
    """
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _word(yes: bool) -> str:
    return "yes" if yes else "no"
