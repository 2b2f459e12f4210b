"""Commands that only look: results, nets, data sets, what changed, and where a number comes from."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from stages import DATA
from stages.terminal import amount, clips, show_json, show_table

Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output, and nothing else.")]


def report(
    suite: Annotated[
        str | None, typer.Option(help="A suite that has been run; the one in params.yaml by default.")
    ] = None,
    json_: Json = False,
) -> None:
    """The tables, and where they, the pictures and the runs are."""
    from pipeline.config import load
    from stages.commands import report as reports

    wanted = suite or load.load().suite
    if json_:
        show_json({"suite": wanted, "tables": reports.rows(wanted), "paths": reports.paths(wanted)})
    else:
        reports.show(wanted)


def look(
    row: Annotated[str, typer.Argument(help="A row of params.yaml that has been trained.")],
    video: Annotated[str, typer.Argument(help="A video of the row's data set, by its name there, or a video file.")],
    show: Annotated[
        Literal["gradcam", "eam", "receptive"],
        typer.Option(help="Grad-CAM, EAM's weights, or ISTPA's salient receptive fields."),
    ] = "gradcam",
    stage: Annotated[str | None, typer.Option(help="Grad-CAM's, e.g. res4; the last by default.")] = None,
    split: Annotated[int | None, typer.Option(help="Of the run; the row's first by default.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the run; the row's first by default.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A .png; below data/looks/ by default.")] = None,
) -> None:
    """A picture of what a trained net made of a video: where in its frames it looked, or when."""
    from stages.commands.look import look

    path, title = look(row, video, show, stage, split, seed, output)
    print(f"{title}\n{path}")


def models(
    rows: Annotated[list[str] | None, typer.Argument(help="Rows to --measure; all by default.")] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Speed and memory of the rows' nets here.")] = False,
    parity: Annotated[
        bool, typer.Option("--parity", help="Every figure that the papers print of parameters and FLOPs, and ours.")
    ] = False,
    json_: Json = False,
) -> None:
    """Attention modules and backbones to choose from, and what the rows of params.yaml cost."""
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
    given = load.load()
    found, costs = catalogue.models(), catalogue.costs(given, DATA)
    if json_:
        show_json({"models": [asdict(model) for model in found], "rows": [asdict(cost) for cost in costs]})
        return
    show_table(["kind", "name", "variants", "about"], ([m.kind, m.name, " ".join(m.variants), m.about] for m in found))
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
    """Data sets to choose from: classes, clips of each split, size, licence, and whether they are here."""
    from pipeline.config import load
    from stages.commands import catalogue

    found = catalogue.datasets(load.load(), DATA)
    if json_:
        show_json([asdict(data) for data in found])
        return
    show_table(
        ["data set", "classes", "clips here", "official", "size here", "download", "licence", "state"],
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
            for data in found
        ),
    )
    for data in found:
        if data.todo:
            print(f"\n{data.name} ({data.homepage}): {data.todo}" if data.homepage else f"\n{data.name}: {data.todo}")


def weights(
    names: Annotated[list[str] | None, typer.Argument(help="Weights to download; without any, all are listed.")] = None,
    json_: Json = False,
) -> None:
    """Pre-trained weights that rows can start from, with their state here; named ones are downloaded."""
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
    print("\nmissing: downloaded when a row needs it. by hand: `actionbench weights NAME` says from where to where.")


def diff(
    first: Annotated[
        str, typer.Argument(help="A git revision, a DVC experiment, workspace, or reference: the maintainers' results.")
    ],
    second: Annotated[str, typer.Argument(help="The same; the files as they are now by default.")] = "workspace",
    everything: Annotated[bool, typer.Option("--all", help="Also cells that stayed within their interval.")] = False,
    json_: Json = False,
) -> None:
    """Which cells moved beyond their interval, and the param, data, code or seed change behind each."""
    from pipeline.aggregate.changes import WORKSPACE, moves, read
    from stages.repro.plan import dvc

    if first == "reference" and second == WORKSPACE:
        _diff_reference(json_)
        return
    revisions = {first, second} - {WORKSPACE}
    cache = Path(dvc("cache", "dir").strip()) if revisions else None
    found = moves(read(first, Path(), cache), read(second, Path(), cache))
    shown = [move for move in found if everything or move.beyond]
    if json_:
        show_json({"cells": len(found), "moved": [asdict(move) for move in shown]})
        return
    print(f"{sum(move.beyond for move in found)} of {len(found)} cells moved beyond their interval")
    for move in shown:
        values = ("–" if value is None else f"{value:.1f}" for value in (move.before, move.after))
        print(f"\n{move.row}, {move.metric}: {' -> '.join(values)}{'' if move.beyond else ' (within)'}")
        for cause in move.causes or ("nothing that dvc.lock records differs",):
            print(f"  {cause}")


def _diff_reference(json_: bool) -> None:
    """Compare this workspace's results with the reference results of its suite."""
    from pipeline.aggregate import agreement
    from pipeline.config import load

    found = agreement.compare(Path("reports"), load.load().suite)
    if json_:
        show_json(asdict(found))
        return
    for line in agreement.words(found):
        print(line)


def tables(
    suite: Annotated[
        str | None, typer.Argument(help="A suite; all with --reference, else that of params.yaml.")
    ] = None,
    reference: Annotated[bool, typer.Option("--reference", help="Those of reports/reference, from git.")] = False,
    save: Annotated[
        bool, typer.Option("--save", help="Maintainers: make this workspace's results its suite's reference results.")
    ] = False,
) -> None:
    """Recompute tables, figures and the page from predictions alone: no data, no training."""
    from stages.commands import recompute

    if save:
        recompute.save()
    elif reference:
        recompute.reference(suite)
    else:
        recompute.workspace(suite)


def papers() -> None:
    """Write the five papers' tables, each printed number with ours, and their claims, from whatever has run."""
    from pipeline.aggregate import reference
    from stages.commands import recompute

    recompute.papers()
    print(f"all tables on {reference.show(Path('reports'))}")


def explain(
    table: Annotated[str, typer.Argument(help="A table of params.yaml or of the suite's paper, e.g. ablation or T1.")],
    row: Annotated[str, typer.Argument(help="One of its rows, as the table names it.")],
    everything: Annotated[bool, typer.Option("--all", help="All videos it got wrong, not the first 20.")] = False,
    json_: Json = False,
) -> None:
    """Where a number comes from: protocol, settings, runs, data, code, the videos it got wrong, how to remake it."""
    from pipeline.aggregate import provenance
    from pipeline.config import load
    from stages.repro.plan import locked

    about = provenance.explain(load.load(), table, row, Path(), locked())
    if json_:
        show_json({"wrong": [], **about})
        return
    missed = about.pop("wrong", None)
    for name, value in about.items():
        if not isinstance(value, dict | list):
            print(f"{name}: {value}")
            continue
        print(f"{name}:")
        for line in value if isinstance(value, list) else (f"{key}: {inner}" for key, inner in value.items()):
            print(f"  {line}")
    if missed is None:
        return
    print(f"wrong, in one run at least: {len(missed)} videos")
    shown = missed if everything else missed[:20]
    for one in shown:
        print(f"  {one['video']} (split {one['split']}, {one['class']}): {one['wrong']}, {', '.join(one['taken for'])}")
    if len(shown) < len(missed):
        print(f"  and {len(missed) - len(shown)} more: --all")
