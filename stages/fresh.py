"""The stages `code` and `inputs` without DVC."""

from pathlib import Path

from pipeline.config import load
from pipeline.digest import code, inputs
from pipeline.errors import UserError
from pipeline.storage import notes
from stages import DATA
from stages.code import FOLDER, write_digests

FILE = Path("stages/dvc.yaml")  # of these two stages


def refresh() -> None:
    """Bring reports/code and reports/inputs up to date, if the project has these stages."""
    if FILE.is_file():
        write_digests()
        inputs.write(load.load(), Path.cwd(), DATA)


def check() -> None:
    """Refuse to run a stage whose code or params differ from those that DVC records.

    Raises:
        UserError: Sources or params.yaml changed since the first stages ran, or `dvc repro -s` skipped these.
    """
    old = [name for name, text in code.files().items() if _bytes(FOLDER / name) != text.encode()]
    settings = inputs.settings(load.load(), Path.cwd())
    for name, content in settings.items():
        noted = notes.read(inputs.FOLDER / name) or {}
        old += [name] * any(noted.get(kind) != value for kind, value in content.items())
    if old:
        raise UserError(
            f"{old[0]} is older than the code or params.yaml; run `dvc repro {FILE}`, then repeat the command"
        )


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None
