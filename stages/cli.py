"""The command line. Each command imports what it needs, so that help comes at once."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from pipeline.errors import UserError
from stages import DATA, run
from stages.commands.showing import Json, datasets, diff, explain, look, models, papers, report, tables, weights
from stages.own.commands import new, predict
from stages.terminal import amount, brief, duration, screen, show_json, show_table

app = typer.Typer(
    help="A distributed benchmark pipeline for video action recognition. Run it from the project's root.",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
tracking = typer.Typer(invoke_without_command=True)
app.add_typer(tracking, name="mlflow")
for command in (report, tables, papers, look, models, datasets, weights, diff, explain, new, predict):
    app.command()(command)


def main() -> None:
    """Runs a command; a user's mistake is one line and exit code 2."""
    run(_command)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"actionbench {version('actionbench')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def plan(
    json_: Json = False,
    power: Annotated[
        bool, typer.Option("--power", help="Which verdicts the seeds and test videos can reach, instead.")
    ] = False,
    suite: Annotated[str | None, typer.Option(help="With --power: a suite of conf/; default: params.yaml.")] = None,
    seed_sd: Annotated[float, typer.Option(min=0, help="With --power: sd between seeds, points, if unmeasured.")] = 1.0,
    disagree: Annotated[
        float, typer.Option(min=0, max=100, help="With --power: videos on which two networks differ, %, likewise.")
    ] = 20.0,
) -> None:
    """What would run, why, how long it would take and how many bytes it would leave."""
    if power:
        from stages.repro.power import show

        show(suite, seed_sd / 100, disagree / 100, json_)
        return
    from pipeline.config import load
    from stages.repro import estimate
    from stages.repro.plan import current, locked, project

    given = load.load()
    found = current(given, project())
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
                "epochs_kept": estimate.kept(step, given, DATA),
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
        ["stage", "runs", "why", "work, from", "leaves, from"],
        (
            [
                step.stage,
                str(len(step.runs) or "–"),
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
        print(
            f"Estimated: {estimate.work(sum(known), cluster, speeds)} for {len(known)} of {len(found)} stages", end=""
        )
        print(f"; {slots} runs at a time here, so about {duration(sum(known) / slots)}" if slots else "")
    else:
        print("No time can be estimated: " + "; ".join(sorted({time.source for _, time, _ in guesses})))
    if left := [size.value for _, _, size in guesses if size.value is not None]:
        print(f"They leave {amount(sum(left))}, as far as that is known ({len(left)} of {len(found)} stages).")
    if any(step.state == "may run" for step in found):
        print("?: skipped if what runs before it makes the same bytes again")
    print("What DVC has run before on the same inputs comes from its cache at once.")
    if epochs := sum(estimate.kept(step, given, DATA) for step in found):
        print(f"{cluster.storage} keeps {epochs} epochs of the same code and settings, which are not trained again.")


Targets = Annotated[list[str] | None, typer.Argument(help="Stages (train@tsn, train) or rows; all by default.")]
Jobs = Annotated[int, typer.Option("--jobs", "-j", min=1, help="Rows side by side.")]
KeepGoing = Annotated[bool, typer.Option("--keep-going", "-k", help="Do other rows when one has failed.")]
Wait = Annotated[bool, typer.Option("--wait", help="For another driver in this workspace to end.")]
Into = Annotated[str, typer.Option(help="A folder that all nodes see; by default the one that Ray was started in.")]


@app.command()
def repro(targets: Targets = None, jobs: Jobs = 1, keep_going: KeepGoing = False, wait: Wait = False) -> None:
    """Bring every result up to date: dvc repro with one Ray session for all stages. Then the tables."""
    from stages.repro.driver import repro
    from stages.repro.workspace import held

    try:
        with held(wait):
            code = repro(targets or [], jobs, keep_going)
    except KeyboardInterrupt:
        print("interrupted; the next repro goes on from here", file=sys.stderr)
        code = 130
    _leave(code, targets)


@app.command()
def submit(
    targets: Targets = None, jobs: Jobs = 1, keep_going: KeepGoing = False, wait: Wait = False, into: Into = ""
) -> None:
    """Repro on an existing Ray cluster, as a job there whose log and exit code come here; Ctrl-C stops it."""
    from stages.commands.submit import submit

    options = [f"--jobs={jobs}", *["--keep-going"] * keep_going, *["--wait"] * wait, *[f"--into={into}"] * bool(into)]
    raise typer.Exit(submit([*options, "--", *(targets or [])]))


@app.command(hidden=True)
def arrive(
    targets: Targets = None,
    jobs: Jobs = 1,
    keep_going: KeepGoing = False,
    wait: Wait = False,
    into: Into = "",
    commit: str = "",
) -> None:
    """What a submitted job runs, on the cluster."""
    from stages.commands.arrival import arrive

    try:
        code = arrive(into, commit, targets or [], jobs, keep_going, wait)
    except KeyboardInterrupt:
        code = 130
    _leave(code, targets)


@app.command()
def doctor(
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port `actionbench mlflow` is to have.")] = 5000,
    json_: Json = False,
) -> None:
    """Check that everything a run needs is there; exit code 1 where something is broken."""
    from stages.commands.doctor import checks

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
def same(
    base: Annotated[str, typer.Argument(help="The commit to compare with.")] = "HEAD",
    write: Annotated[Path | None, typer.Option(help="Only write this tree's sample, as JSON.", hidden=True)] = None,
) -> None:
    """Check that the code here makes the same bytes as a commit's; exit code 1 where it doesn't."""
    import tempfile

    from stages.repro import same

    if write:
        with tempfile.TemporaryDirectory() as folder:
            write.write_text(json.dumps(same.sample(Path(folder))), encoding="utf-8")
        return
    names, compared = same.differences(base)
    for name in names:
        print(f"differs: {name}")
    print(f"{compared - len(names)} of {compared} are the same bytes as at {base}")
    if names:
        raise typer.Exit(1)


@app.command()
def convert(
    file: Annotated[Path, typer.Argument(help="Weights by authors' names: ACTION-Net's, TSM's, TPN's, Hara's ...")],
    row: Annotated[str | None, typer.Option(help="The row whose net it is; by default the first that it fits.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where to; by default beside the file, `-ours` behind its name.")
    ] = None,
) -> None:
    """Write a file of weights by our names, strictly: a misfit names the first three names on either side."""
    from stages.commands.convert import convert

    print(convert(file, row, out))


@app.command()
def rehearse(
    suite: Annotated[
        str | None, typer.Option(help="Of conf/suite/, e.g. eam, or all for the five papers; else params.yaml.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Training steps on one batch of noise.")] = 3,
    clips: Annotated[
        int | None, typer.Option(min=1, help="Of a step and an evaluation batch; as published by default.")
    ] = None,
    price: Annotated[float | None, typer.Option(min=0, help="Dollars of an hour of this device.")] = None,
    json_: Json = False,
) -> None:
    """Rehearse a suite: each distinct net and recipe at full size, briefly; exit code 1 where a row would fail."""
    from pipeline.config import load
    from stages.commands import rehearse
    from stages.repro.compose import composed

    if rehearse.show(composed(suite) if suite else load.load(), steps, clips, price, json_):
        raise typer.Exit(1)


@tracking.callback()
def mlflow(
    context: typer.Context,
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5000,
    host: Annotated[str, typer.Option(help="Where it listens; anything else lets others in, unasked.")] = "127.0.0.1",
) -> None:
    """MLflow's server and UI over the runs, on loopback; its store is MLFLOW_BACKEND_STORE_URI, else mlflow.db."""
    if context.invoked_subcommand is None:
        from stages.commands.ui import serve

        serve(port, host)


@tracking.command()
def sync() -> None:
    """Bring MLflow's store up to the runs' own files: what was missed while it was away."""
    from stages.commands.ui import sync

    sync()


def _leave(code: int, targets: list[str] | None) -> None:
    """With this exit code, or with the tables where all was brought up to date."""
    from pipeline.config import load
    from stages.commands import report as reports

    if code:
        raise typer.Exit(code)
    if not targets:
        reports.show(load.load().suite)


def _command(*arguments: str) -> None:
    try:
        sys.exit(app(list(arguments) or ["--help"], prog_name="actionbench", standalone_mode=False))
    except typer.Abort:
        sys.exit(130)
    except TyperException as error:
        said = getattr(error, "format_message", error.__str__)().replace("\n", " ").rstrip(".")
        raise UserError(f"{said}; see --help") from None


if __name__ == "__main__":
    main()
