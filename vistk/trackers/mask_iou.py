"""A hand-made baseline that looks at masks alone: tracks go where the overlap is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vistk.ops.masks import frame_iou
from vistk.structures import RLE, FrameQueries, TrackedFrame
from vistk.trackers.association import assign_slots, frame_masks, slots_frame
from vistk.trackers.base import Tracker


@dataclass
class MaskIoUConfig:
    """Nothing to choose."""


@dataclass
class MaskIoUState:
    """The last mask of every track that was not empty."""

    masks: list[RLE | None] | None = None  # Q entries; None = the track never had one


class MaskIoU(Tracker[MaskIoUState]):
    """Hungarian assignment on the IoU with each track's last mask.

    Uses the finished masks of a frame where it has them, else the live ones at their own size. A track
    whose mask is empty keeps its last one and may be found again in the same place.
    """

    Config: ClassVar[type] = MaskIoUConfig

    def start(self) -> MaskIoUState:
        return MaskIoUState()

    def similarities(self, state: MaskIoUState, frame: FrameQueries) -> dict[str, Tensor]:
        """All there is, the IoU as "mask", is "mixed" as well."""
        if state.masks is None:
            return {}
        iou = _overlap(state.masks, frame_masks(frame, "MaskIoU"))
        return {"mask": iou, "mixed": iou}

    def step(self, state: MaskIoUState, frame: FrameQueries) -> TrackedFrame:
        masks = frame_masks(frame, "MaskIoU")
        if state.masks is None:
            state.masks = masks
            return slots_frame(frame)
        query_index = assign_slots(_overlap(state.masks, masks))
        state.masks = [
            old if masks[q] is None else masks[q]
            for old, q in zip(state.masks, query_index.tolist(), strict=True)
        ]
        return slots_frame(frame, query_index.to(frame.logits.device))


def _overlap(tracks: Sequence[RLE | None], queries: Sequence[RLE | None]) -> Tensor:
    """``(R, Q)`` float64 IoU, on the CPU, where masks are."""
    return torch.from_numpy(frame_iou(tracks, queries))
