"""The command line: one-line errors, JSON only on stdout, rows in parallel."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.report.table import ALWAYS, Cell, Table
from stages.terminal import show_view, typed
from tests.support.command import called
from tests.support.toy import DVC, STEP, TABLE

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
JOIN = """\
import os, ray
ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False)
print("session", ray.get_runtime_context().gcs_address)
"""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a DVC project of rows a and b, whose stages only write a file.

    Its data set is ready.
    """
    folder = tmp_path_factory.mktemp("template")
    raw = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    row = next(iter(raw["experiments"].values()))
    raw |= {"suite": "quick", "experiments": dict.fromkeys("ab", row), "tables": {}, "cluster": {"address": "local"}}
    (folder / "params.yaml").write_text(json.dumps(raw))
    (folder / "dvc.yaml").write_text(DVC)
    (folder / "step.py").write_text(STEP)
    (folder / "table.json").write_text(TABLE)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    subprocess.run([BIN / "dvc", "init", "-q"], cwd=folder, check=True)
    done = actionbench(folder, "repro", "decode", "splits")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def project(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "project"))


def environment(**more: str) -> dict[str, str]:
    """Run repro without Ray: no stage here uses the address."""
    return {**os.environ, "RAY_ADDRESS": "unused", "SHELL": "/bin/sh", **more}


