"""Fisher vectors of local descriptors, and linear support vector machines over them.

Perronnin, Sanchez and Mensink, "Improving the Fisher Kernel for Large-Scale Image Classification" (ECCV 2010), sections
2 and 3, as Wang and Schmid (ICCV 2013, section 2.3) use them: each kind of descriptor is reduced to half its numbers by
PCA, described by a mixture of Gaussians with diagonal covariances, and gives 2 * D * K numbers, the gradients by means
and deviations, powered (1/2) and of length 1. Kinds are put side by side. A machine for each class against the rest, C
= 100, on the vectors' inner products.

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
    """What one kind of descriptor is described by."""

    centre: np.ndarray  # (numbers of a descriptor,) taken off before PCA
    axes: np.ndarray  # (D, numbers of a descriptor), PCA's
    weights: np.ndarray  # (K,)
    means: np.ndarray  # (K, D)
    variances: np.ndarray  # (K, D)


def learn(descriptors: np.ndarray, gaussians: int, seed: int) -> Codebook:
    """The codebook of a sample (P, numbers); the same sample and seed give the same.

    Raises UserError where there are fewer descriptors than Gaussians or axes.
    """
    axes = descriptors.shape[1] // 2
    if len(descriptors) < (least := max(gaussians, axes)):
        raise UserError(f"{len(descriptors)} descriptors are too few for {gaussians} Gaussians; {least} at least")
    reduced = PCA(axes, svd_solver="covariance_eigh").fit(descriptors)
    mixture = GaussianMixture(gaussians, covariance_type="diag", random_state=seed, reg_covar=1e-5)
    mixture.fit(reduced.transform(descriptors))
    return Codebook(reduced.mean_, reduced.components_, mixture.weights_, mixture.means_, mixture.covariances_)


def vector(descriptors: np.ndarray, book: Codebook) -> np.ndarray:
    """The Fisher vector (2 * D * K,) float32 of a video's descriptors (P, numbers); zeros where it has none."""
    if not len(descriptors):
        return np.zeros(2 * book.means.size, np.float32)
    x = (descriptors - book.centre) @ book.axes.T  # (P, D)
    precisions = 1 / book.variances
    # log w + log N(x), but for what is the same for all Gaussians.
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


def margins(
    train: np.ndarray, labels: Sequence[Sequence[int]], test: np.ndarray, classes: int, cost: float = 100.0
) -> np.ndarray:
    """Decision values (N, classes) of test vectors by machines for vectors `train`, each with any number of labels.

    A class without a training video, or with nothing else, says -1 or 1 of every video.
    """
    kernel, between = train @ train.T, test @ train.T
    found = np.empty((len(test), classes), np.float32)
    for at in range(classes):
        wanted = np.array([at in own for own in labels])
        if wanted.all() or not wanted.any():
            found[:, at] = 1 if wanted.any() else -1
        else:
            found[:, at] = SVC(C=cost, kernel="precomputed").fit(kernel, wanted).decision_function(between)
    return found
