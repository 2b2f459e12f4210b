"""Attention modules, backbones and data sets to choose from, with costs and state."""

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
    about: str  # the first line of its docstring


@dataclass(frozen=True)
class RowCost:
    """Costs of a row: parameters, MACs of a view under its protocol, or an error."""

    row: str
    parameters: int | None
    macs: int | None
    error: str = ""


@dataclass(frozen=True)
class Data:
    """A data set file, with an entry of params.yaml or conf/dataset/ that uses it."""

    name: str
    file: str
    classes: int | None
    official: dict[int, dict[str, int]]  # split -> part -> clips, as published
    unlabelled: int  # clips of an official test list without labels
    found: dict[int, dict[str, int]]  # split -> part -> present clips
    download: int | None  # bytes, as published
    bytes: int | None  # of the present videos
    licence: str
    homepage: str
    state: str  # e.g. "ready: 880 videos", "partial: 900 of 928 videos", "missing"
    todo: str = ""  # for the user


def models() -> list[Model]:
    from models.registry import KINDS, known, named

    modules = [(kind, name, named(kind, name)) for kind in KINDS for name in known(kind)]
    return [
        Model(kind, name, tuple(getattr(module, "VARIANTS", ())), (module.__doc__ or "").strip().partition("\n")[0])
        for kind, name, module in modules
    ]


def costs(params: Params, data: Path) -> list[RowCost]:
    """Count the costs of every row on nets without values."""
    from models import costs
    from stages.repro.estimate import built, net

    rows = []
    for row, experiment in params.experiments.items():
        recipe, protocol = asdict(params.recipe(experiment)), params.protocols[experiment.protocol]
        classes = class_count(params.datasets[experiment.dataset], data / "splits" / experiment.dataset)
        try:
            built_net = built(shape := net(asdict(experiment), recipe, protocol.size), classes or 1)
            built_net.retime(frames := protocol.frames or shape.frames)
            macs = costs.macs(built_net, (1, frames, shape.planes, shape.size, shape.size))
            rows.append(RowCost(row, costs.parameters(built_net) if classes else None, macs))
        except ValueError as error:
            rows.append(RowCost(row, None, None, str(error)))
    return rows


def datasets(params: Params, data: Path) -> list[Data]:
    """Return the data sets of params.yaml and conf/dataset/, then unused files."""
    import pkgutil

    import pipeline.datasets

    settings = {**_composable(), **params.datasets}
    used = [_data(name, setting, data) for name, setting in settings.items()]
    files = [module.name for module in pkgutil.iter_modules(pipeline.datasets.__path__)]
    unused = [file for file in files if file not in {setting.file for setting in settings.values()}]
    return used + [_unused(file) for file in unused]


def class_count(dataset: Dataset, splits: Path) -> int | None:
    """Count classes by the split tables or the data set's file; None if unknown."""
    import json

    from pipeline import direction
    from pipeline.datasets import loaded
    from pipeline.errors import reading

    if (path := splits / "classes.json").is_file():
        with reading(path, f"`dvc repro -f splits@{splits.name}` restores it"):
            return len(json.loads(path.read_text(encoding="utf-8")))
    return len(direction.CLASSES) if dataset.direction else _classes(loaded(dataset.file))


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
        present = {entry.video for entry in entries or ()}
        state = _indexed(name, setting, plugin, data, present) if entries else _state(name, setting, plugin, data)
    except UserError as error:
        entries, present, state = None, set(), ("unexpected layout", str(error))
    return Data(
        name,
        setting.file,
        class_count(setting, splits),
        plugin.COUNTS,
        getattr(plugin, "UNLABELLED", 0),
        {number: _parts(path, present) for number, path in _tables(splits).items()},
        getattr(plugin, "SIZE", None),
        sum(entry.bytes for entry in entries) if entries else None,
        plugin.LICENCE,
        plugin.HOMEPAGE,
        *state,
    )


