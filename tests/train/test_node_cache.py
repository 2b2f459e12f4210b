"""A node stores each file of a store once, by content and complete."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

from cluster.fit import train_run
from cluster.score import block, blocks
from pipeline.digest import state
from pipeline.storage.atomic import write
from pipeline.storage.remote import Remote
from pipeline.train import node_cache
from tests.support.machines.bucket import S3, names, one_line
from tests.support.trainings import folder, tiny_run, trained, training


def test_a_node_without_the_data_trains_and_scores(store: Remote, data: Path, tmp_path: Path) -> None:
    one = tiny_run(data, epochs=1)
    there = training(one, folder(one, S3), S3)
    here = node_cache.sent([one], S3)[0]
    shutil.move(data / "frames", tmp_path / "away")
    train_run(replace(there, run=here))
    shutil.move(tmp_path / "away", data / "frames")
    write(one.weights, trained(there))
    todo = blocks(node_cache.sent([one], S3, [one.weights]), S3)
    for name in ("frames", "splits", "runs"):
        shutil.move(data / name, tmp_path / f"{name} away")
    for item in todo:
        block(*item)
        assert state.get(item[3], item[1]) and not state.get(item[3], "of another checkpoint")


def test_a_file_is_sent_once_and_a_changed_one_again(store: Remote, tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"one")
    (tmp_path / "empty").write_bytes(b"")
    files = {"x/a": file, "x/b": file, "x/empty": tmp_path / "empty"}
    node_cache.publish(store, files, "first")
    sent = names()
    assert len(sent) == 3
    node_cache.publish(store, files, "first")
    assert names() == sent
    file.write_bytes(b"two")
    node_cache.publish(store, files, "second")
    assert len(names()) == 5
    for key, content in (("first", b"one"), ("second", b"two")):
        copy = node_cache.opened(store, key)
        copy.fetch(lambda name: True)
        assert [(copy.folder / name).read_bytes() for name in files] == [content, content, b""]


def test_damage_is_found_and_mended(store: Remote, tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(os.urandom(100))
    node_cache.publish(store, {"a": file}, "key")
    copy = node_cache.opened(store, "key")
    (origin,) = (store / ".data" / "objects").glob("*")
    origin.write_bytes(bytes(100))
    assert one_line(lambda: copy.fetch(lambda name: True)).startswith(f"{origin} is damaged; remove it")
    assert not (copy.folder / "a").exists()
    origin.unlink()
    assert "is gone" in one_line(lambda: copy.fetch(lambda name: True))
    node_cache.publish(store, {"a": file}, "key")
    copy.fetch(lambda name: True)
    assert (copy.folder / "a").read_bytes() == file.read_bytes()
    (copy.folder / "a").write_bytes(b"changed by somebody")  # through the link: a node's own copy
    copy.fetch(lambda name: True)
    assert (copy.folder / "a").read_bytes() == file.read_bytes()
