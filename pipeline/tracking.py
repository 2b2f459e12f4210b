"""Mirrors runs into MLflow, and is the only file that knows it; what a run wrote itself stays the truth.

The store can be filled again from the runs' own files, so an outage costs no more than a warning, and every call first
asks the store what it already holds. Runs are nested: suite, row, cell (one split and seed).
"""

import hashlib
import json
import logging
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENT = "actionbench"
NAME, TRAINING = "actionbench.name", "actionbench.training"  # tags by which a run is found again
PARENT, COMMIT = "mlflow.parentRunId", "mlflow.source.git.commit"
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "3",  # s; MLflow's own defaults are 120 s and 7 retries
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
}
PATIENCE = 60.0  # s for another process to set up a fresh store, the one thing here that takes seconds
REST = 60.0  # s without another try after a failure
BATCH = 1000  # metrics that MLflow takes at once
PARAMS = 100
SECRET = re.compile(r"token|passw|secret|credential|api_?key|private_?key", re.IGNORECASE)
USER = re.compile(r"(\w://)[^/\s]*@")
QUERY = re.compile(r"([?&][^=&\s]*(?:token|passw|secret|credential|sig|key)[^=&\s]*=)[^&\s]+", re.IGNORECASE)

log = logging.getLogger(__name__)
_resting: dict[str, float] = {}  # store -> when it may be tried again, time.monotonic()


def mirror(
    root: Path,
    suite: str,
    row: str,
    cells: Mapping[str, Path],
    params: Mapping[str, Any],
    tags: Mapping[str, str],
) -> None:
    """Brings a row's runs up to the last epoch in its cells' logs; to be called again and again while they grow.

    `root` is the folder of the default store (mlflow.db, mlartifacts/); MLFLOW_TRACKING_URI overrides it. `cells`: the
    JSON lines of each cell by its name; a log that isn't there yet is passed over. `params`, which may be nested, and
    `tags` are shown with the row and its cells; where they change, but for the commit, new runs begin.

    Never raises, and takes seconds at most; what could not be sent is by a later call.
    """
    shown = {name: clean(str(value)) for name, value in _flat(params) if not SECRET.search(name)}
    marks = {name: clean(value) for name, value in tags.items() if not SECRET.search(name)}
    identity = [shown, {name: value for name, value in marks.items() if name != COMMIT}]
    training = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]

    def work(client: "MlflowClient", experiment: str) -> None:
        runs = _Runs(client, experiment)
        parent = runs.row(suite, row, training, shown, marks)
        known = runs.cells(parent)
        for cell, path in cells.items():
            if lines := list(_epochs(path)):
                run = known.get(cell) or runs.create(cell, parent, shown, marks)
                # Each line's epoch is a metric too: its latest value says how far the store has come.
                last = run.data.metrics.get("epoch", -1)
                runs.log(run, ((line["epoch"], line) for line in lines if line["epoch"] > last))

    _send(root, work)


def finish(
    root: Path, suite: str, row: str, metrics: Mapping[str, Mapping[str, float]], summary: Mapping[str, float]
) -> None:
    """Adds the evaluation's numbers to the runs that mirror() began last, and closes them.

    `metrics`: for each cell its numbers, `summary`: the row's; shown as test/<name>. Never raises, as mirror().
    """

    def work(client: "MlflowClient", experiment: str) -> None:
        runs = _Runs(client, experiment)
        parent = runs.row(suite, row)
        known = runs.cells(parent)
        closing = [(known.get(cell) or runs.create(cell, parent), numbers) for cell, numbers in metrics.items()]
        for run, numbers in (*closing, (parent, summary)):
            named = {f"test/{name}": float(value) for name, value in numbers.items()}
            fresh = {name: value for name, value in named.items() if run.data.metrics.get(name) != value}
            runs.log(run, [(0, fresh)])
            if run.info.status != "FINISHED":
                client.set_terminated(run.info.run_id)

    _send(root, work, rested=True)  # a row finishes once: always worth a try


def tags(folder: Path, *, stage: str, data: str, protocol: str, place: str) -> dict[str, str]:
    """The tags of a row's runs; the commit is that of the repository at `folder`, if it is one.

    `stage`: DVC's hash of the stage; `data`: the fingerprint of the data; `protocol`: its signature; `place`: table and
    row that the numbers are for.
    """
    found = {"dvc.stage": stage, "data": data, "protocol": protocol, "place": place}
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return found
    return {**found, COMMIT: commit}


def clean(text: str) -> str:
    """The text without the credentials of any URI in it."""
    return QUERY.sub(r"\1***", USER.sub(r"\1***@", text))


