"""One video in memory, from pixels to scored tracklets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from operator import index
from typing import Any, SupportsIndex

import torch
from torch import Tensor, nn

from vistk.engine.infer import track_video
from vistk.engine.video_tracker import EvalConfig
from vistk.models.segmenter import Segmenter
from vistk.structures import ScoringProtocol, VideoPrediction
from vistk.trackers.base import Tracker


def predict(
    segmenter: Segmenter,
    tracker: Tracker[Any],
    frames: Tensor,
    output_size: tuple[int, int] | None = None,
    *,
    protocol: ScoringProtocol | None = None,
    video_id: int = 1,
    window: int | None = None,
) -> VideoPrediction:
    """Segment and track the frames of a video.

    Args:
        segmenter, tracker: on one device, e.g. from :func:`vistk.load_published`; their training mode is
            left as found.
        frames: ``(T, 3, H, W)`` uint8 RGB, on any device, at the size the network is to see; published
            models were tested with the shorter side at 360 or 480 pixels.
        output_size: height and width of the masks; ``None`` = those of the frames.
        protocol: how tracks are scored and which ids the classes have; ``None`` = as published for
            weights from :func:`vistk.load_published`, else :class:`ScoringProtocol`'s defaults.
        video_id: carried into the result.
        window: frames that pass the segmenter at once, ``None`` = as many as are fast on the device; the
            result depends on it by rounding alone.

    Returns:
        Tracklets by falling score; ``.to_ytvis()`` gives the entries of a results file.

    Raises:
        TypeError, ValueError: the frames have another type or shape, the output size is none, the protocol
            is of other classes, or the tracker needs ground truth.
    """
    if not isinstance(frames, Tensor) or frames.dtype != torch.uint8:
        found = frames.dtype if isinstance(frames, Tensor) else type(frames).__name__
        raise TypeError(f"frames: expected a uint8 tensor, found {found}")
    if frames.ndim != 4 or frames.shape[1] != 3 or 0 in frames.shape[2:]:
        raise ValueError(f"frames: expected shape (T, 3, H, W), found {tuple(frames.shape)}")
    protocol = protocol_of(segmenter, tracker, protocol)
    config = EvalConfig(window=window, keep_top=protocol.keep_top, rescore=protocol.rescore)
    size = _size(frames.shape[-2:] if output_size is None else output_size)
    device = segmenter.pixel_mean.device
    readers = [partial(frames.__getitem__, t) for t in range(len(frames))]
    with evaluating(segmenter), evaluating(tracker):
        tracked = track_video(
            segmenter,
            {"tracker": tracker},
            readers,
            size,
            config,
            device,
            video_id,
            protocol.category_ids,
        )
    return tracked["tracker"].prediction


def protocol_of(
    segmenter: Segmenter, tracker: Tracker[Any], given: ScoringProtocol | None
) -> ScoringProtocol:
    """How the tracker's answers to frames alone are scored: as said, else as published.

    Raises:
        ValueError: the protocol is of other classes, or the tracker needs ground truth.
    """
    if tracker.uses_targets:
        raise ValueError(f"{type(tracker).__name__} reads ground truth, which frames alone do not have")
    protocol = given or tracker.protocol or ScoringProtocol()
    if protocol.category_ids and len(protocol.category_ids) != segmenter.num_classes:
        raise ValueError(
            f"protocol.category_ids: expected {segmenter.num_classes} ids, one a class of the segmenter, "
            f"found {len(protocol.category_ids)}"
        )
    return protocol


def _size(given: Iterable[SupportsIndex]) -> tuple[int, int]:
    """Height and width, whatever kind of integers they come as."""
    try:
        height, width = (index(side) for side in given)
    except (TypeError, ValueError):  # no two integers
        height = width = 0
    if height < 1 or width < 1:
        raise ValueError(f"output_size: expected height and width in pixels, found {given}")
    return height, width


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """The module in evaluation mode, then every part of it in the mode that it had."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
