"""Comparison of copies of this project that ran one suite elsewhere.

    python -m bench.same "three nodes=../three=../one" ["three nodes=../two=../one" ...]    # name=copy=reference

The copies are made and run by hand, `actionbench repro` in each, on several nodes by bench/nodes.py. Use one machine,
because results vary slightly between CPU types.

- workers: how many train a run in the copy; the reference has one. Micro batch: clips of a forward pass, of which a
  worker takes one or more.
- same bytes: files with identical bytes, of all that depend on the inputs alone: frames, splits, weights, predictions,
  and the CSVs of the suite's tables and rows. Then of the CSVs.
- loss: largest difference of a row's mean loss, of its first and of its last epoch, in percent.
- top-1: largest difference of a row's top-1, in points.
- verdicts: number of rows of tables with the same verdict.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import report, victim
from bench.report import read
from bench.running import parser
from pipeline.config.load import load


def main() -> None:
    command = parser(__doc__)
    command.add_argument("pairs", nargs="+", metavar="NAME=COPY=OTHER")
    rows, lines = [], []
    for pair in command.parse_args().pairs:
        name, *folders = pair.split("=")
        copy, other = map(Path, folders)
        params = load(copy / "params.yaml")
        digests, expected = marks(copy), marks(other)
        cells = {"copy": name, "workers": params.cluster.workers}
        files: list[dict[str, Any]] = [
            {**cells, "file": path, "other": expected.get(path), "this": digests.get(path)}
            for path in sorted(expected.keys() | digests.keys())
        ]
        rows += files
        sizes = sorted({params.recipe(row).micro_batch for row in params.experiments.values()})
        suite = (len(params.experiments), params.cluster.workers, "/".join(map(str, sizes)))
        lines.append([name, *suite, *shares(files), *nearly(other, copy)])
    text = f"Suite {params.suite}."
    head = ["copy", "rows", "workers", "micro batch", "same bytes", "CSVs with the same bytes"]
    head += ["loss, first epoch", "loss, last epoch", "top-1", "verdicts"]
    report.save("same", "The same results elsewhere", text, head, lines, rows)


def marks(folder: Path) -> dict[str, str]:
    """Return path -> first digits of the sha256, of files that inputs determine.

    Of reports/, only the suite's.
    """
    params = load(folder / "params.yaml")
    places = ("data", *(f"reports/{name}/{params.suite}" for name in ("tables", "metrics", "plots")))
    results = sorted(victim.results(folder).items())
    return {path: mark[:16] for path, mark in results if any(Path(path).is_relative_to(place) for place in places)}


def shares(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the number of files with the same bytes: of all, and of the CSVs."""
    for some in (rows, [row for row in rows if row["file"].endswith(".csv") and row["file"].startswith("reports/")]):
        yield f"{sum(row['this'] == row['other'] for row in some)} of {len(some)}"


def nearly(reference: Path, copy: Path) -> Iterator[str]:
    """Yield the differences of two copies' losses, top-1 and verdicts."""
    params = load(reference / "params.yaml")
    for epoch in (0, -1):
        curves = [f"reports/plots/{params.suite}/curves/{row}.csv" for row in params.experiments]
        losses = [[float(read(folder / curve)[epoch]["loss"]) for folder in (reference, copy)] for curve in curves]
        yield f"{max(100 * abs(b - a) / a for a, b in losses):.4g} %"
    ones, others = (dict(judged(folder / f"reports/tables/{params.suite}")) for folder in (reference, copy))
    yield f"{max(abs(float(row['top1']) - float(others[place]['top1'])) for place, row in ones.items()):.2f}"
    with_verdict = [place for place, row in ones.items() if row.get("verdict", "base") != "base"]
    yield f"{sum(ones[place]['verdict'] == others[place]['verdict'] for place in with_verdict)} of {len(with_verdict)}"


def judged(folder: Path) -> Iterator[tuple[tuple[str, str], dict[str, str]]]:
    """Yield ((table, row), its cells) of rows with a top-1."""
    for path in sorted(folder.glob("*.csv")):
        yield from (((path.stem, row["row"]), row) for row in read(path) if row.get("top1"))


if __name__ == "__main__":
    main()
