"""A paper's table again as TeX: a tabular for booktabs, the printed number and ours side by side in each column."""

from collections.abc import Sequence

from pipeline.papers.match import Number
from pipeline.papers.published import Paper

SIGNS = {
    "reproduced": "$=$",
    "within noise": r"$\approx$",
    "below": r"$\downarrow$",
    "above": r"$\uparrow$",
    "protocol differs": r"$\neq$",
    "not run": "--",
    "failed": r"$\times$",
}
SPECIAL = str.maketrans(
    {
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        **{greek: f"$\\{name}$" for greek, name in (("Δ", "Delta"), ("λ", "lambda"), ("η", "eta"))},
    }
)


def tabular(paper: Paper, name: str, cells: Sequence[Number]) -> str:
    """The table's source; a sign behind ours is the verdict, and the first lines say which is which."""
    table = paper.tables[name]
    columns = [column for column in table.columns if any(cell.column == column for cell in cells)]
    found = {(cell.row.label, cell.column): cell for cell in cells}
    legend = ", ".join(f"{sign} {word}" for word, sign in SIGNS.items())
    heads = [table.columns[column] for column in columns]
    spans = "".join(f" & \\multicolumn{{2}}{{c}}{{{escaped(of.heading)} {escaped(of.unit)}}}" for of in heads)
    lines = [
        f"% {paper.title}, {name}: {table.caption}",
        f"% printed, ours [95 % interval] and verdict: {legend}",
        rf"\begin{{tabular}}{{l{'rl' * len(columns)}}}",
        r"\toprule",
        rf"{spans} \\",
        rf"row{' & printed & ours' * len(columns)} \\",
        r"\midrule",
        *(
            " & ".join([escaped(row.label), *(_cell(found.get((row.label, column))) for column in columns)]) + r" \\"
            for row in table.rows
        ),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """The text with TeX's own characters made harmless."""
    return text.translate(SPECIAL)


def _cell(cell: Number | None) -> str:
    if cell is None:
        return " & "
    sign = SIGNS.get(cell.verdict, "")
    if cell.ours is None:
        return f"{cell.printed or ''} & {sign}"
    value, low, high = cell.shown
    interval = rf" {{\scriptsize[{low}, {high}]}}" if cell.videos is not None else ""
    return f"{cell.printed or ''} & {value}{interval} {sign}".rstrip()
