"""The baseline without association: a track is the number of a query.

A segmenter whose queries specialise by place or size keeps some identities by itself; every other tracker
is to be measured against that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vistk.structures import FrameQueries, TrackedFrame
from vistk.trackers.association import slots_frame
from vistk.trackers.base import Tracker


@dataclass
class IdentityConfig:
    """Nothing to choose."""


class Identity(Tracker[None]):
    """Track r is query r of every frame."""

    Config: ClassVar[type] = IdentityConfig
    query_order_matters: ClassVar[bool] = True

    def start(self) -> None:
        return None

    def step(self, state: None, frame: FrameQueries) -> TrackedFrame:
        return slots_frame(frame)
