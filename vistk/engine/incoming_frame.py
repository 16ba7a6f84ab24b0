"""A frame of a stream, from its pixels to the tracker."""

from __future__ import annotations

import operator
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vistk.engine.finishing import FrameMasks
from vistk.engine.stream_store import StreamError
from vistk.engine.windows import SizedMasks
from vistk.structures import FrameQueries, Masks


@dataclass
class IncomingFrame:
    """A frame on its way from the segmenter to the tracker."""

    given: object  # as it came
    number: int
    size: tuple[int, int]  # of it
    checksum: int = 0  # of its pixels, where frames are kept for the next stream
    image: Tensor | None = None  # (3, h, w), for the segmenter; None where it need not pass
    queries: FrameQueries | None = None  # with masks at the size of the prediction
    shown: Masks | None = None  # at the size of the frame, if they were stored so
    last: FrameQueries | None = None  # `Window.last`, of the last frame of a window

    @property
    def masks(self) -> SizedMasks:
        """Of the queries, once they are there."""
        masks: Any = None if self.queries is None else self.queries.masks
        return masks

    @property
    def live(self) -> FrameMasks | None:
        """The same of a frame that passed the segmenter."""
        return self.masks if isinstance(self.masks, FrameMasks) else None


def checked_pixels(frame: Any) -> Tensor:
    """A frame as ``(3, H, W)`` uint8.

    Raises:
        StreamError: it is something else.
    """
    if isinstance(frame, np.ndarray):
        kind, channels, expected = frame.dtype == np.uint8, frame.shape[-1:], "(H, W, 3)"
    elif isinstance(frame, Tensor):
        kind, channels, expected = frame.dtype == torch.uint8, tuple(frame.shape[:1]), "(3, H, W)"
    else:
        raise StreamError(f"a frame is a {type(frame).__name__}, expected a tensor or an array")
    if not kind:
        raise StreamError(f"a frame has the type {frame.dtype}, expected uint8")
    if frame.ndim != 3 or channels != (3,) or 0 in frame.shape:
        raise StreamError(f"a frame has the shape {tuple(frame.shape)}, expected {expected}")
    if isinstance(frame, Tensor):
        return frame
    if min(frame.strides) < 0 or not frame.flags.writeable:
        frame = frame.copy()  # torch cannot look at it as it is
    return torch.from_numpy(frame).permute(2, 0, 1)


def checked_side(name: str, side: Any) -> int | None:
    """A length in pixels, of any type of whole numbers, or ``None``.

    Raises:
        StreamError: it is something else.
    """
    if side is None:
        return None
    try:
        pixels = 0 if isinstance(side, bool) else operator.index(side)
    except TypeError:
        pixels = 0
    if pixels < 1:
        raise StreamError(f"{name} is {side!r}, expected pixels, 1 or more, or None")
    return pixels


def checksum(pixels: Tensor) -> int:
    """CRC-32 of a frame's pixels and its size."""
    size = zlib.crc32(repr(tuple(pixels.shape)).encode())
    return zlib.crc32(pixels.cpu().contiguous().numpy().data, size)
