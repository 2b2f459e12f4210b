"""MLflow's server over the project's runs, on loopback unless told, and its store brought up to date with them."""

import importlib.util
import os
import sys
from pathlib import Path

from pipeline.errors import UserError
from pipeline.tracking import mlflow_mirror, run_log, run_record
from pipeline.tracking.run_record import clean
from stages import DATA
from stages.commands.doctor import STORE, free_port, port_is_free

BACKEND = "MLFLOW_BACKEND_STORE_URI"  # MLflow's own name for where its server keeps runs
LOOPBACK = "127.0.0.1"


def serve(port: int, host: str) -> None:
    """This process becomes MLflow's server; its store is BACKEND's, else the one that runs go to without a server.

    The store's URI, which may hold a password, goes to the server by the environment, and never into its command line.
    UserError for a used port, a store that is not there or is a server itself, and a missing driver.
    """
    told = os.environ.get(BACKEND)
    uri = told or os.environ.get("MLFLOW_TRACKING_URI") or STORE
    if uri.startswith(("http://", "https://")):
        name = BACKEND if told else "MLFLOW_TRACKING_URI"
        raise UserError(f"{name} is a server already: open {clean(uri)}, or unset it to see {STORE}")
    # One that is named is made; elsewhere no file means that this is the wrong folder, or nothing has run.
    if not told and uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        raise UserError(f"there is no store {clean(uri)} yet; `actionbench repro` makes it")
    if uri.startswith(("postgresql:", "postgresql+psycopg:")) and not importlib.util.find_spec("psycopg"):
        raise UserError(f"{clean(uri)} needs psycopg; pip install -c constraints.txt 'actionbench[postgres]' brings it")
    if not port_is_free(port):
        raise UserError(f"port {port} is in use; `actionbench mlflow --port {free_port()}` has a free one")
    print(f"MLflow on http://{host}:{port}, Ctrl-C ends it", file=sys.stderr, flush=True)
    if host != LOOPBACK:
        print("MLflow asks for no password: who reaches it reads and writes all runs", file=sys.stderr, flush=True)
    arguments = ["-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"]
    variables = {**os.environ, BACKEND: uri, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    variables["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # processes that evaluate language models
    variables.pop("MLFLOW_TRACKING_URI", None)
    os.execve(sys.executable, [sys.executable, *arguments], variables)


def sync() -> None:
    """Brings every row in data/tracking up to date in the store, and prints what that was.

    Doing it again, or after it was killed midway, logs nothing twice. UserError where there are no records, or the
    store doesn't take them.
    """
    folders = sorted(path for path in (DATA / "tracking").glob("*") if path.is_dir())
    if not folders:
        raise UserError("there are no runs in data/tracking yet; `actionbench repro` makes them")
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
        sent += mlflow_mirror.sync(Path.cwd(), record, logs, numbers)
        rows, runs = rows + 1, runs + len(logs)
    place = run_record.clean(mlflow_mirror.store(Path.cwd()))
    print(f"{rows} rows with {runs} runs, of which {place} lacked {sent} epochs and evaluations")
