"""Frame indices: in range for any video, equal for equal arguments, and where the papers' code puts them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import sampling
from pipeline.errors import UserError

COUNTS = st.integers(1, 3000)
FRAMES = st.integers(1, 70)
STRIDES = st.integers(1, 9)
SEEDS = st.one_of(st.none(), st.integers(0, 2**32))


def generator(seed: int | None) -> np.random.Generator | None:
    return None if seed is None else np.random.default_rng(seed)


@given(st.sampled_from(sorted(sampling.SAMPLERS)), COUNTS, FRAMES, STRIDES, SEEDS, st.integers(1, 12), st.data())
def test_indices_are_in_range_and_repeatable(name, count, frames, stride, seed, clips, data):
    clip = data.draw(st.integers(0, clips - 1))
    sample = sampling.sampler(name)
    indices = sample(count, frames, stride=stride, rng=generator(seed), clip=clip, clips=clips)
    assert len(indices) == frames
    assert all(type(index) is int and 0 <= index < count for index in indices)
    assert indices == sample(count, frames, stride=stride, rng=generator(seed), clip=clip, clips=clips)


@given(COUNTS, FRAMES, SEEDS, st.integers(1, 12), st.data())
def test_segments_are_sorted_and_one_a_part(count, frames, seed, clips, data):
    clip = data.draw(st.integers(0, clips - 1))
    indices = sampling.segments(count, frames, rng=generator(seed), clip=clip, clips=clips)
    assert list(indices) == sorted(indices)
    for part, index in enumerate(indices):
        low, high = part * count // frames, (part + 1) * count // frames
        assert low <= index < max(high, low + 1) if seed is not None else low <= index <= high


@given(COUNTS, FRAMES)
def test_clip_0_of_several_is_the_single_clip(count, frames):
    for clips in (2, 10):
        assert sampling.segments(count, frames, clips=clips) == sampling.segments(count, frames)


def test_random_segments_reach_every_frame():
    seen = set()
    for seed in range(200):
        seen |= set(sampling.segments(29, 4, rng=np.random.default_rng(seed)))
    assert seen == set(range(29))


@pytest.mark.parametrize(("count", "frames"), [(80, 8), (103, 8), (8, 8), (300, 16), (45, 3)])
def test_two_clips_are_tsm_twice_sampling(count, frames):
    tick = count / frames
    assert sampling.segments(count, frames, clip=0, clips=2) == tuple(int(tick / 2 + tick * x) for x in range(frames))
    assert sampling.segments(count, frames, clip=1, clips=2) == tuple(int(tick * x) for x in range(frames))


@pytest.mark.parametrize("count", [300, 65, 64, 40, 1])
def test_dense_clips_are_tsm_dense_sampling(count):
    frames, stride, window = 8, 8, 64
    starts = np.linspace(0, max(1, 1 + count - window) - 1, num=10, dtype=int)
    for clip, start in enumerate(starts):
        expected = tuple((i * stride + int(start)) % count for i in range(frames))
        assert sampling.dense(count, frames, stride=stride, clip=clip, clips=10) == expected


def test_dense_training_reaches_both_ends():
    clips = [sampling.dense(20, 4, stride=2, rng=np.random.default_rng(seed)) for seed in range(300)]
    assert {clip[0] for clip in clips} == set(range(13))
    assert sampling.dense(20, 4, stride=2) == (6, 8, 10, 12)


@given(COUNTS, FRAMES)
def test_windows_cover_the_video_once(count, frames):
    number = sampling.windows_in(count, frames, 1)
    covered = [index for clip in range(number) for index in dict.fromkeys(sampling.windows(count, frames, clip=clip))]
    assert covered == list(range(count))


def test_windows_loop_the_last_one_within_itself():
    assert sampling.windows_in(20, 16, 1) == 2
    assert sampling.windows(20, 16, clip=1)[:6] == (16, 17, 18, 19, 16, 17)


def test_random_segments_differ_by_clip_and_not_by_call():
    clips = [sampling.random_segments(500, 8, clip=clip, clips=10) for clip in range(10)]
    assert len(set(clips)) == 10
    assert clips == [sampling.random_segments(500, 8, clip=clip, clips=10) for clip in range(10)]


def test_unknown_sampling_names_the_known():
    with pytest.raises(UserError, match=r"no sampling 'segment'; did you mean 'segments'\? known: dense"):
        sampling.sampler("segment")
