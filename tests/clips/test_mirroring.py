"""Mirrored clips get the label of their mirror image; clips without one are never mirrored."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import datasets, splits
from pipeline.clips import loading
from pipeline.config.schema import Augment, Experiment, Protocol
from pipeline.decode.frame_store import FrameStore
from pipeline.train import keys
from pipeline.train.run import Run
from tests.support.recipes import recipe

RECIPE = recipe(Augment("center", flip=True), epochs=1, lr=0.1, weight_decay=0.0)
MIRRORED = (1, 0, 2, -1)  # left, right, up, and a class without a mirror image
NAMES = st.lists(st.text(max_size=3), unique=True, min_size=1, max_size=8)


@given(NAMES, st.data())
def test_mirroring_twice_is_no_mirroring(classes, data):
    shuffled = data.draw(st.permutations(classes))
    paired = 2 * data.draw(st.integers(0, len(classes) // 2))
    pairs = list(zip(shuffled[0:paired:2], shuffled[1:paired:2], strict=True))
    one_way = shuffled[paired : data.draw(st.integers(paired, len(classes)))]
    images = splits.mirror_images(classes, pairs, one_way)
    assert len(images) == len(classes)
    for label, other in enumerate(images):
        assert other == -1 if classes[label] in one_way else images[other] == label
    assert sum(other not in (label, -1) for label, other in enumerate(images)) == paired
    assert splits.mirror_images(classes, [], []) == tuple(range(len(classes)))


def test_a_class_whose_partner_is_left_out_has_no_mirror_image():
    pairs = [("left", "right"), ("in", "out")]
    assert splits.mirror_images(["left", "up", "out", "in"], pairs) == (-1, 1, 3, 2)


@pytest.mark.parametrize("name", ["shapes", "ucf101", "hmdb51", "jhmdb", "diving48", "jester", "egogesture"])
def test_classes_that_speak_of_a_side_or_a_turn_are_paired(name):
    plugin = datasets.loaded(name)
    paired = {each for pair in getattr(plugin, "MIRRORED", ()) for each in pair}
    spoken = {each for each in plugin.CLASSES if re.search(r"(?i)(?<![a-z])(left|right|(counter-?)?clockwise)$", each)}
    assert paired == spoken


@pytest.fixture
def store(data) -> FrameStore:
    return FrameStore(data / "frames" / "tiny")


def test_a_mirrored_clip_has_its_mirror_images_label(store):
    items = [(name, [n % 4]) for n, name in enumerate(store.videos)]
    train = loading.TrainClips(store, items, RECIPE, 5, MIRRORED)
    seen = set()
    for key in [(epoch, position) for epoch in range(5) for position in range(len(items))]:
        (clip,), (label,) = train[[key]]
        view, (video, (true,)) = train.view(*key), items[key[1]]
        plain = loading.load_views(store, [(video, replace(view, flip=False))], RECIPE.size)[0]
        flipped = not np.array_equal(clip, plain)
        assert np.array_equal(clip, plain[:, :, ::-1] if flipped else plain)
        assert label == (MIRRORED[true] if flipped else true)
        seen.add((true, flipped))
    assert seen == {(label, flipped) for label in range(4) for flipped in (False, True)} - {(3, True)}


def test_sigmoid_targets_are_multi_hot_and_mirrored_each(store):
    labels: list[list[int]] = [[0, 2], [], [0, 3], [1, 0]]
    expected = {False: [[1, 0, 1, 0], [0, 0, 0, 0], [1, 0, 0, 1], [1, 1, 0, 0]]}
    expected[True] = [[0, 1, 1, 0], [0, 0, 0, 0], [], [1, 1, 0, 0]]
    items = list(zip(store.videos, labels, strict=False))
    train = loading.TrainClips(store, items, replace(RECIPE, loss="sigmoid"), 5, MIRRORED)
    seen = set()
    for epoch in range(20):
        _, targets = train[[(epoch, position) for position in range(4)]]
        assert targets.dtype == np.float32
        assert targets.shape == (4, 4)
        for position, target in enumerate(targets):
            flip = train.view(epoch, position).flip
            assert target.tolist() == expected[flip][position]
            seen.add((position, flip))
    assert seen == {(position, flip) for position in range(4) for flip in (False, True)} - {(2, True)}


def test_other_mirror_images_are_other_training_where_clips_are_mirrored(data):
    experiment = Experiment("tiny", "resnet", "tiny", "none", "r", "p", (1,), (0,), {}, None)
    protocol = Protocol(clips=1, crops="center", sampling="segments", size=32, average="softmax", batch=4)

    def marks() -> list[str]:
        recipes = [RECIPE, replace(RECIPE, augment=Augment(crop="center"))]
        made = [Run("row", experiment, recipe, protocol, 1, 0, data) for recipe in recipes]
        return [keys.training(cell, None) for cell in made]

    flipped, plain = marks()
    path: Path = data / "splits" / "tiny" / "mirrored.json"
    path.write_text("[1, 0, 2]")
    assert Run("row", experiment, RECIPE, protocol, 1, 0, data).mirrored() == [1, 0, 2]
    assert marks()[1] == plain and marks()[0] != flipped
