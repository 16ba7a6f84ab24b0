"""Confidence intervals by resampling videos, and of the paired difference of two results files.

The percentile bootstrap (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, ch. 13). A
resample is a count of draws per video, so nothing is matched or sorted again: every prediction, instance
and count weighs as often as its video was drawn. That is exact, not an approximation: drawing a video n
times repeats its predictions at their places in the ranking.

Letters: ``B`` resamples, ``V`` videos, ``K`` categories, ``R`` ranges, ``N`` predictions of a category.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vistk.evaluation.errors import Diagnosis, Ranking
from vistk.evaluation.explained import BY_ERROR, BY_ORACLE, GAPS, KINDS
from vistk.evaluation.hota import COUNTS, TrackingCounts, group_metrics, tracking_metrics
from vistk.evaluation.keys import ALL, Key
from vistk.evaluation.oracles import OracleGaps
from vistk.evaluation.scores import Scores, group_metrics_of_ap, metrics_of_classes, named_thresholds
from vistk.evaluation.ytvis_ap import RECALL_POINTS, APOptions, CellMatches, MatchedCells, range_suffix

_BLOCK = 128  # resamples at a time: their weights of all predictions of a category stay small


@dataclass(frozen=True)
class Interval:
    """A number or a difference, with its interval. NaN where undefined."""

    value: float  # on the videos as they are
    low: float
    high: float

    @property
    def half(self) -> float:
        """Half its width."""
        return (self.high - self.low) / 2


def bootstrap(
    scores: Scores, *, resamples: int = 1000, seed: int = 0, confidence: float = 0.95
) -> dict[Key, Interval]:
    """Intervals of every number over resampled videos."""
    draws = video_draws(len(scores.ground_truth.videos), resamples, seed)
    return intervals(resampled(scores, draws), confidence)


def paired_bootstrap(
    a: Scores, b: Scores, *, resamples: int = 1000, seed: int = 0, confidence: float = 0.95
) -> dict[Key, Interval]:
    """Intervals of ``b - a`` for every number of both, measured on the same resampled videos.

    Raises:
        ValueError: the two were scored against different videos or categories.
    """
    require_same_truth(a, b)
    draws = video_draws(len(a.ground_truth.videos), resamples, seed)
    return intervals(differences(resampled(a, draws), resampled(b, draws)), confidence)


def require_same_truth(a: Scores, b: Scores) -> None:
    """Raises ``ValueError`` where two were scored against different videos or categories."""
    ids = [([v.id for v in x.ground_truth.videos], list(x.ground_truth.categories)) for x in (a, b)]
    if ids[0] != ids[1]:
        raise ValueError(
            f"a paired comparison needs one ground truth, found {a.ground_truth.source} and "
            f"{b.ground_truth.source} with different videos or categories"
        )


def video_draws(num_videos: int, resamples: int, seed: int | Sequence[int]) -> np.ndarray:
    """``(1 + resamples, V)`` float64: how often each video is drawn; row 0 is the videos as they are.

    Args:
        seed: several numbers are one seed, independent of that of any of them.
    """
    if num_videos < 1 or resamples < 1:
        raise ValueError(f"{resamples} resamples of {num_videos} videos, expected at least one of each")
    draws = np.random.default_rng(seed).multinomial(
        num_videos, np.full(num_videos, 1 / num_videos), resamples
    )
    return np.concatenate([np.ones((1, num_videos)), draws])


def differences(a: Mapping[Key, np.ndarray], b: Mapping[Key, np.ndarray]) -> dict[Key, np.ndarray]:
    """``b - a`` of the numbers of both."""
    return {key: b[key] - values for key, values in a.items() if key in b}


def intervals(samples: Mapping[Key, np.ndarray], confidence: float = 0.95) -> dict[Key, Interval]:
    """Of resampled numbers; row 0 of each is that of the videos as they are."""
    return {key: percentile_interval(sample, confidence) for key, sample in samples.items()}


def require_confidence(confidence: float) -> None:
    """Raises ``ValueError`` unless it is a share between 0 and 1."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, expected a number between 0 and 1")


