"""Progress of a repro, from DVC's output and the logs of running stages."""

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
from tests.support import machine

ROOT = Path(__file__).parents[2]
STAGES = ("splits@shapes", "train@tsn", "evaluate@tsn", "train@tsm", "evaluate@tsm", "aggregate")


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """Return params in an empty folder, without splits and logs."""
    params = load.load(ROOT / "params.yaml")
    monkeypatch.chdir(tmp_path)
    return replace(params, cluster=replace(params.cluster, storage=str(tmp_path / "work")))


def watched(params: Params, *restored: str, jobs: int = 2) -> Watch:
    steps = [Step(stage, "restored" if stage in restored else "runs", (), ()) for stage in STAGES]
    return Watch(params, steps, jobs)


def says(watch: Watch, stream: Stream, *lines: str, error: bool = False) -> None:
    for line in lines:
        watch.saw(stream, line.encode(), error)


def shown(watch: Watch) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(watch.table())
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_states_follow_what_dvc_prints(params: Params) -> None:
    watch, first, two = watched(params, "train@tsm"), Stream(), Stream()
    assert watch.foreword() == (
        "6 stages to bring up to date, of 2 rows; 1 from DVC's cache; the time is unknown until a row has trained; "
        "`actionbench plan` has the reasons"
    )
    says(
        watch, first, "Stage 'download@shapes' didn't change, skipping", "Stage 'splits@shapes' didn't change, skipping"
    )
    says(watch, first, "Running stage 'train@tsn':", "> python -m stages.train tsn")
    says(watch, two, "Stage 'train@tsm' is cached - skipping run, checking out outputs")
    says(watch, two, "Running stage 'evaluate@tsm':")
    assert {watch._state(row) for row in watch._rows()} == {"training", "evaluating"}
    assert watch.line().startswith("0 of 2 rows done, 1 evaluating, 1 training")
    watch.ended(two, failed=False)
    says(watch, first, "Traceback (most recent call last):", "ValueError: no such frame", "", error=True)
    says(watch, first, "Running stage 'aggregate':", "> python -m stages.aggregate")  # as with --keep-going, and ahead
    says(watch, first, "WARNING: failed to run: python -m stages.train tsn, exited with 1", error=True)
    watch.ended(first, failed=True)
    assert watch.line() == "1 of 2 rows done, 1 failed"
    first, last = watch.summary().splitlines()
    assert first.startswith("2 stages ran in 0 s, 1 came from DVC's cache, 1 did not change, 1 are not done")
    assert first.endswith("tables in reports/tables/quick")
    assert last == "failed: train@tsn after 0 s: ValueError: no such frame"


def test_the_foreword_estimates_before_anything_was_measured(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.without_gpus(monkeypatch, 4)
    machine.reference(tmp_path / "reports", {"tsn": 64.0, "tsm": 64.0})
    # Each row: 5 seeds x 480 videos x 8 epochs, and 400 videos in 4 orders at a third of the cost.
    assert watched(params).foreword() == (
        "6 stages to bring up to date, of 2 rows; about 11 min of work (0.19 CPU-hours) for 4 of them, side "
        "by side in about 3 min (from the reference machine's speeds; 4 cores here); `actionbench plan` has the reasons"
    )


def test_a_failure_without_a_line_is_one_too(params: Params) -> None:
    watch, first = watched(params), Stream()
    says(watch, first, "Running stage 'evaluate@tsm':")
    watch.ended(first, failed=True)
    assert watch.summary().endswith("failed: evaluate@tsm after 0 s: no message")


def test_epochs_speed_and_time_left_are_the_running_logs(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    watch, first = watched(params), Stream()
    row = params.experiments["tsn"]
    of = params.recipes[row.recipe].epochs * len(row.seeds)
    says(watch, first, "Running stage 'train@tsn':")
    assert f"0 of {of}" in shown(watch)
    logs = [Path(f"seed{seed}.jsonl") for seed in range(2)]
    monkeypatch.setattr(estimate, "running_logs", lambda *_: logs)
    for log, epochs in zip(logs, (3, 1), strict=True):
        lines = [{"kind": "epoch", "epoch": n, "clips_per_second": 20.0 + n} for n in range(epochs)]
        log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    watch.begun["train@tsn"] -= 100
    output = shown(watch)
    assert f"4 of {of}" in output and "42.0" in output
    left = 100 * (of - 4) / 4
    assert watch._left("tsn", 4, of) == pytest.approx(left, rel=0.01) and watch._left("tsm", 0, 0) is None
    assert "left and 1 rows" in watch.line() and "tsn at 42.0 clips/s" in watch.line()


def test_work_is_counted_in_hours_of_what_it_holds(params: Params) -> None:
    net = estimate.Net("resnet", "tiny", "none", "{}", 8, 64, "auto", 3)
    first, four = ({"tsn": estimate.Speed("tsn", net, 40.0, workers)} for workers in (1, 4))
    assert estimate.work(7200, params.cluster, first) == "2.0 h of work (2 CPU-hours)"
    assert estimate.work(7200, replace(params.cluster, gpus_per_worker=0.5), four) == "2.0 h of work (4 GPU-hours)"


def test_on_a_terminal_the_rows_stand_below_what_is_printed(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.TextIOWrapper(io.BytesIO(), write_through=True)
    monkeypatch.setattr(screen, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    watch = watched(params)
    with watch.shown():
        watch.write(sys.stdout.buffer, b"tsn | a line\n")
    output = screen.buffer.getvalue().decode()  # type: ignore[attr-defined]
    assert "tsn | a line" in output and "0 of 2 rows done" in output
    assert output.index("tsn | a line") < output.rindex("0 of 2 rows done")


def test_dvcs_last_line_counts_without_its_end(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    line = "ERROR: failed to reproduce 'train@tsn': failed to run: python -m stages.train tsn, exited with 2"
    script = f"import sys; sys.stderr.write({line!r}); sys.exit(1)"
    monkeypatch.setattr(plan, "dvc_command", lambda *_: [sys.executable, "-c", script])
    crew = Crew({}, watched(params))
    try:
        assert not crew.dvc("repro")
    finally:
        crew.stop()
    assert crew.codes == {2}
