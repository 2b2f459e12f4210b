"""Stages' params, with files that they name reduced to their content.

The user's videos count by a listing (names, sizes, times), because hashing takes long. Lists, weights and scores from
outside count by sha256, unless a row writes them. A file that is gone counts as last seen, so that results outlive
their source files.
"""

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline import datasets
from pipeline.config import places, pretrained
from pipeline.config.schema import Dataset, Params
from pipeline.digest.files import sha256
from pipeline.errors import UserError
from pipeline.storage import atomic, notes

Facts = dict[str, Any] | None  # None: the files are gone
# The params that tables depend on.
TABLES = ("suite", "tables", "experiments", "fusions", "trajectories", "protocols", "recipes", "tier")
ROW = ("backbone", "variant", "attention", "knobs", "splits", "seeds")  # an experiment's, for training and evaluation
FOLDER = Path("reports/inputs")  # in git: `dvc exp show` and `dvc params diff` then find a commit's params in any clone
ABSENT = {"absent": True}
NO_FILE = "absent"  # in place of a sha256
UNREADABLE = {"unreadable": True}  # the stage that reads it reports the reason


@dataclass
class Memo:
    """The last known sha256 of files, read again if size, times or inode change."""

    path: Path
    seen: dict[str, tuple[list[int], str]] = field(default_factory=dict)  # path -> its facts, its sha256
    changed: bool = False

    def __post_init__(self) -> None:
        seen = (notes.read(self.path) or {}).get("seen")
        self.seen = seen if isinstance(seen, dict) else {}

    def sha256(self, path: Path) -> str:
        """Return the file's sha256; if it can't be read the path's last one, or NO_FILE."""
        name = str(path.absolute())
        facts, digest = self.seen.get(name, ([], NO_FILE))
        with suppress(OSError):
            status = path.stat()
            now = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
            if now != facts:
                digest = sha256(path)
                self.seen[name], self.changed = (now, digest), True
        return digest

    def save(self) -> None:
        if self.changed:
            notes.write(self.path, {"seen": self.seen})


def write(params: Params, root: Path, data: Path) -> None:
    """Write the inputs below reports/inputs; unchanged files are left as they are.

    Args:
        params: The params to take the inputs from.
        root: The folder of params.yaml and of FOLDER, the base of relative paths.
        data: The folder that holds videos/<data set> and work/.
    """
    folder, memo = root / FOLDER, Memo(data / "work" / "inputs.json")
    texts = {folder / path: json.dumps(content) + "\n" for path, content in taken(params, root, data, memo).items()}
    memo.save()
    for path, text in texts.items():
        if not path.is_file() or path.read_bytes() != text.encode():
            atomic.write(path, text)
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path not in texts:
            path.unlink()


def settings(params: Params, root: Path) -> dict[str, dict[str, Any]]:
    """Return path below reports/inputs -> a stage's params, as in params.yaml.

    Each row and data set has a small file: DVC walks a whole file for every param that a stage depends on.
    """
    raw = YAML(typ="safe").load((root / "params.yaml").read_text(encoding="utf-8"))
    for name, row in params.experiments.items():  # a default counts as if it were written
        written = raw["experiments"][name]
        defaults = {key: value for key, value in asdict(row).items() if key not in written}
        raw["experiments"][name] = {**written, **json.loads(json.dumps(defaults))}
    for dataset in raw["datasets"].values():
        dataset.setdefault("direction", False)
    parts = {f"datasets/{name}.json": {"datasets": name} for name in params.datasets}
    for name, row in params.experiments.items():
        parts[f"rows/{name}.json"] = {"experiments": name, "recipes": str(row.recipe), "protocols": row.protocol}
    parts |= {f"trajectories/{name}.json": {"trajectories": name} for name in params.trajectories}
    raw["recipes"] = {"None": None, **raw["recipes"]}  # DVC's name for the recipe of a row that has none
    files = {path: {kind: {name: raw[kind][name]} for kind, name in part.items()} for path, part in parts.items()}
    for name in params.experiments:  # recipe and protocol are separate keys, and weights count by content
        row = files[f"rows/{name}.json"]["experiments"][name]
        files[f"rows/{name}.json"]["experiments"] = {name: {field: row[field] for field in ROW}}
    for name in params.datasets:
        files[f"datasets/{name}.json"]["tier"] = {"subset": (raw.get("tier") or {}).get("subset")}
    del raw["recipes"]["None"]
    return {**files, "suite.json": {name: raw.get(name) or {} for name in TABLES}}


