"""Frames that come one by one, from a camera or a file: tracks at once, and scored tracklets in the end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vistk.data.transforms import resize_images, resized_size
from vistk.engine.cache import CacheConfig, identity_of
from vistk.engine.describers import describer_part, state_hash
from vistk.engine.finishing import FrameMasks, FrameSize
from vistk.engine.incoming_frame import IncomingFrame, checked_pixels, checked_side, checksum
from vistk.engine.predict import evaluating, protocol_of
from vistk.engine.scores import LogitSums, scored_tracklets
from vistk.engine.stream_passes import FrameBatch, segment_frames
from vistk.engine.stream_record import StreamRecord
from vistk.engine.stream_store import FrameStore, StreamError
from vistk.engine.streamed_frame import MaskRows, StreamedFrame
from vistk.engine.tracker_answers import checked_frame, checked_video
from vistk.engine.windows import SizedMasks
from vistk.models.segmenter import Segmenter
from vistk.structures import FrameQueries, Masks, ScoringProtocol, TrackedFrame, VideoPrediction
from vistk.trackers.base import Tracker

__all__ = ["Stream", "StreamError", "StreamedFrame", "push_together"]


@dataclass
class StreamSeconds:
    """Where the time of a stream's pushes went, of all frames so far."""

    segment: float = 0.0  # resizing, segmenting, describing; or reading what was stored
    associate: float = 0.0  # the tracker and the scores so far
    record: float = 0.0  # finishing masks and writing


