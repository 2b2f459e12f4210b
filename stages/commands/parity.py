"""Printed parameters and FLOPs compared with ours: reports/parity.md and .csv."""

from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import UserError
from pipeline.papers.printed_costs import Figure, Line, Net, Printed, load
from stages.terminal import show_json, show_view, typed

if TYPE_CHECKING:
    from models.video import VideoNet
    from pipeline.report.table import Table

PRINTED, REPORT = Path("reports/papers/parity.yaml"), Path("reports/parity.md")
COUNTERS = {
    "parameters": "parameters",
    "ptflops": "ptflops 0.6.4",
    "thop": "thop 0.0.31",
    "macs": "multiply-accumulates alone",
}
NOTE = (
    "{verdicts} Match: ours, to as many digits as are printed, is the printed figure; rounded, or truncated where the "
    "paper did so. Unreachable: the paper and its authors' code describe no net that has it. Differs: it should match, "
    "and does not. Ours are counted on the nets of models/: all parameters, or one forward pass of one clip by the "
    "rules of the tool that the paper used (models/paper_flops.py). Ratios are ours to the printed. Written by "
    "`actionbench models --parity` from reports/papers/parity.yaml."
)


def count(printed: Printed) -> list[Line]:
    """Count ours for every printed figure.

    Raises:
        UserError: A net can't be built.
    """
    built = cache(lambda name: _built(name, printed.nets[name]))  # once for all of its figures
    counted = cache(lambda name, by: _counted(built(name), printed.nets[name], by))

    def ours(figure: Figure) -> Decimal:
        total = Decimal(counted(figure.net, figure.counted_by) + (figure.extra.parameters if figure.extra else 0))
        return 100 * (total / counted(figure.base, figure.counted_by) - 1) if figure.base else total

    return [Line(figure, ours(figure)) for figure in printed.figures]


def _built(name: str, net: Net) -> "VideoNet":
    """Build the net on the meta device: no memory, no arithmetic."""
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


def save(printed: Printed, lines: Sequence[Line], path: Path = REPORT) -> "Table":
    """Write the report in every form of a table, and return it; equal counts give equal bytes."""
    from pipeline.report import table

    report = of(printed, lines, path.stem)
    table.save(path.parent, report)
    return report


def of(printed: Printed, lines: Sequence[Line], name: str = REPORT.stem) -> "Table":
    """Return the report as a table."""
    from pipeline.report.table import ALWAYS, Cell, Table

    def cell(heading: str, read: str, **data: str) -> Cell:
        return Cell(heading, read, data, ALWAYS)

    rows = []
    for line in lines:
        figure = line.figure
        ours = f"{line.ours:.4f}" if figure.base else str(line.ours)
        ratio = f"{line.scaled / Decimal(figure.printed):.4f}"
        by, setting = COUNTERS[figure.counted_by], _setting(figure, printed.nets)
        rows.append((
            cell("where", f"{figure.paper} {figure.table}", paper=figure.paper, table=figure.table),
            cell("row", figure.row, row=figure.row),
            cell("of", figure.quantity, quantity=figure.quantity, unit=figure.unit),
            cell("printed", f"{figure.printed} {figure.unit}", printed=figure.printed),
            cell("ours", f"{ours} %" if figure.unit == "%" else f"{int(ours):,}", ours=ours,
                 ours_as_printed=line.shown, digits=figure.digits),
            cell("ratio", ratio, ratio=ratio),
            cell("verdict", line.verdict, verdict=line.verdict),
            cell("counted by; why", f"{by}. {figure.reason}", counted_by=by, setting=setting, reason=figure.reason),
        ))  # fmt: skip
    return Table(name, "Printed parameters and FLOPs, and ours", tuple(rows), (NOTE.format(verdicts=_verdicts(lines)),))


def show(as_json: bool) -> None:
    """Count, write the report, and print it or its lines as one JSON document."""
    printed = load(PRINTED)
    lines = count(printed)
    report = save(printed, lines)
    if as_json:
        show_json(typed(report.records()))
        return
    show_view(report)
    print(f"{_verdicts(lines)} {REPORT} and {REPORT.with_suffix('.csv')} are written.")


def _verdicts(lines: Sequence[Line]) -> str:
    count = Counter(line.verdict for line in lines)
    return f"{len(lines)} figures: " + ", ".join(f"{count[verdict]} {verdict}" for verdict in sorted(count)) + "."


def _setting(figure: Figure, nets: Mapping[str, Net]) -> str:
    """Describe the net and its clip.

    E.g. "resnet 50, se (placement: stage), 51 classes, 16 frames of 112x112".
    """
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