def percentile_interval(sample: np.ndarray, confidence: float = 0.95) -> Interval:
    """From values whose first is that of the videos as they are."""
    require_confidence(confidence)
    value, rest = float(sample[0]), sample[1:][~np.isnan(sample[1:])]
    if np.isnan(value) or not len(rest):
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(rest, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value, float(low), float(high))


def resampled(
    scores: Scores, draws: np.ndarray, progress: Callable[[], object] = lambda: None
) -> dict[Key, np.ndarray]:
    """``(B,)`` values of every number for ``draws`` ``(B, V)``; NaN where a resample leaves it undefined, and
    for all resamples of one video, which are that video again: they say nothing of how much another differs.

    Args:
        draws: of :func:`video_draws`.
        progress: called :func:`num_steps` times on the way.
    """
    out: dict[Key, np.ndarray] = {}
    if scores.matches is not None:
        names = list(scores.ground_truth.categories.values())
        out |= dict(_resample_official(scores.matches, names, draws, progress))
    for tracking in scores.tracking:
        out |= dict(_resample_tracking(tracking, list(scores.ground_truth.categories.values()), draws))
    out |= dict(_resample_groups(scores, draws, progress))
    explained = scores.explained
    if explained.diagnosis is not None:
        out |= dict(_resample_costs(explained.diagnosis, draws, progress))
        for kind, counts in explained.error_counts().items():
            out[Key("errors", by=BY_ERROR, group=kind)] = draws @ counts.sum(1)
            for k, name in enumerate(explained.diagnosis.per_category):
                out[Key("errors", name, BY_ERROR, kind)] = draws @ counts[:, k]
    if explained.events is not None:
        out |= {key: draws @ counts for key, counts in explained.event_counts().items()}
    if explained.gaps is not None:
        out |= dict(_resample_gaps(explained.gaps, draws, progress))
    if draws.shape[1] == 1:
        out = {key: np.append(values[:1], np.full(len(draws) - 1, np.nan)) for key, values in out.items()}
    return out


def num_steps(scores: Scores) -> int:
    """Steps of :func:`resampled`: of the categories in each of the ranked lists."""
    matched = [
        scores.matches,
        scores.group_matches,
        *(scores.explained.gaps.matches if scores.explained.gaps else ()),
    ]
    steps = sum(len({cell.category for cell in one.cells}) for one in matched if one is not None)
    diagnosis = scores.explained.diagnosis
    return steps + (0 if diagnosis is None else (1 + len(KINDS)) * len(diagnosis.per_category))


def resampled_metrics(scores: Scores, draws: np.ndarray) -> dict[str, np.ndarray]:
    """:func:`resampled` of the numbers in :attr:`Scores.metrics`, by their names."""
    first = scores.tracking[0].score_threshold if scores.tracking else None
    values = resampled(replace(scores, groups=(), group_matches=None), draws)
    keys = [key for name in scores.metrics for key in (Key(name), Key(name, score_threshold=first))]
    return {key.metric: values[key] for key in keys if key in values}


def _resample_official(
    matches: MatchedCells, names: list[str], draws: np.ndarray, progress: Callable[[], object]
) -> Iterator[tuple[Key, np.ndarray]]:
    values = _resample_ap(matches, draws, progress)
    of_ranges = ("AP", f"AR{matches.options.max_detections[-1]}")
    for r, name in enumerate(matches.ranges):
        for metric, of_categories in values.items():
            if r == 0:
                yield Key(metric), _mean(of_categories[r])
            elif metric in of_ranges:
                yield Key(metric[:2] + range_suffix(name)), _mean(of_categories[r])
    for k, name in enumerate(names):
        for metric in metrics_of_classes(matches.options):
            yield Key(metric, name), values[metric][0, k]


