"""Stage 1, for one data set: fetch or draw its videos, and list them."""

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
    params = load.load()
    dataset = chosen(params, name)

    def each(make: Callable[[Any], None], items: Sequence[Any]) -> None:
        with session(params.cluster, data=True):
            for _ in fan_out(make, [(item,) for item in items], f"draw {name}", params.cluster.max_failures):
                pass

    videos, part, drawn = DATA / "videos" / name, params.tier.subset, dataset.source == "generated"
    plugin, lists = datasets.loaded(dataset.file), places.lists(dataset, Path.cwd(), videos)
    chosen_videos = None
    if part and drawn:
        chosen_videos = subset.videos(plugin.splits(lists, dataset.options), part)
    folder = sources.fetch(name, dataset, Path.cwd(), videos, each, chosen_videos)
    if part and not drawn:  # lists may come with the videos
        chosen_videos = subset.videos(plugin.splits(lists, dataset.options), part)
    entries = sources.manifest(name, dataset, folder, chosen_videos)
    sources.write(DATA / "raw" / name / "manifest.csv", entries)
    print(f"{name}: {len(entries)} videos, {sum(entry.bytes for entry in entries) / 2**20:.0f} MiB")


if __name__ == "__main__":
    run(download)
