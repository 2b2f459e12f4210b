"""MLflow mirror of runs, the only module that uses MLflow.

A run's files stay authoritative. The store can be refilled from the runs' files, so an outage costs only a warning.
Every call first asks the store for its content. Runs are nested: suite, row, run (one split and seed). A number's time
is its run's start plus the seconds of training since, never the clock's: numbers sent twice are then equal to MLflow,
and a run lasts as long as its training. The suite's run carries each row's headline number.
"""

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
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
PARENT, FILES = "mlflow.parentRunId", "actionbench.files"  # FILES: digest of the artifacts
HEADLINES = ("top1", "map")  # the number of a row that its suite's run shows
VIEW = "actionbench"  # name of the runs view that address() opens
# MLflow's form of a shared view: the rows, their accuracy and settings. An order by time would nest them.
SHOWN = {
    "searchFilter": "tags.kind = 'row'",
    "orderByKey": "metrics.`test/top1`",
    "runsHiddenMode": "FIRST_20_RUNS",  # charts show those
    "selectedColumns": [
        "metrics.`test/top1`",
        "metrics.`test/mean_class`",
        "params.`row.backbone`",
        "params.`row.attention`",
        "tags.`suite`",
    ],
}
EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",  # hides what is for language models
    f"mlflow.sharedViewState.{VIEW}": json.dumps(SHOWN),
}
SYSTEM = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"
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
DIGEST = 36  # characters of a data set's digest that MLflow keeps
BATCH = 1000  # metrics that MLflow takes at once
PARAMS = 100

log = logging.getLogger(__name__)
resting: dict[str, float] = {}  # store -> time of the next try, time.monotonic()


def mirror(root: Path, record: Record, logs: "Logs", status: str = "") -> None:
    """Send a row's runs up to the last epoch in their logs.

    Call it repeatedly while they grow. Never raises, and takes seconds at most. A later call, or sync(), sends the
    rest.

    Args:
        root: folder of the default store (mlflow.db, mlartifacts/); MLFLOW_TRACKING_URI overrides it.
        record: its settings and tags are shown with the row and its runs; another training has other runs.
        logs: files of JSON lines by run name, as from run_log.places(); absent ones are skipped.
        status: FINISHED or FAILED when training has ended.
    """
    _try(root, lambda runs: runs.bring(record, logs, None, status=status), rested=bool(status))


def finish(root: Path, record: Record, logs: "Logs", numbers: Numbers, files: Path | None = None) -> None:
    """Send runs as mirror(), with the evaluation's numbers test/<name>; close them.

    The files of folder `files` become the row's artifacts, and logs their runs'.
    """
    _try(root, lambda runs: runs.bring(record, logs, numbers, files), rested=True)  # once per row: always try


def sync(root: Path, record: Record, logs: "Logs", numbers: Numbers | None, files: Path | None = None) -> int:
    """Send runs as mirror() and, with numbers, finish() do, and raise on failure.

    Returns:
        The number of epochs and evaluations that the store lacked.

    Raises:
        UserError: The store does not take them.
    """
    os.environ.setdefault(TIMEOUT, "30")  # no training waits for it
    try:
        with _opened(root) as runs:
            return runs.bring(record, logs, numbers, files)
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
    return _filter({NAME: _quoted(f"{suite}/{row}"), **({TRAINING: training} if training else {})})


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


def address(uri: str) -> str:
    """Return the part of an address of MLflow's UI that opens our runs, or "" without any.

    Args:
        uri: The server's store.
    """
    _settle()
    from mlflow import MlflowClient

    try:
        known = MlflowClient(tracking_uri=uri).get_experiment_by_name(EXPERIMENT)
    except Exception as error:  # the server reports it
        log.debug("no experiment in %s (%s)", clean(uri), _in_words(error))
        return ""
    return (
        f"/#/experiments/{known.experiment_id}/runs?viewStateShareKey={VIEW}&workflowType=machine_learning"
        if known
        else ""
    )


@contextmanager
def system_metrics(root: Path, record: Record) -> Iterator[None]:
    """Log this machine's load to the row's run during the block, where MLflow's variable asks for it."""
    monitor: Any = None
    if os.environ.get(SYSTEM, "").lower() in ("1", "true"):

        def begin(runs: _Runs) -> None:
            nonlocal monitor
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            run = runs.row(record).info.run_id
            monitor = SystemMetricsMonitor(run, resume_logging=True, tracking_uri=store(root))
            monitor.start()

        _try(root, begin)
    try:
        yield
    finally:
        if monitor:
            monitor.finish()


