"""EgoGesture: 24,161 gestures of 83 classes (Zhang et al., TMM 2018).

They are ranges of frames of 2,081 longer videos.

- A row is a gesture. Its id is the video and the range, first and last frame, counted from 1:
  Subject03/Scene1/Color/rgb1/67-112. Stretches without gesture, class 84 of the lists "all", are no rows.
- Only the lists have the gestures' first and last frames, so they are with the frames, and both functions read them.
- A gesture is a range of its video's folder of frames. It counts as present if its first frame is; decoding names
  other missing frames.
- The color frames are read, depth is not.
- Each person is in one part only. Papers choose epochs on part "val", and report on "test".
"""

import re
from pathlib import Path
from typing import NamedTuple

from pipeline.datasets import FRAME, NoOptions, Options, Part, Row, Splits, Video, chosen, lines, once, walk, within
from pipeline.errors import UserError

LICENCE = "the makers' own agreement, for research only; to be signed before the download"
CITATION = (
    "Zhang, Cao, Cheng, Lu: EgoGesture: A new dataset and benchmark for egocentric hand gesture recognition. "
    "IEEE Transactions on Multimedia 20(5), 2018, pages 1038-1050"
)
HOMEPAGE = "http://www.nlpr.ia.ac.cn/iva/yfzhang/datasets/egogesture.html"
FETCH = (
    "the images and the lists, by links that the makers send once they have the agreement on the home page, signed, by "
    "mail"
)
LAYOUT = (
    "the frames Subject<01 to 50>/Scene<1 to 6>/Color/rgb<number>/000001.jpg ..., in any folders (images/), and with "
    "them (with or without a folder annotation_EgoGesture) the lists trainlistall_but_None.txt, "
    "vallistall_but_None.txt and testlistall_but_None.txt, lines `<video> <class, from 1> <first frame> <last frame>`"
)
READS = ("*listall_but_None.txt", "annotation_EgoGesture/*listall_but_None.txt")
COUNTS = {1: {"train": 14_416, "val": 4_768, "test": 4_977}}
FPS = 30.0
CLASSES = (
    *("Scroll_hand_towards_right", "Scroll_hand_towards_left", "Scroll_hand_downward", "Scroll_hand_upward"),
    *("Scroll_hand_forward", "Scroll_hand_backward", "Cross_index_fingers", "Zoom_in_with_fists"),
    *("Zoom_out_with_fists", "Rotate_fists_clockwise", "Rotate_fists_counterclockwise", "Zoom_in_with_fingers"),
    *("Zoom_out_with_fingers", "Rotate_fingers_clockwise", "Rotate_fingers_counterclockwise"),
    *("Click_with_index_finger", "Sweep_diagonal", "Sweep_circle", "Sweep_cross", "Sweep_checkmark", "Static_fist"),
    *("Measure(distance)", "Photo_frame", "Number_0", "Number_1", "Number_2", "Number_3", "Number_4", "Number_5"),
    *("Number_6", "Number_7", "Number_8", "Number_9", "OK", "Another_number_3", "Pause", "Shape_C"),
    *("Make_a_phone_call", "Wave_hand", "Wave_finger", "Knock", "Beckon", "Palm_to_fist", "Fist_to_Palm"),
    *("Trigger_with_thumb", "Trigger_with_index_finger", "Hold_fist_in_the_other_hand", "Grasp", "Walk"),
    *("Gather_fingers", "Snap_fingers", "Applaud", "Dual_hands_heart", "Put_two_fingers_together"),
    *("Take_two_fingers_apart", "Turn_over", "Move_fist_upwards", "Move_fist_downward", "Move_fist_toward_left"),
    *("Move_fist_toward_right", "Bring_hand_close", "Push_away", "Thumb_upward", "Thumb_downward"),
    *("Thumb_toward_right", "Thumb_toward_left", "Thumbs_backward", "Thumbs_forward", "Move_hand_upward"),
    *("Move_hand_downward", "Move_hand_towards_left", "Move_hand_towards_right"),
    *("Draw_circle_with_hand_in_horizontal_surface", "Bent_number_2", "Bent_another_number_3", "Dual_fingers_heart"),
    *("Scroll_fingers_toward_left", "Scroll_fingers_toward_right", "Move_fingers_upward", "Move_fingers_downward"),
    *("Move_fingers_left", "Move_fingers_right", "Move_fingers_forward"),
)
# Classes that a mirrored clip swaps.
MIRRORED = (
    ("Scroll_hand_towards_left", "Scroll_hand_towards_right"),
    ("Rotate_fists_clockwise", "Rotate_fists_counterclockwise"),
    ("Rotate_fingers_clockwise", "Rotate_fingers_counterclockwise"),
    ("Move_fist_toward_left", "Move_fist_toward_right"),
    ("Thumb_toward_left", "Thumb_toward_right"),
    ("Move_hand_towards_left", "Move_hand_towards_right"),
    ("Scroll_fingers_toward_left", "Scroll_fingers_toward_right"),
    ("Move_fingers_left", "Move_fingers_right"),
)
# Classes with a direction and no partner: a mirrored clip of theirs is of no class, with any labels swapped.
ONE_WAY = ("Sweep_diagonal", "Sweep_checkmark")
PARTS: tuple[Part, ...] = ("train", "val", "test")
VIDEO = re.compile(r"Subject\d\d/Scene\d/Color/rgb\d+", re.ASCII)
NUMBER = re.compile(r"(\d+)(?:\.0+)?", re.ASCII)  # the lists have some as 98.0


