"""MLflow's server over the project's runs, and the synchronization of its store."""

import importlib.util
import os
import sys
from pathlib import Path

from pipeline.errors import UserError
from pipeline.tracking import mlflow_mirror, run_log, run_record
from pipeline.tracking.run_record import clean
from stages import DATA
from stages.commands.doctor import STORE, free_port, port_is_free

BACKEND = "MLFLOW_BACKEND_STORE_URI"  # MLflow's variable for its server's store
LOOPBACK = "127.0.0.1"


def serve(port: int, host: str) -> None:
    """Replace this process by MLflow's server.

    Its store is BACKEND's, otherwise that of runs without a server. The store's URI may hold a password, so it goes to
    the server by the environment, not on its command line.

    Raises:
        UserError: The port is in use, the store is missing or is a server, or a driver is missing.
    """
    named = os.environ.get(BACKEND)
    uri = named or os.environ.get("MLFLOW_TRACKING_URI") or STORE
    if uri.startswith(("http://", "https://")):
        name = BACKEND if named else "MLFLOW_TRACKING_URI"
        raise UserError(f"{name} is a server already: open {clean(uri)}, or unset it to see {STORE}")
    # A named store is created; otherwise a missing file means a wrong folder, or no run yet.
    if not named and uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        raise UserError(f"{clean(uri)} does not exist yet; run `actionbench repro`")
    if uri.startswith(("postgresql:", "postgresql+psycopg:")) and not importlib.util.find_spec("psycopg"):
        raise UserError(f"{clean(uri)} needs psycopg; pip install -c constraints.txt 'actionbench[postgres]'")
    if not port_is_free(port):
        raise UserError(f"port {port} is in use; `actionbench mlflow --port {free_port()}` has a free one")
    print(f"MLflow on http://{host}:{port}{mlflow_mirror.address(uri)}, Ctrl-C ends it", file=sys.stderr, flush=True)
    if host != LOOPBACK:
        print("MLflow has no password: anyone who reaches it can read and write all runs", file=sys.stderr, flush=True)
    arguments = ["-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"]
    variables = {**os.environ, BACKEND: uri, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    variables["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # processes that evaluate language models
    variables.pop("MLFLOW_TRACKING_URI", None)
    os.execve(sys.executable, [sys.executable, *arguments], variables)


def sync() -> None:
    """Send to the store the runs' results that it lacks, and print a summary.

    A repeated or interrupted call logs nothing twice.

    Raises:
        UserError: There are no records, or the store refuses them.
    """
    folders = sorted(path for path in (DATA / "tracking").glob("*") if path.is_dir())
    if not folders:
        raise UserError("data/tracking has no runs yet; run `actionbench repro`")
    rows = runs = sent = 0
    for folder in folders:
        record = run_record.load(folder)
        if record is None:
            print(f"{folder} has no {run_record.RUN}, which training leaves; `dvc repro -f -s train@{folder.name}`")
            continue
        numbers = run_record.numbers(folder)
        if numbers and numbers.training != record.training:
            numbers = None  # of an earlier training
        logs = run_log.places(DATA, folder.name)
        sent += mlflow_mirror.sync(Path.cwd(), record, logs, numbers, folder / run_record.ARTIFACTS)
        rows, runs = rows + 1, runs + len(logs)
    place = run_record.clean(mlflow_mirror.store(Path.cwd()))
    print(f"{rows} rows with {runs} runs, of which {place} lacked {sent} epochs and evaluations")
