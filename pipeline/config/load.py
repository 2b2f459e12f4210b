"""Reading and checking of params.yaml.

An error for an unknown, missing or mistyped key names its neighbors.
"""

import json
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent

from models.registry import known
from pipeline.config.pretrained import is_name, registry
from pipeline.config.schema import Experiment, Params, requirement
from pipeline.errors import UserError, alternatives, unknown

_NAMES = "a name is up to 100 letters, digits, `_`, `-` and `+`, and starts with none of the last two"
_MISSING = ("missing", "missing_argument")  # pydantic's types of error
_MOST_NODES, _MOST_DEPTH = 200_000, 50  # of params.yaml; the largest suite has 6,000 values, six levels deep


def load(path: Path = Path("params.yaml")) -> Params:
    """Read Params from a file.

    Raises:
        UserError: The file is absent or not YAML; a key is unknown, missing or mistyped; or a row has an unknown data
            set, recipe, protocol, attention or backbone.
    """
    try:
        text = path.read_text(encoding="utf-8")
        _check_size(text, path)
        raw = YAML(typ="safe").load(text)
    except FileNotFoundError:
        raise UserError(f"{path} is not there; run from the project's root") from None
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from None
    except RecursionError:
        raise UserError(f"{path} is damaged: it is nested too deeply") from None
    except (YAMLError, UnicodeDecodeError, ValueError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" at line {where.line + 1}" if where else ""
        raise UserError(f"{path} is damaged{line}: {getattr(error, 'problem', None) or 'not text'}") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path} is damaged: it holds no keys; `git checkout {path}` restores the committed one")
    return parse(raw, str(path))


def _check_size(text: str, path: Path) -> None:
    """Raise UserError for a file whose expanded aliases exceed the size of any suite.

    A few lines of YAML can expand to terabytes.
    """
    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = []  # (anchor, size before it) of each open collection
    size = 0
    for event in YAML(typ="safe").parse(text):
        if isinstance(event, CollectionStartEvent):
            open_nodes.append((event.anchor, size))
        elif isinstance(event, CollectionEndEvent):
            anchor, before = open_nodes.pop()
            sizes |= {anchor: size - before} if anchor else {}
        elif isinstance(event, AliasEvent):
            size += sizes.get(event.anchor, 0)
        size += 1
        if size > _MOST_NODES or len(open_nodes) > _MOST_DEPTH:
            raise UserError(
                f"{path} is refused: with its aliases expanded it has over {_MOST_NODES} values or {_MOST_DEPTH} levels"
            )


def parse(raw: dict[str, Any], name: str = "params") -> Params:
    """Check the parsed YAML, as in load()."""
    try:
        # JSON mode: strict, but lists become tuples. A date that YAML parses stays text.
        params = TypeAdapter(Params).validate_json(json.dumps(raw, default=str))
    except (TypeError, ValueError) as error:
        if isinstance(error, ValidationError):
            raise UserError(f"{name}: {_first(error)}") from None
        raise UserError(f"{name}: {error}") from None
    for row, experiment in params.experiments.items():
        _known(f"{name}: experiments.{row}.dataset", experiment.dataset, params.datasets)
        _known(f"{name}: experiments.{row}.protocol", experiment.protocol, params.protocols)
        if experiment.recipe is None:
            _check_untrained(f"{name}: experiments.{row}.recipe is null", experiment, params)
        else:
            _known(f"{name}: experiments.{row}.recipe", experiment.recipe, params.recipes)
        _known(f"{name}: experiments.{row}.attention", experiment.attention, known("attention"))
        _known(f"{name}: experiments.{row}.backbone", experiment.backbone, known("backbone"))
        if experiment.weights and is_name(experiment.weights):
            _known(f"{name}: experiments.{row}.weights", experiment.weights, registry())
        recipe, flow = params.recipe(experiment), params.datasets[experiment.dataset].decode.flow
        where = f"{name}: recipes.{experiment.recipe}.input is {recipe.input!r}, but datasets.{experiment.dataset}."
        if recipe.input != "rgb" and params.datasets[experiment.dataset].direction:
            raise UserError(f"{where}direction is true, and a backward video's flow isn't stored; set input to rgb")
        if recipe.input != "rgb" and flow is None:
            raise UserError(f"{where}decode.flow is null; set it to {{algorithm: tvl1}}, or dis, which is faster")
        protocol = params.protocols[experiment.protocol]
        if recipe.input != "rgb" and (protocol.probes or protocol.order != "forward"):
            raise UserError(
                f"{name}: experiments.{row}: flow is of frames in their order, so protocols.{experiment.protocol} must "
                "have order forward and no probes; give the row another protocol"
            )
        if recipe.input == "warped" and flow and not flow.compensated:
            raise UserError(f"{where}decode.flow.compensated is false; set it to true, or input to flow")
    for table, spec in params.tables.items():
        for row in (*spec.rows, *([spec.base] if spec.base else [])):
            _known(f"{name}: tables.{table}", row, params.experiments | params.fusions | params.trajectories)
    for row, fusion in params.fusions.items():
        for member in fusion.rows:
            _known(f"{name}: fusions.{row}.rows", member, params.experiments)
        if row in params.experiments:
            raise UserError(f"{name}: fusions.{row}: an experiment has that name already; choose another")
    for row, settings in params.trajectories.items():
        _known(f"{name}: trajectories.{row}.dataset", settings.dataset, params.datasets)
        if params.datasets[settings.dataset].direction:
            raise UserError(
                f"{name}: trajectories.{row}: datasets.{settings.dataset}.direction is true, but trajectories follow "
                "forward frames only; name a data set without it"
            )
        if row in params.experiments or row in params.fusions:
            raise UserError(f"{name}: trajectories.{row}: another row has that name already; choose another")
    for key, recipe in params.recipes.items():
        if recipe.validate is None and (recipe.checkpoint == "best" or recipe.patience):
            setting = "checkpoint is best" if recipe.checkpoint == "best" else "patience is set"
            raise UserError(
                f"{name}: recipes.{key}.{setting}, but validate is null; set it to val, or a share such as 0.1"
            )
        if recipe.validate == "val" and "val" in recipe.train:
            raise UserError(f"{name}: recipes.{key}.validate is val, but train has part val too; leave it out of one")
        if recipe.nesterov and (recipe.dampening or not recipe.momentum):
            raise UserError(
                f"{name}: recipes.{key}.nesterov is true, which needs a momentum and no dampening; momentum is "
                f"{recipe.momentum:g}, dampening {recipe.dampening:g}"
            )
        if recipe.batch % recipe.micro_batch:
            raise UserError(
                f"{name}: recipes.{key}.batch ({recipe.batch}) is no multiple of micro_batch ({recipe.micro_batch})"
            )
    return params


