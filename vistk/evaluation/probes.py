"""Linear probes: what a query's vector knows of its object, measured by predicting it from the vector.

A probe is a ridge regression (Hoerl and Kennard, Technometrics 12(1), 1970), judged by R2 on videos that
it was not fitted to: the frames of one video are too much alike to be on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from vistk.ops.assignment import best_assignment
from vistk.ops.masks import frame_iou
from vistk.structures import RLE


def match_masks(
    masks: Sequence[RLE | None], truth: Sequence[RLE], threshold: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """Predicted masks of a frame and the annotated ones they show: optimal assignment on IoU.

    Returns:
        Indices into ``masks`` and into ``truth`` of the pairs with an IoU above ``threshold``.
    """
    iou = frame_iou(masks, truth)
    rows, columns = (index.numpy() for index in best_assignment(torch.from_numpy(iou)))
    good = iou[rows, columns] > threshold
    return rows[good], columns[good]


def centre(mask: np.ndarray) -> np.ndarray:
    """``(2,)`` x and y of the centre of mass of a mask ``(H, W)``, as shares of width and height.

    Raises:
        ValueError: the mask is empty.
    """
    rows, columns = np.nonzero(mask)
    if not len(rows):
        raise ValueError("an empty mask has no centre")
    height, width = mask.shape
    return np.array([(columns.mean() + 0.5) / width, (rows.mean() + 0.5) / height])


def mean_colour(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """``(3,)`` mean of the pixels of an image ``(3, H, W)`` uint8 under a mask ``(H, W)``, 0..1.

    Raises:
        ValueError: the mask is empty.
    """
    if not mask.any():
        raise ValueError("no pixel lies under an empty mask")
    return image[:, mask].mean(1) / 255


def cross_validated_r2(
    features: np.ndarray,
    targets: np.ndarray,
    groups: np.ndarray,
    given: np.ndarray | None = None,
    folds: int = 5,
    penalty: float = 0.01,
) -> float:
    """R2 of a ridge regression on data held out by group, averaged over the targets.

    Everything is fitted on the other folds: the scale of the features, the means of the targets and the
    coefficients. So 1 is a perfect prediction, 0 one no better than those means, and it may be negative.

    Args:
        features: ``(N, C)``; standardised here.
        targets: ``(N, D)``.
        groups: ``(N,)``; a group (a video) is never split over folds.
        given: ``(N,)`` classes whose mean targets count as known: R2 is of what is left after them. A
            class that the other folds lack has the mean of all.
        folds: groups are dealt to them in turn; with fewer groups there is one fold a group.
        penalty: of the squared coefficients, for each sample.

    Returns:
        NaN where there are fewer than two groups, or where a target does not vary.

    Raises:
        ValueError: the lengths disagree.
    """
    features, targets = np.asarray(features, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    groups, given = np.asarray(groups), np.zeros(len(targets)) if given is None else np.asarray(given)
    if not len(features) == len(targets) == len(groups) == len(given):
        raise ValueError(
            f"{len(features)} features, {len(targets)} targets, {len(groups)} groups and {len(given)} "
            "classes, expected one of each for every sample"
        )
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    folds = min(folds, len(first))
    if folds < 2:
        return float("nan")
    in_turn = first.argsort().argsort()  # the place of each group by its first sample
    fold = in_turn[group.reshape(-1)] % folds
    left_over, error = np.zeros(targets.shape), np.zeros(targets.shape)
    for k in range(folds):
        held, fit = fold == k, fold != k
        means = _class_means(targets[fit], given[fit], given)
        residual = targets - means
        predicted = _ridge(features[fit], residual[fit], features[held], penalty)
        left_over[held] = residual[held]
        error[held] = residual[held] - predicted
    total = (left_over**2).sum(0)
    if not (total > 0).all():
        return float("nan")
    return float(np.mean(1 - (error**2).sum(0) / total))


def _class_means(targets: np.ndarray, classes: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """``(len(wanted), D)`` mean targets of the classes ``wanted``."""
    means = np.tile(targets.mean(0), (len(wanted), 1))
    for label in np.unique(classes):
        means[wanted == label] = targets[classes == label].mean(0)
    return means


def _ridge(features: np.ndarray, targets: np.ndarray, new: np.ndarray, penalty: float) -> np.ndarray:
    """Predictions for ``new`` of a regression fitted to ``features``, in closed form."""
    mean, spread = features.mean(0), features.std(0)
    spread = np.where(spread > 0, spread, 1.0)
    x, offset = (features - mean) / spread, targets.mean(0)
    gram = x.T @ x + penalty * len(x) * np.eye(x.shape[1])
    return (new - mean) / spread @ np.linalg.solve(gram, x.T @ (targets - offset)) + offset
