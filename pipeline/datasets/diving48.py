"""Diving48, version 2: dives in 48 classes (Li, Li and Vasconcelos 2018).

A class is a take-off, somersaults, twists and a position. In version 2 the makers cleaned their labels; it lists 16,997
of the 18,404 clips. Accuracies on version 1 are of other labels and other lists: don't compare them.
"""

import json
from pathlib import Path

from pipeline.datasets import NoOptions, Options, Part, Row, Splits, Video, by_name, chosen, entries
from pipeline.errors import UserError

LICENCE = "the makers state none; the clips are from YouTube"
CITATION = "Li, Li, Vasconcelos: RESOUND: Towards action recognition without representation bias. ECCV 2018"
HOMEPAGE = "http://www.svcl.ucsd.edu/projects/resound/dataset.html"
FETCH = (
    "Diving48_rgb.tar.gz, Diving48_V2_train.json and Diving48_V2_test.json from "
    "http://www.svcl.ucsd.edu/projects/resound/; no form to sign"
)
LAYOUT = (
    "the content of Diving48_rgb.tar.gz: rgb/<YouTube id>_<number>.mp4, 18404 clips. The lists are "
    "Diving48_V2_train.json and Diving48_V2_test.json, next to rgb or in the folder that `lists` names"
)
READS = ("Diving48_V2_*.json",)
COUNTS = {1: {"train": 15_027, "test": 1_970}}
CLASSES = (
    *("Back+15som+05Twis+FREE", "Back+15som+15Twis+FREE", "Back+15som+25Twis+FREE", "Back+15som+NoTwis+PIKE"),
    *("Back+15som+NoTwis+TUCK", "Back+25som+15Twis+PIKE", "Back+25som+25Twis+PIKE", "Back+25som+NoTwis+PIKE"),
    *("Back+25som+NoTwis+TUCK", "Back+2som+15Twis+FREE", "Back+2som+25Twis+FREE", "Back+35som+NoTwis+PIKE"),
    *("Back+35som+NoTwis+TUCK", "Back+3som+NoTwis+PIKE", "Back+3som+NoTwis+TUCK", "Back+Dive+NoTwis+PIKE"),
    *("Back+Dive+NoTwis+TUCK", "Forward+15som+1Twis+FREE", "Forward+15som+2Twis+FREE", "Forward+15som+NoTwis+PIKE"),
    *("Forward+1som+NoTwis+PIKE", "Forward+25som+1Twis+PIKE", "Forward+25som+2Twis+PIKE", "Forward+25som+3Twis+PIKE"),
    *("Forward+25som+NoTwis+PIKE", "Forward+25som+NoTwis+TUCK", "Forward+35som+NoTwis+PIKE"),
    *("Forward+35som+NoTwis+TUCK", "Forward+45som+NoTwis+TUCK", "Forward+Dive+NoTwis+PIKE", "Forward+Dive+NoTwis+STR"),
    *("Inward+15som+NoTwis+PIKE", "Inward+15som+NoTwis+TUCK", "Inward+25som+NoTwis+PIKE", "Inward+25som+NoTwis+TUCK"),
    *("Inward+35som+NoTwis+TUCK", "Inward+Dive+NoTwis+PIKE", "Reverse+15som+05Twis+FREE", "Reverse+15som+15Twis+FREE"),
    *("Reverse+15som+25Twis+FREE", "Reverse+15som+35Twis+FREE", "Reverse+15som+NoTwis+PIKE"),
    *("Reverse+25som+15Twis+PIKE", "Reverse+25som+NoTwis+PIKE", "Reverse+25som+NoTwis+TUCK"),
    *("Reverse+35som+NoTwis+TUCK", "Reverse+Dive+NoTwis+PIKE", "Reverse+Dive+NoTwis+TUCK"),
)
PARTS: tuple[Part, ...] = ("train", "test")


def videos(folder: Path, options: Options) -> list[Video]:
    """List the clips present; an id is the file's name without suffix, in any folder."""
    chosen(NoOptions, options, "diving48")
    return by_name("diving48", folder)


def splits(lists: Path, options: Options) -> Splits:
    """Read the official lists."""
    chosen(NoOptions, options, "diving48")
    return Splits(CLASSES, {1: [row for part in PARTS for row in _rows(lists / f"Diving48_V2_{part}.json", part)]})


def _rows(path: Path, part: Part) -> list[Row]:
    rows = []
    for where, entry in entries("diving48", path, LAYOUT):
        clip, label = (entry.get("vid_name"), entry.get("label")) if isinstance(entry, dict) else (None, None)
        if not isinstance(clip, str) or not clip or type(label) is not int:
            content = json.dumps(entry)[:80]
            raise UserError(f"{where}: expected a text vid_name and a whole number label, not {content}")
        rows.append(Row(clip, part, (label,)))
    return rows
