"""What the official YouTube-VIS evaluator lets one choose, with its values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral

import numpy as np

from vistk.evaluation.records import GroundTruth, Results

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_POINTS = np.linspace(0.0, 1.0, 101)
MAX_DETECTIONS = (1, 10, 100)  # per video and category

AREA_RANGES: Mapping[str, tuple[float, float]] = {  # pixels, mean over non-empty frames, both ends included
    "all": (0.0, 1e10),
    "small": (0.0, 128.0**2),
    "medium": (128.0**2, 256.0**2),
    "large": (256.0**2, 1e10),
}
OCCLUSION_RANGES: Mapping[str, tuple[float, float]] = {  # both ends included
    "so": (0.0, 0.25),
    "mo": (0.25, 0.5),
    "ho": (0.5, 1.0),
}
"""Groups of OVIS by the occlusion of an instance: slight, moderate, heavy. As in the official code, an
instance of exactly 0.25 or 0.5 is in two of them, and a prediction that finds nothing is wrong in all three;
so their APs are not those of three parts of the data."""


@dataclass(frozen=True)
class APOptions:
    """Options of average precision; the defaults are the official ones.

    Attributes:
        iou_thresholds: rising; tubes match from these on.
        recall_points: rising; the precision is averaged over them.
        area_ranges: by name, of the mean area over non-empty frames in pixels, both ends included; the first
            is what AP and AR mean without further words. The names of the others follow AP and AR
            (:func:`range_suffix`), so they begin with a letter and differ in what follows.
        max_detections: limits on the predictions per video and category; the last one is that of AP.
        use_categories: False takes all categories for one (``useCats=0``).
        video_ids, category_ids: what is evaluated; None is everything.

    Raises:
        ValueError: one of them is empty, or out of range.
    """

    iou_thresholds: tuple[float, ...] = tuple(IOU_THRESHOLDS.tolist())
    recall_points: tuple[float, ...] = tuple(RECALL_POINTS.tolist())
    area_ranges: Mapping[str, tuple[float, float]] = field(default_factory=lambda: dict(AREA_RANGES))
    max_detections: tuple[int, ...] = MAX_DETECTIONS
    use_categories: bool = True
    video_ids: tuple[int, ...] | None = None
    category_ids: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        limits: dict[str, tuple[float, float]] = {
            "iou_thresholds": (0, 1),
            "recall_points": (0, 1),
            "max_detections": (1, np.inf),
        }
        for name, (low, high) in limits.items():
            values = getattr(self, name)
            rising = list(values) == sorted(set(values))
            if not values or not rising or not (values[0] >= low and values[-1] <= high):
                raise ValueError(f"{name} is {values}, expected rising numbers from {low} to {high}")
        if not all(isinstance(limit, Integral) for limit in self.max_detections):
            raise ValueError(f"max_detections is {self.max_detections}, expected whole numbers")
        for name, ids in (("video_ids", self.video_ids), ("category_ids", self.category_ids)):
            if ids is not None and not len(ids):
                raise ValueError(f"{name} is empty, expected at least one id, or None for all")
        for name, (low, high) in self.area_ranges.items():
            if name in OCCLUSION_RANGES or not low <= high:
                raise ValueError(
                    f"area_ranges has '{name}' from {low} to {high}, expected another name than "
                    f"{list(OCCLUSION_RANGES)} and a range of pixels"
                )
        if not self.area_ranges:
            raise ValueError("area_ranges is empty, expected at least one range")
        ends: dict[str, str] = {}
        for name in tuple(self.area_ranges)[1:]:
            if not name[:1].isalpha():  # "AP50" is the AP of an IoU threshold, "AR1" that of one prediction
                raise ValueError(f"area_ranges has '{name}', expected a name that begins with a letter")
            same = ends.setdefault(range_suffix(name), name)
            if same != name:
                raise ValueError(
                    f"area_ranges has '{same}' and '{name}', expected names of different metrics, "
                    f"AP{range_suffix(name)} is of both"
                )

    def select(self, ground_truth: GroundTruth, results: Results) -> tuple[GroundTruth, Results]:
        """The videos and categories that are evaluated.

        Raises:
            ValueError: the ground truth has no such video or category.
        """
        videos = {video.id: video for video in ground_truth.videos}
        kept = _chosen("video_ids", self.video_ids, videos)
        if self.category_ids is None:
            predictions = {key: results.videos[key] for key in kept if key in results.videos}
            truth = replace(ground_truth, videos=tuple(videos[key] for key in kept))
            return truth, replace(results, videos=predictions)
        categories = _chosen("category_ids", self.category_ids, ground_truth.categories)
        parts = (
            replace(v, instances=tuple(i for i in v.instances if i.category_id in categories))
            for v in (videos[key] for key in kept)
        )
        predictions = {
            key: tuple(p for p in results.videos[key] if p.category_id in categories)
            for key in kept
            if key in results.videos
        }
        names = {key: ground_truth.categories[key] for key in categories}
        truth = replace(ground_truth, videos=tuple(parts), categories=names)
        return truth, replace(results, videos=predictions)


def range_suffix(name: str) -> str:
    """What AP and AR of a range end in: ``small`` s, ``so`` so."""
    return name[0] if name in AREA_RANGES else name


def _chosen(name: str, wanted: Sequence[int] | None, known: Mapping[int, object]) -> list[int]:
    """Ids by rising value, all without a choice."""
    unknown = sorted(set(wanted or ()) - known.keys())
    if unknown:
        raise ValueError(f"{name} has {unknown[0]}, which the ground truth has not (it has {len(known)})")
    return sorted(known if wanted is None else set(wanted))


OFFICIAL = APOptions()
