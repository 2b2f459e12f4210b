"""Crop boxes for training and testing, and the views of a protocol."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.clips import augmentation, sampling, views
from pipeline.clips.augmentation import Box
from pipeline.config.schema import Augment, Protocol
from pipeline.config.signature import views_per_video
from pipeline.errors import UserError

CORNER = Augment(crop="corner", scales=(1.0, 0.875, 0.75, 0.66))
AUGMENTS = [
    Augment(crop="center"),
    Augment(crop="random", flip=True),
    Augment(crop="random", scales=(1.0, 0.84, 0.7, 0.5)),
    CORNER,
    replace(CORNER, max_distort=0),
    Augment(crop="corners", scales=(1.0, 0.84, 0.5)),
    Augment(crop="resized", flip=True),
]
AUGMENTS += [replace(spec, squash=True) for spec in AUGMENTS]
PIXELS = st.one_of(st.integers(1, 8), st.integers(1, 700))
SIZES = st.sampled_from([32, 64, 112, 224, 299])
PROTOCOL = Protocol(clips=1, crops="center", sampling="segments", size=224, average="softmax", batch=4)


@dataclass(frozen=True)
class Stored:
    frames: int
    width: int
    height: int


def inside(box: Box, width: int, height: int) -> bool:
    return min(box.x, box.y) >= 0 and min(box.w, box.h) > 0 and box.x + box.w <= width and box.y + box.h <= height


@given(st.sampled_from(AUGMENTS), PIXELS, PIXELS, SIZES, st.integers(0, 2**32))
def test_drawn_boxes_lie_inside_and_repeat(spec, width, height, size, seed):
    box, flip = augmentation.draw(spec, width, height, size, np.random.default_rng(seed))
    assert inside(box, width, height)
    assert all(type(length) is int for length in box)
    assert (box, flip) == augmentation.draw(spec, width, height, size, np.random.default_rng(seed))
    assert spec.flip or not flip


def draws(spec: Augment, width: int, height: int, size: int, number: int = 400) -> list[tuple[Box, bool]]:
    rng = np.random.default_rng(0)
    return [augmentation.draw(spec, width, height, size, rng) for _ in range(number)]


def test_corner_has_the_sides_and_the_13_places_of_tsn():
    boxes = {box for box, _ in draws(CORNER, 340, 256, 224, 3000)}
    assert {box.w for box in boxes} == {256, 224, 192, 168}
    order = [256, 224, 192, 168]
    assert {(order.index(box.w), order.index(box.h)) for box in boxes} == {
        (i, j) for i in range(4) for j in range(4) if abs(i - j) <= 1
    }
    square = {(box.x, box.y) for box in boxes if box.w == box.h == 168}
    assert len(square) == 13
    assert {(0, 0), (172, 0), (0, 88), (172, 88), (86, 44), (43, 22), (129, 66)} <= square


def test_corner_snaps_a_near_side_to_the_input():
    spec = Augment(crop="corner", scales=(0.88,))  # int(256 * 0.88) = 225
    assert {(box.w, box.h) for box, _ in draws(spec, 340, 256, 224)} == {(224, 224)}


def test_random_crops_the_test_square_anywhere():
    boxes = {box for box, _ in draws(Augment(crop="random"), 72, 72, 64, 2000)}
    assert {(box.w, box.h) for box in boxes} == {(64, 64)}
    assert {box.x for box in boxes} == {box.y for box in boxes} == set(range(9))


def test_random_with_scales_takes_shares_of_the_short_side():
    boxes = {box for box, _ in draws(Augment(crop="random", scales=(1.0, 0.5)), 320, 240, 112)}
    assert {(box.w, box.h) for box in boxes} == {(240, 240), (120, 120)}


def test_resized_keeps_area_and_aspect():
    boxes = [box for box, _ in draws(Augment(crop="resized"), 340, 256, 224)]
    assert 0.07 < min(box.w * box.h / (340 * 256) for box in boxes) < 0.12
    assert all(0.72 < box.w / box.h < 1.39 for box in boxes)


def test_flips_come_half_of_the_time():
    assert 150 < sum(flip for _, flip in draws(Augment(crop="random", flip=True), 72, 72, 64)) < 250


def test_squash_draws_from_the_frame_as_a_square():
    """Crops map back to stored pixels; the official code's 13 positions refer to the squashed 224 x 224 frame."""
    width, height, size = 320, 240, 224
    boxes = {box for box, _ in draws(replace(CORNER, squash=True), width, height, size, 3000)}
    sides = [224, 196, 168, 147]
    assert {box.w for box in boxes} == {side * width // size for side in sides}
    assert {box.h for box in boxes} == {side * height // size for side in sides}
    smallest = {(box.x, box.y) for box in boxes if (box.w, box.h) == (147 * width // size, 147 * height // size)}
    assert {(x * width // size, y * height // size) for x in (0, 38, 76) for y in (0, 38, 76)} <= smallest
    whole, _ = augmentation.draw(Augment(crop="center", squash=True), width, height, size, np.random.default_rng(0))
    assert whole == Box(0, 0, width, height)


def test_unknown_crop_names_the_known():
    spec = Augment(crop="center")
    object.__setattr__(spec, "crop", "centre")
    with pytest.raises(UserError, match="no crop 'centre'; did you mean 'center'"):
        augmentation.draw(spec, 72, 72, 64, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("width", "height", "size", "box"),
    [
        (340, 256, 224, Box(58, 16, 224, 224)),  # the papers'
        (256, 340, 224, Box(16, 58, 224, 224)),
        (170, 128, 112, Box(29, 8, 112, 112)),
        (340, 256, 112, Box(58, 16, 224, 224)),
        (72, 72, 64, Box(4, 4, 64, 64)),
        (340, 256, 256, Box(42, 0, 256, 256)),
        (320, 240, 224, Box(48, 8, 224, 224)),
        (100, 80, 224, Box(15, 5, 70, 70)),  # resized to 256, 224 of it
        (176, 100, 224, Box(44, 6, 88, 88)),  # Something-Something V1's
    ],
)
def test_center_takes_seven_eighths_or_the_input_size(width, height, size, box):
    assert views.center(width, height, size) == [(box, False)]


def test_whole_takes_the_short_side():
    assert views.whole(320, 240, 112) == [(Box(40, 0, 240, 240), False)]


def test_three_lie_along_the_long_side():
    assert [box for box, _ in views.three(340, 256, 256)] == [Box(x, 0, 256, 256) for x in (0, 42, 84)]
    assert [box for box, _ in views.three(256, 340, 256)] == [Box(0, y, 256, 256) for y in (0, 42, 84)]


def test_squash_takes_the_whole_frame():
    assert views.squash(320, 240, 224) == [(Box(0, 0, 320, 240), False)]


def test_ten_are_corners_centre_and_their_mirror_images():
    crops = views.ten(340, 256, 224)
    places = [(0, 0), (116, 0), (0, 32), (116, 32), (58, 16)]
    assert crops == [(Box(x, y, 224, 224), flip) for x, y in places for flip in (False, True)]


@given(st.sampled_from(sorted(views.CROPS)), PIXELS, PIXELS, SIZES)
def test_crops_lie_inside(crops, width, height, size):
    assert all(inside(box, width, height) for box, _ in views.CROPS[crops](width, height, size))


@given(
    st.builds(
        Protocol,
        clips=st.integers(1, 12),
        crops=st.sampled_from(sorted(views.CROPS)),
        sampling=st.sampled_from(sorted(sampling.SAMPLERS)),
        size=SIZES,
        average=st.just("softmax"),
        batch=st.just(4),
        stride=st.integers(1, 9),
    ),
    st.builds(Stored, st.integers(1, 400), PIXELS, PIXELS),
    st.integers(1, 64),
)
def test_views_are_as_many_as_the_protocol_says_and_the_same_again(protocol, stored, frames):
    made = views.views(protocol, "a", stored, frames)
    number = views_per_video(protocol)
    if number is None:
        number = sampling.windows_in(stored.frames, frames, protocol.stride) * len(views.CROPS[protocol.crops](9, 9, 9))
    assert len(made) == number
    assert made == views.views(protocol, "a", stored, frames)
    for view in made:
        assert len(view.indices) == frames and 0 <= min(view.indices) <= max(view.indices) < stored.frames
        assert inside(view.box, stored.width, stored.height)


def test_random_views_are_seeded_by_video_and_clip():
    protocol = replace(PROTOCOL, clips=10, crops="three", sampling="random_segments")
    made = {video: views.views(protocol, video, Stored(300, 340, 256), 8) for video in "ab"}
    clips = {video: [view.indices for view in made[video][::3]] for video in made}
    assert all([view.indices for view in made[video][1::3]] == clips[video] for video in made)  # crops share a clip
    assert len({*clips["a"], *clips["b"]}) == 20


def test_view_number_is_clip_times_crops_plus_crop():
    protocol = replace(PROTOCOL, clips=2, crops="three", size=256)
    made = views.views(protocol, "a", Stored(300, 340, 256), 8)
    assert len(made) == 6
    for number, view in enumerate(made):
        clip, crop = divmod(number, 3)
        assert view.indices == sampling.segments(sampling.Clip(300, 8, number=clip, of=2))
        assert (view.box, view.flip) == views.three(340, 256, 256)[crop]


def test_windows_make_as_many_views_as_the_video_has():
    protocol = replace(PROTOCOL, sampling="windows", size=112)
    made = [views.views(protocol, "a", Stored(count, 170, 128), 16) for count in (5, 16, 17, 160)]
    assert [len(actual) for actual in made] == [1, 1, 2, 10]


def test_unknown_crops_name_the_known():
    protocol = replace(PROTOCOL)
    object.__setattr__(protocol, "crops", "tne")
    with pytest.raises(UserError, match="no crops 'tne'; did you mean 'ten'"):
        views.views(protocol, "a", Stored(9, 72, 72), 8)


def test_corners_and_the_center_are_haras_places():
    boxes = {box for box, _ in draws(Augment(crop="corners", scales=(1.0, 0.5)), 320, 240, 112, 1000)}
    assert {(box.x, box.y) for box in boxes if box.w == 120} == {(0, 0), (200, 0), (0, 120), (200, 120), (100, 60)}
    assert {(box.x, box.y) for box in boxes if box.w == 240} == {(0, 0), (80, 0), (40, 0)}


def test_padded_crops_the_short_side_from_a_frame_with_edges():
    boxes = {box for box, _ in draws(Augment(crop="padded", pad=0.125), 32, 32, 299, 3000)}
    assert {(box.w, box.h) for box in boxes} == {(32, 32)}
    assert {box.x for box in boxes} == {box.y for box in boxes} == set(range(-4, 5))


@pytest.mark.parametrize(("width", "height"), [(340, 256), (176, 100), (224, 224), (320, 240)])
def test_ten_crops_are_ten(width, height):
    crops = views.ten(width, height, 224)
    assert len(set(crops)) == 10


def test_scores_of_mirrored_views_are_swapped_back():
    logits = np.array([[0.0, 1, 2, 3], [0, 1, 2, 3]])
    shown = [views.View((0,), Box(0, 0, 1, 1), flip) for flip in (False, True)]
    assert views.swapped_back(logits, shown, (1, 0, -1, 3)).tolist() == [[0, 1, 2, 3], [1, 0, 2, 3]]


def matrix(color: augmentation.Color) -> np.ndarray:
    return np.array(color)


def test_colors_are_jittered_along_their_main_axes():
    rng = np.random.default_rng(0)
    assert augmentation.color(Augment(crop="center"), rng) is None
    drawn = np.stack([matrix(augmentation.color(Augment(crop="center", color="jitter"), rng)) for _ in range(2000)])
    assert (drawn[..., :3] == np.eye(3)).all()
    deviations = (drawn[..., 3] @ augmentation.AXES).std(0)
    np.testing.assert_allclose(deviations, [5.546, 0.4794, 0.1148], rtol=0.1)


def test_color_space_is_tpns():
    """Gray pixels change only by brightness, contrast and noise; half of all clips keep their hue."""
    rng = np.random.default_rng(0)
    drawn = np.stack([matrix(augmentation.color(Augment(crop="center", color="space"), rng)) for _ in range(2000)])
    gains = drawn[..., :3].sum(2)  # of gray
    np.testing.assert_allclose(gains, gains[:, :1].repeat(3, 1), atol=0.015)
    assert 0.55 < gains.min() < 0.65 < 1.35 < gains.max() < 1.45
    assert 0.4 < np.isclose(gains, 1, atol=0.015).all(1).mean() < 0.6
    assert 0.15 < np.isclose(drawn[..., :3] / gains[:, :1, None], np.eye(3), atol=0.02).all((1, 2)).mean() < 0.35


def test_a_probe_has_the_same_frames_in_another_order() -> None:
    stored = Stored(40, 96, 96)
    forward = [view.indices for view in views.views(replace(PROTOCOL, clips=2), "v", stored, 8)]

    def probed(order: str, video: str = "v") -> list[tuple[int, ...]]:
        return [view.indices for view in views.views(replace(PROTOCOL, clips=2, order=order), video, stored, 8)]

    assert probed("forward") == forward
    assert probed("reversed") == [indices[::-1] for indices in forward]
    assert [sorted(indices) for indices in probed("shuffled")] == [list(indices) for indices in forward]
    assert probed("shuffled") == probed("shuffled") != forward
    assert probed("shuffled", "w") != probed("shuffled") and probed("shuffled")[0] != probed("shuffled")[1]
    assert probed("static") == [(indices[4],) * 8 for indices in forward]