class Gesture(NamedTuple):
    """A line of the lists."""

    video: str
    label: int
    first: int  # frames, counted from 1
    last: int

    @property
    def id(self) -> str:
        return f"{self.video}/{self.first}-{self.last}"


def videos(folder: Path, options: Options) -> list[Video]:
    """List the gestures whose first frame is present."""
    chosen(NoOptions, options, "egogesture")
    frames: dict[str, set[int]] = {}  # path -> numbers of the frames present
    for path, files in walk(folder):
        numbers = {int(match[1]) for match in map(FRAME.fullmatch, files) if match}
        if numbers and VIDEO.fullmatch("/".join(path.parts[-4:])):
            frames[path.as_posix()] = numbers
    clips = once("egogesture", folder, (("/".join(path.split("/")[-4:]), path) for path in frames))
    paths = {clip.id: clip.path for clip in clips}
    gestures = [gesture for part in PARTS for gesture in _gestures(folder, part)] if paths else []
    listed = {
        each.id: Video(each.id, paths[each.video], each.first, each.last)
        for each in gestures
        if each.video in paths and each.first in frames[paths[each.video]]
    }
    return [listed[gesture] for gesture in sorted(listed)]


def splits(lists: Path, options: Options) -> Splits:
    """Read the official lists; UserError for a person in two parts."""
    chosen(NoOptions, options, "egogesture")
    rows, subjects = [], dict[str, Part]()
    for part in PARTS:
        for gesture in _gestures(lists, part):
            subject = gesture.video.partition("/")[0]
            if (first := subjects.setdefault(subject, part)) != part:
                raise UserError(f"egogesture: {subject} is in the {first} list and in the {part} list")
            rows.append(Row(gesture.id, part, (gesture.label,)))
    return Splits(CLASSES, {1: rows})


def _gestures(lists: Path, part: Part) -> list[Gesture]:
    path = within(lists, "annotation_EgoGesture") / f"{part}listall_but_None.txt"
    gestures = []
    for where, line in lines("egogesture", path, LAYOUT):
        video, *numbers = line.split()
        read = [int(match[1]) for match in map(NUMBER.fullmatch, numbers) if match]
        if not VIDEO.fullmatch(video) or len(read) != len(numbers) or len(read) != 3 or not 1 <= read[1] <= read[2]:
            raise UserError(f"{where}: expected `<video> <class> <first frame> <last frame>`, not {line!r}")
        if not 1 <= read[0] <= len(CLASSES):
            raise UserError(f"{where}: the class {read[0]} is none of 1 to {len(CLASSES)}")
        gestures.append(Gesture(video, read[0] - 1, read[1], read[2]))
    return gestures
