"""Printed parameters and FLOPs beside ours: reports/papers/parity.yaml, counted, gives reports/parity.md and .csv."""

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
    """Write the report as every form of a table; the same counts give the same bytes."""
    from pipeline.report import table

    table.save(path.parent, of(printed, lines, path.stem))


def of(printed: Printed, lines: Sequence[Line], name: str = REPORT.stem) -> "Table":
    """The report as a table."""
    from pipeline.report.table import ALWAYS, Cell, Table

    rows = []
    for record in records(printed, lines):
        values = dict(record)

        def cell(heading: str, read: str, *keys: str, values: dict[str, str] = values) -> Cell:
            return Cell(heading, read, {key: values[key] for key in keys}, ALWAYS)

        unit = record["unit"]
        ours = f"{record['ours']} %" if unit == "%" else f"{int(record['ours']):,}"
        rows.append(
            (
                cell("where", f"{record['paper']} {record['table']}", "paper", "table"),
                cell("row", record["row"], "row"),
                cell("of", record["quantity"], "quantity", "unit"),
                cell("printed", f"{record['printed']} {unit}", "printed"),
                cell("ours", ours, "ours", "ours_as_printed", "digits"),
                cell("ratio", record["ratio"], "ratio"),
                cell("verdict", record["verdict"], "verdict"),
                cell(
                    "counted by; why", f"{record['counted_by']}. {record['reason']}", "counted_by", "setting", "reason"
                ),
            )
        )
    return Table(name, "Printed parameters and FLOPs, and ours", tuple(rows), (NOTE.format(verdicts=_verdicts(lines)),))


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
        show_json(typed(records(printed, lines)))
        return
    show_view(of(printed, lines))
    print(f"{_verdicts(lines)} {REPORT} and {REPORT.with_suffix('.csv')} are written.")


def _verdicts(lines: Sequence[Line]) -> str:
    count = Counter(line.verdict for line in lines)
    return f"{len(lines)} figures: " + ", ".join(f"{count[verdict]} {verdict}" for verdict in sorted(count)) + "."


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
