"""Stage `code`: digests of each stage's and plug-in's code, in reports/code/."""

from pathlib import Path

from pipeline.digest import code
from pipeline.storage.atomic import write
from stages import run

FOLDER = Path("reports/code")


def write_digests() -> None:
    """Write a file for each stage and plug-in; remove those of deleted plug-ins."""
    texts = {FOLDER / path: text for path, text in code.files().items()}
    for path, text in texts.items():
        if not path.is_file() or path.read_bytes() != text.encode():
            write(path, text)
    for path in sorted(FOLDER.rglob("*")):
        if path.is_file() and path not in texts:
            path.unlink()


if __name__ == "__main__":
    run(write_digests)
