"""The scores of one results file: its numbers, and what is needed to resample or regroup them.

Masks are read once, video by video; what is kept of a video (matches and counts) is small and adds up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from vistk.evaluation.breakdowns import Group, groups_of, members
from vistk.evaluation.explained import Explained, VideoExplained, explain, explain_video
from vistk.evaluation.files import GroundTruth, Results, load_ground_truth, load_results
from vistk.evaluation.hota import (
    COUNTS,
    Counts,
    GroupCounts,
    TrackingCounts,
    group_metrics,
    track_cell,
    tracking_metrics,
)
from vistk.evaluation.keys import ALL, Key
from vistk.evaluation.overlaps import VideoOverlaps, map_videos
from vistk.evaluation.selection import select
from vistk.evaluation.ytvis_ap import (
    OFFICIAL,
    Accumulated,
    APOptions,
    CellMatches,
    MatchedCells,
    accumulate,
    average_precision,
    average_recall,
    match_cell,
    nan_mean,
    range_names,
    summarize,
)

SCORE_THRESHOLD = 0.3
NAMED_THRESHOLDS = {"AP50": 0.5, "AP75": 0.75}

Truth = str | Path | Mapping[str, Any] | GroundTruth
"""A ground truth file, its parsed content, or what :func:`load_ground_truth` made of it."""

Predicted = str | Path | Sequence[Mapping[str, Any]] | Results
"""A results file, its parsed content, or what :func:`load_results` made of it."""


@dataclass(frozen=True)
class Scores:
    """One results file, scored; numbers are fractions (MOTA may be negative) or counts, NaN: undefined."""

    ground_truth: GroundTruth
    results: str  # its source
    num_predictions: int
    skipped: Mapping[str, int]  # entries that were left out in lenient reading, by reason
    matches: MatchedCells | None  # None: AP was not asked for
    tracking: tuple[TrackingCounts, ...]  # one a score threshold, none if they were not asked for
    groups: tuple[Group, ...]
    group_matches: MatchedCells | None  # ranges are the positions in groups, as text
    group_counts: GroupCounts  # at the first score threshold
    explained: Explained

    @cached_property
    def numbers(self) -> Mapping[Key, float]:
        """Every number that follows from the matches and counts."""
        return dict(self._numbers())

    @property
    def metrics(self) -> dict[str, float | None]:
        """The numbers of the whole file by name, at the first score threshold; None where undefined."""
        return self._of_category(ALL, counts=False)

    @property
    def per_category(self) -> dict[str, dict[str, float | None]]:
        """``{category: {metric: number}}``, as :attr:`metrics`."""
        return {name: self._of_category(name) for name in self.ground_truth.categories.values()}

    @property
    def counts(self) -> dict[str, int]:
        """Videos, instances, predictions; at the first score threshold, identity switches and the like."""
        of_tracks = {name: self.tracking[0].pooled()[name] for name in COUNTS} if self.tracking else {}
        return {
            "videos": len(self.ground_truth.videos),
            "instances": sum(len(video.instances) for video in self.ground_truth.videos),
            "predictions": self.num_predictions,
            **{name: int(value) for name, value in of_tracks.items()},
        }

    def _of_category(self, category: str, counts: bool = True) -> dict[str, float | None]:
        first = self.tracking[0].score_threshold if self.tracking else None
        return {
            key.metric: defined(value)
            for key, value in self.numbers.items()
            if (key.category, key.by) == (category, ALL)
            and key.score_threshold in (None, first)
            and (counts or key.metric not in COUNTS)
        }

    def _numbers(self) -> Iterator[tuple[Key, float]]:
        names = list(self.ground_truth.categories.values())
        if self.matches is not None:
            accumulated = accumulate(self.matches)
            yield from ((Key(name), value) for name, value in summarize(accumulated).items())
            columns = _of_classes(accumulated, metrics_of_classes(accumulated.options))
            for k, name in enumerate(names):
                yield from ((Key(metric, name), float(values[k])) for metric, values in columns.items())
        for tracking in self.tracking:
            for category, name in (None, ALL), *enumerate(names):
                counts = tracking.pooled(category)
                numbers = tracking_metrics(counts) | {metric: counts[metric] for metric in COUNTS}
                for metric, number in numbers.items():
                    yield Key(metric, name, score_threshold=tracking.score_threshold), float(number)
        yield from self._group_numbers()
        yield from self.explained.numbers()

    def _group_numbers(self) -> Iterator[tuple[Key, float]]:
        for n, group in enumerate(self.groups):
            total = float(self.group_counts.instances[:, n].sum())
            yield Key("instances", by=group.by, group=group.name), total
        if self.group_matches is not None:
            accumulated = accumulate(self.group_matches)
            for n, group in enumerate(self.groups):
                wanted = group_metrics_of_ap(accumulated.options)
                for metric, values in _of_classes(accumulated, wanted, str(n)).items():
                    yield Key(metric, by=group.by, group=group.name), nan_mean(values)
        if self.tracking:
            ones = np.ones((1, len(self.ground_truth.videos)))
            for metric, values in group_metrics(self.group_counts, ones).items():
                for n, group in enumerate(self.groups):
                    yield (
                        Key(metric, ALL, group.by, group.name, self.tracking[0].score_threshold),
                        float(values[0, n]),
                    )


def score(
    ground_truth: Truth,
    results: Predicted,
    *,
    ap: bool = True,
    tracking: bool = True,
    errors: bool = False,
    gaps: bool = False,
    by: Sequence[str] = (),
    score_threshold: float | Sequence[float] = SCORE_THRESHOLD,
    options: APOptions = OFFICIAL,
    lenient: bool = False,
    jobs: int = 1,
    progress: Callable[[], object] | None = None,
) -> Scores:
    """Scores one results file.

    Args:
        ground_truth, results: json files, or their parsed contents.
        ap: AP and AR as YouTube-VIS and OVIS define them.
        tracking: HOTA, IDF1 and CLEAR.
        errors: what each kind of error costs, and the causes of identity switches.
        gaps: what an oracle would gain.
        by: breakdowns, names of :data:`vistk.evaluation.breakdowns.ATTRIBUTES`.
        score_threshold: predictions below it do not take part in HOTA, IDF1 and CLEAR (AP has all);
            several make a sweep, and all else takes the first.
        options: what is evaluated, and how AP is. What it selects, and categories that it takes for one,
            hold for all metrics; the rest is of AP alone, without errors and gaps.
        lenient: leave out and count entries of the results that cannot be used.
        jobs: processes; the numbers do not depend on it.
        progress: called after each video.

    Raises:
        EvaluationFileError, FileNotFoundError: a file cannot be used; the message says what to mend.
    """
    thresholds = _thresholds(score_threshold)
    ground_truth = load_ground_truth(ground_truth, runs_later=True)
    results = load_results(results, ground_truth, lenient=lenient, all_pairs=errors or gaps)
    ground_truth, results = select(ground_truth, results, options)
    groups = groups_of(by, ground_truth)
    ranges = range_names(ground_truth, options)
    work = partial(
        _score_video,
        ranges=ranges if ap else None,
        thresholds=thresholds if tracking else (),
        groups=groups,
        options=options,
        explaining=partial(explain_video, errors=errors, gaps=gaps, score_threshold=thresholds[0])
        if errors or gaps
        else None,
    )
    done = list(
        map_videos(work, ground_truth, results, all_pairs=errors or gaps, jobs=jobs, progress=progress)
    )
    explained = [video.explained for video in done if video.explained is not None]
    size = len(ground_truth.videos), len(ground_truth.categories)
    counted = sorted((cell for video in done for cell in video.tracking), key=lambda cell: cell[1])
    return Scores(
        ground_truth=ground_truth,
        results=results.source,
        num_predictions=len(results),
        skipped=results.skipped,
        matches=_pooled((v.matches for v in done), ranges, size, options) if ap else None,
        tracking=tuple(
            TrackingCounts.stack(
                [(video, category, counts[i]) for video, category, counts in counted],
                score_threshold=threshold,
                num_videos=size[0],
            )
            for i, threshold in enumerate(thresholds if tracking else ())
        ),
        groups=groups,
        group_matches=_pooled(
            (v.group_matches for v in done), tuple(map(str, range(len(groups)))), size, options
        )
        if ap and groups
        else None,
        group_counts=GroupCounts.stack([video.group_counts for video in done], len(groups)),
        explained=explain(ground_truth, explained, errors, gaps, thresholds[0]),
    )


def _thresholds(given: float | Sequence[float]) -> tuple[float, ...]:
    if isinstance(given, str):
        raise ValueError(f"score_threshold is {given!r}, expected a finite number or several")
    thresholds = tuple(dict.fromkeys(map(float, given if isinstance(given, Sequence) else (given,))))
    if not thresholds or not all(map(math.isfinite, thresholds)):
        found = ", ".join(map(str, thresholds)) or "empty"
        raise ValueError(f"score_threshold is {found}, expected a finite number or several")
    return thresholds


def _pooled(
    videos: Iterator[list[CellMatches]], ranges: tuple[str, ...], size: tuple[int, int], options: APOptions
) -> MatchedCells:
    cells = sorted((cell for video in videos for cell in video), key=lambda cell: cell.category)
    return MatchedCells(ranges, *size, tuple(cells), options)


def named_thresholds(options: APOptions) -> dict[str, int]:
    """Positions of the IoU thresholds of AP50 and AP75, where there are such."""
    found = {name: np.isclose(options.iou_thresholds, at) for name, at in NAMED_THRESHOLDS.items()}
    return {name: int(there.argmax()) for name, there in found.items() if there.any()}


def metrics_of_classes(options: APOptions) -> tuple[str, ...]:
    """What there is of AP and AR for each class."""
    limits = options.max_detections[:-1] or options.max_detections
    return ("AP", *named_thresholds(options), *(f"AR{limit}" for limit in limits))


def group_metrics_of_ap(options: APOptions) -> tuple[str, ...]:
    """What there is of AP and AR for each group of a breakdown."""
    at_half = ["AP50"] if "AP50" in named_thresholds(options) else []
    return ("AP", *at_half, f"AR{options.max_detections[-1]}")


def _of_classes(
    accumulated: Accumulated, metrics: Sequence[str], name: str | None = None
) -> dict[str, np.ndarray]:
    """``(K,)`` of each metric in one range, the first without a name."""
    out = {}
    for metric in metrics:
        if metric.startswith("AR"):
            out[metric] = average_recall(accumulated, name, int(metric.removeprefix("AR")))
        else:
            out[metric] = average_precision(accumulated, name, NAMED_THRESHOLDS.get(metric))
    return out


@dataclass(frozen=True)
class _VideoScores:
    """What is kept of a video."""

    matches: list[CellMatches]
    group_matches: list[CellMatches]
    tracking: list[tuple[int, int, list[Counts]]]  # video, category, counts at each threshold
    group_counts: GroupCounts
    explained: VideoExplained | None


def _score_video(
    overlaps: VideoOverlaps,
    ranges: tuple[str, ...] | None,
    thresholds: tuple[float, ...],
    groups: tuple[Group, ...],
    options: APOptions,
    explaining: Callable[[VideoOverlaps], VideoExplained] | None,
) -> _VideoScores:
    belongs = members(groups, overlaps)
    matches: list[CellMatches] = []
    group_matches: list[CellMatches] = []
    tracking = []
    # Crowds do not count: they are in no AP.
    regular = ~np.array([i.iscrowd for i in overlaps.instances], dtype=bool)
    total = GroupCounts.none(len(groups), (belongs.instances & regular).sum(1))
    for cell in overlaps.cells():
        of_cell = belongs.part(
            np.flatnonzero(overlaps.categories == cell.category),
            np.flatnonzero(overlaps.instance_categories == cell.category),
        )
        if ranges is not None:
            both = match_cell(cell, ranges, (of_cell.instances, of_cell.predictions), options)
            matches.append(both.part(slice(len(ranges))))
            if groups:
                group_matches.append(both.part(slice(len(ranges), None)))
        if thresholds:
            counted = track_cell(cell, thresholds)
            tracking.append((cell.video, cell.category, [found.counts for found in counted]))
            total = total.plus(counted[0].instances, of_cell.instances)
    explained = None if explaining is None else explaining(overlaps)
    return _VideoScores(matches, group_matches, tracking, total, explained)


def defined(value: float) -> float | None:
    """None for NaN, which json does not know."""
    return None if math.isnan(value) else value