def _check_untrained(where: str, experiment: Experiment, params: Params) -> None:
    """Raise UserError for a row without a recipe that can't be tested."""
    if experiment.weights is None:
        raise UserError(f"{where}, and so is weights; name a recipe, or a file of weights to test as it is")
    if params.protocols[experiment.protocol].frames is None:
        raise UserError(f"{where}, and so is protocols.{experiment.protocol}.frames; set it to the frames of a clip")
    if len(experiment.seeds) > 1:
        raise UserError(f"{where}, so every seed gives the same scores; name one, such as [0]")


def named(params: Params, row: str) -> Experiment:
    """Return the experiment of a row; UserError names the known rows."""
    if row not in params.experiments:
        raise unknown("experiment", row, params.experiments)
    return params.experiments[row]


def _known(where: str, name: str, names: Any) -> None:
    if name not in names:
        raise UserError(f"{where}: no {name!r}; {alternatives(name, names)}")


def _first(error: ValidationError) -> str:
    """Return one of pydantic's errors in one line, an unknown key's first."""
    first = min(error.errors(), key=lambda problem: problem["type"] != "unexpected_keyword_argument")
    path = [str(part) for part in first["loc"]]
    if path and path[-1] == "[key]":
        return f"{'.'.join(path[:-2])}: {path[-2][:60]!r} is no name; {_NAMES}"
    where, key = ".".join(path), path[-1] if path else ""
    if first["type"] == "unexpected_keyword_argument":
        return f"unknown key {where!r}; {alternatives(key, _fields(path[:-1]))}"
    if first["type"] in _MISSING:
        missing = [problem["loc"] for problem in error.errors() if problem["type"] in _MISSING]
        keys = [repr(".".join(map(str, loc))) for loc in missing if loc[:-1] == first["loc"][:-1]]
        label = "missing key" if len(keys) == 1 else "missing keys"
        return f"{label} {', '.join(keys)}; the keys there are: {', '.join(_fields(path[:-1]))}"
    value = json.dumps(first.get("input"), default=str)[:60]
    if first["type"] == "string_pattern_mismatch":
        return f"{where}: {value} is no name; {_NAMES}"
    return f"{where} is {value}; it {requirement(first)}"


def _fields(path: list[str]) -> list[str]:
    """Return the field names of the dataclass at a path like ['recipes', 'quick']."""
    owner: Any = Params
    for part in path:
        owner = next(_dataclasses(get_type_hints(owner).get(part)), owner)
    return [field.name for field in fields(owner)]


def _dataclasses(hint: Any) -> Iterator[Any]:
    if is_dataclass(hint):
        yield hint
    for inner in get_args(hint):
        yield from _dataclasses(inner)
