"""What papers print of parameters and FLOPs, as reports/papers/parity.yaml has it, and when a count of ours is that."""

import json
from dataclasses import dataclass as plain
from dataclasses import field
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from ruamel.yaml import YAML, YAMLError

from pipeline.errors import UserError, alternatives

STRICT = ConfigDict(extra="forbid", strict=True)
Kind = TypeVar("Kind")
UNITS = {"M": 10**6, "G": 10**9}


@dataclass(frozen=True, config=STRICT)
class Net:
    """What is built, and the clip that it is counted on: `frames` of size x size pixels."""

    backbone: str
    variant: str
    attention: str
    classes: int
    frames: int
    size: int
    knobs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, config=STRICT)
class Extra:
    """Parameters that the printed figure has and the net has not, by arithmetic, and what they are."""

    parameters: int
    reason: str


@dataclass(frozen=True, config=STRICT)
class Figure:
    """One printed figure: where it stands, and how ours is found."""

    paper: str
    table: str
    row: str
    quantity: str
    printed: str  # as printed, to the last zero
    unit: Literal["M", "G", "%"]  # %: by how much `net` costs more than `base`
    net: str
    counted_by: Literal["parameters", "ptflops", "thop", "macs"]
    reason: str  # for the setting, or why there is none
    base: str | None = None
    digits: Literal["rounded", "truncated"] = "rounded"
    reachable: bool = True  # whether the paper, and its authors' code, describe a net that has it
    extra: Extra | None = None


@dataclass(frozen=True, config=STRICT)
class Printed:
    """All of reports/papers/parity.yaml; `papers` are their names, `nets` what figures refer to."""

    papers: dict[str, str]
    nets: dict[str, Net]
    figures: tuple[Figure, ...]


@plain(frozen=True)
class Line:
    """A figure and our value, a whole count or, of %, a number."""

    figure: Figure
    ours: Decimal

    @property
    def scaled(self) -> Decimal:
        """Ours in the printed unit."""
        return self.ours / UNITS.get(self.figure.unit, 1)

    @property
    def shown(self) -> str:
        """Ours to as many digits as are printed."""
        return as_printed(self.scaled, self.figure.printed, self.figure.digits)

    @property
    def verdict(self) -> str:
        """ "match"; "unreachable" where none was expected; "differs" where one was."""
        if self.shown == self.figure.printed:
            return "match"
        return "differs" if self.figure.reachable else "unreachable"


def as_printed(value: Decimal, printed: str, digits: str) -> str:
    """A value with as many decimals as `printed` has, "rounded" (halves up) or "truncated"."""
    step = Decimal(1).scaleb(-len(printed.partition(".")[2]))
    return str(value.quantize(step, ROUND_DOWN if digits == "truncated" else ROUND_HALF_UP))


def load(path: Path) -> Printed:
    """The printed figures; UserError for a file that is absent, or that holds something else."""
    printed = parsed(path, Printed)
    for at, figure in enumerate(printed.figures):
        for kind, name, known in (
            ("paper", figure.paper, printed.papers),
            ("net", figure.net, printed.nets),
            ("base", figure.base or figure.net, printed.nets),
        ):
            if name not in known:
                raise UserError(f"{path}: figures.{at}: no {kind} {name!r}; {alternatives(name, known)}")
    return printed


def parsed(path: Path, kind: type[Kind]) -> Kind:
    """A YAML file as a dataclass of that kind; UserError for a file that is absent, or that holds something else."""
    try:
        raw = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
        return TypeAdapter(kind).validate_json(json.dumps(raw))  # JSON mode: strict, yet lists become tuples
    except FileNotFoundError:
        raise UserError(f"{path} is not there; run from the project's root") from None
    except ValidationError as error:
        # A misspelt key is unknown and, as a rule, missing too: the former tells more.
        first = min(error.errors(), key=lambda one: one["type"] != "unexpected_keyword_argument")
        raise UserError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (YAMLError, UnicodeDecodeError, TypeError) as error:
        raise UserError(f"{path} is damaged: {' '.join(str(error).split())}") from None
