"""DVIS, online (arXiv 2306.03413): a tracker that refers to the last frame's tracks and predicts masks anew.

The segmenter is frozen. Its queries ``S_t`` (Q, C) of frame t are first put in the order of the previous
frame's by one optimal assignment on their cosines, as MinVIS does: ``I_t = S_t[order]``. Then L blocks::

    x_0 = I_t
    x_l = block_l(x_{l-1}):  RCA(ID = x_{l-1}, Q = R_{t-1}, K = V = S_t) = ID + MHA(Q, K, V), self-attention,
                             feed-forward; each with a norm after it
    R_t = x_L

with ``R_{t-1}`` the tracks of the frame before, and ``R_0 = I_1``. In referring cross-attention the query is
not the residual: where the reference finds nothing in this frame, what passes is the aligned query, not the
reference. Classes and mask embeddings of all ``x_l`` (l > 0) come from one pair of heads; the masks are
``mask_embed . mask_features`` of the frame.

Ground truth is assigned once: an instance takes the track that is cheapest in the frame in which the instance
first appears, and keeps it for the rest of the clip. In frames without it, the track is "no object".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from vistk.losses.matching import (
    FrameLabels,
    FramePredictions,
    Matcher,
    first_appearances,
    pairs_of_tracks,
)
from vistk.losses.segmentation import SetLoss, SetLossConfig, annotation_sampler
from vistk.models.query_attention import AttentionBlock, QueryHeads, feedforward_width, masks_of, xavier
from vistk.structures import ClipTargets, FrameOutput, FrameQueries, Matches, TrackedFrame
from vistk.trackers.association import (
    assign_slots,
    cosine_similarity,
    frame_features,
    frame_vector,
    with_mask_features,
)
from vistk.trackers.base import Tracker, check_choice

HEADS = ("own", "residual")
ASSIGNED_BY = ("segmenter", "tracker")


@dataclass
class DVISConfig(SetLossConfig):
    """The referring tracker as published; the weights and points of its losses are Mask2Former's."""

    layers: int = 6  # blocks
    heads: int = 8  # of attention
    feedforward_dim: int | None = None  # none = 8 times the segmenter's width, which is 2048 of 256
    prediction: str = "own"  # own | residual: on the segmenter's classes and masks of the aligned query
    assigned_by: str = "segmenter"  # segmenter | tracker: whose predictions choose the tracks of instances
    every_layer: bool = True  # losses after every block, false: after the last one alone


@dataclass
class DVISState:
    """What the next frame refers to; all in the order of the tracks."""

    aligned: Tensor | None = None  # (Q, C) the segmenter's queries
    tracks: Tensor | None = None  # (Q, C) the tracker's


class Prediction(NamedTuple):
    """Of the tracks after every block, the first one first."""

    logits: list[Tensor]  # L x (.., Q, K+1)
    mask_embeds: list[Tensor]  # L x (.., Q, C)


