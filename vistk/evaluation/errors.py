"""What each kind of error costs in AP.

The kinds are those of :mod:`vistk.evaluation.error_labels`. The cost of one (TIDE's dAP) is the AP with all
errors of that kind mended and everything else as it was, minus the AP. Mended means:

- ``classification``, ``spatial``, ``temporal``: the prediction gets the category of its instance, or its
  masks, keeps its score and is right. If the instance is matched already the prediction is removed
  instead; so are, of several errors of one kind about one instance, all but the first by score.
- ``duplicate``, ``background``, ``both``: removed (of ``both`` nobody can say what it was to be).
- ``missed``: the instances are not counted: as if the rest of the curve went on with its precision.
- ``false_positives``: every prediction that is wrong is removed, whatever its error.
- ``false_negatives``: every instance that is not matched is not counted.

A category none of whose instances is left to count has an AP of 1 then: what it lacked were these. The costs
do not add up to what is missing to an AP of 1: mending one kind changes what another would bring. None is
negative. With one threshold of 0.5, the default, AP is the AP50 of YouTube-VIS; with several, every number is
the mean over them, each being the positive threshold in its turn (records and counts are of the first).
The limit of 100 predictions is applied once, before anything is mended.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from vistk.evaluation.error_labels import (
    ERRORS,
    IGNORED,
    MADE_RIGHT,
    POSITIVE,
    RIGHT,
    VideoErrors,
    find_errors,
)
from vistk.evaluation.files import GroundTruth
from vistk.evaluation.overlaps import VideoOverlaps
from vistk.evaluation.ytvis_ap import nan_mean, recall_curve

WEIGHTS = ("false_positives", "false_negatives")


@dataclass(frozen=True)
class ErrorRecord:
    """One wrong prediction, or one missed instance."""

    video: int  # its id
    kind: str  # one of ERRORS
    category: str  # of the prediction, or of the missed instance
    prediction: int | None  # place in the video by falling score, as in VideoOverlaps.predictions
    score: float | None
    instance: int | None  # place in the video, as in Video.instances; None: of no instance
    iou: float  # tube IoU of the two; without an instance the greatest with any; 0 for a missed one


@dataclass(frozen=True, eq=False)
class Ranking:
    """The predictions of one category by falling score: all that its AP depends on, resampled or not."""

    right: np.ndarray  # (N,) bool
    video: np.ndarray  # (N,) positions in GroundTruth.videos
    num_instances: np.ndarray  # (V,) int64, instances that count in each video


@dataclass(frozen=True)
class Costs:
    """AP (0..1, NaN without an instance), what each kind of error takes from it, and how many there are."""

    ap: float
    cost: Mapping[str, float]  # by ERRORS and WEIGHTS
    counts: Mapping[str, int]  # likewise

    def as_dict(self) -> dict[str, Any]:
        """For json: undefined numbers are None."""
        cost = {name: _defined(value) for name, value in self.cost.items()}
        return {"ap": _defined(self.ap), "cost": cost, "counts": dict(self.counts)}


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """The errors of a results file; ``overall`` is the mean of the categories that have instances."""

    thresholds: tuple[float, ...]
    overall: Costs
    per_category: Mapping[str, Costs]  # by category name
    ground_truth: GroundTruth
    videos: tuple[VideoErrors, ...]

    @property
    def ap(self) -> float:
        return self.overall.ap

    @property
    def cost(self) -> Mapping[str, float]:
        return self.overall.cost

    @property
    def counts(self) -> Mapping[str, int]:
        return self.overall.counts

    @cached_property
    def records(self) -> tuple[ErrorRecord, ...]:
        """Every error at the first threshold: by video, its predictions by falling score, then misses."""
        names = list(self.ground_truth.categories.values())
        return tuple(
            record
            for video in self.videos
            for record in _records(video, self.ground_truth.videos[video.video].id, names)
        )

    def rankings(self, mended: str | None = None, threshold: int = 0) -> tuple[Ranking, ...]:
        """One ranking a category, with one kind of error mended; for resampling.

        Args:
            mended: one of :data:`ERRORS` or :data:`WEIGHTS`; None: as predicted.
            threshold: position in ``thresholds``.
        """
        return _Pool(self.videos, threshold, len(self.per_category)).rankings(mended)

    def as_dict(self, records: bool = True) -> dict[str, Any]:
        """For json: ``thresholds``, ``ap``, ``cost``, ``counts``, ``per_category`` and ``records``."""
        content = {
            "thresholds": list(self.thresholds),
            **self.overall.as_dict(),
            "per_category": {name: costs.as_dict() for name, costs in self.per_category.items()},
        }
        return content | ({"records": [asdict(record) for record in self.records]} if records else {})


def diagnose(
    ground_truth: GroundTruth,
    videos: Iterable[VideoOverlaps | VideoErrors],
    thresholds: Sequence[float] = (POSITIVE,),
) -> Diagnosis:
    """Finds every error of a results file and what the errors of each kind cost in AP.

    Args:
        videos: overlaps of all pairs (``video_overlaps(.., all_pairs=True)``) of every video in order, or
            what :func:`find_errors` made of them with the same thresholds.
        thresholds: tube IoU from which a prediction is right; the numbers are means over them.

    Raises:
        ValueError: a threshold is not above the 0.1 of background, or above 1.
    """
    thresholds = tuple(map(float, thresholds))
    found = tuple(v if isinstance(v, VideoErrors) else find_errors(v, thresholds) for v in videos)
    names = list(ground_truth.categories.values())
    kinds = (*ERRORS, *WEIGHTS)
    ap, mended = np.zeros(len(names)), np.zeros((len(kinds), len(names)))
    for level in range(len(thresholds)):
        pool = _Pool(found, level, len(names))
        ap += pool.average_precision(None) / len(thresholds)
        for row, kind in zip(mended, kinds, strict=True):
            row += pool.average_precision(kind) / len(thresholds)
    counts = _Pool(found, 0, len(names)).counts()

    def costs(ap: float, mended: np.ndarray, counts: Mapping[str, int]) -> Costs:
        cost = {kind: float(value - ap) for kind, value in zip(kinds, mended, strict=True)}
        return Costs(float(ap), cost, counts)

    per_category = {
        name: costs(ap[k], mended[:, k], {kind: int(n[k]) for kind, n in counts.items()})
        for k, name in enumerate(names)
    }
    means = np.array([nan_mean(row) for row in mended])
    overall = costs(nan_mean(ap), means, {kind: int(n.sum()) for kind, n in counts.items()})
    return Diagnosis(thresholds, overall, per_category, ground_truth, found)


def _records(video: VideoErrors, video_id: int, names: Sequence[str]) -> Iterable[ErrorRecord]:
    labels = video.labels[0]
    for d in np.flatnonzero(labels.kind >= 0).tolist():
        instance = int(labels.instance[d])
        yield ErrorRecord(
            video=video_id,
            kind=ERRORS[labels.kind[d]],
            category=names[video.categories[d]],
            prediction=d,
            score=float(video.scores[d]),
            instance=None if instance < 0 else instance,
            iou=float(labels.iou[d]),
        )
    for g in np.flatnonzero(labels.missed).tolist():
        yield ErrorRecord(video_id, "missed", names[video.instance_categories[g]], None, None, g, 0.0)


class _Pool:
    """The predictions ``N`` and instances ``M`` of all videos at one threshold, in order."""

    def __init__(self, videos: Sequence[VideoErrors], threshold: int, num_categories: int) -> None:
        self.num_categories = num_categories
        self.num_videos = len(videos)
        labels = [video.labels[threshold] for video in videos]
        place = np.arange(len(videos))
        self.video = place.repeat([len(video.scores) for video in videos])
        self.scores = _joined([video.scores for video in videos], np.float64)
        self.categories = _joined([video.categories for video in videos], np.int64)
        self.kind = _joined([found.kind for found in labels], np.int8)
        self.gains = _joined([found.gains for found in labels], bool)
        self.target = _joined(  # the category of the instance that a prediction is about
            [
                np.append(video.instance_categories, -1)[found.instance]
                for video, found in zip(videos, labels, strict=True)
            ],
            np.int64,
        )
        self.instance_video = place.repeat([len(video.counted) for video in videos])
        self.instance_categories = _joined([video.instance_categories for video in videos], np.int64)
        self.counted = _joined([video.counted for video in videos], bool)
        self.found = _joined([found.found for found in labels], bool)
        self.missed = _joined([found.missed for found in labels], bool)

    def counts(self) -> dict[str, np.ndarray]:
        """``(K,)`` errors of each kind: wrong predictions by their category, instances by theirs."""

        def by_category(categories: np.ndarray) -> np.ndarray:
            return np.bincount(categories, minlength=self.num_categories)

        out = {name: by_category(self.categories[self.kind == i]) for i, name in enumerate(ERRORS)}
        out["missed"] = by_category(self.instance_categories[self.missed])
        out["false_positives"] = by_category(self.categories[self.kind >= 0])
        out["false_negatives"] = by_category(self.instance_categories[self.counted & ~self.found])
        return out

    def rankings(self, mended: str | None) -> tuple[Ranking, ...]:
        right, kept, categories, counted = (
            self.kind == RIGHT,
            self.kind != IGNORED,
            self.categories,
            self.counted,
        )
        if mended in MADE_RIGHT:
            chosen = self.kind == ERRORS.index(mended)
            right = right | (chosen & self.gains)
            kept = kept & (~chosen | self.gains)
            categories = np.where(chosen & self.gains, self.target, categories)
        elif mended == "missed":
            counted = counted & ~self.missed
        elif mended == "false_positives":
            kept = right
        elif mended == "false_negatives":
            counted = counted & self.found
        elif mended is not None:
            kept = kept & (self.kind != ERRORS.index(mended))
        order = np.flatnonzero(kept)
        order = order[np.argsort(-self.scores[order], kind="stable")]
        out = []
        for k in range(self.num_categories):
            own = order[categories[order] == k]
            instances = self.instance_video[counted & (self.instance_categories == k)]
            total = np.bincount(instances, minlength=self.num_videos)
            out.append(Ranking(right[own], self.video[own], total))
        return tuple(out)

    def average_precision(self, mended: str | None) -> np.ndarray:
        """``(K,)`` AP with one kind of error mended; NaN for categories without instances."""
        present = np.bincount(self.instance_categories[self.counted], minlength=self.num_categories) > 0
        out = np.full(self.num_categories, np.nan)
        for k, ranking in enumerate(self.rankings(mended)):
            if present[k]:
                total = int(ranking.num_instances.sum())
                true, false = (
                    np.cumsum(ranking.right, dtype=np.float64),
                    np.cumsum(~ranking.right, dtype=np.float64),
                )
                out[k] = recall_curve(true, false, total)[2].mean() if total else 1.0
        return out


def _joined(arrays: Sequence[np.ndarray], dtype: Any) -> np.ndarray:
    return np.concatenate([*arrays, np.zeros(0, dtype=dtype)]).astype(dtype)


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value