class _Runs:
    """The runs of one MLflow experiment, looked up by name or created."""

    def __init__(self, client: "MlflowClient", experiment: str) -> None:
        self.client, self.experiment = client, experiment

    def bring(self, record: Record, logs: "Logs", numbers: Numbers | None, files: Any = None, status: str = "") -> int:
        """Send what the store lacks, end runs given a status or numbers; return the epochs and evaluations sent."""
        evaluated = numbers.runs if numbers else {}
        lines = {name: epochs(*logs.get(name, ())) for name in sorted({*logs, *evaluated})}
        took = {name: sum(line.get("seconds", 0.0) for line in of) for name, of in lines.items()}
        suite = self.suite(record)
        parent, sent, children = self.row(record, suite, max(took.values(), default=0.0)), 0, {}
        known = self.below(parent)
        for name, of_run in lines.items():
            if not of_run and name not in evaluated:
                continue
            run = known.get(name) or self.create(f"{record.row} {name}", parent, {}, took[name])
            children[name] = self.whole(run, record, name)
            # Each line's epoch is a metric too: its latest value is the store's progress.
            last, elapsed, fresh = run.data.metrics.get("epoch", -1), 0.0, []
            for line in of_run:
                elapsed += line.get("seconds", 0.0)
                if line["epoch"] > last:
                    fresh.append((line["epoch"], elapsed, line))
            self.log(run, fresh)
            sent += len(fresh)
        if status := status or ("FINISHED" if numbers else ""):
            ends = {name: run.info.start_time + int(1000 * took[name]) for name, run in children.items()}
            for name, run in children.items():
                sent += self.close(run, evaluated.get(name, {}), ends[name], status)
            last = max([parent.info.start_time, *ends.values()])
            sent += self.close(parent, numbers.row if numbers else {}, last, status)
        if numbers:
            headlines = {f"{name}/{record.row}": numbers.row[name] for name in HEADLINES if name in numbers.row}
            self.numbers(suite, headlines)
            for run, folder in ((parent, files), *((run, logs.get(name, ())) for name, run in children.items())):
                self.attach(run, sorted(folder.glob("*")) if isinstance(folder, Path) else folder or ())
        return sent

    def close(self, run: "Run", evaluated: Mapping[str, float], end: int, status: str) -> bool:
        """Log an evaluation's numbers, if any, and end the run; return False if the store had them."""
        fresh = self.numbers(run, {f"test/{name}": value for name, value in evaluated.items()})
        if run.info.status != status:
            self.client.set_terminated(run.info.run_id, status, end)
        return fresh

    def numbers(self, run: "Run", numbers: Mapping[str, float]) -> bool:
        """Log a run's numbers that differ from the store's; return False if none does."""
        fresh = {name: float(value) for name, value in numbers.items() if run.data.metrics.get(name) != value}
        # Evaluated again, as under another protocol: MLflow shows the later number.
        again = any(name in run.data.metrics for name in fresh)
        self.log(run, [(0, time.time() - run.info.start_time / 1000 if again else 0.0, fresh)])
        return bool(fresh)

    def attach(self, run: "Run", files: "Sequence[Place]") -> None:
        """Send a run's files, unless the store has them; a store without a place for them is a warning."""
        content = {file.name: file.read_bytes() for file in files if file.exists()}
        digest = hashlib.sha256(repr(sorted(content.items())).encode()).hexdigest()[:16]
        if not content or run.data.tags.get(FILES) == digest:
            return
        try:
            with TemporaryDirectory() as folder:
                for name, data in content.items():
                    (Path(folder) / name).write_bytes(data)
                self.client.log_artifacts(run.info.run_id, folder)
            self.client.set_tag(run.info.run_id, FILES, digest)
        except Exception as error:
            log.warning("MLflow did not take the files of run %s (%s)", run.info.run_name, _in_words(error))

    def find(self, tags: Mapping[str, str], limit: int = 1) -> "list[Run]":
        """List the runs with these tags, the newest first."""
        return self.search(_filter(tags), limit)

    def search(self, filter: str, limit: int = 1) -> "list[Run]":
        """List the runs that match MLflow's filter, the newest first."""
        return list(self.client.search_runs([self.experiment], filter, order_by=["start_time DESC"], max_results=limit))

    def create(self, name: str, parent: "Run | None", tags: Mapping[str, str], elapsed: float = 0.0) -> "Run":
        """Create a run that began `elapsed` seconds ago."""
        above = {PARENT: parent.info.run_id} if parent else {}
        begin = int(1000 * (time.time() - elapsed))
        return self.client.create_run(self.experiment, begin, {**tags, **above}, run_name=name)

    def suite(self, record: Record) -> "Run":
        """Return the run of a record's suite, created if absent."""
        name = _quoted(record.suite)
        if runs := self.find({NAME: name}):
            return runs[0]
        run = self.create(name, None, {NAME: name, "kind": "suite", "suite": name})
        self.client.set_terminated(run.info.run_id, end_time=run.info.start_time)  # it only holds others
        return run

    def row(self, record: Record, suite: "Run | None" = None, elapsed: float = 0.0) -> "Run":
        """Return the newest run of a record's training, created if absent."""
        asked = {NAME: _quoted(f"{record.suite}/{record.row}"), TRAINING: record.training}
        if runs := self.find(asked):
            return self.whole(runs[0], record)
        return self.whole(self.create(record.row, suite or self.suite(record), asked, elapsed), record)

    def below(self, parent: "Run") -> "dict[str, Run]":
        """Return the runs directly below a row's, by split and seed."""
        row = f"{parent.info.run_name} "
        runs = self.find({PARENT: parent.info.run_id}, limit=1000)
        return {run.info.run_name.removeprefix(row): run for run in runs}

    def whole(self, run: "Run", record: Record, name: str = "") -> "Run":
        """Complete a run's settings, tags and inputs: its creator may have been killed before.

        Args:
            run: Of the row, or of one split and seed.
            record: The row's.
            name: Of the split and seed, as in "split1-seed0".
        """
        from mlflow.entities import Dataset, DatasetInput, InputTag, Param, RunTag

        params = [Param(name, text) for name, text in record.params.items() if name not in run.data.params]
        for begin in range(0, len(params), PARAMS):
            self.client.log_batch(run.info.run_id, params=params[begin : begin + PARAMS])
        facts = {"kind": "run" if name else "row", "suite": record.suite, "row": record.row, **record.tags}
        if tags := [RunTag(name, text) for name, text in facts.items() if name not in run.data.tags]:
            self.client.log_batch(run.info.run_id, tags=tags)
        splits = {split: digest for split, digest in record.inputs.items() if name.partition("-")[0] in ("", split)}
        if splits and not (run.inputs and run.inputs.dataset_inputs):
            dataset = record.params.get("row.dataset", record.row)
            places = {split: f"data/splits/{dataset}/{split.replace('split', 'split-')}.parquet" for split in splits}
            inputs = [
                DatasetInput(
                    Dataset(f"{dataset} {split}", digest[:DIGEST], "local", json.dumps({"uri": places[split]})),
                    [InputTag("mlflow.data.context", "training")],
                )
                for split, digest in splits.items()
            ]
            self.client.log_inputs(run.info.run_id, inputs)
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


def _quoted(text: str) -> str:
    """Return a text that fits into a search filter."""
    return text.replace("'", "’")


def _filter(tags: Mapping[str, str]) -> str:
    return " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())


@contextmanager
def _opened(root: Path) -> Iterator[_Runs]:
    """Yield the store's runs, under a lock."""
    _settle()
    from mlflow import MlflowClient

    place = store(root)
    root.mkdir(parents=True, exist_ok=True)
    # Processes that open a fresh sqlite store at once break it, and two that look for a run both create it.
    with FileLock(root / "mlflow.lock", timeout=PATIENCE):
        client = MlflowClient(tracking_uri=place)
        known = client.get_experiment_by_name(EXPERIMENT)
        # A server has a configured place for artifacts; without one, sqlite keeps them in the current folder.
        artifacts = (root.absolute() / "mlartifacts").as_uri() if place.startswith("sqlite:") else None
        experiment = known.experiment_id if known else client.create_experiment(EXPERIMENT, artifacts)
        for name, value in EXPERIMENT_TAGS.items():
            if not known or known.tags.get(name) != value:
                client.set_experiment_tag(experiment, name, value)
        yield _Runs(client, experiment)


def _settle() -> None:
    """Set MLflow's defaults, before it is imported."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)


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
