"""Average precision and recall of YouTube-VIS, and the occlusion groups of OVIS.

Same numbers as the official evaluators: Yang, Fan, Xu, "Video Instance Segmentation", ICCV 2019 (tube
IoU, thresholds, area ranges); Qi et al., "Occluded Video Instance Segmentation", IJCV 2022 (groups).
One departure: an annotation id of 0 is an id like any other, where the official code takes whatever
is matched to it for unmatched. The groups overlap (:data:`OCCLUSION_RANGES`), as they do there; an instance
whose occlusion is unknown in all frames is in none, where the official code divides by zero.

Predictions are matched to instances once per video and category
(:func:`vistk.evaluation.ap_matching.match_cell`); pooling over videos
(:func:`accumulate`, :func:`summarize`) only reads these matches, and so does
:mod:`vistk.evaluation.bootstrap` for resampled videos.

Letters: ``R`` ranges (areas, then occlusion groups), ``T`` IoU thresholds, ``D`` predictions and ``G``
instances of one category in one video, ``K`` categories, ``P`` recall points, ``M`` limits on ``D``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vistk.evaluation.ap_matching import CellMatches, MatchedCells, match, match_cell, range_names
from vistk.evaluation.ap_options import (
    AREA_RANGES,
    IOU_THRESHOLDS,
    MAX_DETECTIONS,
    OCCLUSION_RANGES,
    OFFICIAL,
    RECALL_POINTS,
    APOptions,
    range_suffix,
)

__all__ = [
    "AREA_RANGES",
    "IOU_THRESHOLDS",
    "MAX_DETECTIONS",
    "OCCLUSION_RANGES",
    "OFFICIAL",
    "RECALL_POINTS",
    "APOptions",
    "Accumulated",
    "CellMatches",
    "MatchedCells",
    "accumulate",
    "average_precision",
    "average_recall",
    "match",
    "match_cell",
    "nan_mean",
    "range_names",
    "range_suffix",
    "recall_curve",
    "recall_curves",
    "summarize",
]


@dataclass(frozen=True)
class Accumulated:
    """Precision and recall pooled over videos; -1 where a category has no instance that counts."""

    ranges: tuple[str, ...]
    precision: np.ndarray  # (T, P, K, R, M)
    recall: np.ndarray  # (T, K, R, M), the highest recall
    scores: np.ndarray  # (T, P, K, R, M), score at which the recall point is reached
    options: APOptions = OFFICIAL


def accumulate(matches: MatchedCells) -> Accumulated:
    """Precision at every recall point and highest recall, pooled over all videos."""
    options = matches.options
    points = np.array(options.recall_points)
    shape = (matches.num_categories, len(matches.ranges), len(options.max_detections))
    precision = -np.ones((len(options.iou_thresholds), len(points), *shape))
    scores = -np.ones_like(precision)
    recall = -np.ones((len(options.iou_thresholds), *shape))
    by_category: list[list[CellMatches]] = [[] for _ in range(matches.num_categories)]
    for cell in matches.cells:
        by_category[cell.category].append(cell)
    for k, group in enumerate(by_category):
        if not group:
            continue
        num_instances = np.sum([cell.num_instances for cell in group], axis=0)
        longest = max(len(cell.scores) for cell in group)
        for m, limit in enumerate(options.max_detections):
            if m and longest <= min(limit, options.max_detections[m - 1]):  # neither leaves anything out
                for curves in (precision, recall, scores):
                    curves[..., k, :, m] = curves[..., k, :, m - 1]
                continue
            pooled = np.concatenate([cell.scores[:limit] for cell in group])
            order = np.argsort(-pooled, kind="stable")
            pooled = pooled[order]
            matched = np.concatenate([cell.matched[..., :limit] for cell in group], axis=-1)[..., order]
            counts = ~np.concatenate([cell.ignored[..., :limit] for cell in group], axis=-1)[..., order]
            true = np.cumsum(matched & counts, axis=-1, dtype=np.float64)  # (R, T, D)
            false = np.cumsum(~matched & counts, axis=-1, dtype=np.float64)
            for r in np.flatnonzero(num_instances):
                found = recall_curves(true[r], false[r], num_instances[r], points)
                recall[:, k, r, m], at, precision[:, :, k, r, m] = found
                scores[:, :, k, r, m] = np.append(pooled, 0.0)[at]
    return Accumulated(matches.ranges, precision, recall, scores, options)


def recall_curve(
    true: np.ndarray, false: np.ndarray, num_instances: int, points: np.ndarray = RECALL_POINTS
) -> tuple[float, np.ndarray, np.ndarray]:
    """:func:`recall_curves` of one curve, ``(D,)``."""
    recall, at, precision = recall_curves(true[None], false[None], num_instances, points)
    return float(recall[0]), at[0], precision[0]


def recall_curves(
    true: np.ndarray, false: np.ndarray, num_instances: int, points: np.ndarray = RECALL_POINTS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The curves of precision over recall at ``P`` recall points.

    Args:
        true, false: ``(N, D)``, cumulative counts of right and wrong predictions by falling score.
        num_instances: that count, at least 1.

    Returns:
        ``(N,)`` highest recall; at each point ``(N, P)`` the index of the first prediction that reaches it
        (``D`` if none does); and the best precision from there on.
    """
    rows, last = true.shape
    if not last:
        return np.zeros(rows), np.zeros((rows, len(points)), dtype=np.int64), np.zeros((rows, len(points)))
    precision = np.zeros((rows, last + 1))
    precision[:, :-1] = true / (true + false + np.spacing(1))
    precision[:, :-1] = np.maximum.accumulate(precision[:, -2::-1], axis=1)[:, ::-1]
    # How many right predictions a point takes, and in one search where each curve has so many.
    needed = np.searchsorted(np.arange(last + 1) / num_instances, points, side="left")
    above = np.arange(rows)[:, None] * (last + 2.0)
    at = np.searchsorted((true + above).reshape(-1), needed + above, side="left")
    at -= np.arange(rows)[:, None] * last
    return true[:, -1] / num_instances, at, np.take_along_axis(precision, at, axis=1)


