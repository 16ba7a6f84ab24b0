"""Association of a frame's queries with tracks: pure functions that trackers share."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from vistk.ops.assignment import best_assignment
from vistk.ops.masks import areas, encode
from vistk.structures import RLE, FrameOutput, FrameQueries, TrackedFrame


def cosine_similarity(tracks: Tensor, queries: Tensor) -> Tensor:
    """``(R, Q)`` float32 cosines of tracks ``(R, C)`` and queries ``(Q, C)``; 0 for a zero vector."""
    with torch.autocast(tracks.device.type, enabled=False):  # which would round the product to 16 bits
        return F.normalize(tracks.float(), dim=-1) @ F.normalize(queries.float(), dim=-1).T


def class_scores(logits: Tensor) -> Tensor:
    """``(..)`` greatest class probability of logits ``(.., K+1)``, "no object" left aside."""
    return logits.float().softmax(-1)[..., :-1].amax(-1)


def assign_slots(similarity: Tensor) -> Tensor:
    """The query of every track, where there are as many tracks as queries and all go on.

    Args:
        similarity: ``(Q, Q)``, tracks by queries.

    Returns:
        ``(Q,)`` int64, a permutation: entry r is the query of track r.

    Raises:
        ValueError: the number of queries changed within the video.
    """
    tracks, queries = similarity.shape
    if tracks != queries:
        raise ValueError(
            f"the frame has {queries} queries and the video began with {tracks}; "
            "a tracker with fixed slots expects the same number in every frame"
        )
    return best_assignment(similarity)[1]


def slots_frame(frame: FrameQueries, query_index: Tensor | None = None) -> TrackedFrame:
    """A frame in which track r is query ``query_index[r]``; without index, query r."""
    track_ids = torch.arange(frame.num_queries, device=frame.logits.device)
    if query_index is None:
        return TrackedFrame(track_ids, track_ids.clone(), frame.logits)
    return TrackedFrame(track_ids, query_index, frame.logits.index_select(0, query_index))


def frame_vector(frame: FrameQueries, name: str, owner: str) -> Tensor:
    """``(Q, C)`` vectors of a frame.

    Raises:
        ValueError: the frame was described without them.
    """
    if name not in frame.vectors:
        raise ValueError(
            f"{owner}: the frame has the vectors {', '.join(frame.vectors) or 'none'}, expected {name!r}; "
            "describe the frames with this tracker"
        )
    return frame.vectors[name]


def with_mask_features(queries: FrameQueries, out: FrameOutput, owner: str, width: int) -> FrameQueries:
    """The queries with the mask features of their frames, for trackers that predict masks anew.

    Such a tracker embeds masks in ``width`` channels.

    Raises:
        ValueError: the mask features have another width.
    """
    channels = out.mask_features.shape[-3]
    if channels != width:
        raise ValueError(f"{owner}: the mask features have {channels} channels, expected {width}")
    return replace(queries, mask_features=out.mask_features)


def frame_features(frame: FrameQueries, owner: str) -> Tensor:
    """``(C, h, w)`` mask features of a frame.

    Raises:
        ValueError: the frame was described without them.
    """
    if frame.mask_features is None:
        raise ValueError(
            f"{owner}: the frame has no mask_features, expected some; describe the frames with this tracker"
        )
    return frame.mask_features


def frame_masks(frame: FrameQueries, owner: str) -> list[RLE | None]:
    """Masks of a frame's queries, ``None`` where empty: the finished ones, else the live ones as they are.

    Raises:
        ValueError: the frame has no masks.
    """
    if frame.masks is not None:
        rles = list(frame.masks.rles)
    elif frame.mask_logits is not None:
        rles = list(encode(frame.mask_logits > 0))
    else:
        raise ValueError(
            f"{owner}: the frame has neither finished masks nor mask_logits, expected one of them"
        )
    return [rle if area else None for rle, area in zip(rles, areas(rles), strict=True)]
