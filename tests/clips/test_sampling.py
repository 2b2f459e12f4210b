"""Frame indices are in range, repeatable, and equal to the authors' code."""

import operator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.clips import sampling
from pipeline.clips.sampling import Clip
from pipeline.errors import UserError

COUNTS = st.one_of(st.integers(1, 40), st.integers(1, 3000))
FRAMES = st.integers(1, 70)
NAMES = st.sampled_from(sorted(sampling.SAMPLERS))
SEEDS = st.integers(0, 2**32)
STEPPED = {"dense": (1,), "uniform_clips": (1,), "multirate": sampling.RATES}  # strides, in those asked for


@st.composite
def asked(draw: st.DrawFn) -> Clip:
    """Draw a test clip of any video."""
    of = draw(st.integers(1, 12))
    number = draw(st.integers(0, of - 1))
    return Clip(draw(COUNTS), draw(FRAMES), draw(st.integers(1, 9)), number, of, draw(st.sampled_from("ab")))


def trained(clip: Clip, seed: int) -> Clip:
    return replace(clip, rng=np.random.default_rng(seed))


@given(NAMES, asked(), SEEDS)
def test_indices_are_in_range_and_repeatable(name, clip, seed):
    sample = sampling.sampler(name)
    for make in (lambda: clip, lambda: trained(clip, seed)):
        indices = sample(make())
        assert len(indices) == clip.frames
        assert all(type(index) is int and 0 <= index < clip.count for index in indices)
        assert indices == sample(make())


@given(st.sampled_from(sorted(STEPPED)), asked(), st.none() | SEEDS)
def test_frames_of_a_window_lie_a_stride_apart_round_the_end(name, clip, seed):
    indices = sampling.sampler(name)(clip if seed is None else trained(clip, seed))
    strides = {clip.stride * rate for rate in STEPPED[name]}
    assert any(all((b - a - stride) % clip.count == 0 for a, b in pairwise(indices)) for stride in strides)
    if clip.count >= clip.frames * max(strides):  # the window fits
        assert list(indices) == sorted(indices)


@given(asked(), SEEDS)
def test_segments_ascend_one_a_part(clip, seed):
    for random, indices in (
        (False, sampling.segments(clip)),
        (True, sampling.random_segments(clip)),
        (True, sampling.segments(trained(clip, seed))),
    ):
        assert list(indices) == sorted(indices)
        for part, index in enumerate(indices):
            low, high = part * clip.count // clip.frames, (part + 1) * clip.count // clip.frames
            assert low <= index < max(high, low + 1) if random else low <= index <= high