class DVIS(Tracker[DVISState]):
    """Referring cross-attention from the tracks of the last frame; classes and masks of its own.

    Raises:
        ValueError: a field of ``config`` is outside its range or names no choice.
    """

    Config: ClassVar[type] = DVISConfig
    config: DVISConfig

    def __init__(
        self,
        config: DVISConfig,
        *,
        embed_dim: int,
        feature_channels: Mapping[str, int],
        num_classes: int,
    ) -> None:
        super().__init__(
            config, embed_dim=embed_dim, feature_channels=feature_channels, num_classes=num_classes
        )
        check_choice("DVIS", "prediction", config.prediction, HEADS)
        check_choice("DVIS", "assigned_by", config.assigned_by, ASSIGNED_BY)
        if config.layers < 1 or config.num_points < 1:
            raise ValueError(
                f"DVIS: layers is {config.layers} and num_points {config.num_points}, expected 1 or more"
            )
        width = feedforward_width("DVIS", embed_dim, config.heads, config.feedforward_dim)
        self.blocks = nn.ModuleList(
            AttentionBlock(embed_dim, config.heads, width) for _ in range(config.layers)
        )
        # Masks are products with the segmenter's mask features, which are as wide as its embeddings.
        self.predict = QueryHeads(embed_dim, num_classes, embed_dim)
        xavier(self)
        if config.prediction == "residual":
            self.predict.start_at_zero()
        self.set_loss = SetLoss(config, num_classes)
        self.matcher = Matcher(config.class_weight, config.mask_weight, config.dice_weight, config.num_points)

    def describe(self, out: FrameOutput) -> FrameQueries:
        queries = with_mask_features(super().describe(out), out, "DVIS", self.embed_dim)
        if self.config.prediction == "own":
            return queries
        return replace(queries, vectors={**queries.vectors, "mask_embed": mask_embeds_of(out)})

    def losses(
        self, queries: FrameQueries, targets: Sequence[ClipTargets], matches: Matches
    ) -> dict[str, Tensor]:
        """``track_class``, ``track_mask``, ``track_dice`` of the last block, ``.._0`` and on of the others.

        ``matches`` are not used: those are frame by frame.
        """
        order = aligned_order(queries.vectors["query"])  # (B, T, Q)
        prediction = self.track_clips(queries, order)
        truth = FrameLabels.of(targets, self.num_classes, "kept")
        sampler = annotation_sampler(targets, order.device)
        features = queries.mask_features
        assert features is not None
        # As the losses have it: the last layer first, then from the first one on.
        kept = [-1, *range(self.config.layers - 1)] if self.config.every_layer else [-1]
        flat = FramePredictions(
            tuple(prediction.logits[i].flatten(0, 1) for i in kept),
            masks_of(prediction.mask_embeds[-1], features).flatten(0, 1),
            tuple(prediction.mask_embeds[i].flatten(0, 1) for i in kept[1:]),
            tuple(features.flatten(0, 1)),
        )
        points = sampler.draw([order.shape[1]] * len(order), self.config.num_points, order.device)
        if self.config.assigned_by == "tracker":
            costs = self.matcher.costs(flat, truth, [points])[0]  # (F, Q, N)
        else:
            assert queries.mask_logits is not None
            of_frames = FramePredictions(
                (queries.logits.flatten(0, 1),), queries.mask_logits.flatten(0, 1), (), ()
            )
            costs = self.matcher.costs(of_frames, truth, [points])[0]
            index = order.flatten(0, 1)[..., None].expand(-1, -1, costs.shape[-1])
            costs = costs.gather(1, index)
        pairs = pairs_of_tracks(first_appearances(costs, truth), truth, order.device)
        losses = self.set_loss.frame_losses(flat, [pairs] * len(kept), truth, sampler)
        return {f"track_{name}": loss for name, loss in losses.items()}

    def start(self) -> DVISState:
        return DVISState()

    def similarities(self, state: DVISState, frame: FrameQueries) -> dict[str, Tensor]:
        """What aligns the segmenter's queries, "query", is "mixed" as well."""
        if state.aligned is None:
            return {}
        query = frame_vector(frame, "query", "DVIS").to(state.aligned.device)
        cosine = cosine_similarity(state.aligned, query)
        return {"query": cosine, "mixed": cosine}

    def step(self, state: DVISState, frame: FrameQueries) -> TrackedFrame:
        frame = frame.to(self.predict.class_embed.weight.device)
        query = frame_vector(frame, "query", "DVIS")
        features = frame_features(frame, "DVIS")
        similarities = self.similarities(state, frame)
        if similarities:
            order = assign_slots(similarities["mixed"])
        else:
            order = torch.arange(len(query), device=query.device)
        aligned = query.index_select(0, order)
        reference = aligned if state.tracks is None else state.tracks
        tracks = self._refer(aligned[None], reference[None], query[None])[-1][0]
        logits, mask_embeds = self._predict(tracks, frame, order)
        state.aligned, state.tracks = aligned.detach(), tracks.detach()
        ids = torch.arange(len(query), device=query.device)
        return TrackedFrame(ids, torch.full_like(ids, -1), logits, masks_of(mask_embeds, features))

    def _refer(self, aligned: Tensor, reference: Tensor, query: Tensor) -> list[Tensor]:
        """L x ``(B, Q, C)`` tracks after every block; all arguments ``(B, Q, C)``."""
        x, after = aligned, []
        nowhere = x.new_zeros(())
        for block in self.blocks:
            x = block(x, reference, query, query, nowhere)
            after.append(x)
        return after

    def track_clips(self, queries: FrameQueries, order: Tensor) -> Prediction:
        """The tracks of whole clips, leading dims ``(B, T)``; gradients pass from frame to frame."""
        query = queries.vectors["query"]
        aligned = query.gather(2, order[..., None].expand_as(query))
        reference = aligned[:, 0]
        frames = []
        for t in range(query.shape[1]):
            after = self._refer(aligned[:, t], reference, query[:, t])
            reference = after[-1]
            frames.append(after)
        layers = [
            torch.stack(of_frames, dim=1) for of_frames in zip(*frames, strict=True)
        ]  # L x (B, T, Q, C)
        predicted = [self._predict(x, queries, order) for x in layers]
        return Prediction([logits for logits, _ in predicted], [embeds for _, embeds in predicted])

    def _predict(self, tracks: Tensor, queries: FrameQueries, order: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and mask embeddings of ``(.., Q, C)`` tracks of the aligned queries ``order`` (.., Q)."""
        logits, mask_embeds = self.predict(tracks)
        if self.config.prediction == "residual":
            theirs = (queries.logits, frame_vector(queries, "mask_embed", "DVIS"))
            aligned = [x.gather(-2, order[..., None].expand_as(x)) for x in theirs]
            logits, mask_embeds = logits + aligned[0], mask_embeds + aligned[1]
        return logits, mask_embeds


@torch.no_grad()
def aligned_order(query: Tensor) -> Tensor:
    """``(B, T, Q)`` queries of every frame in the order of the first frame's; ``query`` (B, T, Q, C)."""
    unit = nn.functional.normalize(query.detach().float(), dim=-1)
    with torch.autocast(query.device.type, enabled=False):  # 16 bits would confuse queries that are alike
        similarity = (unit[:, :-1] @ unit[:, 1:].transpose(-1, -2)).cpu()  # (B, T-1, Q, Q), one transfer
    clips = []
    for clip in similarity:
        order = [torch.arange(query.shape[2])]
        for pair in clip:
            order.append(assign_slots(pair.index_select(0, order[-1])))
        clips.append(torch.stack(order))
    return torch.stack(clips).to(query.device)


def mask_embeds_of(out: FrameOutput) -> Tensor:
    """``(.., Q, C)`` embeddings whose products with the mask features are the segmenter's masks.

    Least squares over the pixels, which is exact where the masks are such products and the C features are
    independent of each other.
    """
    features, masks = (x.reshape(-1, *x.shape[-3:]) for x in (out.mask_features, out.mask_logits))
    # Frame by frame: one of 720p takes 160 MB.
    embeds = torch.stack([_solved(*frame) for frame in zip(features, masks, strict=True)])
    return embeds.reshape(out.embeds.shape).to(out.embeds.dtype)


def _solved(mask_features: Tensor, mask_logits: Tensor) -> Tensor:
    """``(Q, C)`` float64 of one frame, ``(C, h, w)`` and ``(Q, h, w)``."""
    features, masks = mask_features.double().flatten(1), mask_logits.double().flatten(1)
    gram = features @ features.mT
    # Keeps the system solvable where features are equal, or all zero.
    ridge = 1e-9 * gram.diagonal().mean() + torch.finfo(torch.float64).tiny
    gram = gram + ridge * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return torch.linalg.solve(gram, features @ masks.mT).mT
