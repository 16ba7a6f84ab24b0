"""Pixels shared by predictions and annotated instances, video by video.

Every metric of this package starts from these counts, so that masks are read once per evaluation.

Letters: ``T`` frames, ``D`` predictions and ``G`` annotated instances of one video (:class:`VideoOverlaps`)
or of one category in it (:class:`Cell`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TypeVar

import numpy as np

from vistk.evaluation.files import GroundTruth, Instance, Prediction, Results
from vistk.evaluation.processes import in_order
from vistk.ops.masks import iou_from_counts, tube_areas, tube_overlaps

Made = TypeVar("Made")


class _Counts:
    """What follows from shared pixels and areas."""

    intersections: np.ndarray  # (T, D, G)
    areas: np.ndarray  # (T, D)
    instance_areas: np.ndarray  # (T, G)

    def tube_iou(self) -> np.ndarray:
        """``(D, G)``: shared pixels of all frames over united pixels of all frames."""
        return iou_from_counts(self.intersections.sum(0), self.areas.sum(0), self.instance_areas.sum(0))

    def frame_iou(self) -> np.ndarray:
        """``(T, D, G)`` IoU in every frame; 0 where a mask is absent."""
        return iou_from_counts(self.intersections, self.areas, self.instance_areas)

    def mean_areas(self) -> np.ndarray:
        """``(D,)`` mean area of each prediction over its non-empty frames, pixels; 0 without any."""
        return self.areas.sum(0) / np.maximum(1, (self.areas > 0).sum(0))


@dataclass(frozen=True, eq=False)
class Cell(_Counts):
    """The predictions and instances of one category in one video.

    ``D`` predictions by falling score (equal scores in the order of the file), ``G`` instances in the
    order of the file.
    """

    video: int  # position in GroundTruth.videos
    category: int  # position in GroundTruth.categories
    instances: tuple[Instance, ...]  # G entries
    scores: np.ndarray  # (D,)
    intersections: np.ndarray  # (T, D, G), pixels
    areas: np.ndarray  # (T, D), pixels of the predictions
    instance_areas: np.ndarray  # (T, G), pixels of the instances' masks


@dataclass(frozen=True, eq=False)
class VideoOverlaps(_Counts):
    """All predictions and instances of one video, of all categories."""

    video: int  # position in GroundTruth.videos
    instances: tuple[Instance, ...]  # G entries, in the order of the file
    predictions: tuple[Prediction, ...]  # D entries by falling score, equal scores in the order of the file
    intersections: np.ndarray  # (T, D, G), pixels; 0 for pairs that were left out
    areas: np.ndarray  # (T, D), pixels of the predictions
    instance_areas: np.ndarray  # (T, G), pixels of the instances' masks
    categories: np.ndarray  # (D,) int64, positions in GroundTruth.categories
    instance_categories: np.ndarray  # (G,) int64, likewise

    @cached_property
    def scores(self) -> np.ndarray:
        """``(D,)`` float64, falling."""
        return np.array([p.score for p in self.predictions], dtype=np.float64)

    def cell(self, category: int) -> Cell:
        """The part of one category, given by its position in ``GroundTruth.categories``."""
        rows = np.flatnonzero(self.categories == category)
        return self._part(rows, np.flatnonzero(self.instance_categories == category), category)

    def pooled_cell(self) -> Cell:
        """All categories as one; equal scores and instances by category, then in the order of the file."""
        rows = np.lexsort((self.categories, -self.scores))
        return self._part(rows, np.argsort(self.instance_categories, kind="stable"), 0)

    def _part(self, rows: np.ndarray, columns: np.ndarray, category: int) -> Cell:
        return Cell(
            video=self.video,
            category=category,
            instances=tuple(self.instances[g] for g in columns.tolist()),
            scores=self.scores[rows],
            intersections=self.intersections.take(rows, 1).take(columns, 2),
            areas=self.areas.take(rows, 1),
            instance_areas=self.instance_areas.take(columns, 1),
        )

    def cells(self) -> Iterator[Cell]:
        """The parts of the categories that have a prediction or an instance here, by category."""
        return map(self.cell, sorted({*self.categories.tolist(), *self.instance_categories.tolist()}))


def video_overlaps(
    ground_truth: GroundTruth,
    results: Results,
    *,
    all_pairs: bool = False,
    jobs: int = 1,
    progress: Callable[[], object] | None = None,
) -> Iterator[VideoOverlaps]:
    """The overlaps of every video in the order of ``GroundTruth.videos``, one at a time; a video with
    neither predictions nor instances has empty arrays.

    Args:
        all_pairs: intersect predictions with instances of other categories, too.
        jobs: processes that do it; 1 is this one. The numbers do not depend on it.
        progress: called after each video, as the ``update`` of a bar.

    Raises:
        ValueError: ``jobs`` is less than 1.
    """
    videos = _videos(ground_truth, results)
    counted = in_order(partial(_overlap_counts, all_pairs=all_pairs), videos, jobs, progress)
    return (video.overlaps(*counts) for video, counts in zip(videos, counted, strict=True))


def map_videos(
    function: Callable[[VideoOverlaps], Made],
    ground_truth: GroundTruth,
    results: Results,
    *,
    all_pairs: bool = False,
    jobs: int = 1,
    progress: Callable[[], object] | None = None,
) -> Iterator[Made]:
    """``function`` of the overlaps of every video, in order; called by the processes that intersect masks.

    Args:
        function: as :func:`vistk.evaluation.processes.in_order` has it. The rest is as for
            :func:`video_overlaps`.
    """
    videos = _videos(ground_truth, results)
    return in_order(partial(_apply, function=function, all_pairs=all_pairs), videos, jobs, progress)


@dataclass(frozen=True, eq=False)
class _Video:
    """What the overlaps of one video are made of: all that a process is sent."""

    position: int
    num_frames: int
    instances: tuple[Instance, ...]
    predictions: tuple[Prediction, ...]
    categories: np.ndarray
    instance_categories: np.ndarray

    def overlaps(
        self, intersections: np.ndarray, areas: np.ndarray, instance_areas: np.ndarray
    ) -> VideoOverlaps:
        return VideoOverlaps(
            video=self.position,
            instances=self.instances,
            predictions=self.predictions,
            intersections=intersections,
            areas=areas,
            instance_areas=instance_areas,
            categories=self.categories,
            instance_categories=self.instance_categories,
        )


def _videos(ground_truth: GroundTruth, results: Results) -> list[_Video]:
    position = {category_id: k for k, category_id in enumerate(ground_truth.categories)}
    found = []
    for index, video in enumerate(ground_truth.videos):
        predictions = sorted(results.videos.get(video.id, ()), key=lambda p: -p.score)  # stable
        found.append(
            _Video(
                position=index,
                num_frames=video.num_frames,
                instances=video.instances,
                predictions=tuple(predictions),
                categories=np.array([position[p.category_id] for p in predictions], dtype=np.int64),
                instance_categories=np.array(
                    [position[i.category_id] for i in video.instances], dtype=np.int64
                ),
            )
        )
    return found


def _overlap_counts(video: _Video, all_pairs: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    masks, instance_masks = [p.masks for p in video.predictions], [i.masks for i in video.instances]
    labels = None if all_pairs else (video.categories, video.instance_categories)
    wanted = np.ones((len(masks), len(instance_masks)), dtype=bool)
    if labels is not None:
        wanted = labels[0][:, None] == labels[1]
    shared = _known(video, wanted)
    if shared is None:
        return tube_overlaps(masks, instance_masks, video.num_frames, labels)
    return shared, tube_areas(masks, video.num_frames), tube_areas(instance_masks, video.num_frames)


def _known(video: _Video, wanted: np.ndarray) -> np.ndarray | None:
    """``(T, D, G)`` as it was counted when the results were read, for ``wanted`` pairs (D, G) of bools; None
    if not all of them were.
    """
    counted, pixels = [], []
    for prediction in video.predictions:
        shared = prediction.shared
        if shared is None:
            return None
        with_whom, how_many = shared.counted, shared.pixels
        if shared.instances is not video.instances:  # a selection, or another ground truth
            place = {id(instance): g for g, instance in enumerate(shared.instances)}
            if not all(id(instance) in place for instance in video.instances):
                return None
            places = [place[id(instance)] for instance in video.instances]
            with_whom, how_many = with_whom[places], how_many[places]
        counted.append(with_whom)
        pixels.append(how_many)
    if not pixels:
        return np.zeros((video.num_frames, 0, len(video.instances)))
    if (wanted & ~np.array(counted)).any():
        return None
    return np.where(wanted, np.array(pixels).transpose(2, 0, 1), 0.0)


def _apply(video: _Video, function: Callable[[VideoOverlaps], Made], all_pairs: bool) -> Made:
    return function(video.overlaps(*_overlap_counts(video, all_pairs)))


def cells(ground_truth: GroundTruth, results: Results) -> Iterator[Cell]:
    """All cells with a prediction or an instance, by category, then by video."""
    found = [cell for video in video_overlaps(ground_truth, results) for cell in video.cells()]
    return iter(sorted(found, key=lambda cell: cell.category))
