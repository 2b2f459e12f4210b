"""The folders of a data set's videos and lists."""

from pathlib import Path

from pipeline.schema import Dataset


def remote(source: str) -> bool:
    """Tell whether a source is a URL."""
    return "://" in source


def local(dataset: Dataset, root: Path) -> Path | None:
    """Return the user's folder or archive that `source` names; None where it is a URL, or the videos are drawn."""
    if dataset.source == "generated" or remote(dataset.source):
        return None
    return root / Path(dataset.source.partition("#sha256=")[0]).expanduser()


def located(dataset: Dataset, root: Path, videos: Path) -> Path:
    """Return where the videos lie once fetched: the user's folder where `source` is one, else `videos`.

    `root` is what a relative source starts from.
    """
    folder = local(dataset, root)
    return folder if folder and folder.is_dir() else videos


def lists(dataset: Dataset, root: Path, videos: Path) -> Path:
    """Return where the lists lie: in `lists`, else with the videos."""
    return root / Path(dataset.lists).expanduser() if dataset.lists else located(dataset, root, videos)
