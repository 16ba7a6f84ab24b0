"""Inference: windows of frames through the segmenter, frames one by one through the trackers."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from vistk.engine.finishing import FrameMasks, FrameSize, finish_chosen, finish_masks
from vistk.engine.scores import VideoScores
from vistk.engine.windows import Frames, Window, read_window, segment_window, segment_windows
from vistk.models.segmenter import Segmenter
from vistk.schema import require_at_least
from vistk.structures import (
    FrameQueries,
    FrameTargets,
    Masks,
    ScoringProtocol,
    TrackedFrame,
    Tracklet,
    VideoPrediction,
)
from vistk.trackers.base import Tracker

HELD_BYTES = 2**28  # of mask logits that wait for the end of the video: 44 frames of 640x360, 100 queries
SPARE = 4  # a mask costs a thousandth of segmenting its frame again


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
    window: int | None = None  # frames through the segmenter at once; none = as many as are fast
    # Predictions kept a video; published: MinVIS 10, VISAGE the number of classes.
    keep_top: int = ScoringProtocol.keep_top
    # Multiply scores by the mean mask probability inside the mask; published: VISAGE, not MinVIS.
    rescore: bool = ScoringProtocol.rescore
    track_score: float = 0.1  # tracks below this video score are left out of AssA and IDF1

    def __post_init__(self) -> None:
        minima = {} if self.window is None else {"window": 1}
        require_at_least("evaluation", self, keep_top=1, track_score=0, **minima)


def segment_video(
    segmenter: Segmenter,
    describers: Mapping[str, Tracker],
    frames: Frames,
    output_size: tuple[int, int],
    window: int | None,
    device: torch.device,
) -> Iterator[tuple[dict[str, FrameQueries], FrameSize]]:
    """The queries of every frame of a video, in order, masks finished when asked for, and the frame's sizes.

    Arguments are those of :func:`vistk.engine.windows.segment_windows`.
    """
    for part in segment_windows(segmenter, describers, frames, output_size, window, device):
        for queries in part.frames:
            yield queries, part.size
        del part, queries  # not to be kept while the next one is segmented


class VideoTracker:
    """One tracker at work on one video: its state and its growing result.

    :meth:`step` frame by frame, then :meth:`finish`; whoever calls hands the masks of :meth:`candidates`
    to ``scores``, unless the tracker ``rewrites``.
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
        tracked = self.tracker.step(self.state, queries)
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
        rewritten = self.tracker.finish(self.state)
        if rewritten is not None:
            self.scores = VideoScores(self.scores.num_frames)
            for t, (frame, (_, size)) in enumerate(zip(rewritten, self.masks, strict=True)):
                self._add(self.scores, t, frame, size)
        kept = self.candidates(1)
        for t, (masks, _) in enumerate(self.masks):
            self.scores.take(t, kept, masks)
        self.seconds += time.perf_counter() - started

    def candidates(self, spare: int) -> set[int]:
        """The tracks in the best pairs so far, ``spare`` times as many as are kept."""
        return self.scores.tracks(spare * self.config.keep_top)

    def tracklets(self) -> tuple[Tracklet, ...]:
        """Scored tracklets of the video, once the masks of ``candidates(1)`` were taken."""
        return self.scores.tracklets(self.config.keep_top, self.config.rescore)


@dataclass(frozen=True)
class TrackedVideo:
    """What one tracker made of one video."""

    prediction: VideoPrediction
    num_frames: int
    identical: int  # frames in which every track kept the query slot of its number
    segment_seconds: float  # reading, segmenting, describing, masks; shared by all trackers of the pass
    track_seconds: float  # this tracker's association
    segmented_again: int  # frames, for masks of tracks that turned out to be kept only later


