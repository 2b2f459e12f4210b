"""The MLflow UI of the project's runs, on loopback."""

import os
import sys
from pathlib import Path

from pipeline.errors import UserError
from pipeline.tracking import clean
from stages.doctor import STORE, free_port, port_is_free


def serve(port: int) -> None:
    """This process becomes MLflow's server on 127.0.0.1; UserError for a used port, no store or a remote one."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or STORE
    if uri.startswith(("http://", "https://")):
        raise UserError(f"MLFLOW_TRACKING_URI is a server already: open {clean(uri)}, or unset it to see {STORE}")
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        raise UserError(f"there is no store {clean(uri)} yet; `actionbench repro` makes it")
    if not port_is_free(port):
        raise UserError(f"port {port} is in use; `actionbench mlflow --port {free_port()}` has a free one")
    print(f"MLflow on http://127.0.0.1:{port}, Ctrl-C ends it", file=sys.stderr, flush=True)
    arguments = ["-m", "mlflow", "server", "--backend-store-uri", uri, "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    os.execve(sys.executable, [sys.executable, *arguments, "--workers", "1"], environment)
