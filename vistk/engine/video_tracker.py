"""One tracker at work on one video: frame by frame, then the masks of what it keeps."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import torch

from vistk.engine.finishing import FrameMasks, FrameSize, finish_masks
from vistk.engine.scores import VideoScores
from vistk.engine.tracker_answers import checked_frame, checked_video
from vistk.schema import require_at_least
from vistk.structures import FrameQueries, FrameTargets, Masks, ScoringProtocol, TrackedFrame, Tracklet
from vistk.trackers.base import Tracker

SPARE = 4  # a mask costs a thousandth of segmenting its frame again
SPARE_BYTES = 2**26  # of run lengths that are held for these: 1,000 frames of 60 objects


@dataclass
class EvalConfig:
    """Inference and scoring. The table's card repeats what changes its numbers."""

    rows: list[str] = field(
        default_factory=lambda: [
            "identity",
            "mask-iou",
            "minvis",
            "visage",
            "visage-no-memory",
            "visage-no-appearance",
            "visage-appearance-only",
            "oracle",
        ]
    )
    window: int | None = None  # frames of a video through the segmenter at once; none = as many as are fast
    videos: int = 1  # through the segmenter at once, those whose frames are of one size
    # Predictions kept a video; published: MinVIS 10, VISAGE the number of classes.
    keep_top: int = ScoringProtocol.keep_top
    # Multiply scores by the mean mask probability inside the mask; published: VISAGE, not MinVIS.
    rescore: bool = ScoringProtocol.rescore
    track_score: float = 0.1  # tracks below this video score are left out of AssA and IDF1

    def __post_init__(self) -> None:
        minima = {} if self.window is None else {"window": 1}
        require_at_least("evaluation", self, videos=1, keep_top=1, track_score=0, **minima)


class VideoTracker:
    """One tracker at work on one video: its state and its growing result.

    :meth:`step` frame by frame, then :meth:`finish`; whoever calls hands the masks of :meth:`candidates`
    and, in the end, :meth:`kept` to ``scores``, unless the tracker ``rewrites``.
    """

    def __init__(self, tracker: Tracker, num_frames: int, config: EvalConfig) -> None:
        self.tracker = tracker
        self.config = config
        self.state = tracker.start()
        self.scores = VideoScores(num_frames)
        self.t = 0
        # Only a tracker that may rewrite the video needs the masks of all its queries until the end.
        self.rewrites = type(tracker).finish is not Tracker.finish
        self.masks: list[tuple[Masks, FrameSize]] = []
        self._lacking: set[int] = set()  # tracks whose masks in earlier frames are gone
        self.seconds = 0.0  # of association; finishing masks that `step` looks at belongs to segmenting
        self.identical = 0  # frames in which every track kept the query slot of its number

    @torch.inference_mode()
    def step(self, queries: FrameQueries, size: FrameSize, targets: FrameTargets | None) -> None:
        """Feed the next frame with its masks; ground truth reaches only trackers that ask for it."""
        masks = queries.masks
        if masks is None:
            raise ValueError("VideoTracker.step wants masks at output size (FrameQueries.masks)")
        if self.rewrites and isinstance(masks, FrameMasks):
            masks = masks.finished()
            queries = replace(queries, masks=masks)
        before = masks.seconds if isinstance(masks, FrameMasks) else 0.0
        started = time.perf_counter()
        if self.tracker.uses_targets:
            queries = replace(queries, targets=targets)
        tracked = checked_frame(
            self.tracker, self.tracker.step(self.state, queries), self.t, queries.num_queries
        )
        self.identical += int(torch.equal(tracked.track_ids, tracked.query_index))
        self._add(self.scores, self.t, tracked, size)
        self.t += 1
        if self.rewrites:
            self.masks.append((masks, size))
        self.seconds += time.perf_counter() - started
        if isinstance(masks, FrameMasks):
            self.seconds -= masks.seconds - before

    @staticmethod
    def _add(scores: VideoScores, t: int, tracked: TrackedFrame, size: FrameSize) -> None:
        own = None if tracked.mask_logits is None else finish_masks(tracked.mask_logits, size)
        scores.add(t, tracked, own)

    @torch.inference_mode()
    def finish(self) -> None:
        """After the last frame: an offline tracker may say all frames anew."""
        started = time.perf_counter()
        rewritten = checked_video(
            self.tracker, self.tracker.finish(self.state), [len(masks) for masks, _ in self.masks]
        )
        if rewritten is not None:
            self.scores = VideoScores(self.scores.num_frames)
            for t, (frame, (_, size)) in enumerate(zip(rewritten, self.masks, strict=True)):
                self._add(self.scores, t, frame, size)
        kept = self.kept()
        for t, (masks, _) in enumerate(self.masks):
            self.scores.take(t, kept, masks)
        self.seconds += time.perf_counter() - started

    def kept(self) -> list[int]:
        """The tracks that are kept if the video ends here."""
        return self.scores.tracks(self.config.keep_top)

    def candidates(self) -> list[int]:
        """The tracks whose masks are to be finished before a window goes; masks of all others are dropped.

        Those that are kept if the video ends here, and, up to :data:`SPARE_BYTES`, the next best ones, in
        :data:`SPARE` times as many (track, class) pairs, of which no mask was dropped so far: of others, one
        mask more would not save segmenting again.
        """
        kept = self.kept()
        candidates, room = set(kept), SPARE_BYTES
        for track in self.scores.tracks(SPARE * self.config.keep_top):
            if track not in candidates | self._lacking:
                room -= self.scores.num_bytes(track)
                if room < 0:
                    break
                candidates.add(track)
        self._lacking |= self.scores.known() - candidates
        self.scores.drop_others(candidates)
        return sorted(candidates)

    def tracklets(self) -> tuple[Tracklet, ...]:
        """Scored tracklets of the video, once the masks of :meth:`kept` were taken."""
        return self.scores.tracklets(self.config.keep_top, self.config.rescore)
