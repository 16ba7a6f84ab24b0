"""Average precision and recall of YouTube-VIS, and the occlusion groups of OVIS.

Same numbers as the official evaluators: Yang, Fan, Xu, "Video Instance Segmentation", ICCV 2019 (tube
IoU, thresholds, area ranges); Qi et al., "Occluded Video Instance Segmentation", IJCV 2022 (groups).
One departure: an annotation id of 0 is an id like any other, where the official code takes whatever
is matched to it for unmatched.

Predictions are matched to instances once per video and category (:func:`match_cell`); pooling over videos
(:func:`accumulate`, :func:`summarize`) only reads these matches, and so does
:mod:`vistk.evaluation.bootstrap` for resampled videos.

Letters: ``R`` ranges (areas, then occlusion groups), ``T`` IoU thresholds, ``D`` predictions and ``G``
instances of one category in one video, ``K`` categories, ``P`` recall points, ``M`` limits on ``D``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vistk.evaluation.files import GroundTruth, Instance
from vistk.evaluation.overlaps import Cell

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_POINTS = np.linspace(0.0, 1.0, 101)
MAX_DETECTIONS = (1, 10, 100)  # per video and category

AREA_RANGES: Mapping[str, tuple[float, float]] = {  # pixels, mean over non-empty frames, both ends included
    "all": (0.0, 1e10),
    "small": (0.0, 128.0**2),
    "medium": (128.0**2, 256.0**2),
    "large": (256.0**2, 1e10),
}
OCCLUSION_RANGES: Mapping[str, tuple[float, float]] = {  # both ends included: 0.25 and 0.5 count twice
    "so": (0.0, 0.25),
    "mo": (0.25, 0.5),
    "ho": (0.5, 1.0),
}


@dataclass(frozen=True)
class CellMatches:
    """How the predictions of one category in one video, by falling score, met the instances."""

    video: int  # position in GroundTruth.videos
    category: int  # position in GroundTruth.categories
    scores: np.ndarray  # (D,)
    matched: np.ndarray  # (R, T, D) bool
    ignored: np.ndarray  # (R, T, D) bool: neither right nor wrong
    num_instances: np.ndarray  # (R,) instances that count


@dataclass(frozen=True)
class MatchedCells:
    """All matches of a results file."""

    ranges: tuple[str, ...]  # R names: those of AREA_RANGES, for OVIS then those of OCCLUSION_RANGES
    num_videos: int
    num_categories: int
    cells: tuple[CellMatches, ...]  # by category, then by video


@dataclass(frozen=True)
class Accumulated:
    """Precision and recall pooled over videos; -1 where a category has no instance that counts."""

    ranges: tuple[str, ...]
    precision: np.ndarray  # (T, P, K, R, M)
    recall: np.ndarray  # (T, K, R, M), the highest recall
    scores: np.ndarray  # (T, P, K, R, M), score at which the recall point is reached


def range_names(ground_truth: GroundTruth) -> tuple[str, ...]:
    """The ranges that a ground truth can be evaluated over: areas, and occlusion groups where it has them."""
    return (*AREA_RANGES, *(OCCLUSION_RANGES if ground_truth.has_occlusion else ()))


def match_cell(cell: Cell, ranges: tuple[str, ...]) -> CellMatches:
    """Greedy matching by falling score, for all thresholds and ranges at once.

    A prediction takes the free instance of highest IoU (the last of equals) that reaches the threshold;
    one that does not count (crowd, or out of range) only if no other does. A crowd stays free.
    """
    num_detections, num_thresholds = min(len(cell.scores), max(MAX_DETECTIONS)), len(IOU_THRESHOLDS)
    iou = cell.tube_iou()[:num_detections]
    excluded = _excluded(cell.instances, ranges)  # (R, G)
    crowd = np.array([i.iscrowd for i in cell.instances], dtype=bool)
    free = np.ones((len(ranges), num_thresholds, len(cell.instances)), dtype=bool)
    matched = np.zeros((len(ranges), num_thresholds, num_detections), dtype=bool)
    ignored = np.zeros_like(matched)
    thresholds = np.minimum(IOU_THRESHOLDS, 1 - 1e-10)
    best = iou.max(axis=1, initial=0.0)
    for d in np.flatnonzero(best >= thresholds[0]):
        candidates = free & (iou[d] >= thresholds[:, None])  # (R, T, G)
        counting = candidates & ~excluded[:, None]
        has_counting = counting.any(-1)
        pool = np.where(has_counting[..., None], counting, candidates)
        hit = pool.any(-1)
        chosen = _last_argmax(np.where(pool, iou[d], -1.0))  # (R, T), meaningful where hit
        matched[:, :, d] = hit
        ignored[:, :, d] = hit & ~has_counting
        taken = hit & ~crowd[chosen]
        r, t = np.nonzero(taken)
        free[r, t, chosen[r, t]] = False
    out_of_range = _out_of_range(cell.mean_areas()[:num_detections], ranges)  # (R, D)
    ignored |= ~matched & out_of_range[:, None]
    return CellMatches(
        video=cell.video,
        category=cell.category,
        scores=cell.scores[:num_detections],
        matched=matched,
        ignored=ignored,
        num_instances=(~excluded).sum(-1),
    )


def _last_argmax(values: np.ndarray) -> np.ndarray:
    return values.shape[-1] - 1 - values[..., ::-1].argmax(-1)


def _excluded(instances: tuple[Instance, ...], ranges: tuple[str, ...]) -> np.ndarray:
    """``(R, G)`` bool: instances that do not count, as crowds or out of the range."""
    out = np.ones((len(ranges), len(instances)), dtype=bool)
    for g, instance in enumerate(instances):
        for r, name in enumerate(ranges):
            value: float | None
            if name in AREA_RANGES:
                (low, high), value = AREA_RANGES[name], instance.area
            else:
                (low, high), value = OCCLUSION_RANGES[name], instance.occlusion
            out[r, g] = instance.iscrowd or value is None or not low <= value <= high
    return out


def _out_of_range(areas: np.ndarray, ranges: tuple[str, ...]) -> np.ndarray:
    """``(R, D)`` bool. An unmatched prediction is wrong in every occlusion group: it has no occlusion."""
    out = np.zeros((len(ranges), len(areas)), dtype=bool)
    for r, name in enumerate(ranges):
        if name in AREA_RANGES:
            low, high = AREA_RANGES[name]
            out[r] = (areas < low) | (areas > high)
    return out


def accumulate(matches: MatchedCells) -> Accumulated:
    """Precision at 101 recall points and highest recall, pooled over all videos."""
    shape = (matches.num_categories, len(matches.ranges), len(MAX_DETECTIONS))
    precision = -np.ones((len(IOU_THRESHOLDS), len(RECALL_POINTS), *shape))
    scores = -np.ones_like(precision)
    recall = -np.ones((len(IOU_THRESHOLDS), *shape))
    by_category: list[list[CellMatches]] = [[] for _ in range(matches.num_categories)]
    for cell in matches.cells:
        by_category[cell.category].append(cell)
    for k, group in enumerate(by_category):
        if not group:
            continue
        num_instances = np.sum([cell.num_instances for cell in group], axis=0)
        for m, limit in enumerate(MAX_DETECTIONS):
            pooled = np.concatenate([cell.scores[:limit] for cell in group])
            order = np.argsort(-pooled, kind="stable")
            pooled = pooled[order]
            matched = np.concatenate([cell.matched[..., :limit] for cell in group], axis=-1)[..., order]
            counts = ~np.concatenate([cell.ignored[..., :limit] for cell in group], axis=-1)[..., order]
            true = np.cumsum(matched & counts, axis=-1, dtype=np.float64)  # (R, T, D)
            false = np.cumsum(~matched & counts, axis=-1, dtype=np.float64)
            for r in np.flatnonzero(num_instances):
                for t in range(len(IOU_THRESHOLDS)):
                    curve = recall_curve(true[r, t], false[r, t], num_instances[r])
                    recall[t, k, r, m] = curve[0]
                    at, precision[t, :, k, r, m] = curve[1:]
                    reached = at < len(pooled)
                    scores[t, :, k, r, m] = 0.0
                    scores[t, reached, k, r, m] = pooled[at[reached]]
    return Accumulated(matches.ranges, precision, recall, scores)


def recall_curve(
    true: np.ndarray, false: np.ndarray, num_instances: int
) -> tuple[float, np.ndarray, np.ndarray]:
    """Highest recall, and at each of the 101 recall points the index of the first prediction that
    reaches it (``len(true)`` if none does) and the best precision from there on.

    ``true`` and ``false`` are the cumulative counts of right and wrong predictions by falling score.
    """
    if not len(true):
        return 0.0, np.zeros(len(RECALL_POINTS), dtype=np.int64), np.zeros(len(RECALL_POINTS))
    recall = true / num_instances
    precision = true / (true + false + np.spacing(1))
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall, RECALL_POINTS, side="left")
    return float(recall[-1]), at, np.append(precision, 0.0)[at]


def average_precision(
    accumulated: Accumulated, name: str = "all", threshold: float | None = None
) -> np.ndarray:
    """``(K,)`` AP of each category in one range, over all IoU thresholds or at one of them; NaN where a
    category has no instance that counts.
    """
    precision = accumulated.precision[..., accumulated.ranges.index(name), -1]  # (T, P, K)
    return _defined_mean(precision[_threshold_index(threshold)].mean(1))


def average_recall(
    accumulated: Accumulated, name: str = "all", max_detections: int = MAX_DETECTIONS[-1]
) -> np.ndarray:
    """``(K,)`` highest recall of each category with that many predictions per video and category, mean
    over IoU thresholds; NaN where a category has no instance that counts.
    """
    index = accumulated.ranges.index(name), MAX_DETECTIONS.index(max_detections)
    return _defined_mean(accumulated.recall[:, :, index[0], index[1]])


def summarize(accumulated: Accumulated) -> dict[str, float]:
    """The 12 official numbers and, for OVIS, AP and AR of the three occlusion groups (0..1, NaN where
    undefined). All are means over the categories with an instance that counts.
    """
    per_category = {
        "AP": average_precision(accumulated),
        "AP50": average_precision(accumulated, threshold=0.5),
        "AP75": average_precision(accumulated, threshold=0.75),
    }
    groups = [name for name in accumulated.ranges if name != "all"]
    suffix = {name: name[0] if name in AREA_RANGES else name for name in groups}  # small -> s, so -> so
    for name in groups:
        per_category[f"AP{suffix[name]}"] = average_precision(accumulated, name)
    for limit in MAX_DETECTIONS:
        per_category[f"AR{limit}"] = average_recall(accumulated, max_detections=limit)
    for name in groups:
        per_category[f"AR{suffix[name]}"] = average_recall(accumulated, name)
    return {name: nan_mean(values) for name, values in per_category.items()}


def nan_mean(values: np.ndarray) -> float:
    """Mean of the values that are not NaN; NaN without any."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")


def _threshold_index(threshold: float | None) -> slice:
    if threshold is None:
        return slice(None)
    found = np.flatnonzero(np.isclose(IOU_THRESHOLDS, threshold))
    if not len(found):
        raise ValueError(f"IoU threshold {threshold} is not one of {IOU_THRESHOLDS.round(2).tolist()}")
    return slice(found[0], found[0] + 1)


def _defined_mean(values: np.ndarray) -> np.ndarray:
    """``(K,)`` column means of ``(T, K)``, NaN for the columns marked -1."""
    defined = (values > -1).all(0)
    return np.where(defined, values.mean(0), np.nan)