class Stream:
    """Tracks the frames of a video as they come, with nothing held but the tracker's state.

    ::

        with vistk.Stream(segmenter, tracker, short_side=360) as stream:
            for image in camera:                       # (H, W, 3) uint8, RGB
                frame = stream.push(image).above(0.3)  # ids, labels, scores, masks at the size of the image
            prediction = stream.close()                # whole tracks, with the scores of the video

    Memory does not grow with the frames: the masks that :meth:`close` may need, some 0.5 KB each, lie on disk
    until then, and beside them there is a sum of logits for every track. Two things are as the tracker is:
    one that births tracks has a sum for each of them, and one that says the whole video anew in the end
    (``finish``) holds what it needs for that.

    Frames may change their size: the masks of :meth:`push` have that of the frame, those of :meth:`close`
    that of the first one. Leaving the ``with`` block without :meth:`close` gives everything back.

    Args:
        segmenter, tracker: on one device, e.g. from :func:`vistk.load_published`; their training mode is
            left as found, and none of them knows of the stream: several may use them in turn.
        short_side, max_side: the shorter side of a frame is resized to the one, but the longer one to no more
            than the other, in pixels, for the segmenter; ``None`` = as it is, and without limit.
        protocol: see :func:`vistk.predict`.
        record: ``True`` keeps what :meth:`close` needs in a temporary folder; ``False`` keeps nothing, and
            there is no :meth:`close`. A folder keeps what the segmenter said there as well, every 25 frames
            and when the stream ends: a new stream of the same weights and settings that is given the same
            frames then reads it in place of segmenting, and goes on where the other one was stopped. Of
            trackers that want mask features, megabytes a frame, nothing is kept for a new stream.
        video_id: carried into the prediction.

    Attributes:
        number: of the next frame.
        seconds: where the time went.

    Raises:
        StreamError: an argument is wrong; the tracker needs ground truth; ``record`` is a folder with frames
            of another stream (OtherStreamError), or in use by one.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        tracker: Tracker[Any],
        *,
        short_side: int | None = None,
        max_side: int | None = None,
        protocol: ScoringProtocol | None = None,
        record: bool | str | Path = True,
        video_id: int = 1,
    ) -> None:
        self.short_side = checked_side("short_side", short_side)
        self.max_side = checked_side("max_side", max_side)
        if not isinstance(record, bool | str | Path):
            raise StreamError(f"record is a {type(record).__name__}, expected True, False or a folder")
        if record == "":
            raise StreamError("record is an empty text, expected True, False or a folder")
        try:
            self.protocol = protocol_of(segmenter, tracker, protocol)
        except ValueError as error:
            raise StreamError(str(error)) from error
        self.segmenter, self.tracker = segmenter, tracker
        self.video_id = video_id
        self.number = 0
        self.seconds = StreamSeconds()
        self._state = tracker.start()
        self._sums = LogitSums()
        self._size: tuple[int, int] | None = None  # of the first frame
        self._previous: FrameQueries | None = None  # `Clip.previous` of the next frame
        self._interrupted = self._closed = False
        self._record: StreamRecord | None = None
        if record is True:
            self._record = StreamRecord(tracker, None, None)
        elif record is not False:
            self._record = StreamRecord(tracker, Path(record), self._identity())

    def push(self, frame: Tensor | np.ndarray) -> StreamedFrame:
        """The tracks of the next frame.

        Args:
            frame: RGB uint8 at full size, a tensor ``(3, H, W)`` or an array ``(H, W, 3)``; it may be changed
                afterwards.

        Raises:
            StreamError: the frame has another type or shape; the stream is closed or was interrupted; the
                folder ``record`` has another frame of this number, or cannot be written.
        """
        return _advance([(self, [frame])])[0][0]

    def push_many(self, frames: Sequence[Tensor | np.ndarray]) -> list[StreamedFrame]:
        """The tracks of the next frames, which pass the segmenter at once: :meth:`push`, but for rounding."""
        return _advance([(self, frames)])[0]

    def skip(self) -> None:
        """A frame that never came: it counts, and has no masks in the prediction; the tracker is not told.

        Raises:
            StreamError: the stream is closed, or the folder ``record`` has such a frame.
        """
        self._require_usable()
        if (stored := self._stored) is not None:
            stored.refuse(self.number)
        self.number += 1

    def close(self) -> VideoPrediction:
        """End the video: its tracklets with the scores of the whole, as :func:`vistk.predict` gives them.

        Raises:
            StreamError: nothing was kept (``record=False``); the stream is closed or was interrupted; what it
                kept is damaged.
        """
        self._require_usable()
        if self._record is None:
            raise StreamError(
                "the stream keeps no masks (record=False), expected record=True for its close()"
            )
        try:
            self._record.flush()
            with evaluating(self.tracker), torch.inference_mode():
                answer = self.tracker.finish(self._state)
            rewritten = checked_video(self.tracker, answer, self._record.num_queries)
            sums = self._sums
            if rewritten is not None:
                sums = LogitSums()
                for tracked in rewritten:
                    sums.count(tracked)
            best = sums.best(self.protocol.keep_top)
            masks = self._record.masks({track for _, track, _ in best}, rewritten)
            tracklets = scored_tracklets(best, masks, self.number, self.protocol.rescore)
        finally:
            self._release()
        return VideoPrediction(self.video_id, tracklets, self.protocol.category_ids)

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Without :meth:`close`: nothing is left but, in the folder ``record``, the frames so far."""
        if self._closed:
            return
        try:
            if self._record is not None:
                self._record.flush()
        except StreamError:
            if kind is None:  # else that is the one to be told of
                raise
        finally:
            self._release()

    @property
    def _stored(self) -> FrameStore | None:
        """The frames that are kept for the next stream, or were by the last one."""
        return None if self._record is None else self._record.lasting

    @cached_property
    def _part(self) -> str:
        """A name for what this tracker's ``describe`` says: streams of one name share it."""
        return describer_part(self.tracker)

    def _identity(self) -> dict[str, Any]:
        """All that the segmenter's answers depend on, beside the frames."""
        tracker = self.tracker
        settings: dict[str, Any] = {
            "describe": self._part,
            "short_side": self.short_side,
            "max_side": self.max_side,
        }
        if tracker.propagates:
            cls = type(tracker)
            settings["propagate"] = state_hash(
                tracker, cls.__module__, cls.__qualname__, repr(tracker.config)
            )
        return identity_of(self.segmenter, CacheConfig(), settings)

    def _require_usable(self) -> None:
        if self._closed:
            raise StreamError("the stream is closed, expected a new one for another video")
        if self._interrupted:
            raise StreamError(
                f"the stream was interrupted in frame {self.number}, expected a new one from frame 0 on"
            )

    def _release(self) -> None:
        """What is held in memory and in the temporary folder."""
        self._closed = True
        self._state = self._previous = None
        if self._record is not None:
            self._record.release()

    def _read(self, given: Sequence[Any]) -> FrameBatch:
        """The next frames: those that are stored, with their queries; the others at the segmenter's size."""
        self._require_usable()
        frames = []
        for number, one in enumerate(given, self.number):
            pixels = checked_pixels(one)
            frame = IncomingFrame(one, number, (pixels.shape[1], pixels.shape[2]))
            if (store := self._stored) is not None:
                frame.checksum = checksum(pixels)
                if (stored := store.find(number, frame.checksum)) is not None:
                    frame.queries, frame.last = stored.queries, stored.last
                    frame.shown = stored.masks if stored.shown is None else stored.shown
            if frame.queries is None:
                size = resized_size(*frame.size, self.short_side, self.max_side)
                frame.image = resize_images(pixels, size).contiguous()
            frames.append(frame)
        return FrameBatch(frames, self._size, self._part, self.tracker, self._previous)

    def _take(self, frame: IncomingFrame) -> StreamedFrame:
        """The next frame goes through the tracker."""
        self._interrupted = True
        queries, masks, live = frame.queries, frame.masks, frame.live
        assert queries is not None
        before = 0.0 if live is None else live.seconds
        started = time.perf_counter()
        if live is not None and type(self.tracker).finish is not Tracker.finish:
            queries = replace(queries, masks=live.finished())  # without logits, for it keeps what it likes
        with torch.inference_mode():
            answer = self.tracker.step(self._state, queries)
        tracked = checked_frame(self.tracker, answer, self.number, queries.num_queries)
        own = None if tracked.mask_logits is None else FrameMasks(tracked.mask_logits, masks.size)
        self._sums.count(tracked)
        associated = time.perf_counter()
        finishing = 0.0 if live is None else live.seconds - before  # of masks that the tracker looked at
        shown = frame.shown if own is None else None
        if self._record is not None:
            shown = self._record.add(frame, tracked, own)
        if shown is None:
            shown = _at(masks if own is None else own, replace(masks.size, output=frame.size))
        recorded = time.perf_counter()
        result = self._result(frame, tracked, shown)
        self.seconds.record += recorded - associated + finishing
        self.seconds.associate += associated - started - finishing + time.perf_counter() - recorded
        self._size = self._size or frame.size
        self._previous = frame.last
        self.number += 1
        self._interrupted = False
        return result

    def _result(self, frame: IncomingFrame, tracked: TrackedFrame, shown: Masks) -> StreamedFrame:
        """What :meth:`push` says of a frame."""
        tracks = tracked.track_ids.tolist()
        rows = range(len(tracks)) if tracked.mask_logits is not None else tracked.query_index.tolist()
        alone = tracked.logits.double().cpu().softmax(-1)[:, :-1]
        scores, labels = (self._sums.scores(tracks) if tracks else alone).max(-1)
        order = scores.argsort(descending=True, stable=True)
        return StreamedFrame(
            frame.number,
            frame.size,
            torch.tensor(tracks, dtype=torch.int64)[order],
            labels[order],
            scores[order],
            alone.gather(1, labels[:, None])[order, 0],
            MaskRows(shown, [rows[i] for i in order.tolist()]),
        )


