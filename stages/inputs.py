"""Stage `inputs`: digests of the files that params name by a path, into data/inputs/."""

from pathlib import Path

from pipeline.config import load
from pipeline.digest import inputs
from stages import DATA, run


def write_inputs() -> None:
    """Take the digests of the inputs of params.yaml as they are now."""
    inputs.write(load.load(), Path.cwd(), DATA)


if __name__ == "__main__":
    run(write_inputs)
