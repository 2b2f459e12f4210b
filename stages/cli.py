"""The command line. Each command imports what it needs, so that help comes at once."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer
from typer.exceptions import TyperException

from pipeline.errors import UserError
from stages import DATA, run
from stages.terminal import amount, brief, clips, duration, screen, show_json, show_table

app = typer.Typer(
    help="A distributed benchmark pipeline for video action recognition. Run it from the project's root.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output, and nothing else.")]


def main() -> None:
    """Runs a command; a user's mistake is one line and exit code 2."""
    run(_command)


@app.command()
def plan(json_: Json = False) -> None:
    """What would run, why, how long it would take and how many bytes it would leave."""
    from pipeline import params
    from stages import estimate
    from stages.plan import current, locked

    given = params.load()
    found = current(given)
    speeds = estimate.measured(DATA, locked()) if found else {}
    guesses = [(step, estimate.seconds(step, given, DATA, speeds), estimate.size(step, DATA)) for step in found]
    cluster = given.cluster
    slots = estimate.side_by_side(cluster)
    if json_:
        stages = [
            {
                **asdict(step),
                "seconds": asdict(time),
                "bytes": asdict(size),
                "epochs_kept": estimate.kept(step, cluster),
            }
            for step, time, size in guesses
        ]
        show_json({"suite": given.suite, "side_by_side": slots, "stages": stages})
        return
    if not found:
        print("everything is up to date")
        return
    marks = {"may run": " ?", "restored": " (comes from DVC's cache)", "runs": ""}
    show_table(
        ["stage", "cells", "why", "work, from", "leaves, from"],
        (
            [
                step.stage,
                str(len(step.cells) or "–"),
                brief(step.reasons) + marks[step.state],
                "unknown" if time.value is None else f"{duration(time.value)}, {time.source}",
                "unknown" if size.value is None else f"{amount(size.value)}, {size.source}",
            ]
            for step, time, size in guesses
        ),
    )
    known = [time.value for step, time, _ in guesses if time.value is not None and step.state != "restored"]
    print()
    if known:
        print(f"Estimated: {duration(sum(known))} of work for {len(known)} of {len(found)} stages", end="")
        print(f"; {slots} cells at a time here, so about {duration(sum(known) / slots)}" if slots else "")
    else:
        print("No time can be estimated: " + "; ".join(sorted({time.source for _, time, _ in guesses})))
    if any(step.state == "may run" for step in found):
        print("?: skipped if what runs before it makes the same bytes again")
    print("What DVC has run before on the same inputs comes from its cache at once.")
    if epochs := sum(estimate.kept(step, cluster) for step in found):
        print(f"{cluster.storage} keeps the state of {epochs} epochs; those that still fit are not trained again.")


@app.command()
def repro(
    targets: Annotated[
        list[str] | None, typer.Argument(help="Stages (train@tsn, train) or rows; all by default.")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Rows side by side.")] = 1,
    keep_going: Annotated[bool, typer.Option("--keep-going", "-k", help="Do other rows when one has failed.")] = False,
) -> None:
    """Bring every result up to date: dvc repro with one Ray session for all stages. Then the tables."""
    from pipeline import params
    from stages import report as reports
    from stages.repro import repro

    try:
        code = repro(targets or [], jobs, keep_going)
    except KeyboardInterrupt:
        print("interrupted; the next repro goes on from here", file=sys.stderr)
        code = 130
    if code:
        raise typer.Exit(code)
    if not targets:
        reports.show(params.load().suite)


@app.command()
def report(
    suite: Annotated[
        str | None, typer.Option(help="A suite that has been run; the one in params.yaml by default.")
    ] = None,
    json_: Json = False,
) -> None:
    """The tables, and where they, the pictures and the runs are."""
    from pipeline import params
    from stages import report as reports

    wanted = suite or params.load().suite
    if json_:
        show_json({"suite": wanted, "tables": reports.rows(wanted), "paths": reports.paths(wanted)})
    else:
        reports.show(wanted)


@app.command()
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
    from stages.look import look

    path, title = look(row, video, show, stage, split, seed, output)
    print(f"{title}\n{path}")


@app.command()
def models(
    rows: Annotated[list[str] | None, typer.Argument(help="Rows to --measure; all by default.")] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Speed and memory of the rows' nets here.")] = False,
    parity: Annotated[
        bool, typer.Option("--parity", help="Every figure that the papers print of parameters and FLOPs, and ours.")
    ] = False,
    json_: Json = False,
) -> None:
    """Attention modules and backbones to choose from, and what the rows of params.yaml cost."""
    from pipeline import params
    from stages import catalogue

    if parity:
        from stages.parity import show

        show(json_)
        return
    if measure or rows:
        from stages.measure import show_rows

        show_rows(rows or [], json_)
        return
    given = params.load()
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


@app.command()
def datasets(json_: Json = False) -> None:
    """Data sets to choose from: classes, clips of each split, licence, and whether they are here."""
    from pipeline import params
    from stages import catalogue

    found = catalogue.datasets(params.load(), DATA)
    if json_:
        show_json([asdict(data) for data in found])
        return
    show_table(
        ["data set", "classes", "clips of splits", "official", "licence", "state"],
        (
            [data.name, str(data.classes or "–"), clips(data.found), clips(data.official), data.licence, data.state]
            for data in found
        ),
    )
    for data in found:
        if data.todo:
            print(f"\n{data.name}: {data.todo}")


@app.command()
def doctor(
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port `actionbench mlflow` is to have.")] = 5000,
    json_: Json = False,
) -> None:
    """Check that everything a run needs is there; exit code 1 where something is broken."""
    from stages.doctor import checks

    found, colours = [], {"ok": "green", "warning": "yellow", "broken": "red"}
    console = screen()
    for check in checks(port):
        found.append(check)
        if not json_:
            console.print(f"[{colours[check.state]}]{check.state:<8}[/] {check.name:<15}", end=" ")
            console.print(check.found, markup=False, soft_wrap=True)
            if check.mend:
                console.print(f"{'':25}mend: {check.mend}", markup=False, soft_wrap=True)
    if json_:
        show_json([asdict(check) for check in found])
    if any(check.state == "broken" for check in found):
        raise typer.Exit(1)


@app.command()
def mlflow(port: Annotated[int, typer.Option(min=1, max=65535)] = 5000) -> None:
    """The MLflow UI on 127.0.0.1."""
    from stages.ui import serve

    serve(port)


def _command(*arguments: str) -> None:
    try:
        sys.exit(app(list(arguments) or ["--help"], standalone_mode=False))
    except typer.Abort:
        sys.exit(130)
    except TyperException as error:
        said = getattr(error, "format_message", error.__str__)().replace("\n", " ").rstrip(".")
        raise UserError(f"{said}; see --help") from None
