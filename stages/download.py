"""Stage 1, for one data set: videos from a URL, a folder, an archive, or drawn; leaves the list of what is there."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cluster.fanout import fan_out
from cluster.session import session
from pipeline import datasets, subset
from pipeline.config import load, places
from pipeline.download import sources
from stages import DATA, chosen, run


def download(name: str) -> None:
    given = load.load()
    dataset = chosen(given, name)

    def each(make: Callable[[Any], None], items: Sequence[Any]) -> None:
        with session(given.cluster, data=True):
            for _ in fan_out(make, [(item,) for item in items], f"draw {name}", given.cluster.max_failures):
                pass

    videos, part, drawn = DATA / "videos" / name, given.tier.subset, dataset.source == "generated"
    plugin, lists = datasets.loaded(dataset.file), places.lists(dataset, Path.cwd(), videos)
    wanted = None
    if part and drawn:
        wanted = subset.videos(plugin.splits(lists, dataset.options), part)
    folder = sources.fetch(name, dataset, Path.cwd(), videos, each, wanted)
    if part and not drawn:  # lists may come with the videos
        wanted = subset.videos(plugin.splits(lists, dataset.options), part)
    entries = sources.manifest(name, dataset, folder, wanted)
    sources.write(DATA / "raw" / name / "manifest.csv", entries)
    print(f"{name}: {len(entries)} videos, {sum(entry.bytes for entry in entries) / 2**20:.0f} MiB")


if __name__ == "__main__":
    run(download)
