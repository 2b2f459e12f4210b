"""What there is to choose from: attention modules, backbones and data sets, with what they cost or lack."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.schema import Dataset, Params

if TYPE_CHECKING:
    from pipeline.datasets import Plugin


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
    found: dict[int, dict[str, int]]  # as in the split tables
    licence: str
    state: str  # e.g. "ready: 880 videos", "partial: 900 of 928 videos", "missing"
    todo: str = ""  # what the user has to do, and where


def models() -> list[Model]:
    from models.named import KINDS, known, named

    modules = [(kind, name, named(kind, name)) for kind in KINDS for name in known(kind)]
    return [
        Model(kind, name, tuple(getattr(module, "VARIANTS", ())), (module.__doc__ or "").strip().partition("\n")[0])
        for kind, name, module in modules
    ]


def costs(params: Params, data: Path) -> list[RowCost]:
    """Costs of every row, counted on a net that has shapes but no values."""
    from models import costs
    from stages.estimate import built, net

    found = []
    for row, experiment in params.experiments.items():
        recipe, protocol = asdict(params.recipes[experiment.recipe]), params.protocols[experiment.protocol]
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

    if (splits / "classes.json").is_file():
        return len(json.loads((splits / "classes.json").read_text(encoding="utf-8")))
    names = getattr(loaded(dataset.file), "CLASSES", None)
    return len(names) if names else None


def _data(name: str, setting: Dataset, data: Path) -> Data:
    from pipeline.datasets import loaded
    from stages.estimate import videos

    plugin, splits = loaded(setting.file), data / "splits" / name
    numbers = sorted(int(path.stem.removeprefix("split-")) for path in splits.glob("split-*.parquet"))
    return Data(
        name,
        setting.file,
        class_count(setting, splits),
        plugin.COUNTS,
        {number: videos(splits, number) for number in numbers},
        plugin.LICENCE,
        *_state(name, setting, plugin, data),
    )


def _unused(file: str) -> Data:
    from pipeline.datasets import loaded

    plugin = loaded(file)
    classes = getattr(plugin, "CLASSES", None)
    todo = f"give it an entry in conf/dataset/ with `file: {file}` and, as its source, {plugin.LAYOUT}"
    return Data(file, file, len(classes) if classes else None, plugin.COUNTS, {}, plugin.LICENCE, "no entry", todo)


def _state(name: str, setting: Dataset, plugin: "Plugin", data: Path) -> tuple[str, str]:
    """Data.state and Data.todo."""
    from pipeline import sources

    if (data / "raw" / name / "manifest.csv").is_file():
        return _indexed(name, data), ""
    if setting.source == "generated":
        return "not drawn yet", ""
    if "://" in setting.source:
        return f"not downloaded yet, from {setting.source.partition('#')[0]}", ""
    folder = sources.located(setting, Path(), data / "videos" / name)
    if folder.is_dir():
        count, listed = len(plugin.videos(folder, setting.options)), _listed_officially(plugin.COUNTS)
        todo = f"complete {setting.source}: {plugin.LAYOUT}" if count < listed else ""
        return f"{'partial' if todo else 'not indexed yet'}: {count} of {listed or count} videos", todo
    if Path(setting.source).expanduser().is_file():
        return f"not unpacked yet, from {setting.source}", ""
    return "missing", f"put it at {setting.source}: {plugin.LAYOUT}"


def _indexed(name: str, data: Path) -> str:
    from pipeline import sources

    there = {entry.video for entry in sources.read(data / "raw" / name / "manifest.csv")}
    listed = {video for path in (data / "splits" / name).glob("split-*.parquet") for video in _listed(path)}
    lost, failed = len(listed - there), data / "frames" / name / "failed.csv"
    bad = max(0, failed.read_text(encoding="utf-8").count("\n") - 1) if failed.is_file() else 0
    state = f"partial: {len(listed) - lost} of {len(listed)} videos" if lost else f"ready: {len(there)} videos"
    return f"{state}, {bad} of them can't be decoded" if bad else state


def _listed_officially(counts: dict[int, dict[str, int]]) -> int:
    """Videos that a data set has at least: the most that one of its splits lists."""
    return max((sum(parts.values()) for parts in counts.values()), default=0)


def _listed(path: Path) -> list[str]:
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path, columns=["video"])["video"].to_pylist()


def _composable() -> dict[str, Dataset]:
    """Data sets of conf/dataset/ that a suite may choose; a file that is none is passed over, for Hydra complains."""
    from pydantic import TypeAdapter, ValidationError
    from ruamel.yaml import YAML, YAMLError

    found: dict[str, Dataset] = {}
    for path in sorted(Path("conf/dataset").glob("*.yaml")):
        try:
            raw: Any = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
            found[path.stem] = TypeAdapter(Dataset).validate_python(raw, strict=False)
        except (ValidationError, YAMLError):
            continue
    return found
