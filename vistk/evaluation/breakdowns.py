"""Groups of annotated instances, to see where a results file gains and loses: AP, AR, AssA by group.

An attribute is a number of each instance, a group an interval of it (both ends included, as in the
official ranges). In the AP of a group, instances outside of it are ignored, as the official code does with
area and occlusion: a prediction that finds one is neither right nor wrong. A prediction that finds nothing

- is wrong in every group of an attribute that only annotated instances have (occlusion, length, speed,
  gap), as in the occlusion groups of OVIS;
- is wrong in the groups of its own size, as in the area ranges of YouTube-VIS;
- is wrong in the group of its video (objects) and of its class in its video (crowding); of a class that
  the video lacks, in every group.

So the groups of ``objects`` have the AP of their videos alone, and no group has more false predictions
than the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco_mask

from vistk.evaluation.files import EvaluationFileError, GroundTruth
from vistk.evaluation.overlaps import VideoOverlaps
from vistk.evaluation.ytvis_ap import AREA_RANGES, OCCLUSION_RANGES
from vistk.structures import RLE

MOST = float("inf")
_SIZES = {name: ends for name, ends in AREA_RANGES.items() if name != "all"}


def _speed_at(iou: float) -> float:
    """Side lengths that a square moves in a frame whose overlap with the one before is ``iou``."""
    return (1 - iou) / (1 + iou)


Intervals = Mapping[str, tuple[float, float]]
"""``{group: (low, high)}``, both ends included."""


def _counted(*last: int) -> Intervals:
    """Intervals of whole numbers from 1 on: up to each of ``last``, and what is more."""
    first = [1, *(end + 1 for end in last)]
    named = {str(a) if a == b else f"{a}-{b}": (a, b) for a, b in zip(first, last, strict=False)}
    return named | {f"{first[-1]}+": (first[-1], MOST)}


@dataclass(frozen=True)
class Attribute:
    """A number of every instance, and the groups that it makes."""

    what: str
    values: Callable[[VideoOverlaps], np.ndarray]  # (G,) float64, NaN: in no group
    intervals: Intervals
    of_predictions: Callable[[VideoOverlaps], np.ndarray] | None = None  # (D,); NaN: in every group


@dataclass(frozen=True)
class Group:
    """One group of one attribute."""

    by: str
    name: str
    low: float
    high: float


@dataclass(frozen=True)
class Members:
    """Who belongs to ``N`` groups in a video (or in one category of it)."""

    instances: np.ndarray  # (N, G) bool
    predictions: np.ndarray  # (N, D) bool: wrong in the group if it finds nothing

    def part(self, predictions: np.ndarray, instances: np.ndarray) -> Members:
        """Of some predictions and instances, given by their positions."""
        return Members(self.instances[:, instances], self.predictions[:, predictions])


def groups_of(by: Iterable[str], ground_truth: GroundTruth) -> tuple[Group, ...]:
    """The groups of the named attributes (:data:`ATTRIBUTES`), in their order.

    Raises:
        EvaluationFileError: there is no such attribute, or the ground truth does not have it.
    """
    out = []
    for name in dict.fromkeys(by):
        if name not in ATTRIBUTES:
            raise EvaluationFileError(f"no breakdown by {name!r}, expected some of {', '.join(ATTRIBUTES)}")
        if name == "occlusion" and not ground_truth.has_occlusion:
            raise EvaluationFileError(
                f"{ground_truth.source}: no annotation has 'occlusion', expected it for a breakdown by "
                "occlusion (OVIS has it)"
            )
        intervals = ATTRIBUTES[name].intervals
        if name == "length" and ground_truth.has_occlusion:
            intervals = OVIS_LENGTHS
        out += [Group(name, group, *ends) for group, ends in intervals.items()]
    return tuple(out)


def members(groups: Sequence[Group], overlaps: VideoOverlaps) -> Members:
    """Who belongs to which group in a video."""
    instances = np.zeros((len(groups), len(overlaps.instances)), dtype=bool)
    predictions = np.ones((len(groups), len(overlaps.predictions)), dtype=bool)
    values = {name: ATTRIBUTES[name].values(overlaps) for name in {group.by for group in groups}}
    for n, group in enumerate(groups):
        instances[n] = _inside(values[group.by], group)
        of_predictions = ATTRIBUTES[group.by].of_predictions
        if of_predictions is not None:
            found = of_predictions(overlaps)
            predictions[n] = _inside(found, group) | np.isnan(found)
    return Members(instances, predictions)


def _inside(values: np.ndarray, group: Group) -> np.ndarray:
    return (values >= group.low) & (values <= group.high)


def _occlusion(overlaps: VideoOverlaps) -> np.ndarray:
    return np.array([np.nan if i.occlusion is None else i.occlusion for i in overlaps.instances], dtype=float)


def _size(overlaps: VideoOverlaps) -> np.ndarray:
    return np.array([i.area for i in overlaps.instances], dtype=float)


def _length(overlaps: VideoOverlaps) -> np.ndarray:
    return (overlaps.instance_areas > 0).sum(0).astype(float)


def longest_gaps(present: np.ndarray) -> np.ndarray:
    """``(G,)`` the longest absence between two frames with a mask, in frames; NaN without any mask.

    Args:
        present: ``(T, G)`` bool.
    """
    out = np.full(present.shape[1], np.nan)
    for g in np.flatnonzero(present.any(0)):
        frames = np.flatnonzero(present[:, g])
        out[g] = np.diff(frames).max(initial=1) - 1
    return out


def speed(masks: Sequence[RLE | None]) -> float:
    """Movement of the centre of the bounding box a frame, in lengths of an object's side: the root of its
    area. The mean over successive masks; NaN with fewer than two.
    """
    shown = [(t, rle) for t, rle in enumerate(masks) if rle is not None]
    boxes = coco_mask.toBbox([rle for _, rle in shown]) if shown else np.zeros((0, 4))
    areas = coco_mask.area([rle for _, rle in shown]).astype(float) if shown else np.zeros(0)
    frames = np.array([t for t, _ in shown])[areas > 0]
    boxes, areas = boxes[areas > 0], areas[areas > 0]
    if len(frames) < 2:
        return float("nan")
    centres = boxes[:, :2] + boxes[:, 2:] / 2
    moved = np.linalg.norm(np.diff(centres, axis=0), axis=1) / np.diff(frames)
    return float((moved / np.sqrt((areas[1:] + areas[:-1]) / 2)).mean())


def _objects(overlaps: VideoOverlaps, size: int) -> np.ndarray:
    return np.full(size, float(len(overlaps.instances)))


def _crowding(overlaps: VideoOverlaps, categories: np.ndarray) -> np.ndarray:
    counts = (overlaps.instance_categories[None] == categories[:, None]).sum(1).astype(float)
    return np.where(counts > 0, counts, np.nan)


ATTRIBUTES: Mapping[str, Attribute] = {
    "occlusion": Attribute("OVIS score: slight, moderate, heavy", _occlusion, OCCLUSION_RANGES),
    "length": Attribute("frames with a mask", _length, _counted(16, 32)),
    "objects": Attribute(
        "instances in the video",
        lambda o: _objects(o, len(o.instances)),
        _counted(1, 3, 7),
        lambda o: _objects(o, len(o.predictions)),
    ),
    "size": Attribute("mean area, official ranges", _size, _SIZES, lambda o: o.mean_areas()),
    # The overlaps of ImageNet VID (Zhu et al., "Flow-Guided Feature Aggregation", ICCV 2017).
    "speed": Attribute(
        "movement a frame over the root of the area",
        lambda o: np.array([speed(i.masks) for i in o.instances], dtype=float),
        {
            "slow": (0.0, _speed_at(0.9)),
            "medium": (np.nextafter(_speed_at(0.9), 1), _speed_at(0.7)),
            "fast": (np.nextafter(_speed_at(0.7), 1), MOST),
        },
    ),
    "gap": Attribute(
        "longest absence in frames",
        lambda o: longest_gaps(o.instance_areas > 0),
        {"0": (0, 0)} | dict(_counted(10, 30)),
    ),
    "crowding": Attribute(
        "instances of its class in the video",
        lambda o: _crowding(o, o.instance_categories),
        _counted(1, 3, 7),
        lambda o: _crowding(o, o.categories),
    ),
}
"""The breakdowns by name."""

OVIS_LENGTHS = _counted(16, 32, 96)
"""Groups of ``length`` where the ground truth has occlusion, as OVIS: its videos are longer."""
