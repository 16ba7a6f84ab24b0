"""Confidence intervals by resampling videos, and of the paired difference of two results files.

The percentile bootstrap (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, ch. 13). A
resample is a count of draws per video, so nothing is matched or sorted again: cumulative counts of right
and wrong predictions are products of the ``(B, V)`` draws with counts per video. That is exact, not an
approximation: drawing a video n times repeats its predictions at their places in the ranking.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vistk.evaluation.files import GroundTruth
from vistk.evaluation.hota import TrackingCounts, tracking_metrics
from vistk.evaluation.ytvis_ap import IOU_THRESHOLDS, RECALL_POINTS, CellMatches, MatchedCells

TRACKING_METRICS = ("HOTA", "DetA", "AssA", "IDF1")


class Scored(Protocol):
    """What is resampled; a :class:`vistk.evaluation.report.Report` is one."""

    @property
    def ground_truth(self) -> GroundTruth: ...

    @property
    def matches(self) -> MatchedCells: ...

    @property
    def tracking(self) -> TrackingCounts: ...


@dataclass(frozen=True)
class Interval:
    """A metric (0..1) or a difference, with its interval. NaN where undefined."""

    value: float  # on the videos as they are
    low: float
    high: float


def bootstrap(
    scored: Scored, *, resamples: int = 1000, seed: int = 0, confidence: float = 0.95
) -> dict[str, Interval]:
    """Intervals of AP, AP50, AP75, AR1, AR10, HOTA, DetA, AssA and IDF1 over resampled videos."""
    draws = video_draws(len(scored.ground_truth.videos), resamples, seed)
    values = resampled_metrics(scored, draws)
    return {name: percentile_interval(sample, confidence) for name, sample in values.items()}


def paired_bootstrap(
    a: Scored, b: Scored, *, resamples: int = 1000, seed: int = 0, confidence: float = 0.95
) -> dict[str, Interval]:
    """Intervals of ``b - a``, both measured on the same resampled videos.

    Raises:
        ValueError: the two were scored against different videos or categories.
    """
    ids = [([v.id for v in x.ground_truth.videos], list(x.ground_truth.categories)) for x in (a, b)]
    if ids[0] != ids[1]:
        raise ValueError(
            f"a paired comparison needs one ground truth, found {a.ground_truth.source} and "
            f"{b.ground_truth.source} with different videos or categories"
        )
    draws = video_draws(len(a.ground_truth.videos), resamples, seed)
    first, second = resampled_metrics(a, draws), resampled_metrics(b, draws)
    return {name: percentile_interval(second[name] - first[name], confidence) for name in first}


def video_draws(num_videos: int, resamples: int, seed: int) -> np.ndarray:
    """``(1 + resamples, V)`` float64: how often each video is drawn; row 0 is the videos as they are."""
    if num_videos < 1 or resamples < 1:
        raise ValueError(f"{resamples} resamples of {num_videos} videos, expected at least one of each")
    draws = np.random.default_rng(seed).multinomial(
        num_videos, np.full(num_videos, 1 / num_videos), resamples
    )
    return np.concatenate([np.ones((1, num_videos)), draws])


def resampled_metrics(scored: Scored, draws: np.ndarray) -> dict[str, np.ndarray]:
    """``(B,)`` values of every metric for ``draws`` ``(B, V)``; NaN where a resample leaves it undefined."""
    by_category: dict[int, list[CellMatches]] = {}
    for cell in scored.matches.cells:
        by_category.setdefault(cell.category, []).append(cell)
    everything = scored.matches.ranges.index("all")
    categories = [_resample_category(group, everything, draws) for group in by_category.values()]
    metrics = {
        name: _mean_over_categories([category[name] for category in categories], len(draws))
        for name in ("AP", "AP50", "AP75", "AR1", "AR10")
    }
    by_video = scored.tracking.by_video()
    tracking = tracking_metrics({name: draws @ values for name, values in by_video.items()})
    return metrics | {name: tracking[name] for name in TRACKING_METRICS}


def _resample_category(group: list[CellMatches], r: int, draws: np.ndarray) -> dict[str, np.ndarray]:
    num_videos = draws.shape[1]
    videos = np.array([cell.video for cell in group])
    instances = np.zeros(num_videos)
    instances[videos] = [cell.num_instances[r] for cell in group]
    total = draws @ instances  # (B,)

    order = np.argsort(-np.concatenate([cell.scores for cell in group]), kind="stable")
    video = np.concatenate([np.full(len(cell.scores), cell.video) for cell in group])[order]
    matched = np.concatenate([cell.matched[r] for cell in group], axis=-1)[:, order]
    counted = ~np.concatenate([cell.ignored[r] for cell in group], axis=-1)[:, order]
    ap = np.stack(
        [
            _resample_ap(matched[t] & counted[t], ~matched[t] & counted[t], video, draws, total)
            for t in range(len(IOU_THRESHOLDS))
        ]
    )  # (T, B)
    out = {"AP": ap.mean(0), "AP50": ap[0], "AP75": ap[5]}
    for limit in (1, 10):
        true = np.zeros((num_videos, len(IOU_THRESHOLDS)))
        for cell in group:
            true[cell.video] = (cell.matched[r] & ~cell.ignored[r])[:, :limit].sum(-1)
        out[f"AR{limit}"] = (draws @ true).mean(-1) / np.maximum(total, 1)
    return {name: np.where(total > 0, values, np.nan) for name, values in out.items()}


def _resample_ap(
    true: np.ndarray, false: np.ndarray, video: np.ndarray, draws: np.ndarray, total: np.ndarray
) -> np.ndarray:
    """``(B,)`` AP at one IoU threshold; ``true``, ``false``, ``video`` are by falling score.

    Recall rises only at right predictions and precision only falls between them, so the curve is
    needed at these ``J`` places alone.
    """
    places = np.flatnonzero(true)
    if not len(places):
        return np.zeros(len(draws))
    counts = np.zeros((2, draws.shape[1], len(video)))
    counts[np.where(true, 0, 1), video, np.arange(len(video))] = true | false
    cumulative = draws @ counts.cumsum(-1)[..., places]  # (2, B, J)
    precision = cumulative[0] / (cumulative.sum(0) + np.spacing(1))
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    recall = cumulative[0] / np.maximum(total, 1)[:, None]
    reached = np.searchsorted(RECALL_POINTS, recall, side="right")  # recall points up to each place
    return (np.diff(reached, axis=1, prepend=0) * precision).sum(1) / len(RECALL_POINTS)


def _mean_over_categories(values: list[np.ndarray], num_draws: int) -> np.ndarray:
    stacked = np.array(values).reshape(-1, num_draws)
    defined = ~np.isnan(stacked)
    count = defined.sum(0)
    mean = np.where(defined, stacked, 0.0).sum(0) / np.maximum(count, 1)
    return np.where(count > 0, mean, np.nan)


def percentile_interval(sample: np.ndarray, confidence: float = 0.95) -> Interval:
    """From values whose first is that of the videos as they are."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, expected a number between 0 and 1")
    resampled = sample[1:][~np.isnan(sample[1:])]
    if not len(resampled):
        return Interval(float(sample[0]), float("nan"), float("nan"))
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(sample[0]), float(low), float(high))
