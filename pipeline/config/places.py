"""The folders of a data set's videos and lists."""

from pathlib import Path

from pipeline.config.schema import Dataset

COPIES = (".dvc", "tmp", "exps")  # below a project: where DVC puts copies of it for experiments


def remote(source: str) -> bool:
    """Tell whether a source is a URL."""
    return "://" in source


def local(dataset: Dataset, root: Path) -> Path | None:
    """Return the user's folder or archive that `source` names; None where it is a URL, or the videos are drawn."""
    if dataset.source == "generated" or remote(dataset.source):
        return None
    return path_of(root, dataset.source.partition("#sha256=")[0])


def located(dataset: Dataset, root: Path, videos: Path) -> Path:
    """Return where the videos lie once fetched: the user's folder where `source` is one, else `videos`.

    `root` is what a relative source starts from.
    """
    folder = local(dataset, root)
    return folder if folder and folder.is_dir() else videos


def lists(dataset: Dataset, root: Path, videos: Path) -> Path:
    """Return where the lists lie: in `lists`, else with the videos."""
    return path_of(root, dataset.lists) if dataset.lists else located(dataset, root, videos)


def project(root: Path) -> Path:
    """Return the project's root; that of the real project for a copy of it that `dvc exp run --temp` makes in it."""
    parts = root.absolute().parts
    for at in range(len(parts) - len(COPIES)):
        if parts[at : at + len(COPIES)] == COPIES:
            return Path(*parts[:at])
    return root


def path_of(root: Path, place: str) -> Path:
    """Return a path of params.yaml: relative to the root or, if it isn't there, to the real project of a copy."""
    path = Path(place).expanduser()
    return root / path if (root / path).exists() else project(root) / path