class _Runs:
    """The runs of one MLflow experiment, found by name or created."""

    def __init__(self, client: "MlflowClient", experiment: str) -> None:
        self.client, self.experiment = client, experiment

    def find(self, tags: Mapping[str, str], limit: int = 1) -> "list[Run]":
        """Runs that have these tags, the newest first."""
        asked = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        return list(self.client.search_runs([self.experiment], asked, order_by=["start_time DESC"], max_results=limit))

    def create(
        self,
        name: str,
        parent: "Run | None",
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> "Run":
        from mlflow.entities import Param

        above = {PARENT: parent.info.run_id} if parent else {}
        run = self.client.create_run(self.experiment, tags={**(tags or {}), **above}, run_name=name)
        found = [Param(key, value) for key, value in (params or {}).items()]
        for begin in range(0, len(found), PARAMS):
            self.client.log_batch(run.info.run_id, params=found[begin : begin + PARAMS])
        return run

    def row(self, suite: str, row: str, training: str = "", params: Any = None, tags: Mapping[str, str] = {}) -> "Run":
        """The newest run of a row, of that training where one is given."""
        suite, name = (text.replace("'", "’") for text in (suite, f"{suite}/{row}"))
        asked = {NAME: name, **({TRAINING: training} if training else {})}
        if found := self.find(asked):
            return found[0]
        if above := self.find({NAME: suite}):
            parent = above[0]
        else:
            parent = self.create(suite, None, tags={NAME: suite})
            self.client.set_terminated(parent.info.run_id)  # it only holds others
        return self.create(row, parent, params, {**tags, **asked})

    def cells(self, parent: "Run") -> "dict[str, Run]":
        """The runs right below a row's, by name."""
        return {run.info.run_name: run for run in self.find({PARENT: parent.info.run_id}, limit=1000)}

    def log(self, run: "Run", steps: Iterable[tuple[int, Mapping[str, Any]]]) -> None:
        """Numbers of each step; what belongs to one step is sent together, so that a step is there whole or not."""
        from mlflow.entities import Metric

        now, batch = int(time.time() * 1000), list[Metric]()
        for step, numbers in steps:
            own = [
                Metric(re.sub(r"[^\w\-./ :]", "_", name), float(value), now, step)
                for name, value in numbers.items()
                if isinstance(value, int | float) and not isinstance(value, bool)
            ]
            if len(batch) + len(own) > BATCH:
                self.client.log_batch(run.info.run_id, metrics=batch)
                batch = []
            batch += own
        if batch:
            self.client.log_batch(run.info.run_id, metrics=batch)


def _store(root: Path) -> str:
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root.absolute() / 'mlflow.db'}"


def _send(root: Path, work: "Callable[[MlflowClient, str], None]", rested: bool = False) -> None:
    """work(client, experiment id) under a lock; a failure is a warning, the first time, and a rest."""
    store = _store(root)
    if not rested and time.monotonic() < _resting.get(store, 0.0):
        return
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        from mlflow import MlflowClient

        root.mkdir(parents=True, exist_ok=True)
        # Processes that open a fresh sqlite store at once break it, and two that look for a run both create it.
        with FileLock(root / "mlflow.lock", timeout=PATIENCE):
            client = MlflowClient(tracking_uri=store)
            known = client.get_experiment_by_name(EXPERIMENT)
            # A server keeps artifacts where it was told to; without a place, sqlite keeps them in the current folder.
            place = (root.absolute() / "mlartifacts").as_uri() if store.startswith("sqlite:") else None
            work(client, known.experiment_id if known else client.create_experiment(EXPERIMENT, place))
    except Exception as error:
        said = (clean(str(error)).splitlines() or [""])[0][:300]
        level = logging.DEBUG if store in _resting else logging.WARNING
        log.log(level, "MLflow at %s is left behind for now: %s: %s", clean(store), type(error).__name__, said)
        _resting[store] = time.monotonic() + REST


def _epochs(path: Path) -> Iterator[dict[str, Any]]:
    """The epochs in a cell's log, in order, each once; a line that is only half written is left for later."""
    last = -1
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and line.get("kind", "epoch") == "epoch" and line.get("epoch", -1) > last:
            last = line["epoch"]
            yield line


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of what is nested; a list of plain values stays whole."""
    if isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
        value = dict(enumerate(value))
    if not isinstance(value, Mapping):
        yield name, value
        return
    for key, inner in value.items():
        yield from _flat(inner, f"{name}.{key}" if name else str(key))
