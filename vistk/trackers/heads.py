"""Trackers that link by VISAGE's heads (arXiv 2312.04885): vectors, losses and similarity, not the memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from vistk.losses.contrastive import embedding_losses
from vistk.models.appearance import AppearanceHead
from vistk.structures import ClipTargets, FrameOutput, FrameQueries, Matches
from vistk.trackers.association import cosine_similarity, frame_vector
from vistk.trackers.base import Tracker, check_least

State = TypeVar("State")


@dataclass
class HeadsConfig:
    """Heads and losses as published."""

    appearance_weight: float = 0.75  # alpha, 0..1
    levels: list[str] = field(default_factory=lambda: ["res3", "res4", "res5"])  # empty = no appearance
    query_head: bool = True  # false: the segmenter's embeddings as they are
    hidden_dim: int | None = None  # width of the heads; none = that of the segmenter's embeddings
    contrast_weight: float = 2.0  # of the contrastive losses
    auxiliary_weight: float = 3.0  # of the losses on cosines


class HeadsTracker(Tracker[State]):
    """A query head and an appearance head; what a tracker makes of their vectors is its own.

    The state dict is that of VISAGE, so that such a tracker is a row of the table on VISAGE's weights, and
    the other way round.

    Raises:
        ValueError: a field of ``config`` is outside its range.
    """

    Config: ClassVar[type] = HeadsConfig
    config: HeadsConfig

    def __init__(
        self, config: Any, *, embed_dim: int, feature_channels: Mapping[str, int], num_classes: int
    ) -> None:
        super().__init__(
            config, embed_dim=embed_dim, feature_channels=feature_channels, num_classes=num_classes
        )
        owner = type(self).__name__
        require_share(owner, appearance_weight=config.appearance_weight)
        check_least(owner, config, hidden_dim=1, contrast_weight=0, auxiliary_weight=0)
        if config.appearance_weight > 0 and not config.levels:
            raise ValueError(
                f"{owner}: levels is empty and appearance_weight is {config.appearance_weight}; "
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

    def vectors(self, frame: FrameQueries) -> dict[str, Tensor]:
        """``{name: (Q, C)}``, those that have a weight in :meth:`similarity`."""
        return {name: frame_vector(frame, name, type(self).__name__) for name in self._weights()}

    def similarity(self, tracks: Mapping[str, Tensor], queries: Mapping[str, Tensor]) -> Tensor:
        """``(R, Q)``: (1 - alpha) cos(query vectors) + alpha cos(appearance vectors)."""
        return self.compare(tracks, queries)["mixed"]

    def compare(self, tracks: Mapping[str, Tensor], queries: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """:meth:`similarity` as "mixed", beside the cosines by the names of their vectors."""
        weights = self._weights()
        cosines = {name: cosine_similarity(tracks[name], queries[name]) for name in weights}
        mixed = torch.stack([weight * cosines[name] for name, weight in weights.items()]).sum(0)
        return {**cosines, "mixed": mixed}

    def _weights(self) -> dict[str, float]:
        alpha = self.config.appearance_weight
        weights = {"query": 1 - alpha, "appearance": alpha}
        return {name: weight for name, weight in weights.items() if weight > 0}


def require_share(owner: str, **values: float) -> None:
    """Raise a ValueError that names the first value that is not in 0..1."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{owner}: {name} is {value}, expected 0 to 1")
