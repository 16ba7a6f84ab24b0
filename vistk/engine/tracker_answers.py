"""What a tracker answered, looked at before it is scored: trackers come from other packages, too.

Only what would be scored wrongly or end in a trace far away; the contract
(:func:`vistk.trackers.contract.check_tracker`) has all rules, and takes seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from reprlib import repr as short
from typing import Any

import torch
from torch import Tensor

from vistk.structures import TrackedFrame
from vistk.trackers.base import Tracker, TrackerError


def checked_frame(tracker: Tracker[Any], answer: Any, t: int, num_queries: int) -> TrackedFrame:
    """The answer for one frame, if it is one.

    Args:
        t: number of the frame, for the message.
        num_queries: of the frame.

    Raises:
        TrackerError: it is no :class:`TrackedFrame`; its ids are not those of different tracks; a query is
            not there, or a track has neither a query nor a mask of its own; there are more masks, or fewer.
    """
    where = f"{type(tracker).__name__}, frame {t}"
    if not isinstance(answer, TrackedFrame):
        raise TrackerError(f"{where}: the tracker gave {type(answer).__name__}, expected a TrackedFrame")
    ids = _whole_numbers(f"{where}: track_ids", answer.track_ids)
    queries = _whole_numbers(f"{where}: query_index", answer.query_index)
    if len(set(ids)) < len(ids) or min(ids, default=0) < 0:
        raise TrackerError(f"{where}: track_ids are {short(ids)}, expected different ones, 0 or more")
    if max(queries, default=-1) >= num_queries:
        raise TrackerError(f"{where}: query_index has {max(queries)}, expected one of {num_queries} queries")
    if answer.mask_logits is None and min(queries, default=0) < 0:
        raise TrackerError(
            f"{where}: query_index has {min(queries)}, expected a query, or mask_logits for what has none"
        )
    masks = answer.mask_logits
    if masks is not None and (masks.ndim != 3 or len(masks) != len(ids)):
        raise TrackerError(
            f"{where}: mask_logits of {tuple(masks.shape)}, expected those of {len(ids)} tracks"
        )
    return answer


def checked_video(
    tracker: Tracker[Any], answer: Any, num_queries: Sequence[int]
) -> list[TrackedFrame] | None:
    """The answer of ``finish``: ``None``, or every frame anew.

    Args:
        num_queries: of every frame.

    Raises:
        TrackerError: it is something else, or as in :func:`checked_frame`.
    """
    if answer is None:
        return None
    if not isinstance(answer, list | tuple) or len(answer) != len(num_queries):
        count = f" of {len(answer)}" if isinstance(answer, list | tuple) else ""
        raise TrackerError(
            f"{type(tracker).__name__}: finish() gave a {type(answer).__name__}{count}, expected None or a "
            f"list of {len(num_queries)} TrackedFrames"
        )
    frames = zip(answer, num_queries, strict=True)
    return [checked_frame(tracker, frame, t, count) for t, (frame, count) in enumerate(frames)]


def _whole_numbers(where: str, value: Any) -> list[int]:
    if not isinstance(value, Tensor) or value.ndim != 1 or value.dtype != torch.int64:
        found = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise TrackerError(f"{where} is {found}, expected int64 of shape (M,)")
    return value.tolist()