def _resample_tracking(
    tracking: TrackingCounts, names: list[str], draws: np.ndarray
) -> Iterator[tuple[Key, np.ndarray]]:
    total: dict[str, np.ndarray] = {}
    of_categories = {}
    for k, name in enumerate(names):
        own = np.flatnonzero(tracking.category == k)
        weights = draws[:, tracking.video[own]]
        of_categories[name] = {metric: weights @ values[own] for metric, values in tracking.counts.items()}
        total = {m: total[m] + v if total else v for m, v in of_categories[name].items()}
    everything = {ALL: total} if total else {}
    for name, counts in (everything | of_categories).items():
        numbers = tracking_metrics(counts) | {metric: counts[metric] for metric in COUNTS}
        for metric, values in numbers.items():
            yield Key(metric, name, score_threshold=tracking.score_threshold), values


def _resample_groups(
    scores: Scores, draws: np.ndarray, progress: Callable[[], object]
) -> Iterator[tuple[Key, np.ndarray]]:
    if not scores.groups:
        return
    columns = {"instances": draws @ scores.group_counts.instances}  # (B, groups)
    if scores.group_matches is not None:
        values = _resample_ap(scores.group_matches, draws, progress)
        for metric in group_metrics_of_ap(scores.group_matches.options):
            columns[metric] = np.stack([_mean(of_categories) for of_categories in values[metric]], axis=1)
    threshold = scores.tracking[0].score_threshold if scores.tracking else None
    of_tracks = group_metrics(scores.group_counts, draws) if scores.tracking else {}
    for n, group in enumerate(scores.groups):
        for metric, column in columns.items():
            yield Key(metric, by=group.by, group=group.name), column[:, n]
        for metric, column in of_tracks.items():
            yield Key(metric, by=group.by, group=group.name, score_threshold=threshold), column[:, n]


def _resample_costs(
    diagnosis: Diagnosis, draws: np.ndarray, progress: Callable[[], object]
) -> Iterator[tuple[Key, np.ndarray]]:
    rankings = diagnosis.rankings()
    totals = np.array([draws @ ranking.num_instances for ranking in rankings]).reshape(-1, len(draws))
    before = _resample_rankings(rankings, totals, draws, progress)
    for kind in KINDS:
        after = _resample_rankings(diagnosis.rankings(kind), totals, draws, progress)
        yield Key("dAP", by=BY_ERROR, group=kind), _mean(after) - _mean(before)
        for k, name in enumerate(diagnosis.per_category):
            yield Key("dAP", name, BY_ERROR, kind), after[k] - before[k]


def _resample_rankings(
    rankings: Sequence[Ranking], present: np.ndarray, draws: np.ndarray, progress: Callable[[], object]
) -> np.ndarray:
    """``(K, B)`` AP; NaN where the category is not ``present`` ``(K, B)``, 1 where none is left to count."""
    out = np.full((len(rankings), len(draws)), np.nan)
    for k, ranking in enumerate(rankings):
        for first in range(0, len(draws), _BLOCK):
            block = draws[first : first + _BLOCK]
            total = block @ ranking.num_instances
            ap = _average_precision(ranking.right, ~ranking.right, block[:, ranking.video], total)
            out[k, first : first + _BLOCK] = np.where(total > 0, ap, 1.0)
        progress()
    return np.where(present > 0, out, np.nan)


def _resample_gaps(
    gaps: OracleGaps, draws: np.ndarray, progress: Callable[[], object]
) -> Iterator[tuple[Key, np.ndarray]]:
    steps = [_resample_ap(step, draws, progress)["AP"][0] for step in gaps.matches]  # (K, B) each
    by_name = {ALL: [_mean(step) for step in steps]}
    by_name |= {name: [step[k] for step in steps] for k, name in enumerate(gaps.per_category)}
    for name, of_steps in by_name.items():
        for gap, values in zip(GAPS, np.diff([*of_steps, np.ones(len(draws))], axis=0), strict=True):
            yield Key("AP gap", name, BY_ORACLE, gap), values


