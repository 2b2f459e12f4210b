"""Commands that show results, networks, data sets, changes and provenance."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from stages import DATA
from stages.terminal import amount, clips, show_json, show_table

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document only.")]


def report(
    suite: Annotated[str | None, typer.Option(help="A finished suite; default: that of params.yaml.")] = None,
    json_: Json = False,
) -> None:
    """Print the tables, and the paths of tables, figures and runs."""
    from pipeline.config import load
    from stages.commands import report as reports

    name = suite or load.load().suite
    if json_:
        show_json({"suite": name, "tables": reports.rows(name), "paths": reports.paths(name)})
    else:
        reports.show(name)


def look(
    row: Annotated[str, typer.Argument(help="A trained row of params.yaml.")],
    video: Annotated[str, typer.Argument(help="The name of a video of the row's data set, or a video file.")],
    show: Annotated[
        Literal["gradcam", "eam", "receptive"],
        typer.Option(help="Grad-CAM, EAM's weights, or ISTPA's salient receptive fields."),
    ] = "gradcam",
    stage: Annotated[str | None, typer.Option(help="Stage for Grad-CAM, e.g. res4; default: the last.")] = None,
    split: Annotated[int | None, typer.Option(help="Split of the run; default: the first.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the run; default: the first.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A .png; default: below data/looks/.")] = None,
) -> None:
    """Draw the frames or regions that a trained network attended to in a video."""
    from stages.commands.look import look

    path, title = look(row, video, show, stage, split, seed, output)
    print(f"{title}\n{path}")


def models(
    rows: Annotated[list[str] | None, typer.Argument(help="Rows to --measure; default: all.")] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Measure the rows' networks on this device.")] = False,
    parity: Annotated[
        bool, typer.Option("--parity", help="Compare the papers' parameters and FLOPs with ours.")
    ] = False,
    json_: Json = False,
) -> None:
    """List attention modules, backbones, and the costs of the rows of params.yaml."""
    from pipeline.config import load
    from stages.commands import catalogue

    if parity:
        from stages.commands.parity import show

        show(json_)
        return
    if measure or rows:
        from stages.commands.measure import show_rows

        show_rows(rows or [], json_)
        return
    params = load.load()
    plug_ins, costs = catalogue.models(), catalogue.costs(params, DATA)
    if json_:
        show_json({"models": [asdict(model) for model in plug_ins], "rows": [asdict(cost) for cost in costs]})
        return
    show_table(
        ["kind", "name", "variants", "about"], ([m.kind, m.name, " ".join(m.variants), m.about] for m in plug_ins)
    )
    print()
    show_table(
        ["row", "parameters", "MACs of a view", ""],
        (
            [
                cost.row,
                f"{cost.parameters / 1e6:.2f} M" if cost.parameters else "–",
                f"{cost.macs / 1e9:.2f} G" if cost.macs else "–",
                cost.error,
            ]
            for cost in costs
        ),
    )


def datasets(json_: Json = False) -> None:
    """List data sets: classes, clips of each split, size, license, local state."""
    from pipeline.config import load
    from stages.commands import catalogue

    listed = catalogue.datasets(load.load(), DATA)
    if json_:
        show_json([asdict(data) for data in listed])
        return
    show_table(
        ["data set", "classes", "clips here", "official", "size here", "download", "license", "state"],
        (
            [
                data.name,
                str(data.classes or "–"),
                clips(data.found) or "–",
                (clips(data.official) or "–") + (f" (+ {data.unlabelled} without labels)" if data.unlabelled else ""),
                "–" if data.bytes is None else amount(data.bytes),
                "–" if data.download is None else amount(data.download),
                data.licence,
                data.state,
            ]
            for data in listed
        ),
    )
    for data in listed:
        if data.todo:
            print(f"\n{data.name} ({data.homepage}): {data.todo}" if data.homepage else f"\n{data.name}: {data.todo}")


def weights(
    names: Annotated[list[str] | None, typer.Argument(help="Weights to download; default: list all.")] = None,
    json_: Json = False,
) -> None:
    """List pre-trained weights with their local state, or download some."""
    from stages.commands import pretrained

    if names:
        for path in pretrained.fetch_all(names):
            print(path)
        return
    listing = pretrained.listing()
    if json_:
        show_json([asdict(entry) for entry in listing])
        return
    show_table(
        ["name", "weights", "state", "rows", "license"],
        ((entry.name, entry.about, entry.state, str(entry.rows or "–"), entry.license) for entry in listing),
    )
    print("\nmissing: downloaded on demand. by hand: `actionbench weights NAME` names the source and the path.")


def diff(
    first: Annotated[
        str,
        typer.Argument(help="A git revision, a DVC experiment, workspace, or reference (the maintainers' results)."),
    ],
    second: Annotated[str, typer.Argument(help="The same; default: the present files.")] = "workspace",
    everything: Annotated[bool, typer.Option("--all", help="Include cells within their interval.")] = False,
    json_: Json = False,
) -> None:
    """List cells that moved beyond their interval, and the changes behind each."""
    from pipeline.aggregate.changes import WORKSPACE, moves, read
    from stages.repro.plan import dvc

    if first == "reference" and second == WORKSPACE:
        _diff_reference(json_)
        return
    revisions = {first, second} - {WORKSPACE}
    cache = Path(dvc("cache", "dir").strip()) if revisions else None
    cells = moves(read(first, Path(), cache), read(second, Path(), cache))
    shown = [move for move in cells if everything or move.beyond]
    if json_:
        show_json({"cells": len(cells), "moved": [asdict(move) for move in shown]})
        return
    print(f"{sum(move.beyond for move in cells)} of {len(cells)} cells moved beyond their interval")
    for move in shown:
        values = ("–" if value is None else f"{value:.1f}" for value in (move.before, move.after))
        print(f"\n{move.row}, {move.metric}: {' -> '.join(values)}{'' if move.beyond else ' (within)'}")
        for cause in move.causes or ("no difference in dvc.lock",):
            print(f"  {cause}")


def _diff_reference(json_: bool) -> None:
    """Compare this workspace's results with its suite's reference results."""
    from pipeline.aggregate import agreement
    from pipeline.config import load

    agreed = agreement.compare(Path("reports"), load.load().suite)
    if json_:
        show_json(asdict(agreed))
        return
    for line in agreement.words(agreed):
        print(line)


def tables(
    suite: Annotated[
        str | None, typer.Argument(help="A suite; default: that of params.yaml, or all with --reference.")
    ] = None,
    reference: Annotated[bool, typer.Option("--reference", help="Recompute reports/reference.")] = False,
    save: Annotated[
        bool, typer.Option("--save", help="For maintainers: save the results as reference results.")
    ] = False,
) -> None:
    """Recompute tables, figures and the page from predictions, without training."""
    from stages.commands import recompute

    if save:
        recompute.save()
    elif reference:
        recompute.reference(suite)
    else:
        recompute.workspace(suite)


def papers() -> None:
    """Write the five papers' tables and claims from the results so far."""
    from pipeline.aggregate import reference
    from stages.commands import recompute

    recompute.papers()
    print(f"all tables on {reference.show(Path('reports'))}")


