"""Query propagation: the segmenter tracks (VidEoMT, arXiv 2602.17807; after GenVIS, arXiv 2211.08834).

The queries of frame t begin as ``Q_t = Q_learn + W Qhat_{t-1} + b`` with the segmenter's embeddings ``Qhat``
of the frame before (:meth:`vistk.trackers.base.Tracker.propagate`), and so a query stays with its object:
track r is query r of every frame, and association has nothing left to do.

Ground truth is assigned once: an instance takes the query that is cheapest in the frame in which it first
appears, and keeps it for the rest of the clip; in frames without it, the query is "no object". Gradients
reach W through the segmenter's decoder, over all frames of the clip, with the segmenter frozen or not.

W and b start at zero: the first step finds the segmenter as it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from vistk.losses.matching import (
    FrameLabels,
    FramePredictions,
    Matcher,
    first_appearances,
    pairs_of_tracks,
)
from vistk.losses.segmentation import SetLoss, SetLossConfig, annotation_sampler
from vistk.structures import ClipTargets, FrameQueries, Matches, TrackedFrame
from vistk.trackers.association import slots_frame
from vistk.trackers.base import Tracker


@dataclass
class PropagationConfig(SetLossConfig):
    """Weights and points of the losses are Mask2Former's."""

    truncated: bool = False  # gradients end at the frame before, whose queries are taken as given


class Propagation(Tracker[None]):
    """The segmenter's queries continue those of the frame before; track r is query r of every frame."""

    Config: ClassVar[type] = PropagationConfig
    config: PropagationConfig
    query_order_matters: ClassVar[bool] = True

    def __init__(
        self,
        config: PropagationConfig,
        *,
        embed_dim: int,
        feature_channels: Mapping[str, int],
        num_classes: int,
    ) -> None:
        super().__init__(
            config, embed_dim=embed_dim, feature_channels=feature_channels, num_classes=num_classes
        )
        self.update = nn.Linear(embed_dim, embed_dim)
        nn.init.zeros_(self.update.weight)
        nn.init.zeros_(self.update.bias)
        self.set_loss = SetLoss(config, num_classes)
        self.matcher = Matcher(config.class_weight, config.mask_weight, config.dice_weight, config.num_points)

    def propagate(self, previous: FrameQueries) -> Tensor:
        query = previous.vectors["query"]
        return self.update(query.detach() if self.config.truncated else query)

    def losses(
        self, queries: FrameQueries, targets: Sequence[ClipTargets], matches: Matches
    ) -> dict[str, Tensor]:
        """``track_class``, ``track_mask``, ``track_dice``. ``matches``, frame by frame, are not used."""
        assert queries.mask_logits is not None
        logits, mask_logits = queries.logits.flatten(0, 1), queries.mask_logits.flatten(0, 1)
        predictions = FramePredictions((logits,), mask_logits, (), ())
        truth = FrameLabels.of(targets, self.num_classes, "kept")
        sampler = annotation_sampler(targets, logits.device)
        rows = [truth.frames_per_clip] * len(targets)
        points = sampler.draw(rows, self.config.num_points, logits.device)
        costs = self.matcher.costs(predictions, truth, [points])[0]  # (F, Q, N)
        pairs = pairs_of_tracks(first_appearances(costs, truth), truth, logits.device)
        losses = self.set_loss.frame_losses(predictions, [pairs], truth, sampler)
        # Clips of one frame propagate nothing, and data-parallel training wants every parameter used.
        losses["class"] = losses["class"] + 0.0 * (self.update.weight.sum() + self.update.bias.sum())
        return {f"track_{name}": loss for name, loss in losses.items()}

    def start(self) -> None:
        return None

    def step(self, state: None, frame: FrameQueries) -> TrackedFrame:
        return slots_frame(frame)
