"""Why the numbers of a results file are what they are: errors, identity events, oracle gaps, as numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vistk.evaluation.association_errors import CAUSES, CHANGES, Event, video_events
from vistk.evaluation.error_labels import ERRORS, VideoErrors, find_errors
from vistk.evaluation.errors import WEIGHTS, Diagnosis, diagnose
from vistk.evaluation.files import GroundTruth
from vistk.evaluation.keys import ALL, Key
from vistk.evaluation.oracles import OracleGaps, VideoSteps, oracle_gaps, oracle_steps
from vistk.evaluation.overlaps import VideoOverlaps

BY_ERROR, BY_EVENT, BY_ORACLE = "error", "identity event", "oracle"
KINDS = (*ERRORS, *WEIGHTS)
GAPS = ("association", "classification", "mask", "missing")
EVENTS = tuple((change, cause) for change in CHANGES for cause in CAUSES)


@dataclass(frozen=True, eq=False)
class VideoExplained:
    """What was found out about one video; None where it was not asked for."""

    errors: VideoErrors | None
    events: tuple[Event, ...] | None
    steps: VideoSteps | None


@dataclass(frozen=True, eq=False)
class Explained:
    """What was found out about a results file; None where it was not asked for."""

    diagnosis: Diagnosis | None
    events: tuple[tuple[Event, ...], ...] | None  # of each of V videos
    gaps: OracleGaps | None
    score_threshold: float  # of the events

    def numbers(self) -> Iterator[tuple[Key, float]]:
        """The cost of each kind of error in AP50, how many there are, identity events by cause, the gaps."""
        if self.diagnosis is not None:
            costs = {ALL: self.diagnosis.overall, **self.diagnosis.per_category}
            for name, found in costs.items():
                for kind in KINDS:
                    yield Key("dAP", name, BY_ERROR, kind), found.cost[kind]
                    yield Key("errors", name, BY_ERROR, kind), float(found.counts[kind])
        if self.events is not None:
            for key, values in self.event_counts().items():
                yield key, float(values.sum())
        if self.gaps is not None:
            for name, gaps in {ALL: self.gaps.overall, **self.gaps.per_category}.items():
                for gap in GAPS:
                    yield Key("AP gap", name, BY_ORACLE, gap), getattr(gaps, gap)

    def event_counts(self) -> dict[Key, np.ndarray]:
        """``(V,)`` events of each kind in every video."""
        assert self.events is not None
        found = [[(event.change, event.cause) for event in video] for video in self.events]
        return {
            Key("events", ALL, BY_EVENT, f"{change}: {cause}", self.score_threshold): np.array(
                [video.count((change, cause)) for video in found], dtype=np.float64
            )
            for change, cause in EVENTS
        }

    def error_counts(self) -> dict[str, np.ndarray]:
        """``(V, K)`` errors of each kind in every video, by category."""
        assert self.diagnosis is not None
        num_categories = len(self.diagnosis.per_category)
        out = {kind: np.zeros((len(self.diagnosis.videos), num_categories)) for kind in KINDS}
        for v, video in enumerate(self.diagnosis.videos):
            labels = video.labels[0]
            of_instances = {"missed": labels.missed, "false_negatives": video.counted & ~labels.found}
            for kind in KINDS:
                if kind in of_instances:
                    chosen = video.instance_categories[of_instances[kind]]
                elif kind == "false_positives":
                    chosen = video.categories[labels.kind >= 0]
                else:
                    chosen = video.categories[labels.kind == ERRORS.index(kind)]
                out[kind][v] = np.bincount(chosen, minlength=num_categories)
        return out


def explain_video(
    overlaps: VideoOverlaps, errors: bool, gaps: bool, score_threshold: float
) -> VideoExplained:
    """One video; ``overlaps`` are of all pairs. Its events name it by its position."""
    return VideoExplained(
        errors=find_errors(overlaps) if errors else None,
        events=tuple(video_events(overlaps, overlaps.video, score_threshold)) if errors else None,
        steps=oracle_steps(overlaps) if gaps else None,
    )


def explain(
    ground_truth: GroundTruth, videos: Sequence[VideoExplained], errors: bool, gaps: bool, threshold: float
) -> Explained:
    """What :func:`explain_video` found in all videos, taken together."""
    return Explained(
        diagnosis=diagnose(ground_truth, [v.errors for v in videos if v.errors is not None])
        if errors
        else None,
        events=tuple(v.events for v in videos if v.events is not None) if errors else None,
        gaps=oracle_gaps(ground_truth, [v.steps for v in videos if v.steps is not None]) if gaps else None,
        score_threshold=threshold,
    )
