"""The folders of a data set's videos and lists."""

from pathlib import Path

from pipeline.config.schema import Dataset

COPIES = (".dvc", "tmp", "exps")  # below a project: DVC's copies of it for experiments


def remote(source: str) -> bool:
    """Return true if a source is a URL."""
    return "://" in source


def local(dataset: Dataset, root: Path) -> Path | None:
    """Return the user's folder or archive in `source`; None for other sources."""
    if dataset.source == "generated" or remote(dataset.source):
        return None
    return path_of(root, dataset.source.partition("#sha256=")[0])


def located(dataset: Dataset, root: Path, videos: Path) -> Path:
    """Return the folder of the videos: `source` if it is a folder, or `videos`."""
    folder = local(dataset, root)
    return folder if folder and folder.is_dir() else videos


def lists(dataset: Dataset, root: Path, videos: Path) -> Path:
    """Return the folder of the lists: `lists`, or the videos' folder."""
    return path_of(root, dataset.lists) if dataset.lists else located(dataset, root, videos)


def project(root: Path) -> Path:
    """Return the project's root; of a copy by `dvc exp run --temp`, the original's."""
    parts = root.absolute().parts
    for at in range(len(parts) - len(COPIES)):
        if parts[at : at + len(COPIES)] == COPIES:
            return Path(*parts[:at])
    return root


def path_of(root: Path, place: str) -> Path:
    """Return a path of params.yaml, relative to the root or a copy's real project."""
    path = Path(place).expanduser()
    return root / path if (root / path).exists() else project(root) / path
