"""Commands for a user's own videos: a suite for them, and new ones classified."""

from pathlib import Path
from typing import Annotated

import typer


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
        print(f"{suite.lists}: the lists, drawn by seed {seed}; clips of one recording belong into the same list")
    print(f"next: dvc exp run -S suite={name} && actionbench report")