def average_precision(
    accumulated: Accumulated, name: str | None = None, threshold: float | None = None
) -> np.ndarray:
    """``(K,)`` AP of each category in one range (the first, which is "all" officially), over all IoU
    thresholds or at one of them; NaN where a category has no instance that counts.

    Raises:
        ValueError: there is no such range or threshold.
    """
    r = 0 if name is None else accumulated.ranges.index(name)
    thresholds = np.array(accumulated.options.iou_thresholds)
    kept = slice(None) if threshold is None else np.isclose(thresholds, threshold)
    if not thresholds[kept].size:
        raise ValueError(f"IoU threshold {threshold} is not one of {thresholds.round(4).tolist()}")
    return _defined_mean(accumulated.precision[kept, :, :, r, -1].mean(1))


def average_recall(
    accumulated: Accumulated, name: str | None = None, max_detections: int | None = None
) -> np.ndarray:
    """``(K,)`` highest recall of each category in one range (the first), with that many predictions per
    video and category (the most), mean over IoU thresholds; NaN where a category has no instance that counts.

    Raises:
        ValueError: there is no such range or limit.
    """
    r = 0 if name is None else accumulated.ranges.index(name)
    m = -1 if max_detections is None else accumulated.options.max_detections.index(max_detections)
    return _defined_mean(accumulated.recall[:, :, r, m])


def summarize(accumulated: Accumulated) -> dict[str, float]:
    """The 12 official numbers and, for OVIS, AP and AR of the three occlusion groups, which overlap
    (0..1, NaN where undefined). All are means over the categories with an instance that counts.
    """
    options = accumulated.options
    per_category = {"AP": average_precision(accumulated)}
    for threshold in (0.5, 0.75):
        if np.isclose(options.iou_thresholds, threshold).any():
            per_category[f"AP{threshold * 100:.0f}"] = average_precision(accumulated, threshold=threshold)
    groups = accumulated.ranges[1:]
    for name in groups:
        per_category[f"AP{range_suffix(name)}"] = average_precision(accumulated, name)
    for limit in options.max_detections:
        per_category[f"AR{limit}"] = average_recall(accumulated, max_detections=limit)
    for name in groups:
        per_category[f"AR{range_suffix(name)}"] = average_recall(accumulated, name)
    return {name: nan_mean(values) for name, values in per_category.items()}


def nan_mean(values: np.ndarray) -> float:
    """Mean of the values that are not NaN; NaN without any."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")


def _defined_mean(values: np.ndarray) -> np.ndarray:
    """``(K,)`` column means of ``(T, K)``, NaN for the columns marked -1."""
    defined = (values > -1).all(0)
    return np.where(defined, values.mean(0), np.nan)