def _resample_ap(
    matches: MatchedCells, draws: np.ndarray, progress: Callable[[], object]
) -> dict[str, np.ndarray]:
    """``(R, K, B)`` AP, AP50, AP75, AR1, AR10 and AR100, as far as the options have them; NaN without an
    instance that counts.
    """
    options = matches.options
    shape = len(matches.ranges), matches.num_categories, len(draws)
    names = ["AP", *named_thresholds(options), *(f"AR{limit}" for limit in options.max_detections)]
    out = {name: np.full(shape, np.nan) for name in names}
    by_category: dict[int, list[CellMatches]] = {}
    for cell in matches.cells:
        by_category.setdefault(cell.category, []).append(cell)
    for k, group in by_category.items():
        for first in range(0, len(draws), _BLOCK):
            block = slice(first, first + _BLOCK)
            for name, values in _resample_category(group, draws[block], options).items():
                out[name][:, k, block] = values
        progress()
    return out


def _resample_category(
    group: list[CellMatches], draws: np.ndarray, options: APOptions
) -> dict[str, np.ndarray]:
    """``(R, B)`` numbers of one category."""
    draws = draws[:, [cell.video for cell in group]]  # (B, cells)
    instances = np.array([cell.num_instances for cell in group])  # (cells, R)
    totals = (draws @ instances).T  # (R, B)
    order = np.argsort(-np.concatenate([cell.scores for cell in group]), kind="stable")
    weights = draws[:, np.repeat(np.arange(len(group)), [len(cell.scores) for cell in group])[order]]
    matched = np.concatenate([cell.matched for cell in group], axis=-1)[..., order]  # (R, T, N)
    counted = ~np.concatenate([cell.ignored for cell in group], axis=-1)[..., order]
    true, false = matched & counted, ~matched & counted
    points = np.array(options.recall_points)
    ap = np.zeros((len(options.iou_thresholds), *totals.shape))
    for r in np.flatnonzero(instances.any(0)):
        for t in range(len(ap)):
            ap[t, r] = _average_precision(true[r, t], false[r, t], weights, totals[r], points)
    out = {"AP": ap.mean(0)} | {name: ap[t] for name, t in named_thresholds(options).items()}
    for limit in options.max_detections:
        hits = np.array([(c.matched & ~c.ignored)[..., :limit].sum((-1, -2)) for c in group], dtype=float)
        out[f"AR{limit}"] = (draws @ hits).T / len(ap) / np.maximum(totals, 1)
    return {name: np.where(totals > 0, values, np.nan) for name, values in out.items()}


def _average_precision(
    true: np.ndarray,
    false: np.ndarray,
    weights: np.ndarray,
    total: np.ndarray,
    points: np.ndarray = RECALL_POINTS,
) -> np.ndarray:
    """``(B,)`` AP at one IoU threshold.

    Recall rises only at right predictions and precision only falls between them, so the curve is
    needed at these ``J`` places alone.

    Args:
        true, false: ``(N,)`` bool by falling score.
        weights: ``(B, N)`` how often each prediction counts.
        total: ``(B,)`` instances.
        points: recall points.
    """
    places = np.flatnonzero(true)
    if not len(places):
        return np.zeros(len(weights))
    right = weights[:, places].cumsum(1)  # (B, J)
    wrong = np.concatenate([np.zeros((len(weights), 1)), weights[:, false].cumsum(1)], axis=1)
    precision = right / (right + wrong[:, false.cumsum()[places]] + np.spacing(1))
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    recall = right / np.maximum(total, 1)[:, None]
    reached = np.searchsorted(points, recall, side="right")  # recall points up to each place
    return (np.diff(reached, axis=1, prepend=0) * precision).sum(1) / len(points)


def _mean(of_categories: np.ndarray) -> np.ndarray:
    """``(B,)`` mean over the categories ``(K, B)`` that are defined."""
    defined = ~np.isnan(of_categories)
    count = defined.sum(0)
    mean = np.where(defined, of_categories, 0.0).sum(0) / np.maximum(count, 1)
    return np.where(count > 0, mean, np.nan)