def track_video(
    segmenter: Segmenter,
    trackers: Mapping[str, Tracker],
    frames: Frames,
    output_size: tuple[int, int],
    config: EvalConfig,
    device: torch.device,
    video_id: int = 1,
    category_ids: Sequence[int] = (),
    targets: Sequence[FrameTargets] | None = None,
) -> dict[str, TrackedVideo]:
    """Segment a video once and link it with every tracker.

    Trackers of one class with equal weights share ``describe``: association knobs do not change it.

    Which tracks are kept is known after the last frame, and only their masks have to be finished. The logits
    of the last frames are held until then, :data:`HELD_BYTES` of them. When a window has to go before, the
    masks of the tracks in :data:`SPARE` times as many (track, class) pairs are finished; if a track that is
    kept in the end was not among them, the window is segmented again, as it was.

    Args:
        frames, output_size: see :func:`vistk.engine.windows.segment_windows`.
        video_id, category_ids: carried into the predictions.
        targets: ground truth of the T frames, for trackers that ask for it.

    Returns:
        A result for each name in ``trackers``.
    """
    describer_of = _shared_describers(trackers)
    describers = {name: trackers[name] for name in sorted(set(describer_of.values()))}
    workers = {name: VideoTracker(tracker, len(frames), config) for name, tracker in trackers.items()}
    online = [worker for worker in workers.values() if not worker.rewrites]
    started = time.perf_counter()
    lengths: dict[int, int] = {}  # number of a window's first frame to the number of its frames
    held: deque[Window] = deque()
    for window in segment_windows(segmenter, describers, frames, output_size, config.window, device):
        lengths[window.start] = len(window.frames)
        for t, queries in enumerate(window.frames, start=window.start):
            for name, worker in workers.items():
                worker.step(queries[describer_of[name]], window.size, targets[t] if targets else None)
        if online:
            held.append(replace(window, frames=()))
        del window, queries  # not to be kept while the next one is segmented
        if _num_bytes(held) > HELD_BYTES:
            leaving = []
            while _num_bytes(held) > HELD_BYTES / 2:  # many at a time: they are finished together
                leaving.append(held.popleft())
            _take_masks(leaving, {worker: worker.candidates(SPARE) for worker in online})
            del leaving
    for worker in workers.values():
        worker.finish()
    kept = {worker: worker.candidates(1) for worker in online}
    _take_masks(held, kept)
    held.clear()
    lacking = [start for start, length in lengths.items() if _lacks(range(start, start + length), kept)]
    for start in lacking:
        images = read_window(frames, start, lengths[start], device)
        _take_masks([segment_window(segmenter, {}, images, output_size, start)], kept)
    predictions = {
        name: VideoPrediction(video_id, worker.tracklets(), category_ids) for name, worker in workers.items()
    }
    association = sum(worker.seconds for worker in workers.values())
    segmentation = time.perf_counter() - started - association
    again = sum(lengths[start] for start in lacking)
    return {
        name: TrackedVideo(
            prediction, len(frames), workers[name].identical, segmentation, workers[name].seconds, again
        )
        for name, prediction in predictions.items()
    }


def _num_bytes(windows: Iterable[Window]) -> int:
    return sum(window.num_bytes for window in windows)


def _lacks(frames: Iterable[int], tracks: Mapping[VideoTracker, Collection[int]]) -> bool:
    """Whether a mask of these tracks has yet to be taken from one of these frames."""
    return any(worker.scores.missing(t, chosen) for t in frames for worker, chosen in tracks.items())


def _take_masks(windows: Iterable[Window], tracks: Mapping[VideoTracker, Collection[int]]) -> None:
    """Finish the masks of these tracks, each query of a frame once, and hand them to the trackers' scores."""
    frames = [(t, masks) for window in windows for t, masks in enumerate(window.masks, window.start)]
    finish_chosen(
        (masks, {q for worker, chosen in tracks.items() for q in worker.scores.missing(t, chosen)})
        for t, masks in frames
    )
    for t, masks in frames:
        for worker, chosen in tracks.items():
            worker.scores.take(t, chosen, masks)


def _shared_describers(trackers: Mapping[str, Tracker]) -> dict[str, str]:
    """For each tracker the name of the first one of its class with the same weights."""
    shared: dict[str, str] = {}
    for name, tracker in trackers.items():
        shared[name] = name
        for other in list(shared):
            if (
                other != name
                and type(trackers[other]) is type(tracker)
                and _same_weights(trackers[other], tracker)
            ):
                shared[name] = shared[other]
                break
    return shared


def _same_weights(a: Tracker, b: Tracker) -> bool:
    state_a, state_b = a.state_dict(), b.state_dict()
    return state_a.keys() == state_b.keys() and all(
        state_a[k].shape == state_b[k].shape and torch.equal(state_a[k], state_b[k]) for k in state_a
    )
