"""MinVIS with a memory that fades: a track remembers its queries, older ones ever less."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from vistk.structures import FrameQueries, TrackedFrame
from vistk.trackers.association import assign_slots, cosine_similarity, frame_vector, slots_frame
from vistk.trackers.base import Tracker


@dataclass
class MyTrackerConfig:
    decay: float = 0.5  # share of the memory that is kept each frame; 0 = MinVIS

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay is {self.decay}, expected 0 or more and less than 1")


@dataclass
class MyTrackerState:
    memory: Tensor | None = None  # (Q, C), in the order of the tracks


class MyTracker(Tracker[MyTrackerState]):
    """Hungarian assignment on the cosine with a fading mean of each track's query embeddings."""

    Config: ClassVar[type] = MyTrackerConfig

    def start(self) -> MyTrackerState:
        return MyTrackerState()

    def step(self, state: MyTrackerState, frame: FrameQueries) -> TrackedFrame:
        query = frame_vector(frame, "query", "MyTracker")  # (Q, C)
        if state.memory is None:
            tracked = slots_frame(frame)
            state.memory = query
        else:
            tracked = slots_frame(frame, assign_slots(cosine_similarity(state.memory, query)))
            state.memory = self.config.decay * state.memory + query[tracked.query_index]
        return tracked
