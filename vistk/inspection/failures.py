"""What went wrong with the identities in one video, and which videos are worst, as the evaluation says it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vistk.evaluation.association_errors import Event, video_events
from vistk.evaluation.bootstrap import resampled, resampled_metrics
from vistk.evaluation.clear import IOU_THRESHOLD, clear_matches
from vistk.evaluation.files import GroundTruth, Results
from vistk.evaluation.hota import COUNTS
from vistk.evaluation.keys import Key
from vistk.evaluation.overlaps import VideoOverlaps
from vistk.evaluation.scores import score

GREATER_IS_WORSE = ("IDSW", "Frag", "ML")


@dataclass(frozen=True)
class Failure:
    """An event of :mod:`vistk.evaluation.association_errors`, in the numbers of :class:`Track`."""

    kind: str  # change and cause, "switch: swap", as the evaluation names them
    frame: int  # the first one in which it is so
    truth_ids: tuple[
        int, ...
    ]  # the instance; then the one that its new track came from or its old one went to
    track_ids: tuple[int, ...]  # the track before, then the one after, as far as there are
    last_frame: int | None = None  # the last one in which it was not so; None for a start

    @property
    def change(self) -> str:
        """``switch``, ``loss`` or ``start``."""
        return self.kind.partition(": ")[0]

    @property
    def cause(self) -> str:
        """``swap``, ``split``, ``merge``, ``occlusion``, ``re-entry`` or ``lost``."""
        return self.kind.partition(": ")[2]

    @property
    def frames(self) -> tuple[int, ...]:
        """The ones that decided: the first without the old track, and the first in which it is so."""
        return tuple(sorted({self.frame} if self.last_frame is None else {self.last_frame + 1, self.frame}))

    def __str__(self) -> str:
        """``frame 5: instance 2 from track 2 to track 3 (switch: swap, with instance 3)``."""
        instance, *others = self.truth_ids
        tracks = list(map(str, self.track_ids))
        goes = {
            "switch": lambda: f"from track {tracks[0]} to track {tracks[1]}",
            "loss": lambda: f"loses track {tracks[0]}",
            "start": lambda: f"begins with track {tracks[0]}",
        }[self.change]()
        beside = f", with instance {others[0]}" if others else ""
        return f"frame {self.frame}: instance {instance} {goes} ({self.kind}{beside})"


def failures(
    overlaps: VideoOverlaps, video_id: int, score_threshold: float, numbers: Sequence[int]
) -> tuple[Failure, ...]:
    """The events of a video.

    Args:
        numbers: of the predictions, :func:`numbers_of_tracks`.
    """
    return tuple(_failure(event, numbers) for event in video_events(overlaps, video_id, score_threshold))


def _failure(event: Event, numbers: Sequence[int]) -> Failure:
    instances = (event.instance, event.other)
    tracks = (event.from_track, event.to_track)
    return Failure(
        kind=f"{event.change}: {event.cause}",
        frame=event.frame,
        truth_ids=tuple(place + 1 for place in instances if place is not None),
        track_ids=tuple(numbers[place] for place in tracks if place is not None),
        last_frame=event.last_frame,
    )


def numbers_of_tracks(overlaps: VideoOverlaps, score_threshold: float) -> tuple[int, ...]:
    """A number for each prediction, no two the same: of the instance that it covers first, if nobody has it.

    Instances are numbered from 1. First come, in order of frames, the tracks that cover instances in the
    evaluation's matching (:func:`covering`). Then come the other predictions (of low score, of another
    category, or duplicates), which cover first the instance of the greatest mask IoU in the first frame in
    which that is at least 0.5. Whoever is too late goes on after the instances, by falling score.
    """
    iou = overlaps.frame_iou()  # (T, D, G)
    num_predictions, num_instances = iou.shape[1:]
    matched = covering(overlaps, score_threshold)
    claims = [(int(matched[t, g]), g) for t, g in np.argwhere(matched >= 0).tolist()]
    for t, d in np.argwhere(iou.max(-1, initial=0.0) >= IOU_THRESHOLD).tolist():
        claims.append((d, int(iou[t, d].argmax())))
    first: dict[int, int] = {}
    for d, g in claims:
        first.setdefault(d, g)
    owner: dict[int, int] = {}
    for d, g in first.items():  # in the order of their claims
        owner.setdefault(g, d)
    numbers = {d: g + 1 for g, d in owner.items()}
    rest = (d for d in range(num_predictions) if d not in numbers)
    numbers |= {d: number for number, d in enumerate(rest, start=num_instances + 1)}
    return tuple(numbers[d] for d in range(num_predictions))


def covering(overlaps: VideoOverlaps, score_threshold: float) -> np.ndarray:
    """``(T, G)`` int64: the prediction that covers each instance in each frame, -1 for none.

    The matching of CLEAR within each category, which the events of
    :mod:`vistk.evaluation.association_errors` are read from.
    """
    kept = int((overlaps.scores >= score_threshold).sum())  # scores fall
    instances, tracks = overlaps.instance_areas > 0, overlaps.areas[:, :kept] > 0
    similarity = overlaps.frame_iou()[:, :kept].transpose(0, 2, 1)
    out = np.full(instances.shape, -1, dtype=np.int64)
    for category in np.unique(overlaps.instance_categories):
        d = np.flatnonzero(overlaps.categories[:kept] == category)
        g = np.flatnonzero(overlaps.instance_categories == category)
        found = clear_matches(similarity[:, g[:, None], d], instances[:, g], tracks[:, d])
        out[:, g] = np.append(d, -1)[found]
    return out


@dataclass(frozen=True)
class VideoScores:
    """Every number of every video, scored as if there were no other."""

    video_ids: tuple[int, ...]  # V
    metrics: Mapping[str, np.ndarray]  # (V,) by name; NaN where undefined

    @classmethod
    def of(cls, truth: GroundTruth, results: Results, score_threshold: float) -> VideoScores:
        """The evaluation's resampling, with each video drawn once and no other at all."""
        found = score(truth, results, score_threshold=score_threshold)
        each = np.eye(len(truth.videos))
        metrics = resampled_metrics(found, each)
        numbers = resampled(found, each)
        metrics |= {name: numbers[Key(name, score_threshold=score_threshold)] for name in COUNTS}
        return cls(tuple(video.id for video in truth.videos), metrics)

    @staticmethod
    def sign(metric: str) -> int:
        """-1 for a metric whose greatest number is the worst, else 1."""
        return -1 if metric in GREATER_IS_WORSE else 1

    def worst(self, metric: str) -> list[tuple[int, float]]:
        """Ids and numbers, the worst first, equal ones by id; without those where it is undefined."""
        sign = self.sign(metric)
        pairs = zip(self.video_ids, self.metrics[metric].tolist(), strict=True)
        return sorted((p for p in pairs if not np.isnan(p[1])), key=lambda p: (sign * p[1], p[0]))
