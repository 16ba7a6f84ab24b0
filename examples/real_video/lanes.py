"""Several trackers, each in its own lane, on one segmentation of the frames that come in."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from background import BackgroundSegmenter

from vistk.engine.scores import VideoScores
from vistk.structures import FrameTargets, Masks, TrackedFrame, VideoPrediction
from vistk.trackers.ablations import ABLATIONS
from vistk.trackers.base import Tracker
from vistk.trackers.registry import get_tracker
from vistk.viz.overlay import Shown

LEFT_OUT: Mapping[str, str] = {
    "cavis": "its vectors are learned from a network's mask features",
    "dvis": "its refiner is learned and makes the masks anew",
    "vita": "its object decoder is learned and makes the masks anew",
    "propagation": "it steers the queries of a network",
}
"""Trackers that cannot follow what has no weights, and why."""

TRACKERS = (
    "identity", "mask-iou", "kalman", "minvis", "visage-appearance-only", "visage-no-memory", "visage",
    "gated-memory", "tracklet-linking", "idol", "ctvis",
)  # fmt: skip
"""Trackers that read nothing but vectors, scores and masks; those of the demo where none are named."""


class LaneError(ValueError):
    """A tracker cannot run here."""


def build_tracker(name: str) -> Tracker[Any]:
    """A tracker that will be given finished vectors: its heads, if it has any, are never asked.

    Raises:
        LaneError, vistk.trackers.registry.TrackerNameError: it is learned, or there is none of this name.
    """
    family = ABLATIONS[name][0] if name in ABLATIONS else name
    if family in LEFT_OUT:
        raise LaneError(f"{name} does not run on background subtraction: {LEFT_OUT[family]}")
    cls, config = get_tracker(name)
    # The smallest heads there can be, as they stand in the state dict and nowhere else.
    smallest = {"hidden_dim": 1, "levels": ["colours"], "query_head": False}
    config = replace(config, **{key: value for key, value in smallest.items() if hasattr(config, key)})
    return cls(config, embed_dim=1, feature_channels={"colours": 1}, num_classes=1).eval()


@dataclass
class _Lane:
    tracker: Tracker[Any]
    state: Any
    answers: list[TrackedFrame] = field(default_factory=list)
    seconds: float = 0.0  # in the tracker alone


class BackgroundLanes:
    """Trackers on :class:`background.BackgroundSegmenter`; what each frame leaves are ids and run lengths.

    Args:
        names: trackers; "oracle" wants the ground truth of every frame.

    Raises:
        LaneError, vistk.trackers.registry.TrackerNameError: as :func:`build_tracker`.
    """

    def __init__(self, names: Sequence[str], segmenter: BackgroundSegmenter | None = None) -> None:
        self.segmenter = segmenter or BackgroundSegmenter()
        trackers = {name: build_tracker(name) for name in dict.fromkeys(names)}
        self._lanes = {name: _Lane(tracker, tracker.start()) for name, tracker in trackers.items()}
        self._masks: list[Masks] = []

    def pass_by(self, frame: np.ndarray) -> None:
        """A ``(H, W, 3)`` uint8 frame that is not tracked, but seen."""
        self.segmenter.learn(frame)

    def push(self, frame: np.ndarray, targets: FrameTargets | None = None) -> dict[str, tuple[Shown, ...]]:
        """Segment and track the next frame: what every tracker says of it now."""
        queries = self.segmenter.segment(frame)
        assert queries.masks is not None
        self._masks.append(queries.masks)
        shown = {}
        for name, lane in self._lanes.items():
            begun = time.perf_counter()
            given = replace(queries, targets=targets) if lane.tracker.uses_targets else queries
            answer = lane.tracker.step(lane.state, given)
            lane.seconds += time.perf_counter() - begun
            lane.answers.append(answer)
            shown[name] = _shown(answer, queries.masks)
        return shown

    @property
    def seconds(self) -> dict[str, float]:
        """Time in each tracker so far."""
        return {name: lane.seconds for name, lane in self._lanes.items()}

    def close(self) -> dict[str, VideoPrediction]:
        """All tracks of every tracker, after what offline trackers change in hindsight."""
        predictions = {}
        for name, lane in self._lanes.items():
            begun = time.perf_counter()
            answers = lane.tracker.finish(lane.state) or lane.answers
            lane.seconds += time.perf_counter() - begun
            scores = VideoScores(len(answers))
            for t, (answer, masks) in enumerate(zip(answers, self._masks, strict=True)):
                scores.add(t, answer)
                scores.take(t, answer.track_ids.tolist(), masks)
            tracks = scores.tracklets(max(len(scores.known()), 1), rescore=False)
            predictions[name] = VideoPrediction(1, tracks)
        return predictions


def _shown(answer: TrackedFrame, masks: Masks) -> tuple[Shown, ...]:
    pairs = zip(answer.track_ids.tolist(), answer.query_index.tolist(), strict=True)
    return tuple(Shown(track, masks.rles[query]) for track, query in pairs if masks.rles[query] is not None)
