"""Commands for a user's own videos: a suite for them, and new ones classified."""

import sys
from pathlib import Path
from typing import Annotated

import typer

SHOWN = 5  # damaged videos that the terminal names


def new(
    name: Annotated[str, typer.Argument(help="Of the suite, e.g. mine.")],
    folder: Annotated[Path, typer.Argument(help="Has one folder of videos for each class.")],
    seed: Annotated[int, typer.Option(min=0, help="Of the lists that are drawn if the folder has none.")] = 0,
) -> None:
    """Write a suite for your own videos, conf/suite/NAME.yaml, and print the next command."""
    from stages.own.new import new

    suite = new(name, folder, seed)
    splits = f" in each of {suite.splits} splits" if suite.splits > 1 else ""
    print(f"{suite.path}: {suite.classes} classes, {suite.train} training and {suite.test} test videos{splits}")
    if suite.lists:
        print(f"{suite.lists}: the lists, drawn by seed {seed}; clips of one recording belong in the same list")
    print(f"next: dvc exp run -S suite={name} && actionbench report")


def predict(
    row: Annotated[str, typer.Argument(help="A row of params.yaml that has been trained.")],
    folder: Annotated[Path, typer.Argument(help="Of new videos, at any depth; or one video file.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A .csv; in data/predicted/ by default.")] = None,
) -> None:
    """Classify new videos with a row's trained networks, into a CSV with the five best classes of each."""
    from stages.own.predict import predict

    path, answers, networks = predict(row, folder, out)
    damaged = [answer for answer in answers if answer.problem]
    for answer in damaged[:SHOWN]:
        print(f"{answer.video} can't be decoded: {answer.problem}", file=sys.stderr)
    if len(damaged) > SHOWN:
        print(f"and {len(damaged) - SHOWN} more can't be decoded; the file has the reasons", file=sys.stderr)
    classified = len(answers) - len(damaged)
    print(f"{path}: {classified} of {len(answers)} videos classified, by the mean of {networks} networks")
