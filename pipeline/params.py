"""params.yaml as frozen dataclasses; an unknown, missing or mistyped key is an error that names its neighbours."""

import difflib
import json
from dataclasses import field
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from ruamel.yaml import YAML, YAMLError

from models.named import known
from pipeline.errors import UserError

STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True, config=STRICT)
class Decode:
    """How videos become frames."""

    short_side: int  # pixels of the shorter side as stored; the longer keeps the aspect, rounded to even
    quality: int  # JPEG quality, 1 to 100
    decoder: Literal["ffmpeg", "decord"]
    videos_per_shard: int  # one shard is one task and the unit of resumption
    max_failed: float  # share of videos that may fail before the stage does


@dataclass(frozen=True, config=STRICT)
class Dataset:
    """One data set: where its videos come from and how they are decoded."""

    file: str  # pipeline/datasets/<file>.py
    source: str  # "generated", a URL, or a folder or archive the user has; relative to the project's root
    lists: str | None  # folder of the official list files, where they lie apart from the videos
    options: dict[str, Any]  # what only this data set knows, e.g. shapes' size
    decode: Decode


@dataclass(frozen=True, config=STRICT)
class Augment:
    """What training does to a clip; every frame of a clip gets the same."""

    crop: Literal["random", "corner", "resized", "center"]  # corner: TSN's, with `scales`; resized: by area 8 to 100 %
    scales: tuple[float, ...] = (1.0,)  # corner: crop sides as shares of the short side
    max_distort: int = 1  # corner: how many steps width's and height's scale may lie apart
    flip: bool = False  # left-right with probability half; never where classes have a direction
    mixup: float = 0.0  # beta distribution's parameter; 0 is off


@dataclass(frozen=True, config=STRICT)
class Group:
    """A parameter group: the first group whose kind matches a parameter sets its multipliers."""

    kind: Literal["head.weight", "head.bias", "norm", "bias", "attention", "weight"]
    lr: float = 1.0
    decay: float = 1.0


@dataclass(frozen=True, config=STRICT)
class Recipe:
    """How to train."""

    epochs: int
    batch: int  # clips a step over all workers: part of the recipe, whatever the number of workers
    micro_batch: int  # clips a forward pass, hence what batch norm sees; a worker does one or more of a step's
    frames: int  # T
    sampling: Literal["segments", "dense"]
    size: int  # pixels of the square input
    augment: Augment
    lr: float
    momentum: float
    weight_decay: float
    stride: int = 1  # dense sampling: frames from one to the next
    nesterov: bool = False
    steps: tuple[int, ...] = ()  # epochs at which lr is multiplied by `factor`
    factor: float = 0.1
    warmup_epochs: int = 0  # lr * (epoch + 1) / warmup_epochs before
    dropout: float = 0.0
    frozen: tuple[str, ...] = ()  # stages kept as loaded, their batch norm in eval mode, e.g. [stem, res2]
    partial_bn: bool = False  # every batch norm but the first in eval mode (TSN section 3.3)
    groups: tuple[Group, ...] = ()
    clip_grad: float | None = None  # largest norm of the gradient
    label_smoothing: float = 0.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto: bf16 on a GPU that has it, else fp32


@dataclass(frozen=True, config=STRICT)
class Protocol:
    """How to test: clips x crops views a video, and how their scores are averaged."""

    clips: int
    crops: Literal["center", "whole", "three", "ten"]
    sampling: Literal["segments", "random_segments", "dense"]
    size: int  # pixels of the square input
    average: Literal["softmax", "logits"]  # softmax: probabilities are averaged; logits: scores are, then softmax
    batch: int  # views a forward pass; fixed, so that scores do not depend on the number of workers
    stride: int = 1
    frames: int | None = None  # T of a clip, where it is not the recipe's, for nets that take any


@dataclass(frozen=True, config=STRICT)
class Experiment:
    """A row of a table: one system on one data set, over splits x seeds."""

    dataset: str
    backbone: str  # models/backbones/<backbone>.py
    variant: str  # which member of that family, e.g. "50" or "tiny"
    attention: str  # models/attention/<attention>.py
    recipe: str
    protocol: str
    splits: tuple[int, ...]
    seeds: tuple[int, ...]
    knobs: dict[str, Any]  # arguments of the attention's attach()
    weights: str | None  # a local path, or URL#sha256=<hex>; null trains from scratch


@dataclass(frozen=True, config=STRICT)
class Table:
    """Rows of a table; with a base, an ablation: every row as its difference from the base."""

    title: str
    rows: tuple[str, ...]
    base: str | None = None


@dataclass(frozen=True, config=STRICT)
class Cluster:
    """Where it runs. Never a stage's params: changing it restales nothing."""

    address: str = "local"  # "local" starts Ray here; RAY_ADDRESS overrides
    workers: int = 1  # data-parallel training workers of one (row, split, seed)
    cpus_per_worker: int = 1
    gpus_per_worker: float = 0.0
    loader_workers: int = 0  # processes that load clips, for each training worker
    max_failures: int = 3  # restarts of a training run or task whose process died
    storage: str = "data/work"  # training state that a crash must not lose; on a cluster a folder that all nodes see


