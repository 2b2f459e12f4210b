"""What stands below a table: what its numbers are, how they were made, and what they are tested by."""

from collections.abc import Sequence

from pipeline.measure.results import Result

MEANS = (
    "in %: means over splits and seeds, [95 % interval: bootstrap over videos, "
    "and over seeds where there are several]. "
)
ONE_LABEL = (
    f"Top-1, top-5 and mean class accuracy {MEANS}n: test videos, summed over splits; one that could not be decoded "
    "counts as wrong. MACs are those of one view."
)
SEVERAL_LABELS = (
    f"mAP and wAP {MEANS}A class's average precision is over the videos as Charades' own evaluation has it; mAP is the "
    "mean over classes, wAP the mean weighted by their positives. n: test videos that have a label, summed over "
    "splits; one that could not be decoded ranks last. MACs are those of one view."
)
SPREAD = "sd of splits: the standard deviation of the splits' own {}, in points; the CSV has each split's."
FUSED = (
    "A fusion is the weighted mean of other rows' scores, with the weights beside its protocol; its parameters and "
    "MACs are the rows' sums."
)
PAIRED = (
    "Differences are a row less its base, in points of top-1, [95 % interval], on the same videos, splits and seeds. "
    "p: exact paired test (McNemar's; over several seeds or splits its generalisation by sign flips), two-sided, "
    "Holm-adjusted for this table's rows. Better and worse: p < 0.05 and an interval without 0."
)
PAIRED_SEVERAL = (
    "Differences are a row less its base, in points of mAP, [95 % interval], on the same videos, splits and seeds. "
    "p: paired bootstrap test on the resamples of the interval, two-sided, Holm-adjusted for this table's rows. Better "
    "and worse: p < 0.05 and an interval without 0."
)


def below(rows: Sequence[Result], paired: bool) -> str:
    """A paragraph for each kind of number that the rows have; `paired` where the first row is the others' base."""
    kinds = sorted({row.several for row in rows})
    notes = [SEVERAL_LABELS if several else ONE_LABEL for several in kinds]
    if splits(rows):
        notes.append(SPREAD.format(" or ".join("mAP" if several else "top-1" for several in kinds)))
    if any(row.backbone == "fusion" for row in rows):
        notes.append(FUSED)
    if paired:
        notes.append(PAIRED_SEVERAL if rows[0].several else PAIRED)
    return "\n\n".join(notes)


def splits(rows: Sequence[Result]) -> list[int]:
    """All splits of the rows, if one of them has several; else none, for there is no spread to print."""
    return sorted({split for row in rows for split in row.splits}) if any(len(row.splits) > 1 for row in rows) else []
