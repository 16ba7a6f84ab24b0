"""What a tracker answered, looked at before it is scored: trackers come from other packages, too.

Only what would be scored wrongly or end in a trace far away; the contract
(:func:`vistk.trackers.contract.check_tracker`) has all rules, and takes seconds.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vistk.structures import TrackedFrame
from vistk.trackers.base import Tracker


class TrackerError(ValueError):
    """A tracker answered what cannot be used; the message says who, where and what."""


def checked_frame(tracker: Tracker[Any], answer: Any, t: int, num_queries: int | None = None) -> TrackedFrame:
    """The answer for one frame, if it is one.

    Args:
        t: number of the frame, for the message.
        num_queries: of the frame; ``None`` where nobody knows any more.

    Raises:
        TrackerError: it is no :class:`TrackedFrame`; its ids are not those of different tracks; a query is
            not there, or a track has neither a query nor a mask of its own.
    """
    where = f"{type(tracker).__name__}, frame {t}"
    if not isinstance(answer, TrackedFrame):
        raise TrackerError(f"{where}: the tracker gave {type(answer).__name__}, expected a TrackedFrame")
    ids = _whole_numbers(f"{where}: track_ids", answer.track_ids)
    queries = _whole_numbers(f"{where}: query_index", answer.query_index)
    if len(set(ids)) < len(ids) or min(ids, default=0) < 0:
        raise TrackerError(f"{where}: track_ids are {ids}, expected different ones, 0 or more")
    if queries and num_queries is not None and max(queries) >= num_queries:
        raise TrackerError(f"{where}: query_index has {max(queries)}, expected one of {num_queries} queries")
    if answer.mask_logits is None and min(queries, default=0) < 0:
        raise TrackerError(
            f"{where}: query_index has {min(queries)}, expected a query, or mask_logits for what has none"
        )
    return answer


def checked_video(tracker: Tracker[Any], answer: Any, num_frames: int) -> list[TrackedFrame] | None:
    """The answer of ``finish``: ``None``, or every frame anew.

    Raises:
        TrackerError: it is something else, or as in :func:`checked_frame`.
    """
    if answer is None:
        return None
    if not isinstance(answer, list | tuple) or len(answer) != num_frames:
        count = f" of {len(answer)}" if isinstance(answer, list | tuple) else ""
        raise TrackerError(
            f"{type(tracker).__name__}: finish() gave a {type(answer).__name__}{count}, expected None or a "
            f"list of {num_frames} TrackedFrames"
        )
    return [checked_frame(tracker, frame, t) for t, frame in enumerate(answer)]


def _whole_numbers(where: str, value: Any) -> list[int]:
    if not isinstance(value, Tensor) or value.ndim != 1 or value.is_floating_point() or value.is_complex():
        found = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise TrackerError(f"{where} is {found}, expected int64 of shape (M,)")
    return value.tolist()
