"""cluster.storage in an S3-compatible store (moto's server): same bytes as a folder, and failures."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import ray
import requests

from cluster.fit import fit, forget, train_run
from cluster.preflight import ask, differences, facts
from cluster.score import score
from cluster.session import session
from pipeline.config.schema import Cluster
from pipeline.evaluate import inference
from pipeline.storage import remote
from pipeline.storage.remote import Remote, place, remove
from pipeline.train import loop
from tests.support import trainings
from tests.support.machines import preflight
from tests.support.machines.bucket import S3, SECRET, names, one_line
from tests.support.trainings import folder, tiny_run, trained

ROOT = Path(__file__).parents[2]


def test_it_is_used_as_a_path_is(store: Remote) -> None:
    one = store / "a" / "b.txt"
    assert str(one) == "s3://there/work/a/b.txt" and one.name == "b.txt"
    assert not one.exists() and not (store / "a").exists()
    for reading in (one.read_bytes, one.unlink):
        with pytest.raises(FileNotFoundError):
            reading()
    one.unlink(missing_ok=True)
    large = os.urandom(12 << 20)  # which goes in several parts
    for content in (b"", b"first", large):
        one.write_bytes(content)
        assert one.read_bytes() == content and one.exists()
    (store / "b").write_bytes(b"12")
    assert store.sizes() == {"b": 2} and (store / "a").glob("b.*") == [one] and (store / "c").glob("*") == []
    remove(store / "a")
    remove(store / "a")
    assert names() == {"work/b"}


def test_a_folder_and_a_store_give_the_same_bytes(store: Remote, data: Path, tmp_path: Path) -> None:
    """The tasks run on Ray, and no file, including Ray's logs, contains a secret."""
    one, actual = tiny_run(data), []
    with session(S3):
        for cluster in (Cluster(storage=str(tmp_path / "folder")), S3):
            fit([one], None, cluster, lambda: None)
            target = tmp_path / "predictions.parquet"
            inference.gather([one], score([one], cluster), target)
            actual.append((one.weights.read_bytes(), target.read_bytes()))
        kept = folder(one, S3).path.removeprefix("there/")
        assert {f"{kept}/{name}" for name in ("state.pt", "weights.pt", "log.jsonl")} <= names()
        forget([one], None, S3)
        assert all(name.startswith("work/.data/") for name in names())
        assert ask(S3) == (1, []) and not any("preflight" in name for name in names())
        logs = Path(ray._private.worker._global_node.get_session_dir_path())
        texts = [path for folder in (logs, tmp_path) for path in folder.rglob("*") if path.is_file()]
        assert len(texts) > 10 and not [path for path in texts if SECRET.encode() in path.read_bytes()]
    assert actual[0] == actual[1]
    assert not [name for name in names() if SECRET in name]


TRAIN = """
from pathlib import Path
from cluster.fit import train_run
from tests.support.machines.bucket import S3
from tests.support.trainings import folder, tiny_run, training
one = tiny_run(Path({data!r}), epochs={epochs})
train_run(training(one, folder(one, S3), S3))
"""


