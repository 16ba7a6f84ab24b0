"""What a stream keeps of its frames until it is closed, and for the next stream over the same frames."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vistk.engine.finishing import FrameMasks, FrameSize, finish_chosen
from vistk.engine.incoming_frame import IncomingFrame
from vistk.engine.stream_answers import Answer, AnswerStore
from vistk.engine.stream_store import FrameStore, StoredFrame, StreamError, packed_frame
from vistk.structures import FinishedMask, Masks, TrackedFrame
from vistk.trackers.base import Tracker


class StreamRecord:
    """Masks and answers in a temporary folder, or frames in one that stays.

    Args:
        tracker: whose answers are kept.
        folder: that stays; ``None`` = none does.
        identity: see :class:`FrameStore`; of a folder that stays.

    Raises:
        StreamError: as of :class:`FrameStore`; there is no place for temporary folders.
    """

    def __init__(
        self, tracker: Tracker[Any], folder: Path | None, identity: Mapping[str, Any] | None
    ) -> None:
        self._tracker = tracker
        # A tracker that may say the video anew may then name any query of any frame.
        self._rewrites = type(tracker).finish is not Tracker.finish
        self._stepped: list[tuple[int, FrameSize, int]] = []  # its frames, with their numbers of queries
        try:
            self._scratch = tempfile.TemporaryDirectory(prefix="vistk-stream-", ignore_cleanup_errors=True)
        except OSError as error:
            raise StreamError(
                f"a stream needs a temporary folder ({error}), expected TMPDIR to say where"
            ) from error
        temporary = Path(self._scratch.name)
        try:
            self._frames = FrameStore(temporary if folder is None else folder, identity)
        except BaseException:
            self._scratch.cleanup()
            raise
        self._answers = AnswerStore(temporary)

    @property
    def lasting(self) -> FrameStore | None:
        """The frames that are kept for the next stream, or were by the last one."""
        return self._frames if self._frames.keeps_queries else None

    def add(self, frame: IncomingFrame, tracked: TrackedFrame, own: FrameMasks | None) -> Masks | None:
        """Keep what is needed of the next frame.

        Args:
            own: the masks that the tracker made.

        Returns:
            ``own``, or else the masks of the queries, at the size of the frame, if they are finished by now.

        Raises:
            StreamError: the folder cannot be written.
        """
        assert frame.queries is not None
        size = frame.masks.size
        if frame.queries.mask_features is not None and self._frames.keeps_queries:
            self._frames.release()
            self._frames = FrameStore(Path(self._scratch.name), None)  # megabytes a frame: none will last
        queries = tracked.query_index.tolist()
        made = None if own is None else own.finished()
        self._answers.add(frame.number, tracked.track_ids.tolist(), queries, made, size)
        if self._rewrites:
            self._stepped.append((frame.number, size, frame.queries.num_queries))
        shown = frame.shown
        if frame.live is None:  # the stream before has stored it
            self._frames.flush()
        else:
            shown = self._keep(frame, frame.live, [] if made is not None else queries)
        if made is not None:
            return made if frame.size == size.output else None
        return shown

    def flush(self) -> None:
        """Write all frames so far.

        Raises:
            StreamError: the folder cannot be written.
        """
        self._frames.flush()
        self._answers.flush()

    def masks(
        self, tracks: Collection[int], rewritten: Sequence[TrackedFrame] | None
    ) -> dict[int, dict[int, FinishedMask]]:
        """The masks of some tracks by track and frame, all frames written.

        Args:
            rewritten: the answers, if they are others than those that were added.

        Raises:
            StreamError: a file is damaged.
        """
        found: dict[int, dict[int, FinishedMask]] = {track: {} for track in tracks}
        answers = self._answers.read(self._frames) if rewritten is None else self._anew(rewritten)
        for answer in answers:
            rows = {t: q for t, q in zip(answer.tracks, answer.queries, strict=True) if t in found}
            if isinstance(answer.masks, FrameMasks):
                finish_chosen([(answer.masks, rows.values())])
            for track, query in rows.items():
                found[track][answer.number] = answer.masks[query]
        return found

    @property
    def num_queries(self) -> list[int]:
        """Of every frame that a tracker has to say anew, if it does."""
        return [count for *_, count in self._stepped]

    def release(self) -> None:
        """Remove what is not to stay."""
        self._scratch.cleanup()
        self._frames.release()

    def _anew(self, rewritten: Sequence[TrackedFrame]) -> Iterator[Answer]:
        for tracked, (number, size, _) in zip(rewritten, self._stepped, strict=True):
            tracks, queries = tracked.track_ids.tolist(), tracked.query_index.tolist()
            if tracked.mask_logits is not None:
                own = FrameMasks(tracked.mask_logits, size)
                yield Answer(number, tracks, own, list(range(len(tracks))))
            else:
                yield Answer(number, tracks, self._frames.masks(number), queries)

    def _keep(self, frame: IncomingFrame, masks: FrameMasks, tracked: Sequence[int]) -> Masks | None:
        """Keep the masks of a frame, and what the segmenter said of it, if that is wanted.

        Args:
            tracked: the queries whose masks the prediction may need.

        Returns:
            The masks at the size of the frame, if they are finished.
        """
        lasts, same = self._frames.keeps_queries, frame.size == masks.size.output
        wanted = range(len(masks)) if lasts or self._rewrites else tracked
        packed = packed_frame(masks.finished(wanted), masks.size)
        queries, shown = None, None
        if lasts:
            assert frame.queries is not None
            queries = replace(frame.queries, masks=None)
            if not same:
                at_frame = FrameMasks(masks.mask_logits, replace(masks.size, output=frame.size))
                shown = packed_frame(at_frame.finished(), at_frame.size)
        stored = StoredFrame(frame.number, frame.checksum, packed, queries, shown, frame.last)
        self._frames.add(stored, self._tracker.propagates)
        return packed if same else shown
