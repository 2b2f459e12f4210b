"""Fisher vectors of local descriptors, and linear SVMs over them.

Perronnin, Sanchez and Mensink, "Improving the Fisher Kernel for Large-Scale Image Classification" (ECCV 2010), sections
2 and 3. They are used as by Wang and Schmid (ICCV 2013, section 2.3). Each kind of descriptor is reduced to half its
numbers by PCA and described by a mixture of Gaussians with diagonal covariances. It gives 2 * D * K numbers, the
gradients by means and deviations, powered (1/2) and of length 1. Kinds are concatenated. There is one SVM for each
class against the rest, C = 100, on the vectors' inner products.

Legend: P descriptors, D their numbers (after PCA in a Fisher vector), K Gaussians, N videos.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.svm import SVC

from pipeline.errors import UserError


@dataclass(frozen=True)
class Codebook:
    """The codebook of one kind of descriptor."""

    centre: np.ndarray  # (numbers of a descriptor,) subtracted before PCA
    axes: np.ndarray  # (D, numbers of a descriptor), PCA's
    weights: np.ndarray  # (K,)
    means: np.ndarray  # (K, D)
    variances: np.ndarray  # (K, D)


def learn(descriptors: np.ndarray, gaussians: int, seed: int) -> Codebook:
    """Learn the codebook of a sample (P, numbers), reproducible by its seed.

    Raises:
        UserError: There are fewer descriptors than Gaussians or axes.
    """
    axes = descriptors.shape[1] // 2
    if len(descriptors) < (least := max(gaussians, axes)):
        raise UserError(f"{len(descriptors)} descriptors are too few for {gaussians} Gaussians; {least} at least")
    reduced = PCA(axes, svd_solver="covariance_eigh").fit(descriptors)
    mixture = GaussianMixture(gaussians, covariance_type="diag", random_state=seed, reg_covar=1e-5)
    mixture.fit(reduced.transform(descriptors))
    return Codebook(reduced.mean_, reduced.components_, mixture.weights_, mixture.means_, mixture.covariances_)


def vector(descriptors: np.ndarray, book: Codebook) -> np.ndarray:
    """Return the Fisher vector (2 * D * K,) float32 of descriptors (P, numbers)."""
    if not len(descriptors):  # zeros for none
        return np.zeros(2 * book.means.size, np.float32)
    x = (descriptors - book.centre) @ book.axes.T  # (P, D)
    precisions = 1 / book.variances
    # log w + log N(x), without the terms that are equal for all Gaussians.
    logits = (
        np.log(book.weights)
        + np.log(precisions).sum(1) / 2
        - (np.square(x) @ precisions.T - 2 * x @ (book.means * precisions).T + (book.means**2 * precisions).sum(1)) / 2
    )
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)  # (P, K)
    counts, sums, squares = shares.sum(0)[:, None], shares.T @ x, shares.T @ np.square(x)  # (K, 1), (K, D), (K, D)
    roots = np.sqrt(book.weights)[:, None] * len(x)
    means = (sums - counts * book.means) * np.sqrt(precisions) / roots
    spreads = (squares - 2 * sums * book.means + counts * book.means**2) * precisions - counts
    whole = np.concatenate([means.ravel(), (spreads / (np.sqrt(2) * roots)).ravel()])
    powered = np.sign(whole) * np.sqrt(np.abs(whole))
    return (powered / max(np.linalg.norm(powered), 1e-12)).astype(np.float32)


def scale(train: np.ndarray, labels: Sequence[Sequence[int]], classes: int, cost: float = 100.0) -> float:
    """Return the factor that makes margins() the best logits.

    It maximizes the likelihood of held-out videos. SVMs are trained three times, each without a third of each class's
    videos. The thirds are neighbors in the lists, because clips of one source are neighbors. Logits are a softmax's, or
    sigmoids' if a video does not have exactly one label. The factor is 1 if classes have fewer than three videos.
    """
    firsts = [video_labels[0] if len(video_labels) else -1 for video_labels in labels]
    ranks = [firsts[:at].count(first) * 3 // firsts.count(first) for at, first in enumerate(firsts)]
    folds = np.array(ranks)
    if len(set(ranks)) < 3:
        return 1.0
    held = np.empty((len(train), classes))
    for fold in range(3):
        out = folds == fold
        kept = [video_labels for video_labels, left in zip(labels, out, strict=True) if not left]
        held[out] = margins(train[~out], kept, train[out], classes, cost)
    targets = np.zeros((len(train), classes))
    for row, video_labels in zip(targets, labels, strict=True):
        row[list(video_labels)] = 1
    single = all(len(video_labels) == 1 for video_labels in labels)

    def loss(factor: float) -> float:
        logits = factor * held
        if single:
            peak = logits.max(1)
            return float((peak + np.log(np.exp(logits - peak[:, None]).sum(1)) - (logits * targets).sum(1)).mean())
        return float((np.logaddexp(0, logits) - logits * targets).mean())

    return float(min(np.geomspace(0.1, 100, 61), key=loss))


def margins(
    train: np.ndarray, labels: Sequence[Sequence[int]], test: np.ndarray, classes: int, cost: float = 100.0
) -> np.ndarray:
    """Return decision values (N, classes) of test vectors, by SVMs on `train`.

    Training vectors may have any number of labels. A class without a training video gives -1 for every video, one with
    all of them 1.
    """
    kernel, between = train @ train.T, test @ train.T
    decisions = np.empty((len(test), classes), np.float32)
    for at in range(classes):
        positive = np.array([at in video_labels for video_labels in labels])
        if positive.all() or not positive.any():
            decisions[:, at] = 1 if positive.any() else -1
        else:
            decisions[:, at] = SVC(C=cost, kernel="precomputed").fit(kernel, positive).decision_function(between)
    return decisions
