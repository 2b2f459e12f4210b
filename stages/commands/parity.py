"""Printed parameters and FLOPs beside ours: reports/papers/parity.yaml, counted, gives reports/parity.md and .csv."""

from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import UserError
from pipeline.papers.printed_costs import Figure, Line, Net, Printed, load
from pipeline.storage.atomic import write
from stages.terminal import screen, show_json

if TYPE_CHECKING:
    from models.video import VideoNet

PRINTED, REPORT = Path("reports/papers/parity.yaml"), Path("reports/parity.md")
COUNTERS = {
    "parameters": "parameters",
    "ptflops": "ptflops 0.6.4",
    "thop": "thop 0.0.31",
    "macs": "multiply-accumulates alone",
}
HEAD = """\
# Printed parameters and FLOPs, and ours

{verdicts}

Match: ours, to as many digits as are printed, is the printed figure; rounded, or truncated where the paper did so.
Unreachable: what the paper and its authors' code describe does not have it, and "why" says what is known. Differs: it
should match, and does not. Ours are counted on the nets of models/: all parameters, or one forward pass of one clip by
the rules of the tool that the paper used (models/paper_flops.py). Ratios are ours to the printed. Written by
`actionbench models --parity` from reports/papers/parity.yaml.
"""


def count(printed: Printed) -> list[Line]:
    """Ours beside every figure. UserError names a net that can't be built."""
    built = cache(lambda name: _built(name, printed.nets[name]))  # once for all of its figures
    counted = cache(lambda name, by: _counted(built(name), printed.nets[name], by))

    def ours(figure: Figure) -> Decimal:
        found = Decimal(counted(figure.net, figure.counted_by) + (figure.extra.parameters if figure.extra else 0))
        return 100 * (found / counted(figure.base, figure.counted_by) - 1) if figure.base else found

    return [Line(figure, ours(figure)) for figure in printed.figures]


def _built(name: str, net: Net) -> "VideoNet":
    """The net on the meta device: no memory, no arithmetic."""
    import torch

    from models import video

    try:
        with torch.device("meta"):
            return video.build(net.backbone, net.variant, net.attention, net.frames, net.classes, knobs=net.knobs)
    except ValueError as error:
        raise UserError(f"{PRINTED}: nets.{name}: {error}") from None


def _counted(built: "VideoNet", net: Net, by: str) -> int:
    from models import costs, paper_flops

    clips = (1, net.frames, 3, net.size, net.size)
    match by:
        case "parameters":
            return costs.parameters(built)
        case "macs":
            return costs.macs(built, clips)
    return sum(map(getattr(paper_flops, by), paper_flops.layers(built, clips)))


def save(printed: Printed, lines: Sequence[Line], path: Path = REPORT) -> None:
    """Writes the report, and beside it the CSV; the same counts give the same bytes."""
    from pipeline.report.table import csv_text

    found = records(printed, lines)
    write(path, text(printed, lines))
    write(path.with_suffix(".csv"), csv_text(list(found[0]), [list(record.values()) for record in found]))


def text(printed: Printed, lines: Sequence[Line]) -> str:
    """The report: a section a paper's table."""
    from pipeline.report.table import Cell, markdown

    sections = [
        f"## {title}\n\n" + markdown([[Cell(heading, value, {}) for heading, value in line.items()] for line in grid])
        for title, grid in _tables(printed, lines).items()
    ]
    return "\n".join([HEAD.format(verdicts=_verdicts(lines)), *sections])


def records(printed: Printed, lines: Sequence[Line]) -> list[dict[str, str]]:
    """Every line's columns, as the CSV has them."""
    return [
        {
            "paper": line.figure.paper,
            "table": line.figure.table,
            "row": line.figure.row,
            "quantity": line.figure.quantity,
            "unit": line.figure.unit,
            "printed": line.figure.printed,
            "ours": f"{line.ours:.4f}" if line.figure.base else str(line.ours),
            "ours_as_printed": line.shown,
            "digits": line.figure.digits,
            "ratio": f"{line.scaled / Decimal(line.figure.printed):.4f}",
            "verdict": line.verdict,
            "counted_by": COUNTERS[line.figure.counted_by],
            "setting": _setting(line.figure, printed.nets),
            "reason": line.figure.reason,
        }
        for line in lines
    ]


def show(as_json: bool) -> None:
    """Counts, writes the report and prints it, or prints its lines as one JSON document."""
    printed = load(PRINTED)
    lines = count(printed)
    save(printed, lines)
    if as_json:
        show_json(records(printed, lines))
        return
    from rich.padding import Padding
    from rich.text import Text

    console = screen()
    for title, grid in _tables(printed, lines).items():
        console.print(title, style="bold underline")
        headings = list(grid[0])
        widths = [max(map(len, (heading, *(line[heading] for line in grid)))) for heading in headings]
        console.print("  ".join(map(str.ljust, headings[:-3], widths)), style="bold")
        for line in grid:
            *cells, counted_by, setting, why = line.values()
            console.print("  ".join(map(str.ljust, cells, widths)), markup=False)
            console.print(Padding(Text(f"{setting} ({counted_by}): {why}", style="dim"), (0, 0, 0, 4)))
        print()
    print(f"{_verdicts(lines)} {REPORT} and {REPORT.with_suffix('.csv')} are written.")


def _verdicts(lines: Sequence[Line]) -> str:
    count = Counter(line.verdict for line in lines)
    return f"{len(lines)} figures: " + ", ".join(f"{count[verdict]} {verdict}" for verdict in sorted(count)) + "."


def _tables(printed: Printed, lines: Sequence[Line]) -> dict[str, list[dict[str, str]]]:
    """Title of each paper's table -> its lines' columns, as the report has them."""
    tables: dict[str, list[dict[str, str]]] = {}
    for record in records(printed, lines):
        title = f"{printed.papers[record['paper']]}, {record['table']}"
        tables.setdefault(title, []).append(_read(record))
    return tables


def _read(record: Mapping[str, str]) -> dict[str, str]:
    """A line's columns, as the report has them."""
    unit = record["unit"]
    ours = f"{record['ours']} %" if unit == "%" else f"{int(record['ours']):,}"
    return {
        "row": record["row"],
        "of": record["quantity"],
        "printed": f"{record['printed']} {unit}",
        "ours": ours,
        "to its digits": f"{record['ours_as_printed']} {unit}" + (", truncated" * (record["digits"] == "truncated")),
        "ratio": record["ratio"],
        "verdict": record["verdict"],
        "counted by": record["counted_by"],
        "setting": record["setting"],
        "why": record["reason"],
    }


def _setting(figure: Figure, nets: Mapping[str, Net]) -> str:
    """The net and its clip in words, e.g. "resnet 50, se (placement: stage), 51 classes, 16 frames of 112x112"."""
    net = nets[figure.net]
    knobs = "; ".join(f"{knob}: {' '.join(map(str, v)) if isinstance(v, list) else v}" for knob, v in net.knobs.items())
    attention = net.attention + (f" ({knobs})" if knobs else "")
    clip = f"{net.frames} frames of {net.size}x{net.size}"
    setting = f"{net.backbone} {net.variant}, {attention}, {net.classes} classes, {clip}"
    if figure.extra:
        setting += f"; and {figure.extra.parameters:,} parameters of {figure.extra.reason}"
    if figure.base:
        setting += f"; more than with attention {nets[figure.base].attention}"
    return setting
