"""Stage 3, for one data set: split tables from its lists, checked for leaks."""

import sys
from pathlib import Path

from pipeline import splits
from pipeline.config import load, places
from pipeline.digest.files import write_sums
from pipeline.download import sources
from stages import DATA, chosen, run


def make_splits(name: str) -> None:
    params = load.load()
    dataset = chosen(params, name)
    entries = sources.read(DATA / "raw" / name / "manifest.csv")
    lists = places.lists(dataset, Path.cwd(), DATA / "videos" / name)
    built = splits.build(name, dataset, entries, lists, params.tier.subset)
    splits.write(built, DATA / "splits" / name)
    write_sums(DATA / "splits" / name)
    for note in built.notes:
        print(f"note: {note}", file=sys.stderr)
    for split, table in built.tables.items():
        parts = ", ".join(f"{count} {part}" for part, count in sorted(table.group_by("part").len().rows()))
        print(f"{name}, split {split}: {parts}, {len(built.classes)} classes")


if __name__ == "__main__":
    run(make_splits)
