"""Matching predictions to instances, once per video and category: what average precision is made of.

The assignment is that of the official YouTube-VIS evaluator (Yang, Fan, Xu, "Video Instance Segmentation",
ICCV 2019), for all IoU thresholds and ranges of areas and occlusion at once.

Letters: ``R`` ranges (areas, then occlusion groups), ``T`` IoU thresholds, ``D`` predictions and ``G``
instances of one category in one video.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from vistk.evaluation.ap_options import OCCLUSION_RANGES, OFFICIAL, APOptions
from vistk.evaluation.files import GroundTruth, Instance, Results
from vistk.evaluation.overlaps import Cell, VideoOverlaps, map_videos


@dataclass(frozen=True)
class CellMatches:
    """How the predictions of one category in one video, by falling score, met the instances."""

    video: int  # position in GroundTruth.videos
    category: int  # position in GroundTruth.categories
    scores: np.ndarray  # (D,)
    matched: np.ndarray  # (R, T, D) bool
    ignored: np.ndarray  # (R, T, D) bool: neither right nor wrong
    num_instances: np.ndarray  # (R,) instances that count

    def part(self, ranges: slice) -> CellMatches:
        """Of some of the ranges."""
        return replace(
            self,
            matched=self.matched[ranges],
            ignored=self.ignored[ranges],
            num_instances=self.num_instances[ranges],
        )


@dataclass(frozen=True)
class MatchedCells:
    """All matches of a results file."""

    ranges: tuple[str, ...]  # R names: areas, for OVIS then those of OCCLUSION_RANGES
    num_videos: int
    num_categories: int  # 1 where all are taken for one
    cells: tuple[CellMatches, ...]  # those of a category by video
    options: APOptions = OFFICIAL


def range_names(ground_truth: GroundTruth, options: APOptions = OFFICIAL) -> tuple[str, ...]:
    """The ranges that a ground truth can be evaluated over: areas, and occlusion groups where it has them."""
    return (*options.area_ranges, *(OCCLUSION_RANGES if ground_truth.has_occlusion else ()))


def match(
    ground_truth: GroundTruth,
    results: Results,
    options: APOptions = OFFICIAL,
    *,
    jobs: int = 1,
    progress: Callable[[], object] | None = None,
) -> MatchedCells:
    """Matches what the options select; ``jobs`` and ``progress`` as for
    :func:`vistk.evaluation.overlaps.video_overlaps`.
    """
    ground_truth, results = options.select(ground_truth, results)
    ranges = range_names(ground_truth, options)
    found = map_videos(
        partial(_match_video, ranges=ranges, options=options),
        ground_truth,
        results,
        all_pairs=not options.use_categories,
        jobs=jobs,
        progress=progress,
    )
    num_categories = len(ground_truth.categories) if options.use_categories else 1
    cells = tuple(cell for video in found for cell in video)
    return MatchedCells(ranges, len(ground_truth.videos), num_categories, cells, options)


def _match_video(video: VideoOverlaps, ranges: tuple[str, ...], options: APOptions) -> list[CellMatches]:
    cells = video.cells() if options.use_categories else [video.pooled_cell()]
    return [match_cell(cell, ranges, options=options) for cell in cells]


def match_cell(
    cell: Cell,
    ranges: tuple[str, ...],
    groups: tuple[np.ndarray, np.ndarray] | None = None,
    options: APOptions = OFFICIAL,
) -> CellMatches:
    """Greedy matching by falling score, for all thresholds and ranges at once.

    A prediction takes the free instance of highest IoU (the last of equals) that reaches the threshold;
    one that does not count (crowd, or out of range) only if no other does. A crowd stays free.

    Args:
        groups: ``N`` more ranges, which come after the named ones: ``(N, G)`` bool, the instances that
            count, and ``(N, D)`` bool, the predictions that are wrong when they find nothing.
    """
    num_detections = min(len(cell.scores), options.max_detections[-1])
    thresholds = np.minimum(options.iou_thresholds, 1 - 1e-10)
    iou = cell.tube_iou()[:num_detections]
    excluded = _excluded(cell.instances, ranges, options)  # (R, G)
    out_of_range = _out_of_range(cell.mean_areas(), ranges, options)  # (R, D)
    crowd = np.array([i.iscrowd for i in cell.instances], dtype=bool)
    if groups is not None:
        excluded = np.concatenate([excluded, ~groups[0] | crowd])
        out_of_range = np.concatenate([out_of_range, ~groups[1]])
    matched, ignored = _greedy(iou, excluded, crowd, thresholds)
    ignored |= ~matched & out_of_range[:, None, :num_detections]
    return CellMatches(
        video=cell.video,
        category=cell.category,
        scores=cell.scores[:num_detections],
        matched=matched,
        ignored=ignored,
        num_instances=(~excluded).sum(-1),
    )


def _greedy(
    iou: np.ndarray, excluded: np.ndarray, crowd: np.ndarray, thresholds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """``(R, T, D)`` bool: matched, and those of them that met an instance that does not count.

    Args:
        iou: ``(D, G)``, the predictions by falling score.
        excluded: ``(R, G)`` bool, instances that do not count.
        crowd: ``(G,)`` bool.
        thresholds: ``(T,)``, rising.
    """
    matched = np.zeros((len(excluded), len(thresholds), len(iou)), dtype=bool)
    ignored = np.zeros_like(matched)
    if not len(crowd):
        return matched, ignored
    if len(crowd) == 1:  # as about half of them: the first to reach it has it
        reached = iou[:, 0] >= thresholds[:, None]
        matched[:] = reached if crowd[0] else reached & (reached.cumsum(1) == 1)
        return matched, matched & excluded[:, :, None]
    free = np.ones((len(excluded), len(thresholds), len(crowd)), dtype=bool)
    for d in np.flatnonzero(iou.max(axis=1) >= thresholds[0]):
        candidates = free & (iou[d] >= thresholds[:, None])  # (R, T, G)
        counting = candidates & ~excluded[:, None]
        has_counting = counting.any(-1)
        pool = np.where(has_counting[..., None], counting, candidates)
        hit = pool.any(-1)
        chosen = _last_argmax(np.where(pool, iou[d], -1.0))  # (R, T), meaningful where hit
        matched[:, :, d] = hit
        ignored[:, :, d] = hit & ~has_counting
        r, t = np.nonzero(hit & ~crowd[chosen])
        free[r, t, chosen[r, t]] = False
    return matched, ignored


def _last_argmax(values: np.ndarray) -> np.ndarray:
    return values.shape[-1] - 1 - values[..., ::-1].argmax(-1)


def _excluded(instances: tuple[Instance, ...], ranges: tuple[str, ...], options: APOptions) -> np.ndarray:
    """``(R, G)`` bool: instances that do not count, as crowds or out of the range."""
    out = np.ones((len(ranges), len(instances)), dtype=bool)
    for g, instance in enumerate(instances):
        for r, name in enumerate(ranges):
            value: float | None
            if name in options.area_ranges:
                (low, high), value = options.area_ranges[name], instance.area
            else:
                (low, high), value = OCCLUSION_RANGES[name], instance.occlusion
            out[r, g] = instance.iscrowd or value is None or not low <= value <= high
    return out


def _out_of_range(areas: np.ndarray, ranges: tuple[str, ...], options: APOptions) -> np.ndarray:
    """``(R, D)`` bool. An unmatched prediction is wrong in every occlusion group: it has no occlusion."""
    bounds = np.array([options.area_ranges.get(name, (-np.inf, np.inf)) for name in ranges]).reshape(-1, 2)
    return (areas < bounds[:, :1]) | (areas > bounds[:, 1:])
