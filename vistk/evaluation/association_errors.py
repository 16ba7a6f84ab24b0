"""What happens to the identity of each annotated instance over time, event by event.

In every frame tracks are matched to instances by mask IoU of at least 0.5, and a pair of the frame before
goes on if it can: the matching of CLEAR (Bernardin and Stiefelhagen, "Evaluating Multiple Object Tracking
Performance: The CLEAR MOT Metrics", 2008). It gives three kinds of events:

- A *switch*: an instance is matched to another track than the last time, however long ago. These are
  CLEAR's identity switches, one for one.
- A *loss*: an instance is seen again after its last match, but never matched again; at most one each.
- A *start*: the first track of an instance was another instance's before. CLEAR does not count these.

Each has one cause, the first that holds. ``a`` is the track before, last matched in frame ``s``, and ``b``
the one from frame ``t`` on (for a loss ``t`` is the first frame without match in which the instance is
seen):

1. ``swap``: instances exchange their tracks. ``b`` came from an instance that went on with ``a``, or with the
   track of a third one, and so on until one went on with ``a``, all in overlapping times.
2. ``re-entry``: the instance is absent between ``s`` and ``t``.
3. ``occlusion``: the instance is occluded in one of the frames from ``s`` to ``t``.
4. ``merge``: a track covers two instances one after the other. ``b`` was on another instance before, or ``a``
   goes on with another one.
5. ``split``: the instance goes on with ``b``, which was on none, and ``a`` ends or covers none.
   A loss without any other cause is ``lost``.

Occluded is what the annotation calls ``severe_occlusion`` (OVIS, where most objects are slightly occluded
most of the time). An instance without such words is taken for occluded where it is smaller than half the
median of its areas, or where the bounding box of another instance covers half of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from vistk.evaluation.clear import clear_matches
from vistk.evaluation.files import GroundTruth
from vistk.evaluation.overlaps import VideoOverlaps

SHRUNK = 0.5  # of the median area: an instance that is smaller is partly hidden
COVERED = 0.5  # of the bounding box, by that of another instance
CHANGES = ("switch", "loss", "start")
CAUSES = ("swap", "split", "merge", "occlusion", "re-entry", "lost")
_OCCLUDED_WORD = "severe_occlusion"


@dataclass(frozen=True)
class Event:
    """A change of the track that covers an instance; tracks and instances by their place in the video."""

    video: int  # its id
    instance: int  # place in Video.instances
    cause: str  # one of CAUSES
    last_frame: int | None  # s, the last one with from_track
    frame: int  # t, the first one with to_track, or without any
    from_track: int | None  # place in VideoOverlaps.predictions, by falling score; None: a start
    to_track: int | None  # likewise; None: a loss
    other: int | None  # the instance that to_track came from, or else that from_track went to

    @property
    def change(self) -> str:
        """One of :data:`CHANGES`."""
        return "start" if self.from_track is None else "loss" if self.to_track is None else "switch"


def association_events(
    ground_truth: GroundTruth,
    videos: Iterable[VideoOverlaps],
    score_threshold: float,
    *,
    class_agnostic: bool = False,
) -> list[Event]:
    """The events of all videos, in order of video and frame.

    Args:
        videos: overlaps of the videos; of all pairs if ``class_agnostic``.
        score_threshold: predictions below it are no tracks.
        class_agnostic: tracks of any category may cover an instance. Otherwise they are of its own, as for
            the identity switches of :mod:`vistk.evaluation.hota`.
    """
    return [
        event
        for overlaps in videos
        for event in video_events(
            overlaps, ground_truth.videos[overlaps.video].id, score_threshold, class_agnostic=class_agnostic
        )
    ]


def count_events(events: Iterable[Event]) -> dict[str, dict[str, int]]:
    """How many events of each change have each cause: ``counts["switch"]["swap"]``."""
    found = Counter((event.change, event.cause) for event in events)
    return {change: {cause: found[change, cause] for cause in CAUSES} for change in CHANGES}


def video_events(
    overlaps: VideoOverlaps, video_id: int, score_threshold: float, *, class_agnostic: bool = False
) -> list[Event]:
    """The events of one video; arguments as for :func:`association_events`."""
    kept = int((overlaps.scores >= score_threshold).sum())  # scores fall
    instances, tracks = overlaps.instance_areas > 0, overlaps.areas[:, :kept] > 0
    similarity = overlaps.frame_iou()[:, :kept].transpose(0, 2, 1)  # (T, G, D)
    num_frames, num_instances = instances.shape
    history = np.full((num_frames, num_instances), -1, dtype=np.int64)
    groups = [(np.arange(kept), np.arange(num_instances))]
    if not class_agnostic:
        groups = [
            (
                np.flatnonzero(overlaps.categories[:kept] == k),
                np.flatnonzero(overlaps.instance_categories == k),
            )
            for k in np.unique(overlaps.instance_categories)
        ]
    for d, g in groups:
        found = clear_matches(similarity[:, g[:, None], d], instances[:, g], tracks[:, d])
        history[:, g] = np.append(d, -1)[found]
    changes = _changes(history, instances)
    occluded = _Occlusion(overlaps)
    events = (_event(change, changes, history, instances, occluded, video_id) for change in changes)
    return [event for event in events if event is not None]


class _Change(NamedTuple):
    """Who covers an instance before and after; -1 for no track, and for the frame before a start."""

    frame: int
    instance: int
    last_frame: int
    before: int
    after: int


def _changes(history: np.ndarray, instances: np.ndarray) -> list[_Change]:
    """All switches, losses and first matches, by frame."""
    found = []
    for g in range(history.shape[1]):
        frames = np.flatnonzero(history[:, g] >= 0).tolist()
        last, track = -1, -1
        for t in frames:
            now = int(history[t, g])
            if now != track:
                found.append(_Change(t, g, last, track, now))
            last, track = t, now
        seen = np.flatnonzero(instances[last + 1 :, g])
        if frames and len(seen):
            found.append(_Change(last + 1 + int(seen[0]), g, last, track, -1))
    return sorted(found)


def _event(
    change: _Change,
    changes: Sequence[_Change],
    history: np.ndarray,
    instances: np.ndarray,
    occluded: _Occlusion,
    video_id: int,
) -> Event | None:
    """The event that a change is; None for a first match by a track that covered nothing before."""
    frame, instance, last_frame, before, after = change
    giver = _owner(history[:frame][::-1], after, instance) if after >= 0 else None
    taker = _owner(history[last_frame + 1 :], before, instance) if before >= 0 else None
    if before < 0:
        if giver is None:
            return None
        return Event(video_id, instance, "merge", None, frame, None, after, giver)
    if after >= 0 and _is_exchange(change, changes):
        cause = "swap"
    elif not instances[last_frame : frame + 1, instance].all():
        cause = "re-entry"
    elif occluded.any(instance, last_frame, frame):
        cause = "occlusion"
    elif giver is not None or taker is not None:
        cause = "merge"
    else:
        cause = "split" if after >= 0 else "lost"
    other = taker if giver is None else giver
    return Event(video_id, instance, cause, last_frame, frame, before, after if after >= 0 else None, other)


def _owner(history: np.ndarray, track: int, instance: int) -> int | None:
    """The first other instance that a track covers in ``(T, G)``; None if it covers this one or none."""
    found = np.argwhere(history == track)
    return int(found[0, 1]) if len(found) and found[0, 1] != instance else None


def _is_exchange(first: _Change, changes: Sequence[_Change]) -> bool:
    """Whether the track before went, hand to hand, to the instance that the track after came from."""
    link, met = first, {first}
    while not (link.after == first.before and _at_one_time(link, first)):
        givers = [  # whoever gave up the track that this one took
            c
            for c in changes
            if c.before == link.after and c.after >= 0 and c not in met and _at_one_time(c, link)
        ]
        if not givers:
            return False
        link = max(givers, key=lambda c: c.last_frame)
        met.add(link)
    return True


def _at_one_time(a: _Change, b: _Change) -> bool:
    return a.instance != b.instance and a.last_frame < b.frame and b.last_frame < a.frame


class _Occlusion:
    """Who is occluded when, worked out only for instances that are asked for."""

    def __init__(self, overlaps: VideoOverlaps) -> None:
        self.overlaps = overlaps

    def any(self, instance: int, first: int, last: int) -> bool:
        """Whether an instance is occluded in a frame from ``first`` to ``last``, both included."""
        words = self.overlaps.instances[instance].occlusions
        if words is not None and any(word is not None for word in words):
            return _OCCLUDED_WORD in words[first : last + 1]
        area = self.overlaps.instance_areas[:, instance]
        if (area[first : last + 1] < SHRUNK * np.median(area[area > 0])).any():
            return True
        return any(self._covered(t, instance) for t in range(first, last + 1))

    def _covered(self, t: int, instance: int) -> bool:
        """Whether the bounding box of another instance covers half of that of this one."""
        there = [g for g, i in enumerate(self.overlaps.instances) if i.masks[t] is not None]
        boxes = coco_mask.toBbox([self.overlaps.instances[g].masks[t] for g in there])  # x, y, width, height
        own = boxes[there.index(instance)]
        corner = np.minimum(boxes[:, :2] + boxes[:, 2:], own[:2] + own[2:])
        shared = np.maximum(corner - np.maximum(boxes[:, :2], own[:2]), 0.0).prod(1)
        shared[there.index(instance)] = 0.0
        return bool((shared >= COVERED * own[2:].prod()).any())
