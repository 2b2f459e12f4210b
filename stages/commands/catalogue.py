"""What there is to choose from: attention modules, backbones and data sets, with what they cost or lack."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.schema import Dataset, Decode, Params

if TYPE_CHECKING:
    from pipeline.datasets import Plugin


_DECODE = Decode(short_side=1, quality=1, decoder="ffmpeg", videos_per_shard=1, max_failed=0.0)


@dataclass(frozen=True)
class Model:
    kind: str  # "attention" or "backbone"
    name: str
    variants: tuple[str, ...]  # of a backbone
    about: str  # the first line of its file


@dataclass(frozen=True)
class RowCost:
    """Parameters, and multiply-accumulates of one view under the row's protocol; or why they aren't known."""

    row: str
    parameters: int | None
    macs: int | None
    error: str = ""


@dataclass(frozen=True)
class Data:
    """A data set file, and the data set of params.yaml or conf/dataset/ that uses it, if any."""

    name: str
    file: str
    classes: int | None
    official: dict[int, dict[str, int]]  # split -> part -> clips, as published
    unlabelled: int  # clips of the official test list, where it came without labels
    found: dict[int, dict[str, int]]  # split -> part -> clips of the split tables that are there
    download: int | None  # bytes, as the makers print them
    bytes: int | None  # of the videos that are there
    licence: str
    homepage: str
    state: str  # e.g. "ready: 880 videos", "partial: 900 of 928 videos", "missing"
    todo: str = ""  # what the user has to do, and where


def models() -> list[Model]:
    from models.registry import KINDS, known, named

    modules = [(kind, name, named(kind, name)) for kind in KINDS for name in known(kind)]
    return [
        Model(kind, name, tuple(getattr(module, "VARIANTS", ())), (module.__doc__ or "").strip().partition("\n")[0])
        for kind, name, module in modules
    ]


def costs(params: Params, data: Path) -> list[RowCost]:
    """Costs of every row, counted on a net that has shapes but no values."""
    from models import costs
    from stages.repro.estimate import built, net

    found = []
    for row, experiment in params.experiments.items():
        recipe, protocol = asdict(params.recipe(experiment)), params.protocols[experiment.protocol]
        classes = class_count(params.datasets[experiment.dataset], data / "splits" / experiment.dataset)
        try:
            made = built(wanted := net(asdict(experiment), recipe, protocol.size), classes or 1)
            made.retime(frames := protocol.frames or wanted.frames)
            macs = costs.macs(made, (1, frames, wanted.planes, wanted.size, wanted.size))
            found.append(RowCost(row, costs.parameters(made) if classes else None, macs))
        except ValueError as error:
            found.append(RowCost(row, None, None, str(error)))
    return found


def datasets(params: Params, data: Path) -> list[Data]:
    """Every data set of params.yaml, then those of conf/dataset/, then the files that none of them uses."""
    import pkgutil

    import pipeline.datasets

    settings = {**_composable(), **params.datasets}
    used = [_data(name, setting, data) for name, setting in settings.items()]
    files = [module.name for module in pkgutil.iter_modules(pipeline.datasets.__path__)]
    unused = [file for file in files if file not in {setting.file for setting in settings.values()}]
    return used + [_unused(file) for file in unused]


def class_count(dataset: Dataset, splits: Path) -> int | None:
    """Classes of the split tables, else of the data set's file; None where only the user's data can tell."""
    import json

    from pipeline.datasets import loaded
    from pipeline.errors import reading

    if (path := splits / "classes.json").is_file():
        with reading(path, f"`dvc repro -f splits@{splits.name}` makes it again"):
            return len(json.loads(path.read_text(encoding="utf-8")))
    return _classes(loaded(dataset.file))


def _classes(plugin: Any) -> int | None:
    names = getattr(plugin, "CLASSES", None)
    return len(names) if names else getattr(plugin, "CLASSES_LISTED", None)


def _data(name: str, setting: Dataset, data: Path) -> Data:
    from pipeline.datasets import loaded
    from pipeline.download import sources
    from pipeline.errors import UserError

    plugin, splits, manifest = loaded(setting.file), data / "splits" / name, data / "raw" / name / "manifest.csv"
    try:
        entries = sources.read(manifest) if manifest.is_file() else None
        there = {entry.video for entry in entries or ()}
        state = _indexed(name, setting, plugin, data, there) if entries else _state(name, setting, plugin, data)
    except UserError as error:
        entries, there, state = None, set(), ("not as it should be", str(error))
    return Data(
        name,
        setting.file,
        class_count(setting, splits),
        plugin.COUNTS,
        getattr(plugin, "UNLABELLED", 0),
        {number: _parts(path, there) for number, path in _tables(splits).items()},
        getattr(plugin, "SIZE", None),
        sum(entry.bytes for entry in entries) if entries else None,
        plugin.LICENCE,
        plugin.HOMEPAGE,
        *state,
    )


def _unused(file: str) -> Data:
    from pipeline.datasets import loaded

    plugin = loaded(file)
    todo = f"give it an entry in conf/dataset/ with `file: {file}` and, as its source, {plugin.LAYOUT}"
    unlabelled, size = getattr(plugin, "UNLABELLED", 0), getattr(plugin, "SIZE", None)
    classes, terms = _classes(plugin), (plugin.LICENCE, plugin.HOMEPAGE)
    return Data(file, file, classes, plugin.COUNTS, unlabelled, {}, size, None, *terms, "no entry", todo)


def _state(name: str, setting: Dataset, plugin: "Plugin", data: Path) -> tuple[str, str]:
    """Data.state and Data.todo before the download stage; UserError where videos lie otherwise than expected."""
    from pipeline.config import places

    if setting.source == "generated":
        return _drawable(setting, plugin)
    if "://" in setting.source:
        return f"not downloaded yet, from {setting.source.partition('#')[0]}", ""
    folder = places.located(setting, Path(), data / "videos" / name)
    listed = _listed_officially(plugin.COUNTS)
    if folder.is_dir():
        count = len(plugin.videos(folder, setting.options))
        if count:
            todo = f"complete {setting.source}: {plugin.LAYOUT}" if count < listed else ""
            return f"{'partial' if todo else 'not indexed yet'}: {count} of {max(count, listed)} videos", todo
    elif Path(setting.source).expanduser().is_file():
        return f"not unpacked yet, from {setting.source}", ""
    where = f"{setting.source}, or name another place as datasets.{name}.source"
    return "missing", f"{_fetch(plugin)}put it at {where}: {plugin.LAYOUT}"


def _drawable(setting: Dataset, plugin: Any) -> tuple[str, str]:
    """The same of a set whose videos are made here, perhaps from files that the user has to fetch."""
    from pipeline.errors import UserError

    try:
        plugin.plan(setting.options)
    except UserError as error:
        return "missing", f"{_fetch(plugin)}{error}"
    return "not drawn yet", ""


def _fetch(plugin: Any) -> str:
    what = getattr(plugin, "FETCH", None)
    return f"fetch {what}; " if what else ""


def _indexed(name: str, setting: Dataset, plugin: "Plugin", data: Path, there: set[str]) -> tuple[str, str]:
    """The same after the download stage, and after the splits stage of what the lists have."""
    listed = {video for path in _tables(data / "splits" / name).values() for video, _ in _rows(path)}
    whole = len(listed) or max(_listed_officially(plugin.COUNTS), len(there))
    count = len(listed & there) if listed else len(there)
    todo, state = "", f"ready: {len(there)} videos"
    if count < whole:
        names = f"; {data}/splits/{name}/absent.csv names what lacks" if listed else ""
        state, todo = f"partial: {count} of {whole} videos", f"complete {setting.source}{names}"
    failed = data / "frames" / name / "failed.csv"
    bad = max(0, failed.read_bytes().count(b"\n") - 1) if failed.is_file() else 0
    return f"{state}, {bad} of them can't be decoded" if bad else state, todo


def _tables(splits: Path) -> dict[int, Path]:
    """The split tables that are there, by number."""
    return dict(sorted((int(path.stem.removeprefix("split-")), path) for path in splits.glob("split-*.parquet")))


def _parts(path: Path, there: set[str]) -> dict[str, int]:
    """Clips of each part of a split that are there."""
    from collections import Counter

    return dict(Counter(part for video, part in _rows(path) if video in there))


def _listed_officially(counts: dict[int, dict[str, int]]) -> int:
    """Videos that a data set has at least: the most that one of its splits lists."""
    return max((sum(parts.values()) for parts in counts.values()), default=0)


def _rows(path: Path) -> list[tuple[str, str]]:
    """(video, part) of each row of a split."""
    import pyarrow.parquet

    from pipeline.errors import reading

    with reading(path, f"`dvc repro -f splits@{path.parent.name}` makes it again"):
        table = pyarrow.parquet.read_table(path, columns=["video", "part"])
    return list(zip(table["video"].to_pylist(), table["part"].to_pylist(), strict=True))


def _composable() -> dict[str, Dataset]:
    """Data sets of conf/dataset/ that a suite may choose; a file that is none is passed over, for Hydra complains."""
    from pydantic import TypeAdapter, ValidationError
    from ruamel.yaml import YAML, YAMLError

    found: dict[str, Dataset] = {}
    for path in sorted(Path("conf/dataset").glob("*.yaml")):
        try:
            raw: Any = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
            # How it is decoded may come from a suite or tier, and does not matter here.
            found[path.stem] = TypeAdapter(Dataset).validate_python({**raw, "decode": _DECODE}, strict=False)
        except (TypeError, ValidationError, YAMLError):
            continue
    return found
