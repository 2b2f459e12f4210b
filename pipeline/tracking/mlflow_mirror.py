"""MLflow mirror of runs, the only module that uses MLflow.

A run's files stay authoritative. The store can be refilled from the runs' files, so an outage costs only a warning.
Every call first asks the store for its content. Runs are nested: suite, row, run (one split and seed). A number's time
is its run's start plus the seconds of training since, never the clock's: numbers sent twice are then equal to MLflow.
"""

import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from pipeline.errors import UserError
from pipeline.tracking.run_log import epochs
from pipeline.tracking.run_record import Numbers, Record, clean

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from pipeline.storage.remote import Place

    Logs = Mapping[str, Sequence[Place]]  # run -> the files of its log

EXPERIMENT = "actionbench"
NAME, TRAINING = "actionbench.name", "actionbench.training"  # tags that identify a run
PARENT = "mlflow.parentRunId"
TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    TIMEOUT: "3",  # s; MLflow's defaults are 120 s and 7 retries
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
PATIENCE = 60.0  # s for another process to set up a fresh store, the only step that takes seconds
REST = 60.0  # s without another try after a failure
BATCH = 1000  # metrics that MLflow takes at once
PARAMS = 100

log = logging.getLogger(__name__)
resting: dict[str, float] = {}  # store -> time of the next try, time.monotonic()


def mirror(root: Path, record: Record, logs: "Logs") -> None:
    """Send a row's runs up to the last epoch in their logs.

    Call it repeatedly while they grow. Never raises, and takes seconds at most. A later call, or sync(), sends the
    rest.

    Args:
        root: folder of the default store (mlflow.db, mlartifacts/); MLFLOW_TRACKING_URI overrides it.
        record: its settings and tags are shown with the row and its runs; another training has other runs.
        logs: files of JSON lines by run name, as from run_log.places(); absent ones are skipped.
    """
    _try(root, lambda runs: runs.bring(record, logs, None))


def finish(root: Path, record: Record, logs: "Logs", numbers: Numbers) -> None:
    """Send runs as mirror(), with the evaluation's numbers test/<name>; close them."""
    _try(root, lambda runs: runs.bring(record, logs, numbers), rested=True)  # once per row: always try


def sync(root: Path, record: Record, logs: "Logs", numbers: Numbers | None) -> int:
    """Send runs as mirror() and, with numbers, finish() do, and raise on failure.

    Returns:
        The number of epochs and evaluations that the store lacked.

    Raises:
        UserError: The store does not take them.
    """
    os.environ.setdefault(TIMEOUT, "30")  # no training waits for it
    try:
        with _opened(root) as runs:
            return runs.bring(record, logs, numbers)
    except Exception as error:
        raise UserError(
            f"MLflow at {clean(store(root))} did not take row {record.row} ({_in_words(error)}); "
            "once it answers, `actionbench mlflow sync` sends the rest"
        ) from None


