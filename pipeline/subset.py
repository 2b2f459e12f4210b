"""A tier's subset of a data set: a few classes and videos, always the same."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

from pipeline.config.schema import Subset
from pipeline.datasets import Part, Row, Splits


def reduced(whole: Splits, subset: Subset) -> Splits:
    """Return the lists of a subset, with classes renumbered and rows in order.

    Classes are evenly spaced in the official order. Each class and part takes the videos whose ids have the smallest
    sha256: the choice depends on the lists, not on the videos present. A part "val" takes as many as "test". A
    multi-label video keeps its chosen classes. A subset's subset is itself.
    """
    chosen = _spaced(len(whole.classes), subset.classes)
    numbers = {old: new for new, old in enumerate(chosen)}
    names = tuple(whole.classes[number] for number in chosen)
    return Splits(names, {split: _few(rows, numbers, subset) for split, rows in whole.rows.items()})


def videos(whole: Splits, subset: Subset) -> frozenset[str]:
    """Return the ids of the subset's videos, of all splits."""
    return frozenset(row.video for rows in reduced(whole, subset).rows.values() for row in rows)


def _spaced(count: int, parts: int) -> list[int]:
    """Return the middles of `parts` equal parts of `count` numbers, or all if fewer."""
    parts = min(count, parts)
    return [(2 * part + 1) * count // (2 * parts) for part in range(parts)]


def _few(rows: Sequence[Row], numbers: Mapping[int, int], subset: Subset) -> list[Row]:
    members = defaultdict[tuple[Part, int], list[str]](list)
    for row in rows:
        for label in row.labels:
            if label in numbers:
                members[row.part, label].append(row.video)
    taken = {
        (part, video)
        for (part, _), ids in members.items()
        for video in sorted(ids, key=_digest)[: subset.train if part == "train" else subset.test]
    }
    return [
        Row(row.video, row.part, tuple(numbers[label] for label in row.labels if label in numbers))
        for row in rows
        if (row.part, row.video) in taken
    ]


def _digest(video: str) -> str:
    return hashlib.sha256(video.encode()).hexdigest()