def push_together(streams: Sequence[Stream], frames: Sequence[Tensor | np.ndarray]) -> list[StreamedFrame]:
    """The next frame of each of several streams on one segmenter; frames of one size pass it together.

    The results are those of :meth:`Stream.push`, but for rounding. Trackers may differ, and frames may have
    any sizes. Streams that are given the same object, for trackers side by side, share its pass. Of streams
    whose trackers propagate queries, every frame is a pass.

    Args:
        frames: one for each stream, as of :meth:`Stream.push`.

    Raises:
        StreamError: as of :meth:`Stream.push`, and then no stream before it in the list has gone back; there
            are more streams than frames, or fewer; a stream is named twice; their segmenters differ.
    """
    if len(streams) != len(frames):
        raise StreamError(
            f"push_together: expected a frame for each of {len(streams)} streams, found {len(frames)}"
        )
    if len(set(map(id, streams))) < len(streams):
        raise StreamError("push_together: a stream is named twice, expected one frame of each")
    if len({id(stream.segmenter) for stream in streams}) > 1:
        raise StreamError("push_together: the streams are on several segmenters, expected one")
    pushed = _advance([(stream, [frame]) for stream, frame in zip(streams, frames, strict=True)])
    return [frame for (frame,) in pushed]


def _advance(work: Sequence[tuple[Stream, Sequence[Any]]]) -> list[list[StreamedFrame]]:
    """The next frames of streams on one segmenter."""
    with ExitStack() as stack:
        for module in dict.fromkeys(m for stream, _ in work for m in (stream.segmenter, stream.tracker)):
            stack.enter_context(evaluating(module))
        started = time.perf_counter()
        batches = [stream._read(given) for stream, given in work]
        if work:
            segment_frames(work[0][0].segmenter, batches)
        a_frame = (time.perf_counter() - started) / max(1, sum(len(batch.frames) for batch in batches))
        for (stream, _), batch in zip(work, batches, strict=True):
            stream.seconds.segment += a_frame * len(batch.frames)
        return [
            [stream._take(frame) for frame in batch.frames]
            for (stream, _), batch in zip(work, batches, strict=True)
        ]


def _at(masks: SizedMasks, size: FrameSize) -> Masks:
    """Masks at another output size, finished when they are read."""
    if masks.size == size:
        return masks
    assert isinstance(masks, FrameMasks)
    return FrameMasks(masks.mask_logits, size)
