"""`actionbench submit` on a real Ray head with its job server."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from ruamel.yaml import YAML

from pipeline.errors import UserError
from pipeline.storage import notes
from stages.commands import arrival
from stages.commands import submit as packing
from stages.commands.doctor import free_port
from tests.support.toy import DVC, STEP, TABLE

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
TOKEN = "RAY_AUTH_TOKEN"
# Training, in the stand-in, also says which code it is of, and whether its tasks work in the folder it runs in.
SAY = """\
import os, ray, sys
if sys.argv[1] == "train":
    ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False)
    where = ray.get(ray.remote(lambda: os.getcwd()).remote())
    print("code one in", where, "tasks" if where == os.getcwd() else "elsewhere", flush=True)
"""


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], cwd=folder, check=True)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a clone of a project of two rows, whose stages only print their folder.

    It includes the real packages.
    """
    folder = tmp_path / "clone"
    for name in ("models", "pipeline", "cluster", "stages"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    raw = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    row = next(iter(raw["experiments"].values()))
    raw |= {"suite": "quick", "experiments": dict.fromkeys("ab", row), "tables": {}, "cluster": {"address": "local"}}
    for name, text in (("params.yaml", json.dumps(raw)), ("dvc.yaml", DVC), ("step.py", STEP), ("table.md", TABLE)):
        (folder / name).write_text(text)
    (folder / ".gitignore").write_text("/data/\n__pycache__/\n")
    (folder / "data" / "videos").mkdir(parents=True)
    (folder / "data" / "videos" / "large").write_bytes(bytes(10**6))
    git(folder, "init", "-q")
    subprocess.run([BIN / "dvc", "init", "-q"], cwd=folder, check=True)
    (folder / ".dvc" / "config.local").write_text("# a secret\n")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "one")
    return folder


