"""CAVIS (arXiv 2407.03010): queries are told apart by what surrounds them. Association alone.

The context of a query is the mean, over the edge of its mask, of the mean-filtered mask
features (:mod:`vistk.models.context`); its context-aware vector is ``MLP([embedding, context])``. Here the
queries of a frame take the tracks that maximise the summed cosine with the context-aware vectors of the
previous frame, by one optimal assignment of all queries.

Losses: contrast of the context-aware vectors between neighbouring frames, and the prototypical
cross-frame contrast (PCC), the same of the prototypes, the means of the mask features inside the masks.

Departures: the paper aligns frames like this and then refines the tracks by a transformer of six blocks with
context-aware cross-attention, which predicts masks anew; that part is not in this tracker. Its contrast is
that of VISAGE, between matched instances (:mod:`vistk.losses.contrastive`). PCC moves nothing but the mask
features, and is left out where the segmenter is frozen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vistk.losses.contrastive import embedding_losses
from vistk.models.context import context_features, prototypes
from vistk.models.layers import MLP
from vistk.structures import ClipTargets, FrameOutput, FrameQueries, Matches, TrackedFrame
from vistk.trackers.association import assign_slots, cosine_similarity, frame_vector, slots_frame
from vistk.trackers.base import Tracker, check_choice, check_least

MASK_FEATURES = "mask_features"


@dataclass
class CAVISConfig:
    """The window is the paper's, the weights of the losses are VISAGE's."""

    context: bool = True  # false: the MLP sees the embedding alone
    filter_size: int = 9  # side of the mean filter's window, odd, pixels of the map
    features: str = MASK_FEATURES  # mask_features, or a map: res2 .. res5, pixel3 .. pixel5
    hidden_dim: int | None = None  # width of the head; none = that of the segmenter's embeddings
    head_layers: int = 3
    contrast_weight: float = 2.0  # of the contrast of context-aware vectors
    auxiliary_weight: float = 3.0  # of the loss on their cosines
    prototype_weight: float = 2.0  # of PCC


@dataclass
class CAVISState:
    """Context-aware vectors of the previous frame in the order of the tracks."""

    previous: Tensor | None = None  # (Q, C)


class CAVIS(Tracker[CAVISState]):
    """Hungarian assignment on the cosine of context-aware query vectors of neighbouring frames.

    Raises:
        ValueError: a field of ``config`` is outside its range or names no choice.
    """

    Config: ClassVar[type] = CAVISConfig
    config: CAVISConfig

    def __init__(
        self,
        config: CAVISConfig,
        *,
        embed_dim: int,
        feature_channels: Mapping[str, int],
        num_classes: int,
    ) -> None:
        super().__init__(
            config, embed_dim=embed_dim, feature_channels=feature_channels, num_classes=num_classes
        )
        channels = {MASK_FEATURES: embed_dim, **feature_channels}  # masks are products of both
        check_choice("CAVIS", "features", config.features, channels)
        if config.filter_size < 1 or config.filter_size % 2 == 0:
            raise ValueError(f"CAVIS: filter_size is {config.filter_size}, expected an odd number")
        check_least("CAVIS", config, hidden_dim=1, head_layers=1)
        check_least("CAVIS", config, contrast_weight=0, auxiliary_weight=0, prototype_weight=0)
        width = embed_dim if config.hidden_dim is None else config.hidden_dim
        context_dim = channels[config.features] if config.context else 0
        self.context_embed = MLP(embed_dim + context_dim, width, width, config.head_layers)

    def describe(self, out: FrameOutput) -> FrameQueries:
        """Vectors "query", context-aware; "prototype" as well, where the segmenter is in training."""
        config = self.config
        parts = [out.embeds]
        if config.context:
            features = (
                out.mask_features if config.features == MASK_FEATURES else out.features[config.features]
            )
            parts.append(context_features(features, out.mask_logits, config.filter_size))
        vectors = {"query": self.context_embed(torch.cat(parts, dim=-1))}
        if self.training and out.mask_features.requires_grad:
            vectors["prototype"] = prototypes(out.mask_features, out.mask_logits)
        return FrameQueries(out.logits, vectors, mask_logits=out.mask_logits)

    def losses(
        self, queries: FrameQueries, targets: Sequence[ClipTargets], matches: Matches
    ) -> dict[str, Tensor]:
        """``reid`` (contrast), ``aux_reid``, and ``pcc`` where the segmenter is trained, too."""
        contrast, auxiliary = embedding_losses(queries.vectors["query"], targets, matches)
        losses = {
            "reid": self.config.contrast_weight * contrast,
            "aux_reid": self.config.auxiliary_weight * auxiliary,
        }
        if "prototype" in queries.vectors:
            prototypical = embedding_losses(queries.vectors["prototype"], targets, matches).contrast
            losses["pcc"] = self.config.prototype_weight * prototypical
        return losses

    def start(self) -> CAVISState:
        return CAVISState()

    def similarities(self, state: CAVISState, frame: FrameQueries) -> dict[str, Tensor]:
        """All there is, "query" of the context-aware vectors, is "mixed" as well."""
        if state.previous is None:
            return {}
        cosine = cosine_similarity(state.previous, frame_vector(frame, "query", "CAVIS"))
        return {"query": cosine, "mixed": cosine}

    def step(self, state: CAVISState, frame: FrameQueries) -> TrackedFrame:
        query = frame_vector(frame, "query", "CAVIS")
        similarities = self.similarities(state, frame)
        tracked = slots_frame(frame, assign_slots(similarities["mixed"]) if similarities else None)
        state.previous = query.index_select(0, tracked.query_index).detach()
        return tracked