def test_a_killed_training_resumes_from_the_store(
    store: Remote, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = tiny_run(data, epochs=12)
    kept_in = folder(one, S3)
    command = [sys.executable, "-c", TRAIN.format(data=str(data), epochs=12)]
    killed = subprocess.Popen(command, cwd=ROOT)
    while not (kept_in / "log.jsonl").exists():
        assert killed.poll() is None
        time.sleep(0.01)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    kept = (kept_in / "log.jsonl").read_text().count('"kind": "epoch"')
    assert 1 <= kept < 12 and not (kept_in / "weights.pt").exists()
    epochs, done = loop.epochs, []

    def counted(*given: Any) -> Iterator[loop.Epoch]:
        for epoch in epochs(*given):
            done.append(epoch.number)
            yield epoch

    monkeypatch.setattr(loop, "epochs", counted)
    ours = trainings.training(one, kept_in, S3)
    train_run(ours)
    assert len(done) <= 12 - kept  # the state may be an epoch ahead of the log
    whole = trainings.training(one, tmp_path / "whole")
    train_run(whole)
    assert trained(ours) == trained(whole)


@pytest.fixture
def gone(monkeypatch: pytest.MonkeyPatch) -> str:
    """Return an address without a server, which the first try detects."""
    monkeypatch.setattr(remote, "TRIES", 1)
    return "http://127.0.0.1:9"


@pytest.fixture
def strict(endpoint: str) -> Iterator[None]:
    """Let the server check the keys."""
    requests.post(f"{endpoint}/moto-api/reset-auth", data="0")
    yield
    requests.post(f"{endpoint}/moto-api/reset-auth", data="inf")


def test_what_goes_wrong_is_one_line(store: Remote, data: Path, gone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = Cluster(storage="s3://absent/work")
    message = one_line(lambda: fit([tiny_run(data)], None, absent, lambda: None))
    assert message.startswith("s3://absent/work/") and "there is no bucket 'absent'; create it" in message
    assert "no bucket 'absent'" in one_line(lambda: ask(absent))
    monkeypatch.setenv("AWS_ENDPOINT_URL", gone)
    for work in (lambda: (store / "a").write_bytes(b""), (store / "a").read_bytes, (store / "a").exists, store.sizes):
        assert "nothing answers at 127.0.0.1:9; for a store other than AWS" in one_line(work)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://somebody:{SECRET}@127.0.0.1:9")
    one_line(store.sizes)


def test_wrong_keys_are_named(store: Remote, strict: None) -> None:
    for work in (lambda: (store / "a").write_bytes(b""), (store / "a").read_bytes, store.sizes, lambda: ask(S3)):
        assert "refuses it; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in one_line(work)


@pytest.mark.parametrize(
    "named",
    [f"s3://somebody:{SECRET}@there/work", f"s3://there/work?secret_key={SECRET}", "gs://there/work", "s3://"],
)
def test_a_place_of_another_kind_is_refused_without_being_repeated(named: str) -> None:
    assert one_line(lambda: place(named)).startswith("cluster.storage must be a folder, or s3://bucket/name")


def test_the_preflight_tells_a_node_that_sees_another_store(
    store: Remote, gone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (store / ".preflight-t").write_bytes(b"t")
    folders = {"storage": S3.storage}
    here = facts(folders, "t")
    assert here["storage"] == "shared" and len(store.glob(".preflight-t-*")) == 1
    assert "no such file, not shared as here" in differences(here, facts(folders, "u"))[0]
    monkeypatch.setenv("AWS_ENDPOINT_URL", gone)
    told = differences(here, facts(folders, "t"))
    assert len(told) == 1 and "nothing answers at 127.0.0.1:9" in told[0] and "in the environment of `ray st" in told[0]
    # What could not be looked at is no news where the code there differs.
    monkeypatch.setitem(sys.modules, "pipeline.storage.remote", None)
    there = {**facts(folders, "t"), "sources": "other"}
    assert [line.partition(" is ")[0] for line in differences(here, there)] == ["the project's code", "cluster.storage"]


@pytest.mark.slow
def test_two_workers_resume_from_the_store(store: Remote, data: Path, tmp_path: Path) -> None:
    one, actual = tiny_run(data, epochs=1), []
    with session(S3):
        for kept in (str(tmp_path / "folder"), S3.storage):
            fit([one], None, Cluster(workers=2, storage=kept), lambda: None)
            actual.append(one.weights.read_bytes())
            one.weights.unlink()
        key = f"{folder(one, S3).path}/state.pt".removeprefix("there/")
        state = boto3.client("s3").head_object(Bucket="there", Key=key)["LastModified"]
        fit([one], None, Cluster(workers=2, storage=S3.storage), lambda: None)
        again = boto3.client("s3").head_object(Bucket="there", Key=key)["LastModified"]
    assert actual[0] == actual[1] == one.weights.read_bytes() and state == again
    assert not [name for name in names() if name.startswith("work/.ray/")]


@pytest.mark.slow
def test_a_node_without_the_store_is_named(store: Remote, tmp_path: Path) -> None:
    """One of three real nodes uses another store; none of them sees data/."""
    head = preflight.project(tmp_path / "project")
    views = [(head, {}), (head, {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"})]
    with preflight.nodes(head, *views) as driver:
        count, seconds, *wrong = preflight.ask(head, driver, 3, S3.storage)
    assert count == "3" and len(wrong) == 1 and float(seconds) < 20
    assert wrong[0].startswith("node ") and "nothing answers at 127.0.0.1:9" in wrong[0]
    assert not any("preflight" in name for name in names()) and not (head / "data").exists()


@pytest.mark.slow
def test_dvc_pushes_and_pulls_by_the_same_variables(store: Remote, tmp_path: Path) -> None:
    def dvc(*arguments: str) -> None:
        subprocess.run([Path(sys.executable).parent / "dvc", *arguments, "-q"], cwd=tmp_path, check=True)

    dvc("init", "--no-scm")
    dvc("remote", "add", "-d", "team", "s3://there/work/dvc")
    (tmp_path / "a").write_text("content")
    dvc("add", "a")
    dvc("push")
    (tmp_path / "a").unlink()
    shutil.rmtree(tmp_path / ".dvc" / "cache")
    dvc("pull")
    assert (tmp_path / "a").read_text() == "content"
