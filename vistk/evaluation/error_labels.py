"""What is wrong with each prediction: class, place, time, or that it is there at all.

Written from the definitions of TIDE (Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection
Errors", ECCV 2020), carried over to videos as in TIVE (Jia et al., "TIVE: A Toolbox for Identifying Video
Instance Segmentation Errors", Neurocomputing 545, 2023): tube IoU takes the place of box IoU, and errors
of localisation are told apart into spatial and temporal ones.

Predictions are matched to instances as AP does it at one IoU threshold, the *positive* one. A prediction
that is matched to nothing (and not ignored: crowds, or beyond 100 predictions of a category in a video)
has exactly one error, the first that holds. ``same`` and ``other`` are the counting instances of greatest
tube IoU of its own and of other categories (of equals the last, as in AP):

1. ``spatial``, ``temporal``: IoU with ``same`` is in [0.1, positive). Spatial where both are in the same
   place in at least 0.7 of the frames (frame IoU above 0.1, of the frames in which either has pixels):
   the mask is wrong. Temporal otherwise: it is there at the wrong time, or follows something else.
2. ``classification``: IoU with ``other`` is at least the positive threshold.
3. ``duplicate``: IoU with ``same`` is at least the positive threshold; it was matched to another one.
4. ``background``: no IoU is above 0.1.
5. ``both``: the rest, wrong in class and in place.

An instance is ``missed`` if nothing is matched to it and no prediction with an error of classification,
space or time is about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vistk.evaluation.overlaps import VideoOverlaps
from vistk.evaluation.ytvis_ap import MAX_DETECTIONS

POSITIVE = 0.5
BACKGROUND = 0.1  # tube IoU up to which nothing was meant
FRAME_OVERLAP = 0.1  # frame IoU above which two masks are in the same place
SAME_TIME = 0.7  # share of frames in the same place from which a wrong tube is a spatial error

ERRORS = ("classification", "duplicate", "spatial", "temporal", "both", "background", "missed")
MADE_RIGHT = ("classification", "spatial", "temporal")  # made right; the other wrong predictions are removed
RIGHT, IGNORED = -1, -2  # beside positions in ERRORS


@dataclass(frozen=True, eq=False)
class Labels:
    """What the predictions ``D`` and instances ``G`` of a video are, at one positive threshold."""

    kind: np.ndarray  # (D,) int8, positions in ERRORS; -1 right, -2 ignored
    instance: np.ndarray  # (D,) int64, the instance that a prediction is about; -1 none
    iou: np.ndarray  # (D,) tube IoU with that instance; without one the greatest IoU with any
    gains: np.ndarray  # (D,) bool: mending its error makes it right, rather than removing it
    found: np.ndarray  # (G,) bool: matched
    missed: np.ndarray  # (G,) bool


@dataclass(frozen=True, eq=False)
class VideoErrors:
    """The errors of one video: small, so that other processes can find them and hand them over."""

    video: int  # position in GroundTruth.videos
    scores: np.ndarray  # (D,), falling
    categories: np.ndarray  # (D,), positions in GroundTruth.categories
    instance_categories: np.ndarray  # (G,)
    counted: np.ndarray  # (G,) bool: not a crowd
    labels: tuple[Labels, ...]  # one a threshold


def find_errors(overlaps: VideoOverlaps, thresholds: Sequence[float] = (POSITIVE,)) -> VideoErrors:
    """The errors of one video; arguments and errors as for :func:`diagnose`."""
    for threshold in thresholds:
        if not BACKGROUND < threshold <= 1:
            raise ValueError(f"positive threshold {threshold}, expected more than {BACKGROUND} and at most 1")
    counted = np.array([not i.iscrowd for i in overlaps.instances], dtype=bool)
    iou = overlaps.tube_iou()
    same = overlaps.categories[:, None] == overlaps.instance_categories
    ranked = _rank_in_category(overlaps.categories) < max(MAX_DETECTIONS)
    return VideoErrors(
        video=overlaps.video,
        scores=overlaps.scores,
        categories=overlaps.categories,
        instance_categories=overlaps.instance_categories,
        counted=counted,
        labels=tuple(_label(overlaps, iou, same, counted, ranked, threshold) for threshold in thresholds),
    )


def _label(
    overlaps: VideoOverlaps,
    iou: np.ndarray,
    same: np.ndarray,
    counted: np.ndarray,
    ranked: np.ndarray,
    threshold: float,
) -> Labels:
    positive = min(threshold, 1 - 1e-10)  # as AP has it
    instance = match(np.where(ranked[:, None], iou, 0.0), same, counted, positive)
    hit = instance >= 0
    right = hit & np.append(counted, False)[instance]
    found = np.zeros(len(counted), dtype=bool)
    found[instance[right]] = True

    best_same, iou_same = _best(iou, same & counted)
    best_other, iou_other = _best(iou, ~same & counted)
    choices = {  # the first that holds
        "spatial": (iou_same >= BACKGROUND) & (iou_same < positive),
        "classification": iou_other >= positive,
        "duplicate": iou_same >= positive,
        "background": np.maximum(iou_same, iou_other) <= BACKGROUND,
    }
    kind = np.select(list(choices.values()), [ERRORS.index(name) for name in choices], ERRORS.index("both"))
    kind = np.where(right, RIGHT, np.where(hit | ~ranked, IGNORED, kind)).astype(np.int8)
    for d in np.flatnonzero(kind == ERRORS.index("spatial")).tolist():
        if _time_together(overlaps, d, best_same[d]) < SAME_TIME:
            kind[d] = ERRORS.index("temporal")

    about_other = np.isin(kind, [ERRORS.index("classification"), ERRORS.index("both")])
    value = np.where(about_other, iou_other, iou_same)
    about = np.where(about_other, best_other, best_same)
    for d in np.flatnonzero(hit).tolist():
        value[d] = iou[d, instance[d]]
    nothing = kind == ERRORS.index("background")
    value = np.where(nothing, np.maximum(iou_same, iou_other), value)
    about = np.where(hit, instance, np.where(nothing | (kind == IGNORED), -1, about))

    gains = np.zeros(len(kind), dtype=bool)
    covered = found.copy()
    for name in MADE_RIGHT:
        taken = found.copy()
        for d in np.flatnonzero(kind == ERRORS.index(name)).tolist():
            gains[d] = not taken[about[d]]
            taken[about[d]] = True
        covered |= taken
    return Labels(kind, about, value, gains, found, missed=counted & ~covered)


def match(iou: np.ndarray, same: np.ndarray, counted: np.ndarray, threshold: float) -> np.ndarray:
    """``(D,)`` int64: the instance that each prediction of a video is matched to, -1 for none.

    By falling score, a prediction takes the free instance of its category of greatest IoU (the last of
    equals); one that is not counted only if no other will do, and such a one stays free.

    Args:
        iou: ``(D, G)``, predictions by falling score.
        same: ``(D, G)`` bool, of one category.
        counted: ``(G,)`` bool.
    """
    matched = np.full(len(iou), -1, dtype=np.int64)
    free = np.ones(len(counted), dtype=bool)
    possible = same & (iou >= threshold)
    for d in np.flatnonzero(possible.any(1)).tolist():
        candidates = possible[d] & free
        if (candidates & counted).any():
            candidates &= counted
        if candidates.any():
            g = np.flatnonzero(candidates & (iou[d] == iou[d, candidates].max()))[-1]
            matched[d] = g
            free[g] = not counted[g]
    return matched


def _best(iou: np.ndarray, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each row of ``(D, G)`` the allowed column of greatest IoU, the last of equals, and its IoU; -1
    and 0 where none is allowed.
    """
    if not iou.shape[1]:
        return np.full(len(iou), -1, dtype=np.int64), np.zeros(len(iou))
    values = np.where(allowed, iou, -1.0)
    column = iou.shape[1] - 1 - values[:, ::-1].argmax(1)
    value = values[np.arange(len(iou)), column]
    return np.where(value < 0, -1, column), np.maximum(value, 0.0)


def _time_together(overlaps: VideoOverlaps, d: int, g: int) -> float:
    """Share of the frames in which either is there that they are in the same place."""
    shared, area, truth = (
        overlaps.intersections[:, d, g],
        overlaps.areas[:, d],
        overlaps.instance_areas[:, g],
    )
    together = shared > FRAME_OVERLAP * (area + truth - shared)
    return float(together.sum() / ((area > 0) | (truth > 0)).sum())


def _rank_in_category(categories: np.ndarray) -> np.ndarray:
    """``(D,)``: how many of the same category come before."""
    rank = np.zeros(len(categories), dtype=np.int64)
    for category in np.unique(categories):
        members = np.flatnonzero(categories == category)
        rank[members] = np.arange(len(members))
    return rank
