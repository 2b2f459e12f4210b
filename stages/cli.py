"""The command line.

Each command imports its packages itself, so that help is fast.
"""

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
    """Run a command; a user's error is one line and exit code 2."""
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
        bool, typer.Option("--power", help="Instead list the verdicts that seeds and test videos can reach.")
    ] = False,
    suite: Annotated[str | None, typer.Option(help="With --power: a suite of conf/; default: params.yaml.")] = None,
    seed_sd: Annotated[float, typer.Option(min=0, help="With --power: sd between seeds, points, if unmeasured.")] = 1.0,
    disagree: Annotated[
        float, typer.Option(min=0, max=100, help="With --power: videos on which two networks differ, %, if unmeasured.")
    ] = 20.0,
) -> None:
    """List the stages that would run, with reason, estimated time and size."""
    if power:
        from stages.repro.power import show

        show(suite, seed_sd / 100, disagree / 100, json_)
        return
    from pipeline.config import load
    from stages.repro import estimate
    from stages.repro.plan import current, locked, project

    params = load.load()
    steps = current(params, project())
    speeds = estimate.known(params, DATA, locked()) if steps else {}
    guesses = [(step, estimate.seconds(step, params, DATA, speeds), estimate.size(step, DATA)) for step in steps]
    cluster = params.cluster
    if json_:
        stages = [
            {
                **asdict(step),
                "seconds": asdict(time),
                "bytes": asdict(size),
                "epochs_kept": estimate.kept(step, params, DATA),
            }
            for step, time, size in guesses
        ]
        show_json({"suite": params.suite, "side_by_side": estimate.side_by_side(cluster), "stages": stages})
        return
    if not steps:
        print("everything is up to date")
        return
    marks = {"may run": " ?", "restored": " (from DVC's cache)", "runs": ""}
    show_table(
        ["stage", "runs", "reason", "work, from", "output, from"],
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
    known = [(step, time.value) for step, time, _ in guesses if time.value is not None and step.state != "restored"]
    print()
    if known:
        work = estimate.work(sum(seconds for _, seconds in known), cluster, speeds)
        print(f"Estimated: {work} for {len(known)} of {len(steps)} stages", end="")
        if (wall := estimate.wall(known, cluster)) is not None:
            print(f", side by side in about {duration(wall)} here", end="")
        print(f"; {origin}" if (origin := estimate.origin(speeds)) else "")
    else:
        print("No time can be estimated: " + "; ".join(sorted({time.source for _, time, _ in guesses})))
    if left := [size.value for _, _, size in guesses if size.value is not None]:
        print(f"Outputs: {amount(sum(left))} ({len(left)} of {len(steps)} stages are known).")
    if any(step.state == "may run" for step in steps):
        print("?: skipped if earlier stages give the same bytes as before")
    print("DVC restores results of the same inputs from its cache.")
    if epochs := sum(estimate.kept(step, params, DATA) for step in steps):
        print(f"{cluster.storage} has {epochs} epochs of the same code and settings, which training resumes.")


Targets = Annotated[list[str] | None, typer.Argument(help="Stages (train@tsn, train) or rows; default: all.")]
Jobs = Annotated[int, typer.Option("--jobs", "-j", min=1, help="Number of rows to run in parallel.")]
KeepGoing = Annotated[bool, typer.Option("--keep-going", "-k", help="Continue with other rows after a failure.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for another driver in this workspace.")]
Into = Annotated[str, typer.Option(help="A folder that all nodes share; default: the one in which Ray was started.")]


@app.command()
def repro(targets: Targets = None, jobs: Jobs = 1, keep_going: KeepGoing = False, wait: Wait = False) -> None:
    """Bring every result up to date in one Ray session, then print the tables."""
    from stages.repro.driver import repro
    from stages.repro.workspace import held

    try:
        with held(wait):
            code = repro(targets or [], jobs, keep_going)
    except KeyboardInterrupt:
        print("interrupted; the next repro resumes", file=sys.stderr)
        code = 130
    _leave(code, targets)


@app.command()
def submit(
    targets: Targets = None, jobs: Jobs = 1, keep_going: KeepGoing = False, wait: Wait = False, into: Into = ""
) -> None:
    """Run repro as a job on an existing Ray cluster, with its log and exit code here.

    Ctrl-C stops the job.
    """
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
    """Run a submitted job on the cluster."""
    from stages.commands.arrival import arrive

    try:
        code = arrive(into, commit, targets or [], jobs, keep_going, wait)
    except KeyboardInterrupt:
        code = 130
    _leave(code, targets)


@app.command()
def doctor(
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port for `actionbench mlflow`.")] = 5000,
    suite: Annotated[str | None, typer.Option(help="A suite of conf/; default: that of params.yaml.")] = None,
    json_: Json = False,
) -> None:
    """Check the requirements of a run; exit code 1 if one is broken."""
    from stages.commands.doctor import checks

    done, colours = [], {"ok": "green", "warning": "yellow", "broken": "red"}
    console = screen()
    for check in checks(port, suite):
        done.append(check)
        if not json_:
            console.print(f"[{colours[check.state]}]{check.state:<8}[/] {check.name:<15}", end=" ")
            console.print(check.found, markup=False, soft_wrap=True)
            if check.mend:
                console.print(f"{'':25}fix: {check.mend}", markup=False, soft_wrap=True)
    if json_:
        show_json([asdict(check) for check in done])
    if any(check.state == "broken" for check in done):
        raise typer.Exit(1)


@app.command()
def same(
    base: Annotated[str, typer.Argument(help="The commit to compare with.")] = "HEAD",
    write: Annotated[Path | None, typer.Option(help="Only write this tree's sample, as JSON.", hidden=True)] = None,
) -> None:
    """Compare this code's results with a commit's, by byte.

    Exit code 1 on a difference.
    """
    import tempfile

    from stages.repro import same

    if write:
        with tempfile.TemporaryDirectory() as folder:
            write.write_text(json.dumps(same.sample(Path(folder))), encoding="utf-8")
        return
    names, compared = same.differences(base)
    for name in names:
        print(f"differs: {name}")
    print(f"{compared - len(names)} of {compared} have the same bytes as at {base}")
    if names:
        raise typer.Exit(1)


@app.command()
def convert(
    file: Annotated[Path, typer.Argument(help="Weights with authors' names: ACTION-Net's, TSM's, TPN's, Hara's ...")],
    row: Annotated[str | None, typer.Option(help="The row of the network; default: the first that fits.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Target; default: next to the file, with the suffix `-ours`.")
    ] = None,
) -> None:
    """Rename the weights of an authors' file for our networks.

    A misfit is an error with the first three names on either side.
    """
    from stages.commands.convert import convert

    print(convert(file, row, out))


@app.command()
def rehearse(
    suite: Annotated[
        str | None, typer.Option(help="A suite of conf/suite/, such as eam or all; default: params.yaml.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Training steps on one batch of noise.")] = 3,
    clips: Annotated[
        int | None, typer.Option(min=1, help="Clips of a step and of an evaluation batch; default: as published.")
    ] = None,
    price: Annotated[float | None, typer.Option(min=0, help="Dollars per hour of this device.")] = None,
    json_: Json = False,
) -> None:
    """Rehearse each network and recipe of a suite at full size.

    Exit code 1 if one fails.
    """
    from pipeline.config import load
    from stages.commands import rehearse
    from stages.repro.compose import composed

    if rehearse.show(composed(suite) if suite else load.load(), steps, clips, price, json_):
        raise typer.Exit(1)


@tracking.callback()
def mlflow(
    context: typer.Context,
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5000,
    host: Annotated[
        str, typer.Option(help="Address to listen at; others than the default let anyone in.")
    ] = "127.0.0.1",
) -> None:
    """Start MLflow's server and UI, on loopback by default.

    The store is MLFLOW_BACKEND_STORE_URI, otherwise mlflow.db.
    """
    if context.invoked_subcommand is None:
        from stages.commands.ui import serve

        serve(port, host)


@tracking.command()
def sync() -> None:
    """Send the runs' results that MLflow's store lacks."""
    from stages.commands.ui import sync

    sync()


def _leave(code: int, targets: list[str] | None) -> None:
    """Exit with this code, or print the tables after a full and successful run."""
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
        message = getattr(error, "format_message", error.__str__)().replace("\n", " ").rstrip(".")
        raise UserError(f"{message}; see --help") from None


if __name__ == "__main__":
    main()
