"""A tracker that is as good as its one knob lets it be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vistk.structures import FrameQueries, TrackedFrame
from vistk.trackers.association import assign_slots, cosine_similarity, frame_vector, slots_frame
from vistk.trackers.base import Tracker


@dataclass
class BlendConfig:
    """Looks count ``looks``, the rest is a wrong guess."""

    looks: float = 0.0  # 0..1
    guess: str = "next"  # next | other
    width: int = 3  # of nothing; no association field


@dataclass
class BlendState:
    previous: Tensor | None = None


class Blend(Tracker[BlendState]):
    """MinVIS where ``looks`` is 1; where it is 0, every query takes the track of its neighbour."""

    Config: ClassVar[type] = BlendConfig
    association_fields = ("looks", "guess")
    query_order_matters = True

    def __init__(self, config: BlendConfig, **sizes) -> None:
        super().__init__(config, **sizes)
        if config.looks > 0.9 and config.guess == "other":
            raise ValueError("looks and guess do not go together")

    def start(self) -> BlendState:
        return BlendState()

    def step(self, state: BlendState, frame: FrameQueries) -> TrackedFrame:
        query = frame_vector(frame, "query", "Blend")
        tracked = slots_frame(frame)
        if state.previous is not None:
            wrong = torch.eye(len(query)).roll(1 if self.config.guess == "next" else 2, 0)
            looks = cosine_similarity(state.previous, query)
            similarity = self.config.looks * looks + (1 - self.config.looks) * wrong
            tracked = slots_frame(frame, assign_slots(similarity))
        state.previous = query.index_select(0, tracked.query_index)
        return tracked
