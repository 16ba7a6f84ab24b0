"""How much AP is lost to identities, to classes, to masks, and to instances that nobody saw.

After "Mind the Gap: Disentangling Performance Bottlenecks in Video Instance Segmentation" (arXiv 2606.07394):
what the predictions say is put right step by step, each step on top of the last, and the AP of each step
minus that of the step before is the gap of that step. The rest to an AP of 1 is what is missing, so

``ap + association + classification + mask + missing = 1``.

The order matters: a step can only win what the steps before it made possible. Of a results file, which knows
one class and one score for a whole track, and no rejected queries:

- *Association.* In each frame every predicted mask of the video, of whatever class and score, may show one
  instance, and every instance may have one mask: those that :mod:`vistk.evaluation.relinking` finds best for
  the video. They are the track of the instance. An instance whose track has a tube IoU below 0.1 has none.
  Another mask that is about the same (a frame IoU with the instance of at least 0.5, or of that of its own
  mask) shows it too; the track keeps one mask, but all that show it have a say in its class. Scores are
  read as probabilities: the score of the track for a class is the mean over its frames of the highest score
  of that class among the masks that show the instance, 0 where there is none. So a track has an entry for
  each class that had a say, as a file has that lists one track under several classes. Equal scores are in the
  order of the predictions that they come from, and the right class first. A prediction of whose
  masks more than half show instances is used up; any other stays what it was, without the masks that do.
- *Classification.* Each track gets the class of its instance, and its highest score; other entries are
  dropped, as are the predictions that stayed: their class is "no object".
- *Mask.* Masks become those of the instance in the frames in which the track has a mask, or any predicted
  mask has a frame IoU of at least 0.1 with the instance.
- *Missing.* What is left: instances and frames without any mask.

Crowds are not linked. The links are the best for recall; AP also depends on scores, so that other links might
have a greater AP still: the association gap is a lower bound. For the same reason a gap may come out
negative (right tracks ranked lower than before); it is given as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vistk.evaluation.files import GroundTruth
from vistk.evaluation.overlaps import Cell, VideoOverlaps
from vistk.evaluation.relinking import link
from vistk.evaluation.ytvis_ap import (
    CellMatches,
    MatchedCells,
    accumulate,
    average_precision,
    match_cell,
    nan_mean,
)
from vistk.ops.masks import tube_overlaps

STEPS = ("predicted", "association", "classification", "mask")
"""What has been put right up to a step."""
SAME_OBJECT = 0.5  # frame IoU with an instance from which a mask shows it, whoever else does
SEEN = 0.1  # IoU from which a prediction was meant for an instance
_RANGES = ("all",)
_Entry = tuple[tuple[int, bool], np.ndarray, int, float]  # place, (T,) predictions, category, score


@dataclass(frozen=True)
class Gaps:
    """AP (0..1) and what it lacks; NaN without instances."""

    ap: float
    association: float
    classification: float
    mask: float
    missing: float

    def as_dict(self) -> dict[str, float | None]:
        """For json: undefined numbers are None."""
        return {name: None if math.isnan(value) else value for name, value in vars(self).items()}


@dataclass(frozen=True, eq=False)
class VideoSteps:
    """The matches of one video at each of the STEPS: small, so that other processes can find them."""

    cells: tuple[tuple[CellMatches, ...], ...]
    proven: bool  # the links are the best there are


@dataclass(frozen=True, eq=False)
class OracleGaps:
    """The gaps of a results file; ``overall`` is the mean of the categories that have instances."""

    overall: Gaps
    per_category: Mapping[str, Gaps]  # by category name
    unproven: int  # videos whose links may not be the best
    matches: tuple[MatchedCells, ...]  # one of each of the STEPS, in the range "all"; for resampling

    def as_dict(self) -> dict[str, Any]:
        """For json: the overall numbers, ``per_category`` and ``unproven``."""
        return {
            **self.overall.as_dict(),
            "per_category": {name: gaps.as_dict() for name, gaps in self.per_category.items()},
            "unproven": self.unproven,
        }


def oracle_gaps(ground_truth: GroundTruth, videos: Iterable[VideoOverlaps | VideoSteps]) -> OracleGaps:
    """What the AP of a results file lacks, taken apart.

    Args:
        videos: overlaps of all pairs (``video_overlaps(.., all_pairs=True)``) of every video in order, or
            what :func:`oracle_steps` made of them.
    """
    found = [video if isinstance(video, VideoSteps) else oracle_steps(video) for video in videos]
    names = list(ground_truth.categories.values())
    matches = []
    for step in range(len(STEPS)):
        cells = sorted((cell for video in found for cell in video.cells[step]), key=lambda c: c.category)
        matches.append(MatchedCells(_RANGES, len(found), len(names), tuple(cells)))
    ap = np.stack([average_precision(accumulate(step)) for step in matches])  # (steps, K)
    return OracleGaps(
        overall=_gaps(np.array([nan_mean(row) for row in ap])),
        per_category={name: _gaps(column) for name, column in zip(names, ap.T, strict=True)},
        unproven=sum(not video.proven for video in found),
        matches=tuple(matches),
    )


def _gaps(ap: np.ndarray) -> Gaps:
    return Gaps(float(ap[0]), *np.diff(ap, append=1.0).tolist())


def oracle_steps(overlaps: VideoOverlaps) -> VideoSteps:
    """The steps of one video; ``overlaps`` are of all pairs."""
    counted = np.array([not i.iscrowd for i in overlaps.instances], dtype=bool)
    links = link(overlaps, counted)
    shown = _Shown(overlaps, links.prediction)
    steps = (overlaps, shown.relinked(), shown.classified(), shown.ideal())
    return VideoSteps(
        cells=tuple(tuple(match_cell(cell, _RANGES) for cell in step.cells()) for step in steps),
        proven=links.proven,
    )


@dataclass(frozen=True, eq=False)
class _Tracks:
    """``M`` tracks beside the instances of a video: what its overlaps would be, had they been predicted."""

    overlaps: VideoOverlaps
    intersections: np.ndarray  # (T, M, G)
    areas: np.ndarray  # (T, M)
    categories: np.ndarray  # (M,)
    scores: np.ndarray  # (M,)

    def cells(self) -> Iterator[Cell]:
        video = self.overlaps
        order = np.argsort(-self.scores, kind="stable")
        for category in sorted({*self.categories.tolist(), *video.instance_categories.tolist()}):
            rows = order[self.categories[order] == category]
            columns = np.flatnonzero(video.instance_categories == category)
            yield Cell(
                video=video.video,
                category=category,
                instances=tuple(video.instances[g] for g in columns.tolist()),
                scores=self.scores[rows],
                intersections=self.intersections[:, rows[:, None], columns],
                areas=self.areas[:, rows],
                instance_areas=video.instance_areas[:, columns],
            )


class _Shown:
    """What the masks of a video show.

    Attributes:
        prediction: ``(T, G)`` the mask of each instance's track, -1 for none.
        instance: ``(T, D)`` the instance that each mask shows, -1 for none.
        tracks: places of the instances that have a track.
        said: for each of them and each class that had a say in it, the mean score, and the place of the
            first prediction that said it.
    """

    def __init__(self, overlaps: VideoOverlaps, prediction: np.ndarray) -> None:
        self.overlaps = overlaps
        self.frame_iou = overlaps.frame_iou()
        self.prediction = prediction.copy()
        shared, areas = self._pixels(prediction)  # (T, G, G), (T, G)
        own = np.einsum("tgg->g", shared)
        union = areas.sum(0) + overlaps.instance_areas.sum(0) - own
        seen = own >= SEEN * np.maximum(union, 1.0)
        self.prediction[:, ~seen] = -1
        self.tracks = np.flatnonzero(seen)
        self.instance = self._instances_of_masks()
        self.said = {g: self._class_scores(g) for g in self.tracks.tolist()}

    def _instances_of_masks(self) -> np.ndarray:
        out = np.full(self.overlaps.areas.shape, -1, dtype=np.int64)
        if len(self.tracks):
            iou = self.frame_iou[:, :, self.tracks]
            t, i = np.nonzero(self.prediction[:, self.tracks] >= 0)
            needed = np.full((len(iou), len(self.tracks)), SAME_OBJECT)
            needed[t, i] = np.minimum(SAME_OBJECT, iou[t, self.prediction[t, self.tracks[i]], i])
            closest = np.where(iou >= needed[:, None], iou, 0.0)
            out = np.where(closest.any(2), self.tracks[closest.argmax(2)], -1)
        t, g = np.nonzero(self.prediction >= 0)
        out[t, self.prediction[t, g]] = g
        return out

    def relinked(self) -> _Tracks:
        """The tracks with every class that had a say, and the predictions that stayed."""
        video = self.overlaps
        entries: list[_Entry] = []
        for g, scores in self.said.items():
            for category, (score, first) in scores.items():
                place = first, category != video.instance_categories[g]
                entries.append((place, self.prediction[:, g], category, score))
        there = video.areas > 0
        shows = there & (self.instance >= 0)
        for d in np.flatnonzero(2 * shows.sum(0) <= there.sum(0)).tolist():
            masks = np.where(there[:, d] & ~shows[:, d], d, -1)
            entries.append(((d, False), masks, int(video.categories[d]), float(video.scores[d])))
        entries.sort(key=lambda entry: entry[0])
        masks = np.array([entry[1] for entry in entries], dtype=np.int64).reshape(len(entries), len(there)).T
        return _Tracks(
            video,
            *self._pixels(masks),
            categories=np.array([entry[2] for entry in entries], dtype=np.int64),
            scores=np.array([entry[3] for entry in entries], dtype=np.float64),
        )

    def classified(self) -> _Tracks:
        """The tracks with the classes of their instances."""
        return self._of_instances(*self._pixels(self.prediction[:, self.tracks]))

    def ideal(self) -> _Tracks:
        """The tracks with the masks of their instances where there is any mask near."""
        video = self.overlaps
        masks = [video.instances[g].masks for g in self.tracks.tolist()]
        shared, _, _ = tube_overlaps(masks, [i.masks for i in video.instances], len(video.instance_areas))
        seen = (self.prediction >= 0) | (self.frame_iou >= SEEN).any(1)
        seen = seen[:, self.tracks]
        return self._of_instances(shared * seen[:, :, None], video.instance_areas[:, self.tracks] * seen)

    def _of_instances(self, intersections: np.ndarray, areas: np.ndarray) -> _Tracks:
        categories = self.overlaps.instance_categories[self.tracks]
        scores, places = np.zeros(len(self.tracks)), np.zeros(len(self.tracks), dtype=np.int64)
        for i, said in enumerate(self.said.values()):
            scores[i], places[i] = max(said.values(), key=lambda found: found[0])
        order = np.argsort(places, kind="stable")
        return _Tracks(
            self.overlaps, intersections[:, order], areas[:, order], categories[order], scores[order]
        )

    def _class_scores(self, g: int) -> dict[int, tuple[float, int]]:
        frames = self.prediction[:, g] >= 0
        shows = self.instance[frames] == g  # (frames, D)
        video, out = self.overlaps, {}
        for k in np.unique(video.categories[shows.any(0)]).tolist():
            own = np.flatnonzero(video.categories == k)
            best = np.where(shows[:, own], video.scores[own], 0.0).max(1)
            # Of equal scores, the mean is the very same: it ranks among those of the file.
            mean = float(best[0] + (best - best[0]).mean())
            out[k] = mean, int(own[shows[:, own].any(0)][0])
        return out

    def _pixels(self, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``(T, M, G)`` shared pixels, ``(T, M)`` areas of tracks ``(T, M)`` of predictions, -1 for none."""
        video, frames = self.overlaps, np.arange(len(masks))[:, None]
        if not video.predictions:
            return np.zeros((*masks.shape, len(video.instances))), np.zeros(masks.shape)
        there = masks >= 0
        return video.intersections[frames, masks] * there[..., None], video.areas[frames, masks] * there