def explain(
    table: Annotated[str, typer.Argument(help="A table of params.yaml or of the paper, e.g. ablation or T1.")],
    row: Annotated[str, typer.Argument(help="A row of the table.")],
    suite: Annotated[str | None, typer.Option(help="A suite of conf/; default: that of params.yaml.")] = None,
    reference: Annotated[bool, typer.Option("--reference", help="Explain the maintainers' results.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="List all misclassified videos, not only 20.")] = False,
    json_: Json = False,
) -> None:
    """Show a number's origin: settings, runs, data, code, misclassified videos."""
    from pipeline.aggregate import provenance
    from pipeline.config import load
    from stages.repro.compose import composed
    from stages.repro.plan import locked

    params = composed(suite) if suite else load.load()
    if reference:
        origin = provenance.reference(Path(), params.suite)
        kept = origin.data / "params.yaml"
        params = load.load(kept) if kept.is_file() else params
    else:
        origin = provenance.here(Path(), params.suite, locked())
    about = provenance.explain(params, table, row, origin)
    if json_:
        show_json({"wrong": [], **about})
        return
    missed = about.pop("wrong", None)
    for line in _outline(about):
        print(line)
    if missed is None:
        return
    print(f"misclassified in at least one run: {len(missed)} videos")
    shown = missed if everything else missed[:20]
    for video in shown:
        place = f"{video['video']} (split {video['split']}, {video['class']})"
        print(f"  {place}: {video['wrong']}, {', '.join(video['taken for'])}")
    if len(shown) < len(missed):
        print(f"  and {len(missed) - len(shown)} more: --all")


def _outline(about: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """Yield the lines of nested values, indented; values other than text are JSON. Empty sections have no line."""
    for name, value in about.items():
        if isinstance(value, Mapping) and value:
            yield f"{indent}{name}:"
            yield from _outline(value, f"{indent}  ")
        elif isinstance(value, list) and value:
            yield f"{indent}{name}:"
            yield from (f"{indent}  {line}" for line in value)
        elif value not in ({}, []) or indent:
            yield f"{indent}{name}: {value if isinstance(value, str) else json.dumps(value)}"
