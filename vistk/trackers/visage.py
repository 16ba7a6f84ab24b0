"""VISAGE (arXiv 2312.04885, ECCV 2024): association by query embedding and appearance, against a memory.

Per frame: S = (1 - alpha) cos(query vectors, memory) + alpha cos(appearance vectors, memory), then one
optimal assignment of all queries. No threshold and no suppression.
Losses: :mod:`vistk.losses.contrastive`.

The released code departs from the paper in the memory: ``memory_weighting="released"`` is the code,
``"recent"`` the paper; :func:`vistk.trackers.memory.entry_weights` has the formulas.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from vistk.structures import FrameQueries, TrackedFrame
from vistk.trackers.association import assign_slots, class_scores, slots_frame
from vistk.trackers.base import Range, check_choice, check_least
from vistk.trackers.heads import HeadsConfig, HeadsTracker
from vistk.trackers.memory import WEIGHTINGS, TrackMemory


@dataclass
class VISAGEConfig(HeadsConfig):
    """The defaults are the published model, with the memory of the paper."""

    memory_frames: int = 5  # W
    memory_weighting: str = "recent"  # recent | released | uniform
    score_weighting: bool = True  # class scores in the weights of the memory


@dataclass
class VISAGEState:
    """The memory of the tracks."""

    memory: TrackMemory


class VISAGE(HeadsTracker[VISAGEState]):
    """Query and appearance heads, their losses, and association against a memory.

    Raises:
        ValueError: a field of ``config`` is outside its range or names no choice.
    """

    Config: ClassVar[type] = VISAGEConfig
    association_fields = ("appearance_weight", "memory_frames", "memory_weighting", "score_weighting")
    search_space: ClassVar[Mapping[str, Range | Sequence[Any]]] = {
        "appearance_weight": Range(0, 1),
        "memory_frames": Range(1, 10),
        "memory_weighting": WEIGHTINGS,
    }
    config: VISAGEConfig

    def __init__(
        self,
        config: VISAGEConfig,
        *,
        embed_dim: int,
        feature_channels: Mapping[str, int],
        num_classes: int,
    ) -> None:
        super().__init__(
            config, embed_dim=embed_dim, feature_channels=feature_channels, num_classes=num_classes
        )
        check_choice("VISAGE", "memory_weighting", config.memory_weighting, WEIGHTINGS)
        check_least("VISAGE", config, memory_frames=1)

    def start(self) -> VISAGEState:
        config = self.config
        return VISAGEState(TrackMemory(config.memory_frames, config.memory_weighting, config.score_weighting))

    def similarities(self, state: VISAGEState, frame: FrameQueries) -> dict[str, Tensor]:
        """Cosines of "query" and "appearance", as far as they have a weight; "mixed" by these weights."""
        return self.compare(state.memory.read(), self.vectors(frame)) if len(state.memory) else {}

    def step(self, state: VISAGEState, frame: FrameQueries) -> TrackedFrame:
        similarities = self.similarities(state, frame)
        tracked = slots_frame(frame, assign_slots(similarities["mixed"]) if similarities else None)
        ordered = {
            name: vectors.index_select(0, tracked.query_index)
            for name, vectors in self.vectors(frame).items()
        }
        state.memory.add(ordered, class_scores(tracked.logits))
        return tracked
