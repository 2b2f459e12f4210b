"""Frame stores of the ten videos of conftest.py."""

from hashlib import sha256
from pathlib import Path

from pipeline.config.schema import Decode
from pipeline.decode.shards import Source, Task, decode_shard, finish, plan

SETTINGS = Decode(32, 90, "ffmpeg", 4, 0.5)
BAD = {"run/cut", "sit/text"}


def sources(root: Path) -> list[Source]:
    paths = sorted(root.glob("*/*.mp4"))
    names = [path.relative_to(root).as_posix() for path in paths]
    return [
        Source(name.removesuffix(".mp4"), name, sha256(path.read_bytes()).hexdigest())
        for name, path in zip(names, paths, strict=True)
    ]


def decoded(folder: Path, root: Path, settings: Decode = SETTINGS) -> list[Task]:
    tasks = plan(folder, root, sources(root), settings)
    for task in tasks:
        decode_shard(task)
    finish(folder, tasks)
    return tasks


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