def actionbench(project: Path, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
    command = [BIN / "actionbench", *arguments]
    return subprocess.run(command, cwd=project, env=environment(**more), capture_output=True, text=True)


def test_help_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'ray', 'polars', 'mlflow', 'decord', 'cv2', 'pyarrow', 'numpy'}"
    code = f"import sys, stages.cli; sys.exit(' '.join({heavy} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_version_short_help_and_completion(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert called(capsys, "--version") == (0, f"actionbench {project['version']}\n", "")
    for arguments in ([], ["plan"], ["mlflow", "sync"]):
        assert called(capsys, *arguments, "-h") == called(capsys, *arguments, "--help")
    code, out, _ = called(capsys, "--show-completion", "bash")
    assert code == 0 and "complete -o default -F _actionbench_completion actionbench\n" in out
    for name, value in {"COMP_WORDS": "actionbench pl", "COMP_CWORD": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("_ACTIONBENCH_COMPLETE", "complete_bash")
    assert called(capsys) == (0, "plan\n", "")


def test_numbers_are_numbers_in_json() -> None:
    names = {"row": "50", "verdict": "better", "variant": "1.0", "mixed": "8x8"}
    first = {**names, "top1": "37.80", "gain": "+0.4", "n": "400", "p": "", "nothing": ""}
    second = {**names, "mixed": "101", "top1": "–", "gain": "-1.2", "n": "0", "p": "3e-05", "nothing": ""}
    one, other = typed([first, second])
    assert one == {**first, "variant": 1.0, "top1": 37.8, "gain": 0.4, "n": 400, "p": None}
    assert other == {**second, "variant": 1.0, "top1": None, "gain": -1.2, "n": 0, "p": 3e-05}
    assert typed([]) == []


def test_rows_run_side_by_side_then_the_tables(project: Path) -> None:
    """Each row's training waits for the other to start, so both must run at once."""
    shutil.rmtree(project / "data")
    done = actionbench(project, "repro", "-j", "2", TOGETHER="2")
    assert done.returncode == 0, done.stderr
    assert "b | Running stage 'train@b':" in done.stdout
    assert "37.8 [35.8, 39.8]" in done.stdout
    assert "In every row: data set shapes; protocol 1 clip." in done.stdout
    locked = YAML(typ="safe").load((project / "dvc.lock").read_text())["stages"]
    assert len(locked) == 3 + 2 * 2 + 1
    assert "To track the changes" not in done.stdout

    again = actionbench(project, "repro")
    assert again.stdout.startswith("everything is up to date")
    assert json.loads(actionbench(project, "plan", "--json").stdout)["stages"] == []

    shutil.rmtree(project / "data" / "runs")
    plan = json.loads(actionbench(project, "plan", "--json").stdout)["stages"]
    assert [(step["stage"], step["state"]) for step in plan[:2]] == [("train@a", "restored"), ("evaluate@a", "may run")]
    assert plan[0]["reasons"] == ["missing output data/runs/a"]


@pytest.mark.parametrize("jobs, label", [("1", ""), ("2", "b | ")])
def test_a_users_mistake_is_the_stages_line_alone(project: Path, jobs: str, label: str) -> None:
    done = actionbench(project, "repro", "-j", jobs, "b", FAIL="train@b:2")
    assert done.returncode == 2
    assert done.stderr == f"{label}error: this row can't be trained\n"


def test_a_crash_exits_with_1_and_other_rows_continue_if_asked(project: Path) -> None:
    done = actionbench(project, "repro", "-j", "2", "-k", FAIL="train@a:7")
    assert done.returncode == 1
    assert "exited with 7" in done.stderr
    assert re.search(r"failed: train@a after \d+ s: error: this row can't be trained", done.stdout)
    assert sorted(path.name for path in (project / "data" / "predictions").glob("?")) == ["b"]
    assert not (project / "reports").exists()


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_data_set_that_fails_stops_only_its_rows_if_asked(project: Path, jobs: str) -> None:
    params = YAML(typ="safe").load((project / "params.yaml").read_text())
    params["datasets"]["absent"] = params["datasets"]["shapes"]
    params["experiments"]["b"] = {**params["experiments"]["a"], "dataset": "absent"}
    (project / "params.yaml").write_text(json.dumps(params))
    done = actionbench(project, "repro", "-j", jobs, "-k", FAIL="download@absent:2")
    assert done.returncode == 2
    assert [line for line in done.stderr.splitlines() if "error" in line.lower()] == [
        "error: this row can't be trained"
    ]
    assert sorted(path.name for path in (project / "data" / "predictions").glob("?")) == ["a"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_outlives_it(project: Path, number: signal.Signals) -> None:
    command = [BIN / "actionbench", "repro", "-j", "2"]
    variables = environment(TOGETHER="3")  # which never are: the stages wait
    with subprocess.Popen(
        command, cwd=project, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        while len(pids := [int(path.read_text() or 0) for path in project.glob("pid-*")]) < 2 or 0 in pids:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        message = process.communicate()[1]
    for pid in pids:
        while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
            time.sleep(0.05)
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    if number == signal.SIGINT:
        assert message == "interrupted; the next repro resumes\n"


@pytest.mark.slow
def test_stages_share_one_ray_session(project: Path) -> None:
    (project / "step.py").write_text(JOIN + STEP)
    variables = {name: value for name, value in environment().items() if name != "RAY_ADDRESS"}
    command = [BIN / "actionbench", "repro", "-j", "2", "evaluate"]
    done = subprocess.run(command, cwd=project, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    sessions = [line.split("session ")[1] for line in done.stdout.splitlines() if "session " in line]
    assert len(sessions) == 2 * 2
    assert len(set(sessions)) == 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["plam"], "error: No such command 'plam'. Did you mean 'plan'?; see --help\n"),
        (["repro", "-j", "0"], "error: Invalid value for '--jobs'"),
        (["repro", "tsn"], "error: no stage or row 'tsn'; "),
        (["report"], "error: no tables of suite 'quick' yet, run `actionbench repro`; known: none\n"),
        (["mlflow"], "error: sqlite:///mlflow.db does not exist yet; run `actionbench repro`\n"),
    ],
)
def test_a_mistake_is_one_line(
    template: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(template)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    code, out, err = called(capsys, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(message)


@pytest.mark.parametrize("command", ["plan", "repro", "report", "models", "datasets"])
def test_damaged_params_and_a_wrong_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert called(capsys, command) == (2, "", "error: params.yaml is not there; run from the project's root\n")
    (tmp_path / "params.yaml").write_text("suite: quick: again\n")
    code, _, err = called(capsys, command)
    assert code == 2
    assert err.startswith("error: params.yaml is damaged at line 1")


def test_no_dvc_project(template: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    shutil.copy(template / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    code, _, err = called(capsys, "plan")
    assert code == 2
    assert err.startswith("error: dvc status: you are not inside of a DVC repository")
    assert err.count("\n") == 1


def test_lists_as_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    code, out, _ = called(capsys, "datasets", "--json")
    shapes = next(data for data in json.loads(out) if data["file"] == "shapes")
    assert (code, shapes["classes"]) == (0, 8)
    code, out, _ = called(capsys, "models", "--json")
    document = json.loads(out)
    assert {"none", "tsm"} <= {model["name"] for model in document["models"] if model["kind"] == "attention"}
    assert all(model["about"] for model in document["models"])
    assert all(row["macs"] > 0 and row["error"] == "" for row in document["rows"])


def test_report_as_json(project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    tables = project / "reports" / "tables" / "other"
    tables.mkdir(parents=True)
    (tables / "comparison.json").write_text(TABLE)
    monkeypatch.chdir(project)
    code, out, _ = called(capsys, "report", "--suite", "other", "--json")
    document = json.loads(out)
    assert (code, document["tables"]) == (0, {"comparison": [{"row": "a", "top1": 37.8}, {"row": "b", "top1": 79.0}]})
    assert document["paths"]["tables"] == ["reports/tables/other/comparison.md"]


def test_mlflow_stays_on_loopback(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple] = []
    monkeypatch.setattr(os, "execve", lambda *arguments: started.append(arguments))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(project)
    (project / "mlflow.db").touch()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        code, _, err = called(capsys, "mlflow", "--port", port)
        assert code == 2
        assert err.startswith(f"error: port {port} is in use; `actionbench mlflow --port ")
    free = err.split("--port ")[1].split("`")[0]
    assert called(capsys, "mlflow", "--port", free)[0] == 0
    ((exe, arguments, variables),) = started
    assert exe == sys.executable
    assert arguments[arguments.index("--host") + 1] == "127.0.0.1"
    assert variables["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_a_table_too_wide_for_the_screen_wraps_and_cuts_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [[f"row-{n}", *[f"-16.7 [-100.{n}, +100.0]"] * 6] for n in range(2)]
    cells = [tuple(Cell(f"column {at}", text, place=ALWAYS) for at, text in enumerate(row)) for row in rows]
    show_view(Table("t", "Title", tuple(cells)))
    out = capsys.readouterr().out
    for n in range(2):
        assert f"row-{n}" in out and out.count(f"[-100.{n},") == 6
    assert out.count("+100.0]") == 12 and max(map(len, out.splitlines())) <= 100
