"""Pixels shared by predictions and annotated instances, per video and category.

Every metric of this package starts from these counts, so that masks are read once per evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vistk.evaluation.files import GroundTruth, Instance, Results, mean_area
from vistk.ops.masks import iou_from_counts, tube_overlaps


@dataclass(frozen=True)
class Cell:
    """The predictions and instances of one category in one video.

    ``D`` predictions by falling score (equal scores in the order of the file), ``G`` instances in the
    order of the file, ``T`` frames.
    """

    video: int  # position in GroundTruth.videos
    category: int  # position in GroundTruth.categories
    instances: tuple[Instance, ...]  # G entries
    scores: np.ndarray  # (D,)
    intersections: np.ndarray  # (T, D, G), pixels
    areas: np.ndarray  # (T, D), pixels of the predictions
    instance_areas: np.ndarray  # (T, G), pixels of the instances' masks

    def tube_iou(self) -> np.ndarray:
        """``(D, G)``: shared pixels of all frames over united pixels of all frames."""
        return iou_from_counts(self.intersections.sum(0), self.areas.sum(0), self.instance_areas.sum(0))

    def frame_iou(self) -> np.ndarray:
        """``(T, D, G)`` IoU in every frame; 0 where a mask is absent."""
        return iou_from_counts(self.intersections, self.areas, self.instance_areas)

    def mean_areas(self) -> np.ndarray:
        """``(D,)`` mean area of each prediction over its non-empty frames, pixels."""
        return np.array([mean_area(column) for column in self.areas.T.tolist()])


def cells(ground_truth: GroundTruth, results: Results) -> Iterator[Cell]:
    """All cells with a prediction or an instance, by category, then by video."""
    for category, category_id in enumerate(ground_truth.categories):
        for position, video in enumerate(ground_truth.videos):
            instances = tuple(i for i in video.instances if i.category_id == category_id)
            predictions = [p for p in results.videos.get(video.id, ()) if p.category_id == category_id]
            if not instances and not predictions:
                continue
            predictions.sort(key=lambda p: -p.score)  # stable
            intersections, areas, instance_areas = tube_overlaps(
                [p.masks for p in predictions], [i.masks for i in instances], video.num_frames
            )
            scores = np.array([p.score for p in predictions], dtype=np.float64)
            yield Cell(position, category, instances, scores, intersections, areas, instance_areas)
