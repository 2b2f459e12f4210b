"""Files that only the user can provide: videos, lists and weights, and the absent ones."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline import datasets
from pipeline.config import places
from pipeline.config.pretrained import is_name, located, registry
from pipeline.config.schema import Dataset, Params
from pipeline.errors import UserError
from stages.repro.plan import Step, key, noun


@dataclass(frozen=True)
class Missing:
    """An absent file or folder, and the remedy."""

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}"


def missing(params: Params, steps: Iterable[Step], root: Path) -> list[Missing]:
    """Return the absent files that stale stages read, the data sets' first.

    A restored stage reads nothing, and published weights with a URL are downloaded.
    """
    stages = [step.stage for step in steps if step.state != "restored"]
    keys = {name: [key(stage) for stage in stages if noun(stage) == name] for name in ("download", "splits", "train")}
    found = [each for name in keys["download"] for each in videos(name, params.datasets[name], root)]
    lists = dict.fromkeys([*keys["splits"], *(keys["download"] if params.tier.subset else ())])
    found += [each for name in lists for each in listed(name, params.datasets[name], root)]
    return list(dict.fromkeys([*found, *weights(params, keys["train"], root)]))


def videos(name: str, dataset: Dataset, root: Path) -> list[Missing]:
    """Return a data set's videos if they are absent: neither drawn, downloaded nor here."""
    plugin = datasets.loaded(dataset.file)
    if dataset.source == "generated":
        try:
            plugin.plan(dataset.options)  # type: ignore[attr-defined]
        except AttributeError:
            pass  # the stage reports a set that can't be drawn
        except UserError as error:
            return [Missing(str(error), f"correct datasets.{name}.options{_fetch(dataset)}")]
        return []
    place = places.local(dataset, root)
    if place is None or place.is_file() or _filled(place):
        return []
    remedy = f"put them there, or set datasets.{name}.source to their place{_fetch(dataset)}"
    return [Missing(f"data set {name}: no videos at {place}", remedy)]


def listed(name: str, dataset: Dataset, root: Path) -> list[Missing]:
    """Return a data set's lists if they are absent; lists inside of an archive are unknown."""
    local = places.local(dataset, root)
    if dataset.lists is None and not (local and _filled(local)):
        return []
    folder, patterns = places.lists(dataset, root, root), datasets.loaded(dataset.file).READS
    if any(path for pattern in patterns for path in folder.glob(pattern)) or (not patterns and folder.is_dir()):
        return []
    expected = f" ({', '.join(patterns[:2])}{' ...' if len(patterns) > 2 else ''})" if patterns else ""
    remedy = f"put them there, or set datasets.{name}.lists to their folder"
    return [Missing(f"data set {name}: no lists at {folder}{expected}", remedy)]


def weights(params: Params, rows: Iterable[str], root: Path) -> list[Missing]:
    """Return the rows' absent files of weights that are not downloaded on demand."""
    absent = []
    for name in sorted({row for each in rows if (row := params.experiments[each].weights)}):
        if places.remote(name) or (path := located(name, root)).is_file():
            continue
        remedy = "put it there, or set the rows' weights to null to train from scratch"
        if is_name(name):
            if registry()[name].url:
                continue
            remedy = f"download {path.name} from {registry()[name].page} and {remedy}"
        absent.append(Missing(f"weights {name}: no file at {path}", remedy))
    return absent


def _filled(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _fetch(dataset: Dataset) -> str:
    what = getattr(datasets.loaded(dataset.file), "FETCH", "")
    return f"; to fetch: {what}" if what else ""