@given(COUNTS, FRAMES)
def test_uniform_frames_lie_evenly_about_the_middle(count, frames):
    indices = sampling.uniform(Clip(count, frames))
    assert indices == sampling.segments(Clip(count, frames)) == sampling.segments(Clip(count, frames, of=10))
    gaps = [b - a for a, b in pairwise(indices)]
    assert all(gap in (count // frames, -(-count // frames)) for gap in gaps)
    assert abs(indices[0] - (count - 1 - indices[-1])) <= 1


def test_25_uniform_frames_are_tsns():
    assert sampling.segments(Clip(250, 25)) == tuple(range(5, 250, 10))
    assert sampling.segments(Clip(10, 25))[:6] == (0, 0, 1, 1, 1, 2)


def test_random_segments_reach_every_frame():
    seen = set()
    for seed in range(200):
        seen |= set(sampling.segments(trained(Clip(29, 4), seed)))
    assert seen == set(range(29))


@pytest.mark.parametrize(("count", "frames"), [(80, 8), (103, 8), (8, 8), (300, 16), (45, 3)])
def test_two_clips_are_tsm_twice_sampling(count, frames):
    tick, two = count / frames, [sampling.segments(Clip(count, frames, number=number, of=2)) for number in (0, 1)]
    assert two == [tuple(int(start + tick * x) for x in range(frames)) for start in (tick / 2, 0)]


@pytest.mark.parametrize("count", [300, 65, 64, 40, 1])
def test_dense_clips_are_tsm_dense_sampling(count):
    frames, stride, window = 8, 8, 64
    starts = np.linspace(0, max(1, 1 + count - window) - 1, num=10, dtype=int)
    for number, start in enumerate(starts):
        expected = tuple((i * stride + int(start)) % count for i in range(frames))
        assert sampling.dense(Clip(count, frames, stride, number, of=10)) == expected


@pytest.mark.parametrize("clip", [Clip(20, 4, 2), Clip(72, 32, 2), Clip(72, 8, 8), Clip(28, 16)])
def test_dense_training_reaches_both_ends(clip):
    made = [sampling.dense(trained(clip, seed)) for seed in range(300)]
    assert {indices[0] for indices in made} == set(range(clip.count - clip.frames * clip.stride + 1))
    assert sampling.dense(clip)[0] == (clip.count - clip.frames * clip.stride) // 2


@pytest.mark.parametrize("count", [300, 90, 65, 64, 40, 1])
def test_uniform_clips_are_the_middles_of_equal_parts(count):
    frames, stride, clips = 32, 2, 10
    free = max(0, count - frames * stride) + 1  # possible starts
    starts = [sampling.uniform_clips(Clip(count, frames, stride, number, clips))[0] for number in range(clips)]
    assert starts == [int(free / clips * (number + 0.5)) for number in range(clips)]


@given(COUNTS, FRAMES, st.integers(1, 9))
def test_windows_cover_every_frame_in_order(count, frames, stride):
    number = sampling.windows_in(count, frames, stride)
    made = [sampling.windows(Clip(count, frames, stride, n, of=1)) for n in range(number)]
    for at, indices in enumerate(made):
        begin, end = at * frames * stride, min(count, (at + 1) * frames * stride)
        assert begin < end and set(indices) <= set(range(begin, end))
        assert set(indices) >= set(range(begin, end, stride))  # with stride 1, every frame
    assert end == count


def test_windows_loop_the_last_one_within_itself():
    assert sampling.windows_in(20, 16, 1) == 2
    assert sampling.windows(Clip(20, 16, number=1))[:6] == (16, 17, 18, 19, 16, 17)
    assert [sampling.windows(Clip(150, 32, 2, number))[:2] for number in range(3)] == [(0, 2), (64, 66), (128, 130)]


def test_multirate_reads_one_middle_at_three_rates():
    clips = [sampling.multirate(Clip(100, 8, 2, number, of=3)) for number in range(3)]
    assert [{b - a for a, b in pairwise(indices)} for indices in clips] == [{2}, {4}, {8}]
    assert [indices[4] for indices in clips] == [50, 50, 50]
    six = [sampling.multirate(Clip(100, 8, 2, number, of=6)) for number in range(6)]
    assert six[::3] == [sampling.dense(Clip(100, 8, 2, number, of=2)) for number in (0, 1)]
    rates = {operator.sub(*sampling.multirate(trained(Clip(100, 8), seed))[1::-1]) for seed in range(50)}
    assert rates == {1, 2, 4}


def test_random_segments_differ_by_clip_and_video_and_not_by_call():
    asked = [Clip(500, 8, number=number, of=10, video=video) for video in "ab" for number in range(10)]
    made = [sampling.random_segments(clip) for clip in asked]
    assert len(set(made)) == 20
    assert made == [sampling.random_segments(clip) for clip in asked]


def test_unknown_sampling_names_the_known():
    with pytest.raises(UserError, match=r"no sampling 'segment'; did you mean 'segments'\? known: dense"):
        sampling.sampler("segment")


def test_parts_are_the_first_64_frames_of_each_tenth():
    starts = [sampling.parts(Clip(900, 8, 8, number, of=10)) for number in range(10)]
    assert [clip[0] for clip in starts] == [0, 90, 180, 270, 360, 450, 540, 630, 720, 810]
    assert starts[1] == tuple(range(90, 90 + 64, 8))
    short = [sampling.parts(Clip(100, 8, 8, number, of=10))[0] for number in range(10)]
    assert short == [0, 10, 20, 30, *[36] * 6]
