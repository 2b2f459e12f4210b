"""Fisher vectors against a loop over their formula, seeded codebooks, and classifiers."""

import math

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.trajectories import fisher
from pipeline.trajectories.fisher import Codebook


def book(k: int = 3, d: int = 2, numbers: int = 4, seed: int = 0) -> Codebook:
    draws = np.random.default_rng(seed)
    weights = draws.random(k)
    return Codebook(
        draws.normal(size=numbers),
        np.linalg.qr(draws.normal(size=(numbers, numbers)))[0][:d],
        weights / weights.sum(),
        draws.normal(size=(k, d)),
        draws.random((k, d)) + 0.2,
    )


def by_hand(descriptors: np.ndarray, given: Codebook) -> list[float]:
    """Apply equations 9 and 10 of Perronnin et al., then power and length normalization."""
    points = [[sum(a * (v - c) for a, v, c in zip(axis, row, given.centre, strict=True)) for axis in given.axes]
              for row in descriptors.tolist()]  # fmt: skip
    k, d = given.means.shape
    means, spreads = np.zeros((k, d)), np.zeros((k, d))
    for x in points:
        likelihood = []
        for w, mu, var in zip(given.weights, given.means, given.variances, strict=True):
            density = 1.0
            for value, m, v in zip(x, mu, var, strict=True):
                density *= math.exp(-((value - m) ** 2) / (2 * v)) / math.sqrt(2 * math.pi * v)
            likelihood.append(w * density)
        for i in range(k):
            share = likelihood[i] / sum(likelihood)
            for j in range(d):
                away = (x[j] - given.means[i, j]) / math.sqrt(given.variances[i, j])
                means[i, j] += share * away / (len(points) * math.sqrt(given.weights[i]))
                spreads[i, j] += share * (away**2 - 1) / (len(points) * math.sqrt(2 * given.weights[i]))
    powered = [math.copysign(math.sqrt(abs(v)), v) for v in [*means.ravel(), *spreads.ravel()]]
    length = math.sqrt(sum(v * v for v in powered))
    return [v / length for v in powered]


@pytest.mark.parametrize("count", [1, 7])
def test_the_formula(count):
    given, descriptors = book(), np.random.default_rng(1).normal(size=(count, 4))
    actual = fisher.vector(descriptors, given)
    assert actual.dtype == np.float32 and actual.shape == (2 * 2 * 3,)
    np.testing.assert_allclose(actual, by_hand(descriptors, given), atol=1e-6)


def test_far_from_all_gaussians_it_is_finite_and_of_nothing_zero():
    assert np.isfinite(fisher.vector(np.full((2, 4), 1e3), book())).all()
    assert not fisher.vector(np.empty((0, 4)), book()).any()


def test_a_codebook_follows_from_sample_and_seed():
    draws = np.random.default_rng(0)
    centres = draws.normal(scale=20, size=(4, 6))
    sample = (centres[draws.integers(0, 4, 800)] + draws.normal(size=(800, 6))).astype(np.float32)
    one, same = fisher.learn(sample, 4, 0), fisher.learn(sample, 4, 0)
    for name in ("centre", "axes", "weights", "means", "variances"):
        np.testing.assert_array_equal(getattr(one, name), getattr(same, name))
    assert one.axes.shape == (3, 6) and one.means.shape == one.variances.shape == (4, 3)
    np.testing.assert_allclose(one.axes @ one.axes.T, np.eye(3), atol=1e-5)
    # Its Gaussians are the clusters that the sample was drawn from.
    projected = (centres - one.centre) @ one.axes.T
    nearest = np.linalg.norm(projected[:, None] - one.means, axis=2).min(1)
    assert nearest.max() < 1
    assert one.weights.sum() == pytest.approx(1)


def test_too_few_descriptors_for_a_codebook():
    with pytest.raises(UserError, match="3 descriptors are too few for 8 Gaussians; 8 at least"):
        fisher.learn(np.zeros((3, 4), np.float32), 8, 0)


def test_machines_separate_what_can_be_separated():
    draws = np.random.default_rng(0)
    labels = [[at % 3] for at in range(30)]
    train = np.eye(3)[[own[0] for own in labels]] + 0.1 * draws.normal(size=(30, 3))
    actual = fisher.margins(train, labels, np.eye(3), 5)
    assert actual[:, :3].argmax(1).tolist() == [0, 1, 2]
    assert (actual[:, 3:] == -1).all()  # no training video is of these
    # C = 100 on separable data is the hard margin: support vectors are at 1.
    own = fisher.margins(train, labels, train, 3)
    assert np.abs(own[np.arange(30), [own_[0] for own_ in labels]]).min() == pytest.approx(1, abs=1e-2)


def test_videos_of_several_labels_or_none():
    train = np.eye(4)
    labels = [[0, 1], [0], [], [1]]
    actual = fisher.margins(train, labels, train, 2)
    assert ((actual > 0) == [[True, True], [True, False], [False, False], [False, True]]).all()
    assert (fisher.margins(train, [[0]] * 4, train, 1) == 1).all()


def test_margins_are_scaled_to_likely_logits():
    """Separable classes get a large factor, overlapping ones a small one; the order stays."""
    draws = np.random.default_rng(0)
    labels = [[n % 3] for n in range(90)]
    marks = np.eye(3, 20)[[label for (label,) in labels]]
    factors = []
    for noise in (0.1, 1.0):
        vectors = marks + noise * draws.normal(size=marks.shape)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        factors.append(fisher.scale(vectors, labels, 3))
    assert factors[0] > 5 > factors[1] > 0
    assert fisher.scale(marks[:4], labels[:4], 3) == 1.0