def store(root: Path) -> str:
    """Return the address of the store in MLflow's form, with its credentials."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root.absolute() / 'mlflow.db'}"


def asked(suite: str, row: str, training: str | None = None) -> str:
    """Return MLflow's search filter for a row's runs, of one training if named."""
    name = f"{suite}/{row}".replace("'", "’")
    return _filter({NAME: name, **({TRAINING: training} if training else {})})


def ids(root: Path, suite: str, row: str, training: str | None) -> dict[str, str]:
    """Return run ids by name, of a row's newest or named training and its runs.

    Empty if the store has none or does not answer; no store is created.
    """
    place = store(root)
    if place.startswith("sqlite:///") and not Path(place.removeprefix("sqlite:///")).exists():
        return {}
    try:
        with _opened(root) as runs:
            if not (parents := runs.search(asked(suite, row, training))):
                return {}
            below = runs.below(parents[0])
            return {row: parents[0].info.run_id, **{name: below[name].info.run_id for name in sorted(below)}}
    except Exception as error:
        log.warning("MLflow at %s does not answer (%s)", clean(place), _in_words(error))
        return {}


class _Runs:
    """The runs of one MLflow experiment, looked up by name or created."""

    def __init__(self, client: "MlflowClient", experiment: str) -> None:
        self.client, self.experiment = client, experiment

    def bring(self, record: Record, logs: "Logs", numbers: Numbers | None) -> int:
        """Send all of a row that the store lacks; return the epochs and evaluations sent."""
        parent, sent, children = self.row(record), 0, {}
        known = self.below(parent)
        for name in sorted({*logs, *(numbers.runs if numbers else ())}):
            lines = epochs(*logs.get(name, ()))
            if not lines and not (numbers and name in numbers.runs):
                continue
            run = children[name] = self.whole(known.get(name) or self.create(name, parent), record)
            # Each line's epoch is a metric too: its latest value is the store's progress.
            last, elapsed, fresh = run.data.metrics.get("epoch", -1), 0.0, []
            for line in lines:
                elapsed += line.get("seconds", 0.0)
                if line["epoch"] > last:
                    fresh.append((line["epoch"], elapsed, line))
            self.log(run, fresh)
            sent += len(fresh)
        if numbers:
            closing = [(run, numbers.runs.get(name, {})) for name, run in children.items()]
            for run, evaluated in (*closing, (parent, numbers.row)):
                named = {f"test/{name}": float(value) for name, value in evaluated.items()}
                fresh_numbers = {name: value for name, value in named.items() if run.data.metrics.get(name) != value}
                # Evaluated again, as under another protocol: MLflow shows the later number.
                again = any(name in run.data.metrics for name in fresh_numbers)
                self.log(run, [(0, time.time() - run.info.start_time / 1000 if again else 0.0, fresh_numbers)])
                sent += bool(fresh_numbers)
                if run.info.status != "FINISHED":
                    self.client.set_terminated(run.info.run_id)
        return sent

    def find(self, tags: Mapping[str, str], limit: int = 1) -> "list[Run]":
        """List the runs with these tags, the newest first."""
        return self.search(_filter(tags), limit)

    def search(self, filter: str, limit: int = 1) -> "list[Run]":
        """List the runs that match MLflow's filter, the newest first."""
        return list(self.client.search_runs([self.experiment], filter, order_by=["start_time DESC"], max_results=limit))

    def create(self, name: str, parent: "Run | None", tags: Mapping[str, str] | None = None) -> "Run":
        above = {PARENT: parent.info.run_id} if parent else {}
        return self.client.create_run(self.experiment, tags={**(tags or {}), **above}, run_name=name)

    def row(self, record: Record) -> "Run":
        """Return the newest run of a record's training, created if absent."""
        suite, name = (text.replace("'", "’") for text in (record.suite, f"{record.suite}/{record.row}"))
        asked = {NAME: name, TRAINING: record.training}
        if runs := self.find(asked):
            return self.whole(runs[0], record)
        if above := self.find({NAME: suite}):
            parent = above[0]
        else:
            parent = self.create(suite, None, {NAME: suite})
            self.client.set_terminated(parent.info.run_id)  # it only holds others
        return self.whole(self.create(record.row, parent, asked), record)

    def below(self, parent: "Run") -> "dict[str, Run]":
        """Return the runs directly below a row's, by name."""
        return {run.info.run_name: run for run in self.find({PARENT: parent.info.run_id}, limit=1000)}

    def whole(self, run: "Run", record: Record) -> "Run":
        """Complete a run's settings and tags: its creator may have been killed before."""
        from mlflow.entities import Param, RunTag

        params = [Param(name, text) for name, text in record.params.items() if name not in run.data.params]
        for begin in range(0, len(params), PARAMS):
            self.client.log_batch(run.info.run_id, params=params[begin : begin + PARAMS])
        if tags := [RunTag(name, text) for name, text in record.tags.items() if name not in run.data.tags]:
            self.client.log_batch(run.info.run_id, tags=tags)
        return run

    def log(self, run: "Run", steps: Iterable[tuple[int, float, Mapping[str, Any]]]) -> None:
        """Log numbers of each step, after so many seconds, those of a step together."""
        from mlflow.entities import Metric

        batch = list[Metric]()
        for step, elapsed, numbers in steps:
            time_ms = run.info.start_time + int(1000 * elapsed)
            metrics = [
                Metric(re.sub(r"[^\w\-./ :]", "_", name), float(value), time_ms, step)
                for name, value in numbers.items()
                if isinstance(value, int | float) and not isinstance(value, bool)
            ]
            if len(batch) + len(metrics) > BATCH:
                self.client.log_batch(run.info.run_id, metrics=batch)
                batch = []
            batch += metrics
        if batch:
            self.client.log_batch(run.info.run_id, metrics=batch)


def _filter(tags: Mapping[str, str]) -> str:
    return " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())


@contextmanager
def _opened(root: Path) -> Iterator[_Runs]:
    """Yield the store's runs, under a lock."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    place = store(root)
    root.mkdir(parents=True, exist_ok=True)
    # Processes that open a fresh sqlite store at once break it, and two that look for a run both create it.
    with FileLock(root / "mlflow.lock", timeout=PATIENCE):
        client = MlflowClient(tracking_uri=place)
        known = client.get_experiment_by_name(EXPERIMENT)
        # A server has a configured place for artifacts; without one, sqlite keeps them in the current folder.
        artifacts = (root.absolute() / "mlartifacts").as_uri() if place.startswith("sqlite:") else None
        yield _Runs(client, known.experiment_id if known else client.create_experiment(EXPERIMENT, artifacts))


def _try(root: Path, work: Callable[[_Runs], object], rested: bool = False) -> None:
    """Run work(the store's runs); on failure warn, the first time, and rest."""
    place = store(root)
    if not rested and time.monotonic() < resting.get(place, 0.0):
        return
    try:
        with _opened(root) as runs:
            work(runs)
    except Exception as error:
        level = logging.DEBUG if place in resting else logging.WARNING
        message = "MLflow at %s lacks the latest numbers (%s); `actionbench mlflow sync` sends them"
        log.log(level, message, clean(place), _in_words(error))
        resting[place] = time.monotonic() + REST


def _in_words(error: Exception) -> str:
    return f"{type(error).__name__}: {(clean(str(error)).splitlines() or [''])[0][:300]}"