def taken(params: Params, root: Path, data: Path, memo: Memo) -> dict[str, dict[str, Any]]:
    """Return settings() with the facts of the files that they name."""
    taken = settings(params, root)
    for name, dataset in params.datasets.items():
        path = f"datasets/{name}.json"
        source = _source(dataset, root, memo)
        lists = _lists(dataset, source, root, data / "videos" / name, memo)
        if source is not None and lists is not None and params.tier.subset:  # the lists choose the videos
            source = source | lists
        last = _last(root / FOLDER / path)
        taken[path]["videos"] = last.get("videos", ABSENT) if source is None else source
        taken[path]["lists"] = last.get("lists", ABSENT) if lists is None else lists
    for name, row in params.experiments.items():
        taken[f"rows/{name}.json"]["weights"] = weights(row.weights, root, memo)
    ours = (root / data / "predictions").absolute()  # which the tables depend on already
    taken["suite.json"]["outside"] = {
        name: [
            [weight, None if path.is_relative_to(ours) else memo.sha256(path)]
            for path, weight in ((root.absolute() / path, weight) for path, weight in fusion.outside.items())
        ]
        for name, fusion in params.fusions.items()
    }
    return taken


def weights(source: str | None, root: Path, memo: Memo) -> str | None:
    """Return a row's weights' sha256; NO_FILE if never seen, None without weights."""
    if source is None:
        return None
    if places.remote(source):
        return source.partition("#sha256=")[2].lower()
    return memo.sha256(pretrained.located(source, root))


def _source(dataset: Dataset, root: Path, memo: Memo) -> Facts:
    """Return the facts of a data set's videos before they are fetched."""
    plugin = datasets.loaded(dataset.file)
    if dataset.source == "generated":
        drawn_from = getattr(plugin, "drawn_from", None)
        paths = [root / path for path in drawn_from(dataset.options)] if drawn_from else []
        return {"drawn from": {path.name: memo.sha256(path) for path in paths}}
    local = places.local(dataset, root)
    if local is None:
        return {"sha256": dataset.source.partition("#sha256=")[2].lower()}
    if not local.exists():
        return None
    if local.is_file():
        return {"archive": _facts(local)}

    @cache  # several videos of a folder of frames may be ranges
    def facts(path: str) -> tuple[int, int]:
        return _facts(local / path)

    try:
        videos = [(*video, *facts(video.path)) for video in sorted(plugin.videos(local, dataset.options))]
    except (UserError, OSError):
        return UNREADABLE
    return {"videos": len(videos), "listing": hashlib.sha256(json.dumps(videos).encode()).hexdigest()}


def _lists(dataset: Dataset, source: Facts, root: Path, videos: Path, memo: Memo) -> Facts:
    """Return the facts of a data set's lists, or the videos' if lists come with them."""
    local = places.local(dataset, root)
    if dataset.lists is None and not (local and local.is_dir()):
        return source
    folder = places.lists(dataset, root, videos)
    if not folder.is_dir():
        return None
    patterns = datasets.loaded(dataset.file).READS
    paths = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
    lists = {path.relative_to(folder).as_posix(): memo.sha256(path) for path in paths}
    return {"lists": lists} | (source if source and local is None else {})


def _last(path: Path) -> dict[str, Any]:
    """Return the inputs written last; empty if absent or damaged."""
    return notes.read(path) or {}


def _facts(path: Path) -> tuple[int, int]:
    """Return a file's size and time of change; a folder's is that of its entries."""
    status = path.stat()
    return 0 if path.is_dir() else status.st_size, status.st_mtime_ns
