"""The masks of a video's queries as a few tensors, and read from them one by one.

Finished masks are run lengths: the texts of all, one after the other, and where each ends; with the two sums
that rescoring needs nothing is lost. Or masks stay the low-resolution logits that they were, which takes
hundreds of times the space, but leaves thresholds and output size open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vistk.engine.finishing import FrameSize
from vistk.structures import RLE, FinishedMask, Masks


def pack_masks(frames: Sequence[Masks]) -> dict[str, Tensor]:
    """Finished masks of T frames with Q queries each, in tensors from which nothing is missing.

    Returns:
        ``counts`` uint8, the texts of all run lengths; ``ends`` (T, Q) int64, where each text ends, which is
        where it begins for an empty mask; ``probability_sum`` and ``area`` (T, Q) float64.
    """
    texts = [[b"" if rle is None else rle["counts"].encode() for rle in frame.rles] for frame in frames]
    lengths = torch.tensor([[len(text) for text in frame] for frame in texts], dtype=torch.int64)
    counts = bytearray().join(text for frame in texts for text in frame)
    return {
        "counts": torch.frombuffer(counts, dtype=torch.uint8)
        if counts
        else torch.zeros(0, dtype=torch.uint8),
        "ends": lengths.flatten().cumsum(0).view(lengths.shape),
        "probability_sum": torch.stack([frame.probability_sum for frame in frames]),
        "area": torch.stack([frame.area for frame in frames]),
    }


def join_packed(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The masks of consecutive frames, packed apart, as :func:`pack_masks` would have them together."""
    before = np.cumsum([0, *(len(part["counts"]) for part in parts)]).tolist()
    joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    shifted = [part["ends"] + start for part, start in zip(parts, before[:-1], strict=True)]
    return joined | {"ends": torch.cat(shifted)}


class PackedMasks(Sequence["PackedFrameMasks"]):
    """The finished masks of a video's frames.

    Args:
        packed: from :func:`pack_masks`.
        size: of the frames.
    """

    def __init__(self, packed: Mapping[str, Tensor], size: FrameSize) -> None:
        self.size = size
        self.counts = packed["counts"].numpy().data
        self.ends = packed["ends"]
        self.probability_sum = packed["probability_sum"]
        self.area = packed["area"]

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, t: Any) -> Any:
        if isinstance(t, slice):
            return tuple(self[i] for i in range(*t.indices(len(self))))
        return PackedFrameMasks(self, range(len(self))[t])


class PackedFrameMasks:
    """One frame of :class:`PackedMasks`; :class:`vistk.structures.Masks`.

    Only masks that are asked for become texts.

    Attributes:
        size: of the frame.
    """

    def __init__(self, video: PackedMasks, t: int) -> None:
        self.size = video.size
        self._video, self._t = video, t

    def __len__(self) -> int:
        return self._video.ends.shape[1]

    def __getitem__(self, query: int) -> FinishedMask:
        return FinishedMask(self._rle(query), self._sums[0][query], self._sums[1][query])

    @property
    def rles(self) -> tuple[RLE | None, ...]:
        return tuple(self._rle(query) for query in range(len(self)))

    @property
    def probability_sum(self) -> Tensor:
        return self._video.probability_sum[self._t]

    @property
    def area(self) -> Tensor:
        return self._video.area[self._t]

    def _rle(self, query: int) -> RLE | None:
        start, stop = self._bounds[query : query + 2]
        if start == stop:
            return None
        return {"size": list(self.size.output), "counts": str(self._video.counts[start:stop], "ascii")}

    # As lists: one number of a tensor takes as long as the list of all.

    @cached_property
    def _bounds(self) -> list[int]:
        """Where the texts begin and end."""
        begin = self._video.ends[self._t - 1, -1:].tolist() if self._t else [0]
        return begin + self._video.ends[self._t].tolist()

    @cached_property
    def _sums(self) -> tuple[list[float], list[float]]:
        return self.probability_sum.tolist(), self.area.tolist()