@dataclass(frozen=True, config=STRICT)
class Params:
    suite: str
    datasets: dict[str, Dataset]
    recipes: dict[str, Recipe]
    protocols: dict[str, Protocol]
    experiments: dict[str, Experiment]
    tables: dict[str, Table]
    cluster: Cluster = field(default_factory=Cluster)


def load(path: Path = Path("params.yaml")) -> Params:
    """Params of a file.

    Raises UserError for a file that is absent or is no YAML, for a key that is unknown, missing or mistyped, and for
    a row that names a data set, recipe, protocol, attention or backbone that is not there.
    """
    try:
        raw = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is not there; run from the project's root") from None
    except (YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" at line {where.line + 1}" if where else ""
        raise UserError(f"{path} is damaged{line}: {getattr(error, 'problem', None) or 'not text'}") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path} is damaged: it holds no keys; `git checkout {path}` brings the committed one back")
    return parse(raw, str(path))


def parse(raw: dict[str, Any], name: str = "params") -> Params:
    """As load(), from the parsed YAML."""
    try:
        params = TypeAdapter(Params).validate_json(json.dumps(raw))  # JSON mode: strict, yet lists become tuples
    except (TypeError, ValueError) as error:
        if isinstance(error, ValidationError):
            raise UserError(f"{name}: {_first(error, raw)}") from None
        raise UserError(f"{name}: {error}") from None
    for row, experiment in params.experiments.items():
        _known(f"{name}: experiments.{row}.dataset", experiment.dataset, params.datasets)
        _known(f"{name}: experiments.{row}.recipe", experiment.recipe, params.recipes)
        _known(f"{name}: experiments.{row}.protocol", experiment.protocol, params.protocols)
        _known(f"{name}: experiments.{row}.attention", experiment.attention, known("attention"))
        _known(f"{name}: experiments.{row}.backbone", experiment.backbone, known("backbone"))
        if not experiment.splits or not experiment.seeds:
            raise UserError(f"{name}: experiments.{row}: splits and seeds need one entry at least")
    for table, spec in params.tables.items():
        for row in (*spec.rows, *([spec.base] if spec.base else [])):
            _known(f"{name}: tables.{table}", row, params.experiments)
    for key, recipe in params.recipes.items():
        if recipe.micro_batch < 1 or recipe.batch % recipe.micro_batch:
            raise UserError(
                f"{name}: recipes.{key}.batch ({recipe.batch}) is no multiple of micro_batch ({recipe.micro_batch})"
            )
    return params


def named(params: Params, row: str) -> Experiment:
    """The experiment of a row; UserError names the rows there are."""
    _known("experiment", row, params.experiments)
    return params.experiments[row]


def alternatives(name: str, known_names: Any) -> str:
    """The tail of an error message: the nearest known name, then all of them."""
    names = sorted(map(str, known_names))
    near = difflib.get_close_matches(name, names, n=1)
    guess = f"did you mean {near[0]!r}? " if near else ""
    return f"{guess}known: {', '.join(names) or 'none'}"


def _known(where: str, name: str, names: Any) -> None:
    if name not in names:
        raise UserError(f"{where}: no {name!r}; {alternatives(name, names)}")


def _first(error: ValidationError, raw: dict[str, Any]) -> str:
    """The most telling of pydantic's errors, in one line: a misspelt key is unknown and, as a rule, missing too."""
    first = min(error.errors(), key=lambda one: one["type"] != "unexpected_keyword_argument")
    path = [str(part) for part in first["loc"]]
    where, key = ".".join(path), path[-1] if path else ""
    if first["type"] == "unexpected_keyword_argument":
        return f"unknown key {where!r}; {alternatives(key, _fields(path[:-1]))}"
    if first["type"] in ("missing", "missing_argument"):
        return f"missing key {where!r}; the keys there are: {', '.join(_fields(path[:-1]))}"
    given = json.dumps(first.get("input"))
    return f"{where}: {first['msg'][0].lower()}{first['msg'][1:]}, not {given[:60]}"


def _fields(path: list[str]) -> list[str]:
    """Field names of the dataclass at a path like ['recipes', 'quick']."""
    owners: dict[str, Any] = {
        "datasets": Dataset,
        "recipes": Recipe,
        "protocols": Protocol,
        "experiments": Experiment,
        "tables": Table,
        "cluster": Cluster,
    }
    inner: dict[str, Any] = {"decode": Decode, "augment": Augment, "groups": Group}
    owner: Any = Params
    for part in path:
        owner = inner.get(part) or (owners.get(part) if owner is Params else None) or owner
    return list(owner.__dataclass_fields__)
