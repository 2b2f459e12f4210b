"""`actionbench mlflow sync`: what the runs' own files say goes into MLflow's store, whatever of it was missed."""

from pathlib import Path

from pipeline.errors import UserError
from pipeline.tracking import mlflow_mirror, run_log, run_record
from stages import DATA


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
