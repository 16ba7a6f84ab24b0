"""What a stream says of a frame: tracks, scores so far, and masks that are finished when they are read."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from vistk.engine.finishing import FrameMasks, finish_chosen
from vistk.ops.masks import decode
from vistk.structures import RLE, Masks


class MaskRows:
    """Some masks of a frame, finished when they are read for the first time."""

    def __init__(self, masks: Masks, rows: Sequence[int]) -> None:
        self._rows = list(rows)
        if isinstance(masks, FrameMasks):
            logits = masks.mask_logits
            if logits.untyped_storage().nbytes() > logits.nbytes:  # a view of all that passed together
                masks, self._rows = masks.only(self._rows), list(range(len(self._rows)))
        self._source: Masks | None = masks if self._rows else None
        self._rles: tuple[RLE | None, ...] = ()

    def __getitem__(self, index: Sequence[int]) -> MaskRows:
        """Some of them."""
        chosen = copy(self)
        chosen._rows = [self._rows[i] for i in index]
        if not chosen._rows:
            chosen._source = None
        if chosen._source is None:
            chosen._rles = tuple(self._rles[i] for i in index)
        return chosen

    @property
    def rles(self) -> tuple[RLE | None, ...]:
        if self._source is not None:
            if isinstance(self._source, FrameMasks):
                finish_chosen([(self._source, self._rows)])
            self._rles = tuple(self._source[row].rle for row in self._rows)
            self._source = None  # a frame that is kept is not to keep the logits of its masks
        return self._rles


@dataclass(frozen=True, eq=False)
class StreamedFrame:
    """The tracks of a frame as soon as it came, the best one first.

    Where the stream keeps no masks (``record=False``), a mask is finished when it is read. Until then the
    frame holds the logits of its masks, some MB: whoever keeps many frames reads :attr:`rles` first.
    """

    number: int  # from 0
    size: tuple[int, int]  # height and width of the frame, and of its masks
    ids: Tensor  # (M,) int64
    labels: Tensor  # (M,) int64, contiguous classes 0..K-1: the best one so far
    # (M,) float64, of the label, so far: the softmax of the mean logits of the track's frames by now, which
    # the track would score if the video ended here, but for rescoring.
    scores: Tensor
    frame_scores: Tensor  # (M,) float64, of the label, in this frame alone
    _masks: MaskRows = field(repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def rles(self) -> tuple[RLE | None, ...]:
        """M masks; ``None`` for one without pixels."""
        return self._masks.rles

    @property
    def masks(self) -> Tensor:
        """``(M, H, W)`` bool."""
        empty = np.zeros(self.size, dtype=bool)
        found = [empty if rle is None else decode(rle) for rle in self.rles]
        return torch.from_numpy(np.stack(found) if found else empty[None][:0])

    def above(self, score: float) -> StreamedFrame:
        """The tracks whose :attr:`scores` are at least ``score``."""
        index = (self.scores >= score).nonzero()[:, 0]
        return replace(
            self,
            ids=self.ids[index],
            labels=self.labels[index],
            scores=self.scores[index],
            frame_scores=self.frame_scores[index],
            _masks=self._masks[index.tolist()],
        )
