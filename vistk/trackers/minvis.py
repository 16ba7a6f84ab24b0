"""MinVIS (arXiv 2208.02245): tracking by bipartite matching of query embeddings.

The queries of a frame take the tracks that maximise the summed cosine similarity with the queries of the
previous frame. No threshold, no memory beyond one frame, no parameter. Averaging of class logits over the
video belongs to the engine and is the same for all trackers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from vistk.structures import FrameQueries, TrackedFrame
from vistk.trackers.association import assign_slots, cosine_similarity, frame_vector, slots_frame
from vistk.trackers.base import Tracker


@dataclass
class MinVISConfig:
    """Nothing to choose."""


@dataclass
class MinVISState:
    """Query vectors of the previous frame in the order of the tracks."""

    previous: Tensor | None = None  # (Q, C)


class MinVIS(Tracker[MinVISState]):
    """Hungarian assignment on the cosine of neighbouring frames' query embeddings."""

    Config: ClassVar[type] = MinVISConfig

    def start(self) -> MinVISState:
        return MinVISState()

    def similarities(self, state: MinVISState, frame: FrameQueries) -> dict[str, Tensor]:
        """All there is, "query", is "mixed" as well."""
        if state.previous is None:
            return {}
        cosine = cosine_similarity(state.previous, frame_vector(frame, "query", "MinVIS"))
        return {"query": cosine, "mixed": cosine}

    def step(self, state: MinVISState, frame: FrameQueries) -> TrackedFrame:
        query = frame_vector(frame, "query", "MinVIS")
        similarities = self.similarities(state, frame)
        tracked = slots_frame(frame, assign_slots(similarities["mixed"]) if similarities else None)
        state.previous = query.index_select(0, tracked.query_index).detach()
        return tracked
