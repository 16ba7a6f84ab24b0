"""Inference: windows of frames through the segmenter, frames one by one through the trackers."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch

from vistk.engine.describers import shared_describers
from vistk.engine.finishing import FrameMasks, finish_chosen
from vistk.engine.video_tracker import EvalConfig, VideoTracker
from vistk.engine.windows import (
    Clip,
    Frames,
    Source,
    Window,
    passes,
    read_clips,
    segment_together,
    segment_windows,
)
from vistk.models.segmenter import Segmenter
from vistk.structures import FrameQueries, FrameTargets, VideoPrediction
from vistk.trackers.base import Tracker

HELD_BYTES = 2**28  # of mask logits that wait for the end of the video: 44 frames of 640x360, 100 queries


@dataclass(frozen=True)
class TrackedVideo:
    """What one tracker made of one video."""

    prediction: VideoPrediction
    num_frames: int
    identical: int  # frames in which every track kept the query slot of its number
    segment_seconds: float  # reading, segmenting, describing, masks; shared by all trackers of the pass
    track_seconds: float  # this tracker's association
    segmented_again: int  # frames, for masks of tracks that turned out to be kept only later


@dataclass(frozen=True)
class Video:
    """What is to be tracked."""

    frames: Frames
    output_size: tuple[int, int]  # height and width of the masks
    video_id: int = 1  # like category_ids, carried into the predictions
    category_ids: Sequence[int] = ()
    targets: Sequence[FrameTargets] | None = None  # truth of the T frames, for trackers that ask for it


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
    source: Source | None = None,
) -> dict[str, TrackedVideo]:
    """Segment a video once and link it with every tracker.

    Trackers of one class with equal weights share ``describe``: association knobs do not change it.

    Which tracks are kept is known after the last frame, and only their masks have to be finished. The logits
    of the last frames are held until then, :data:`HELD_BYTES` of them. When a window has to go before, the
    masks of :meth:`VideoTracker.candidates` are finished. If a track that is kept in the end was not among
    them, the window is segmented again, as it was.

    Args:
        frames, output_size, video_id, category_ids, targets: see :class:`Video`.
        source: gives the windows of the video in place of the segmenter, see
            :meth:`vistk.engine.cache.QueryCache.windows`; not asked for a tracker that propagates queries.

    Returns:
        A result for each name in ``trackers``.
    """
    video = Video(frames, output_size, video_id, category_ids, targets)

    def segment(wanted: Mapping[str, Tracker]) -> Iterator[Window]:
        return segment_windows(segmenter, wanted, frames, output_size, config.window, device)

    results: dict[str, TrackedVideo] = {}
    for group in passes(trackers):
        run = _Run(segmenter, group, video, replace(config, videos=1), device)
        started = time.perf_counter()
        stored = None if source is None or run.propagates else source(run.describers, segment)
        for window in segment(run.describers) if stored is None else stored:
            run.take(window)
            del window  # not to be kept while the next one is segmented
        run.seconds = time.perf_counter() - started
        results |= run.finish()
    return {name: results[name] for name in trackers}


def track_videos(
    segmenter: Segmenter,
    trackers: Mapping[str, Tracker],
    videos: Iterable[Video],
    config: EvalConfig,
    device: torch.device,
) -> Iterator[dict[str, TrackedVideo]]:
    """Track every video as :func:`track_video` does, ``config.videos`` of them at a time.

    A window of each passes the segmenter together with those whose frames have its size, and a video that
    ends is replaced by the next. They share :data:`HELD_BYTES`. What is segmented again passes alone, so it
    is as it was but for rounding.

    Args:
        videos: taken one by one, when there is place.

    Yields:
        The results of a video when it ends: a short one may overtake a long one.
    """
    waiting, groups = iter(videos), passes(trackers)
    at_work: list[list[_Run]] = []  # videos, each with a run for every group of trackers
    while True:
        for video in islice(waiting, config.videos - len(at_work)):
            at_work.append([_Run(segmenter, group, video, config, device) for group in groups])
        if not at_work:
            return
        going = [runs for runs in at_work if runs[0].frames_left]
        for group_runs in zip(*going, strict=True):
            _advance(group_runs)
        ended = [runs for runs in at_work if not runs[0].frames_left]
        at_work = [runs for runs in at_work if runs[0].frames_left]
        while ended:
            results = {name: result for run in ended.pop(0) for name, result in run.finish().items()}
            yield {name: results[name] for name in trackers}


class _Run:
    """All trackers at work on one video: :meth:`take` window by window, then :meth:`finish`.

    Attributes:
        seconds: spent on the video before :meth:`finish`, set by whoever hands over the windows.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        trackers: Mapping[str, Tracker],
        video: Video,
        config: EvalConfig,
        device: torch.device,
    ) -> None:
        count = len(video.frames)
        self.segmenter, self.video, self.device = segmenter, video, device
        self.describer_of = shared_describers(trackers)
        self.describers = {name: trackers[name] for name in sorted(set(self.describer_of.values()))}
        self.workers = {name: VideoTracker(tracker, count, config) for name, tracker in trackers.items()}
        self.online = [worker for worker in self.workers.values() if not worker.rewrites]
        self.clips = read_clips(video.frames, video.output_size, config.window, device, config.videos)
        self.frames_left = count
        self.seconds = 0.0
        self.propagates = any(tracker.propagates for tracker in trackers.values())
        self._lengths: dict[int, int] = {}  # number of a window's first frame to the number of its frames
        self._previous: dict[int, FrameQueries | None] = {}  # the same to `Clip.previous`
        self._held: deque[Window] = deque()
        self._held_bytes = HELD_BYTES / config.videos

    def next_clip(self) -> Clip:
        """What is to be segmented next."""
        clip = next(self.clips)
        return replace(clip, previous=self._previous.get(clip.start))

    def take(self, window: Window) -> None:
        """The next window goes through the trackers and is held; others may have to go for it."""
        targets, held = self.video.targets, self._held
        if window.last is not None:
            self._previous[window.start + len(window.frames)] = window.last
        self._lengths[window.start] = len(window.frames)
        self.frames_left -= len(window.frames)
        for t, queries in enumerate(window.frames, start=window.start):
            for name, worker in self.workers.items():
                worker.step(queries[self.describer_of[name]], window.size, targets[t] if targets else None)
        if self.online:
            held.append(replace(window, frames=()))
        if _num_bytes(held) > self._held_bytes:
            leaving = []
            while _num_bytes(held) > self._held_bytes / 2:  # many at a time: they are finished together
                leaving.append(held.popleft())
            _take_masks(leaving, {worker: worker.candidates() for worker in self.online})

    def finish(self) -> dict[str, TrackedVideo]:
        """After the last frame: all masks that are still lacking, and the results by name of the tracker."""
        started, video = time.perf_counter(), self.video
        for worker in self.workers.values():
            worker.finish()
        kept = {worker: worker.kept() for worker in self.online}
        _take_masks(self._held, kept)
        self._held.clear()
        spans = [range(start, start + length) for start, length in self._lengths.items()]
        lacking = [span for span in spans if _lacks(span, kept)]
        for span in lacking:
            readers = video.frames[span.start : span.stop]
            (clip,) = read_clips(readers, video.output_size, len(span), self.device)
            clip = replace(clip, start=span.start, previous=self._previous.get(span.start))
            describers = self.describers if self.propagates else {}
            _take_masks(segment_together(self.segmenter, describers, [clip]), kept)
        tracklets = {name: worker.tracklets() for name, worker in self.workers.items()}
        association = sum(worker.seconds for worker in self.workers.values())
        segmentation = self.seconds + time.perf_counter() - started - association
        return {
            name: TrackedVideo(
                VideoPrediction(video.video_id, tracklets[name], video.category_ids),
                len(video.frames),
                worker.identical,
                segmentation,
                worker.seconds,
                sum(map(len, lacking)),
            )
            for name, worker in self.workers.items()
        }


def _advance(runs: Sequence[_Run]) -> None:
    """The next window of each of these videos; they share the time of the passes by their frames."""
    if not runs:
        return
    started = time.perf_counter()
    clips = [run.next_clip() for run in runs]
    windows = deque(segment_together(runs[0].segmenter, runs[0].describers, clips))
    a_frame = (time.perf_counter() - started) / sum(len(clip.images) for clip in clips)
    for run in runs:
        window = windows.popleft()
        started = time.perf_counter()
        run.take(window)
        run.seconds += a_frame * len(window.frames) + time.perf_counter() - started


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
        if isinstance(masks, FrameMasks)
    )
    for t, masks in frames:
        for worker, chosen in tracks.items():
            worker.scores.take(t, chosen, masks)
