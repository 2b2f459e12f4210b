"""What a repro says of itself, from what DVC prints and the running logs."""

import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.config import load
from pipeline.config.schema import Params
from stages.repro import estimate, plan
from stages.repro.driver import Crew
from stages.repro.plan import Step
from stages.repro.watch import Stream, Watch

ROOT = Path(__file__).parents[2]
STAGES = ("splits@shapes", "train@tsn", "evaluate@tsn", "train@tsm", "evaluate@tsm", "aggregate")


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """In an empty folder, which has neither splits nor logs."""
    given = load.load(ROOT / "params.yaml")
    monkeypatch.chdir(tmp_path)
    return replace(given, cluster=replace(given.cluster, storage=str(tmp_path / "work")))


def watched(given: Params, *restored: str, jobs: int = 2) -> Watch:
    steps = [Step(stage, "restored" if stage in restored else "runs", (), ()) for stage in STAGES]
    return Watch(given, steps, jobs)


def says(watch: Watch, stream: Stream, *lines: str, error: bool = False) -> None:
    for line in lines:
        watch.saw(stream, line.encode(), error)


def shown(watch: Watch) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(watch.table())
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_states_follow_what_dvc_prints(given: Params) -> None:
    watch, one, two = watched(given, "train@tsm"), Stream(), Stream()
    assert watch.foreword() == (
        "6 stages to bring up to date, of 2 rows; 1 from DVC's cache; the time is unknown until a row has trained; "
        "`actionbench plan` says why"
    )
    says(watch, one, "Stage 'download@shapes' didn't change, skipping", "Stage 'splits@shapes' didn't change, skipping")
    says(watch, one, "Running stage 'train@tsn':", "> python -m stages.train tsn")
    says(watch, two, "Stage 'train@tsm' is cached - skipping run, checking out outputs")
    says(watch, two, "Running stage 'evaluate@tsm':")
    assert {watch._state(row) for row in watch._rows()} == {"training", "evaluating"}
    assert watch.line().startswith("0 of 2 rows done, 1 evaluating, 1 training")
    watch.ended(two, failed=False)
    says(watch, one, "Traceback (most recent call last):", "ValueError: no such frame", "", error=True)
    says(watch, one, "Running stage 'aggregate':", "> python -m stages.aggregate")  # as with --keep-going, and ahead
    says(watch, one, "WARNING: failed to run: python -m stages.train tsn, exited with 1", error=True)
    watch.ended(one, failed=True)
    assert watch.line() == "1 of 2 rows done, 1 failed"
    first, last = watch.summary().splitlines()
    assert first.startswith("2 stages ran in 0 s, 1 came from DVC's cache, 1 did not change, 1 are not done")
    assert first.endswith("tables in reports/tables/quick")
    assert last == "failed: train@tsn after 0 s: ValueError: no such frame"


def test_a_failure_without_a_line_is_one_too(given: Params) -> None:
    watch, one = watched(given), Stream()
    says(watch, one, "Running stage 'evaluate@tsm':")
    watch.ended(one, failed=True)
    assert watch.summary().endswith("failed: evaluate@tsm after 0 s: no message")


def test_epochs_speed_and_time_left_are_the_running_logs(given: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    watch, one = watched(given), Stream()
    of = given.recipes[given.experiments["tsn"].recipe].epochs * 3
    says(watch, one, "Running stage 'train@tsn':")
    assert f"0 of {of}" in shown(watch)
    logs = [Path(f"seed{seed}.jsonl") for seed in range(2)]
    monkeypatch.setattr(estimate, "running_logs", lambda *_: logs)
    for log, epochs in zip(logs, (3, 1), strict=True):
        lines = [{"kind": "epoch", "epoch": n, "clips_per_second": 20.0 + n} for n in range(epochs)]
        log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    watch.begun["train@tsn"] -= 100
    told = shown(watch)
    assert f"4 of {of}" in told and "42.0" in told
    left = 100 * (of - 4) / 4
    assert watch._left("tsn", 4, of) == pytest.approx(left, rel=0.01) and watch._left("tsm", 0, 0) is None
    assert "left and 1 rows" in watch.line() and "tsn at 42.0 clips/s" in watch.line()


def test_work_is_counted_in_hours_of_what_it_holds(given: Params) -> None:
    net = estimate.Net("resnet", "tiny", "none", "{}", 8, 64, "auto", 3)
    one, four = ({"tsn": estimate.Speed("tsn", net, 40.0, workers)} for workers in (1, 4))
    assert estimate.work(7200, given.cluster, one) == "2.0 h of work (2 CPU-hours)"
    assert estimate.work(7200, replace(given.cluster, gpus_per_worker=0.5), four) == "2.0 h of work (4 GPU-hours)"


def test_on_a_terminal_the_rows_stand_below_what_is_printed(given: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.TextIOWrapper(io.BytesIO(), write_through=True)
    monkeypatch.setattr(screen, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    watch = watched(given)
    with watch.shown():
        watch.write(sys.stdout.buffer, b"tsn | a line\n")
    told = screen.buffer.getvalue().decode()  # type: ignore[attr-defined]
    assert "tsn | a line" in told and "0 of 2 rows done" in told
    assert told.index("tsn | a line") < told.rindex("0 of 2 rows done")


def test_dvcs_last_line_counts_without_its_end(given: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "ERROR: failed to reproduce 'train@tsn': failed to run: python -m stages.train tsn, exited with 2"
    script = f"import sys; sys.stderr.write({said!r}); sys.exit(1)"
    monkeypatch.setattr(plan, "dvc_command", lambda *_: [sys.executable, "-c", script])
    crew = Crew({}, watched(given))
    try:
        assert not crew.dvc("repro")
    finally:
        crew.stop()
    assert crew.codes == {2}
