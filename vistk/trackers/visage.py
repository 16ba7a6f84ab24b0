"""VISAGE (arXiv 2312.04885, ECCV 2024): association by query embedding and appearance, against a memory.

Per frame: S = (1 - alpha) cos(query vectors, memory) + alpha cos(appearance vectors, memory), then one
optimal assignment of all queries. No threshold and no suppression.
Losses: :mod:`vistk.losses.contrastive`.

The released code departs from the paper in the memory: ``memory_weighting="released"`` is the code,
``"recent"`` the paper; :func:`vistk.trackers.memory.entry_weights` has the formulas.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from vistk.losses.contrastive import embedding_losses
from vistk.models.appearance import AppearanceHead
from vistk.structures import ClipTargets, FrameOutput, FrameQueries, Matches, TrackedFrame
from vistk.trackers.association import (
    assign_slots,
    class_scores,
    cosine_similarity,
    frame_vector,
    slots_frame,
)
from vistk.trackers.base import Range, Tracker, check_choice
from vistk.trackers.memory import WEIGHTINGS, TrackMemory


@dataclass
class VISAGEConfig:
    """The defaults are the published model, with the memory of the paper."""

    appearance_weight: float = 0.75  # alpha, 0..1
    memory_frames: int = 5  # W
    memory_weighting: str = "recent"  # recent | released | uniform
    score_weighting: bool = True  # class scores in the weights of the memory
    levels: list[str] = field(default_factory=lambda: ["res3", "res4", "res5"])  # empty = no appearance
    query_head: bool = True  # false: the segmenter's embeddings as they are
    hidden_dim: int | None = None  # width of the heads; none = that of the segmenter's embeddings
    contrast_weight: float = 2.0  # of the contrastive losses
    auxiliary_weight: float = 3.0  # of the losses on cosines


@dataclass
class VISAGEState:
    """The memory of the tracks."""

    memory: TrackMemory


class VISAGE(Tracker[VISAGEState]):
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
        if not 0 <= config.appearance_weight <= 1:
            raise ValueError(f"VISAGE: appearance_weight is {config.appearance_weight}, expected 0 to 1")
        if config.memory_frames < 1:
            raise ValueError(f"VISAGE: memory_frames is {config.memory_frames}, expected 1 or more")
        if config.appearance_weight > 0 and not config.levels:
            raise ValueError(
                f"VISAGE: levels is empty and appearance_weight is {config.appearance_weight}; "
                "expected a level to take the appearance from, or appearance_weight 0"
            )
        self.appearance_decoder = AppearanceHead(
            feature_channels,
            config.levels,
            embed_dim,
            embed_dim if config.hidden_dim is None else config.hidden_dim,
            config.query_head,
        )

    def describe(self, out: FrameOutput) -> FrameQueries:
        return FrameQueries(out.logits, self.appearance_decoder(out), mask_logits=out.mask_logits)

    def losses(
        self, queries: FrameQueries, targets: Sequence[ClipTargets], matches: Matches
    ) -> dict[str, Tensor]:
        """``reid_{vector}`` (contrast) and ``aux_reid_{vector}`` of the query and appearance vectors."""
        losses = {}
        for name, vectors in queries.vectors.items():
            contrast, auxiliary = embedding_losses(vectors, targets, matches)
            losses[f"reid_{name}"] = self.config.contrast_weight * contrast
            losses[f"aux_reid_{name}"] = self.config.auxiliary_weight * auxiliary
        return losses

    def start(self) -> VISAGEState:
        config = self.config
        return VISAGEState(TrackMemory(config.memory_frames, config.memory_weighting, config.score_weighting))

    def similarities(self, state: VISAGEState, frame: FrameQueries) -> dict[str, Tensor]:
        """Cosines of "query" and "appearance", as far as they have a weight; "mixed" by these weights."""
        if len(state.memory) == 0:
            return {}
        remembered, weights = state.memory.read(), self._weights()
        cosines = {
            name: cosine_similarity(remembered[name], frame_vector(frame, name, "VISAGE")) for name in weights
        }
        mixed = torch.stack([weight * cosines[name] for name, weight in weights.items()]).sum(0)
        return {**cosines, "mixed": mixed}

    def step(self, state: VISAGEState, frame: FrameQueries) -> TrackedFrame:
        similarities = self.similarities(state, frame)
        tracked = slots_frame(frame, assign_slots(similarities["mixed"]) if similarities else None)
        order = tracked.query_index
        ordered = {
            name: frame_vector(frame, name, "VISAGE").index_select(0, order) for name in self._weights()
        }
        state.memory.add(ordered, class_scores(tracked.logits))
        return tracked

    def _weights(self) -> dict[str, float]:
        alpha = self.config.appearance_weight
        weights = {"query": 1 - alpha, "appearance": alpha}
        return {name: weight for name, weight in weights.items() if weight > 0}
