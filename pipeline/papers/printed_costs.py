"""Printed parameters and FLOPs (reports/papers/parity.yaml), and our counts."""

import json
from dataclasses import dataclass as plain
from dataclasses import field
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from ruamel.yaml import YAML, YAMLError

from pipeline.errors import UserError, unknown

STRICT = ConfigDict(extra="forbid", strict=True)
Kind = TypeVar("Kind")
UNITS = {"M": 10**6, "G": 10**9}


@dataclass(frozen=True, config=STRICT)
class Net:
    """A net, and the clip that it is counted on: `frames` of size x size pixels."""

    backbone: str
    variant: str
    attention: str
    classes: int
    frames: int
    size: int
    knobs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, config=STRICT)
class Extra:
    """Parameters that the printed figure includes and the net lacks, and the reason."""

    parameters: int
    reason: str


@dataclass(frozen=True, config=STRICT)
class Figure:
    """A printed figure: its place in the paper, and our way to count it."""

    paper: str
    table: str
    row: str
    quantity: str
    printed: str  # as printed, to the last zero
    unit: Literal["M", "G", "%"]  # %: the increase of `net` over `base`
    net: str
    counted_by: Literal["parameters", "ptflops", "thop", "macs"]
    reason: str  # for the setting, or for the lack of one
    base: str | None = None
    digits: Literal["rounded", "truncated"] = "rounded"
    reachable: bool = True  # whether the paper or its authors' code describe a net with this figure
    extra: Extra | None = None


@dataclass(frozen=True, config=STRICT)
class Printed:
    """All of reports/papers/parity.yaml."""

    papers: dict[str, str]  # key -> title
    nets: dict[str, Net]
    figures: tuple[Figure, ...]


@plain(frozen=True)
class Line:
    """A figure and our value: a whole count, or a number in %."""

    figure: Figure
    ours: Decimal

    @property
    def scaled(self) -> Decimal:
        """Ours in the printed unit."""
        return self.ours / UNITS.get(self.figure.unit, 1)

    @property
    def shown(self) -> str:
        """Ours with as many digits as printed."""
        return as_printed(self.scaled, self.figure.printed, self.figure.digits)

    @property
    def verdict(self) -> str:
        """The verdict: "match", "differs" or, if expected to differ, "unreachable"."""
        if self.shown == self.figure.printed:
            return "match"
        return "differs" if self.figure.reachable else "unreachable"


def as_printed(value: Decimal, printed: str, digits: str) -> str:
    """Return a value with the decimals of `printed`, "rounded" (up) or "truncated"."""
    step = Decimal(1).scaleb(-len(printed.partition(".")[2]))
    return str(value.quantize(step, ROUND_DOWN if digits == "truncated" else ROUND_HALF_UP))


def load(path: Path) -> Printed:
    """Read the printed figures.

    Raises:
        UserError: The file is absent or wrong.
    """
    printed = parsed(path, Printed)
    for at, figure in enumerate(printed.figures):
        for kind, name, known in (
            ("paper", figure.paper, printed.papers),
            ("net", figure.net, printed.nets),
            ("base", figure.base or figure.net, printed.nets),
        ):
            if name not in known:
                raise UserError(f"{path}: figures.{at}: {unknown(kind, name, known)}")
    return printed


def parsed(path: Path, kind: type[Kind]) -> Kind:
    """Read a YAML file as a dataclass of that kind.

    Raises:
        UserError: The file is absent, damaged or of another kind.
    """
    try:
        raw = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
        return TypeAdapter(kind).validate_json(json.dumps(raw))  # JSON mode: strict, yet lists become tuples
    except FileNotFoundError:
        raise UserError(f"{path} is not there; run from the project's root") from None
    except ValidationError as error:
        # A misspelled key is unknown and often missing, too; the unknown one explains more.
        first = min(error.errors(), key=lambda detail: detail["type"] != "unexpected_keyword_argument")
        raise UserError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (YAMLError, UnicodeDecodeError, TypeError) as error:
        raise UserError(f"{path} is damaged: {' '.join(str(error).split())}") from None
