"""`actionbench mlflow sync`: what the runs' own files say goes into MLflow's store, whatever of it was missed."""

from pathlib import Path

from pipeline import records, tracking
from pipeline.errors import UserError
from stages import DATA


def sync() -> None:
    """Brings every row in data/logs up to date in the store, and prints what that was.

    Doing it again, or after it was killed midway, logs nothing twice. UserError where there are no logs, or the store
    doesn't take them.
    """
    folders = sorted(path for path in (DATA / "logs").glob("*") if path.is_dir())
    if not folders:
        raise UserError("there are no logs in data/logs yet; `actionbench repro` makes them")
    rows = cells = sent = 0
    for folder in folders:
        record = records.load(folder)
        if record is None:
            print(f"{folder} has no {records.RUN}, which a training leaves now; `dvc repro -f train@{folder.name}`")
            continue
        numbers = records.numbers(DATA / "predictions" / folder.name)
        if numbers and numbers.training != record.training:
            numbers = None  # of an earlier training
        logs = {path.stem: path for path in folder.glob("*.jsonl")}
        sent += tracking.sync(Path.cwd(), record, logs, numbers)
        rows, cells = rows + 1, cells + len(logs)
    place = records.clean(tracking.store(Path.cwd()))
    print(f"{rows} rows with {cells} runs, of which {place} lacked {sent} epochs and evaluations")