def _unused(file: str) -> Data:
    from pipeline.datasets import loaded

    plugin = loaded(file)
    todo = f"add an entry to conf/dataset/ with `file: {file}` and, as its source, {plugin.LAYOUT}"
    unlabelled, size = getattr(plugin, "UNLABELLED", 0), getattr(plugin, "SIZE", None)
    classes, terms = _classes(plugin), (plugin.LICENCE, plugin.HOMEPAGE)
    return Data(file, file, classes, plugin.COUNTS, unlabelled, {}, size, None, *terms, "no entry", todo)


def _state(name: str, setting: Dataset, plugin: "Plugin", data: Path) -> tuple[str, str]:
    """Return Data.state and Data.todo before the download stage.

    Raises:
        UserError: The videos have an unexpected layout.
    """
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
    """Return the same for a set that is drawn, perhaps from files of the user."""
    from pipeline.errors import UserError

    try:
        plugin.plan(setting.options)
    except UserError as error:
        return "missing", f"{_fetch(plugin)}{error}"
    return "not drawn yet", ""


def _fetch(plugin: Any) -> str:
    what = getattr(plugin, "FETCH", None)
    return f"fetch {what}; " if what else ""


def _indexed(name: str, setting: Dataset, plugin: "Plugin", data: Path, present: set[str]) -> tuple[str, str]:
    """Return the same after the download stage, and after the splits stage."""
    listed = {video for path in _tables(data / "splits" / name).values() for video, _ in _rows(path)}
    whole = len(listed) or max(_listed_officially(plugin.COUNTS), len(present))
    count = len(listed & present) if listed else len(present)
    todo, state = "", f"ready: {len(present)} videos"
    if count < whole:
        names = f"; {data}/splits/{name}/absent.csv lists the missing videos" if listed else ""
        state, todo = f"partial: {count} of {whole} videos", f"complete {setting.source}{names}"
    failed = data / "frames" / name / "failed.csv"
    bad = max(0, failed.read_bytes().count(b"\n") - 1) if failed.is_file() else 0
    return f"{state}, {bad} of them can't be decoded" if bad else state, todo


def _tables(splits: Path) -> dict[int, Path]:
    """Return the existing split tables by number."""
    return dict(sorted((int(path.stem.removeprefix("split-")), path) for path in splits.glob("split-*.parquet")))


def _parts(path: Path, present: set[str]) -> dict[str, int]:
    """Count the present clips of each part of a split."""
    from collections import Counter

    return dict(Counter(part for video, part in _rows(path) if video in present))


def _listed_officially(counts: dict[int, dict[str, int]]) -> int:
    """Return a lower bound of a data set's videos: the longest list of its splits."""
    return max((sum(parts.values()) for parts in counts.values()), default=0)


def _rows(path: Path) -> list[tuple[str, str]]:
    """Return (video, part) of each row of a split."""
    import pyarrow.parquet

    from pipeline.direction import source
    from pipeline.errors import reading

    with reading(path, f"`dvc repro -f splits@{path.parent.name}` restores it"):
        table = pyarrow.parquet.read_table(path, columns=["video", "part"])
    return list(zip(map(source, table["video"].to_pylist()), table["part"].to_pylist(), strict=True))


def _composable() -> dict[str, Dataset]:
    """Return the data sets of conf/dataset/; invalid files are left to Hydra."""
    from pydantic import TypeAdapter, ValidationError
    from ruamel.yaml import YAML, YAMLError

    settings: dict[str, Dataset] = {}
    for path in sorted(Path("conf/dataset").glob("*.yaml")):
        try:
            raw: Any = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
            # `decode` may come from a suite or tier; it is irrelevant here.
            settings[path.stem] = TypeAdapter(Dataset).validate_python({**raw, "decode": _DECODE}, strict=False)
        except (TypeError, ValidationError, YAMLError):
            continue
    return settings