def test_what_git_tracks_travels_and_nothing_else(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (clone / "new.py").write_text("")
    (clone / "table.md").write_text("changed, not committed")
    (clone / "outside").symlink_to("/etc/hostname")
    git(clone, "add", "outside")
    for name in ("a.zip", "b.zip"):
        packing.pack(clone, packing.tracked(clone), clone.parent / name)
    assert "git does not track new.py; `git add` it to send it" in capsys.readouterr().err
    with zipfile.ZipFile(clone.parent / "a.zip") as archive:
        names = set(archive.namelist())
        assert archive.read("table.md") == b"changed, not committed"
    assert {"step.py", ".dvc/config", "stages/cli.py"} <= names
    assert not {"new.py", "outside", "data/videos/large", ".dvc/config.local"} & names
    assert (clone.parent / "a.zip").read_bytes() == (clone.parent / "b.zip").read_bytes()


def test_a_too_large_project_names_its_five_biggest_files(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(7):
        (clone / f"big{number}.bin").write_bytes(bytes((number + 1) * 2**20))
    git(clone, "add", ".")
    monkeypatch.setattr(packing, "LIMIT", 20 * 2**20)
    with pytest.raises(UserError) as error:
        packing.tracked(clone)
    message = str(error.value)
    assert "MiB to send, the limit is 20" in message and "\n" not in message
    assert [f"big{number}.bin ({number + 1}.0 MiB)" in message for number in range(7)] == [False] * 2 + [True] * 5
    with pytest.raises(UserError, match="run it in a clone"):
        packing.tracked(clone.parent)


def test_code_is_brought_up_to_date_and_results_stay(
    clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, shared = tmp_path / "source", tmp_path / "shared"
    for name, text in (("a.py", "1"), ("b/c.py", "1"), ("dvc.lock", "sent"), ("reports/tables/quick/t.md", "sent")):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text)
    (shared / ".git").mkdir(parents=True)  # so that DVC needs no setting
    arrival.unpack(source, shared, "c1")
    assert (shared / "dvc.lock").read_text() == "sent"
    (shared / "dvc.lock").write_text("made there")
    (shared / "data").mkdir()
    (shared / "b" / "own.txt").write_text("")
    (source / "a.py").write_text("2")
    (source / "b" / "c.py").unlink()
    (source / "reports/tables/quick/t.md").unlink()
    before = (shared / "reports/tables/quick/t.md").stat().st_mtime_ns
    real = arrival.write

    def dies(path: Path, content: bytes | str) -> None:
        if path.name == "a.py":
            raise KeyboardInterrupt
        real(path, content)

    monkeypatch.setattr(arrival, "write", dies)
    with pytest.raises(KeyboardInterrupt):
        arrival.unpack(source, shared, "c2")
    monkeypatch.undo()
    assert arrival.is_ours(shared)
    arrival.unpack(source, shared, "c2")
    assert (shared / "a.py").read_text() == "2" and not (shared / "b" / "c.py").exists()
    assert (shared / "dvc.lock").read_text() == "made there" and (shared / "b" / "own.txt").exists()
    assert (shared / "reports/tables/quick/t.md").stat().st_mtime_ns == before
    assert notes.read(shared / arrival.SUBMITTED) == {"commit": "c2", "files": ["a.py", "dvc.lock"]}


def test_nothing_of_others_is_written_over(clone: Path, tmp_path: Path) -> None:
    assert arrival.is_ours(tmp_path / "absent") and arrival.is_ours(clone)
    (clone / "step.py").write_text("an afternoon's work")
    assert not arrival.is_ours(clone)
    (tmp_path / "home" / ".venv").mkdir(parents=True)
    assert arrival.is_ours(tmp_path / "home")
    (tmp_path / "home" / "letters").touch()
    assert not arrival.is_ours(tmp_path / "home")


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    """Start a Ray head with its job server; yield its folder and a client's variables."""
    folder = tmp_path_factory.mktemp("shared")
    temporary = Path(f"/tmp/submit-{os.getpid()}")  # sockets' paths must be short
    port, dashboard = free_port(), free_port()
    base = {name: text for name, text in os.environ.items() if not name.startswith(("RAY_", "PYTHONPATH"))}
    base |= {"RAY_AUTH_MODE": "token", TOKEN: "a" * 64, "RAY_USAGE_STATS_ENABLED": "0", "SHELL": "/bin/sh"}
    base |= {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    command = [BIN / "ray", "start", "--head", "--block", "--num-cpus=1", "--object-store-memory=80000000"]
    command += [f"--port={port}", f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1"]
    command += [f"--temp-dir={temporary}", f"--ray-client-server-port={free_port()}", "--min-worker-port=0"]
    command += ["--max-worker-port=0", f"--dashboard-agent-listen-port={free_port()}"]
    log = folder.with_name("ray.log")
    with log.open("w") as sink:
        process = subprocess.Popen(command, cwd=folder, env=base, stdout=sink, stderr=sink, process_group=0)
    client = {**base, "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}"}
    try:
        while "Ray runtime started" not in log.read_text():
            assert process.poll() is None, log.read_text()
            time.sleep(0.5)
        yield folder, client
    finally:
        family = [process, *psutil.Process(process.pid).children(recursive=True)] if process.poll() is None else []
        for member in reversed(family):
            member.kill()
        process.wait()
        shutil.rmtree(temporary, ignore_errors=True)


def submit(clone: Path, variables: dict[str, str], *arguments: str) -> "subprocess.Popen[str]":
    command = [BIN / "actionbench", "submit", *arguments]
    environment = {**variables, "PYTHONPATH": str(clone)}
    return subprocess.Popen(
        command, cwd=clone, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def submitted(clone: Path, variables: dict[str, str], *arguments: str) -> tuple[int, str, str]:
    process = submit(clone, variables, *arguments)
    out, err = process.communicate(timeout=600)
    print(out, err)
    return process.returncode, out, err


@pytest.mark.slow
def test_a_job_runs_in_the_shared_folder_and_the_next_continues(clone: Path, head: tuple[Path, dict[str, str]]) -> None:
    shared, variables = head
    (clone / "step.py").write_text(SAY + STEP)
    code, out, err = submitted(clone, variables, "-j", "2")
    assert code == 0, err
    assert out.count(f"code one in {shared} tasks") == 2  # each line once
    assert f"results are in {shared / 'reports'}" in out and "37.8 [35.8, 39.8]" in out
    assert (shared / "data/runs/a").read_text() == "traina" and (shared / "dvc.lock").is_file()
    assert not (shared / "data/videos").exists() and not (shared / ".dvc/config.local").read_text().count("secret")
    listed = json.loads((shared / arrival.SUBMITTED).read_text())
    assert listed["commit"].endswith("-dirty") and "step.py" in listed["files"]

    code, out, _ = submitted(clone, variables)
    assert code == 0 and "everything is up to date" in out and "code one" not in out

    (clone / "step.py").write_text(SAY.replace("one", "two") + STEP.replace("noun + key)", "noun + key + '!')"))
    shutil.rmtree(shared / "data/runs")
    shutil.rmtree(shared / ".dvc/cache")
    code, out, _ = submitted(clone, variables, "train@b")
    assert code == 0 and out.count("code two") == 1 and (shared / "data/runs/b").read_text() == "trainb!"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "code", "message"),
    [("sys.exit(3)", 1, "exited with 3"), ("sys.exit(print('error: this row is wrong') or 2)", 2, "this row is wrong")],
)
def test_its_exit_code_is_the_jobs(
    clone: Path, head: tuple[Path, dict[str, str]], tmp_path: Path, stage: str, code: int, message: str
) -> None:
    (clone / "step.py").write_text(f"import sys; {stage}\n")
    status, out, err = submitted(clone, head[1], f"--into={tmp_path / 'other'}")
    assert status == code and message in out, err


@pytest.mark.slow
def test_ctrl_c_stops_a_job_and_a_second_one_is_refused(
    clone: Path, head: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    into = tmp_path / "other"
    (clone / "step.py").write_text("import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(3600)\n")
    process = submit(clone, head[1], f"--into={into}")
    while not (into / "pid").exists() or not (into / "pid").read_text():
        assert process.poll() is None, process.communicate()
        time.sleep(0.2)
    code, out, _ = submitted(clone, head[1], f"--into={into}")
    assert code == 2 and "is running in this workspace" in out and "arrive" in out
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130 and "stopped; the next submit resumes" in err
    assert not psutil.pid_exists(int((into / "pid").read_text()))


@pytest.mark.slow
def test_a_folder_of_others_a_wrong_token_and_no_server_are_one_line(
    clone: Path, head: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letters").touch()
    code, out, _ = submitted(clone, head[1], f"--into={tmp_path / 'home'}")
    assert code == 2 and f"error: {tmp_path / 'home'} holds files that are not from a submission" in out
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["letters"]
    code, _, err = submitted(clone, {**head[1], TOKEN: "b" * 64})
    assert code == 2 and "its token is another" in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("address", "message"),
    [(f"http://127.0.0.1:{free_port()}", "no Ray cluster takes jobs at"), ("", "no cluster is named to submit to")],
    ids=["nobody listens", "none named"],
)
def test_no_server_is_one_line(clone: Path, address: str, message: str) -> None:
    variables = {name: text for name, text in os.environ.items() if not name.startswith("RAY_")}
    code, out, err = submitted(clone, {**variables, "RAY_API_SERVER_ADDRESS": address})
    assert (code, out) == (2, "") and message in err.splitlines()[-1] and "Traceback" not in err
