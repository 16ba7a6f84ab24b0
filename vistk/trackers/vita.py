"""VITA (arXiv 2206.04403): offline, the queries of all frames are tokens, and video queries read them.

With the frame queries ``S_t`` (Q, C) of T frames as tokens ``Z``::

    encoder   each layer: self-attention among the tokens of W frames, the windows of every second layer
              moved by W // 2 frames; feed-forward
    decoder   V learned video queries, each layer: cross-attention to all T * Q tokens, self-attention,
              feed-forward
    heads     classes and a mask embedding of each video query;
              mask of video query v in frame t = mask_embed_v . mask_features_t

Training matches video queries to the instances of the clip, one to one, by class, mask and dice costs of
whole tubes, after every decoder layer. The similarity loss asks that of the matched video queries v and
matched frame queries f those of one instance agree: BCE(a(v) . b(f), same instance), a and b linear, learned.

While the video runs, :meth:`VITA.step` answers with the association of neighbouring frames (as MinVIS);
:meth:`VITA.finish` says the whole video anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vistk.losses.matching import FrameLabels, Matcher, match_clips
from vistk.losses.segmentation import SetLoss, SetLossConfig, annotation_sampler
from vistk.models.layers import Linear
from vistk.models.query_attention import (
    AttentionBlock,
    QueryHeads,
    WindowBlock,
    feedforward_width,
    masks_of,
    xavier,
)
from vistk.ops.assignment import best_assignment
from vistk.ops.distributed import mean_over_processes
from vistk.ops.points import PointSampler, full_precision, sample_points
from vistk.structures import ClipTargets, FrameOutput, FrameQueries, Matches, TrackedFrame
from vistk.trackers.association import (
    assign_slots,
    class_scores,
    cosine_similarity,
    frame_features,
    frame_vector,
    slots_frame,
    with_mask_features,
)
from vistk.trackers.base import Tracker, check_choice, check_least

MASKS = ("features", "queries")


@dataclass
class VITAConfig(SetLossConfig):
    """VITA as published; the weights and points of its losses are Mask2Former's."""

    queries: int = 100  # V, video queries
    encoder_layers: int = 6
    window: int = 6  # W, frames that see each other in the encoder; 0 = all
    decoder_layers: int = 3
    heads: int = 8  # of attention
    hidden_dim: int | None = None  # width of encoder and decoder; none = that of the segmenter (256)
    feedforward_dim: int | None = None  # none = 8 times the width, which is 2048 of 256
    similarity_weight: float = 0.5  # of the similarity loss
    every_layer: bool = True  # losses after every decoder layer, false: after the last one alone
    masks: str = "features"  # features: made anew | queries: those of the most similar frame queries
    half_features: bool = False  # keep the mask features of the video in bfloat16
    max_tracks: int | None = None  # video queries reported, by class score; none = all


@dataclass
class VITAState:
    """What is kept of the video until its end."""

    queries: list[Tensor] = field(default_factory=list)  # T x (Q, C)
    features: list[Tensor] = field(default_factory=list)  # T x (C, h, w), where masks are made of them
    aligned: Tensor | None = None  # (Q, C) of the last frame, in the order of the online tracks


class Video(NamedTuple):
    """Predictions of B clips after every decoder layer, the last one first."""

    logits: list[Tensor]  # L x (B, V, K+1)
    mask_embeds: list[Tensor]  # L x (B, V, D)
    similarity: Tensor  # (B, V, T*Q) logits of the last layer's video queries and the frame queries


class VITA(Tracker[VITAState]):
    """Object tokens of all frames, and video queries that attend to them; offline.

    Raises:
        ValueError: a field of ``config`` is outside its range or names no choice.
    """

    Config: ClassVar[type] = VITAConfig
    config: VITAConfig
    association_fields = ("masks", "half_features", "max_tracks")

    def __init__(
        self,
        config: VITAConfig,
        *,
        embed_dim: int,
        feature_channels: Mapping[str, int],
        num_classes: int,
    ) -> None:
        super().__init__(
            config, embed_dim=embed_dim, feature_channels=feature_channels, num_classes=num_classes
        )
        check_choice("VITA", "masks", config.masks, MASKS)
        check_least("VITA", config, queries=1, encoder_layers=0, window=0, decoder_layers=1, hidden_dim=1)
        check_least("VITA", config, num_points=1, max_tracks=1, similarity_weight=0)
        dim = embed_dim if config.hidden_dim is None else config.hidden_dim
        width = feedforward_width("VITA", dim, config.heads, config.feedforward_dim)
        self.project = Linear(embed_dim, dim)
        self.encoder = nn.ModuleList(
            WindowBlock(dim, config.heads, width) for _ in range(config.encoder_layers)
        )
        self.decoder = nn.ModuleList(
            AttentionBlock(dim, config.heads, width) for _ in range(config.decoder_layers)
        )
        # Masks are products with the segmenter's mask features, which are as wide as its embeddings.
        self.predict = QueryHeads(dim, num_classes, embed_dim)
        self.similar_video = Linear(dim, dim)
        self.similar_frame = Linear(embed_dim, dim)
        xavier(self)
        self.query_feat = nn.Embedding(config.queries, dim)
        self.query_embed = nn.Embedding(config.queries, dim)
        self.set_loss = SetLoss(config, num_classes)
        self.matcher = Matcher(config.class_weight, config.mask_weight, config.dice_weight, config.num_points)

    def describe(self, out: FrameOutput) -> FrameQueries:
        return with_mask_features(super().describe(out), out, "VITA", self.embed_dim)

    def losses(
        self, queries: FrameQueries, targets: Sequence[ClipTargets], matches: Matches
    ) -> dict[str, Tensor]:
        """``video_class``, ``video_mask``, ``video_dice`` of the last layer, ``.._0`` and on of the others.

        And ``video_similarity``, for which ``matches`` say whose a frame query is.
        """
        assert queries.mask_features is not None
        features = queries.mask_features  # (B, T, C, h, w)
        video = self._video(queries.vectors["query"])
        truth = FrameLabels.of(targets, self.num_classes, "kept")
        sampler = annotation_sampler(targets, features.device)
        kept = len(video.logits) if self.config.every_layer else 1
        chosen = self._match(video, kept, features, truth, sampler)
        shape = (len(targets), truth.frames_per_clip)
        tubes = truth.masks.unflatten(0, shape).transpose(1, 2)  # (B, N, T, H, W)
        losses = {}
        for i, (logits, embeds, tracks) in enumerate(
            zip(video.logits[:kept], video.mask_embeds[:kept], chosen, strict=True)
        ):
            pairs = [(track >= 0).nonzero()[:, 0] for track in tracks]  # B x (n_b,) instances
            per_clip = [len(instance) for instance in pairs]
            count = mean_over_processes(sum(per_clip), features.device, at_least=1.0)
            clip = torch.repeat_interleave(torch.arange(len(pairs)), torch.tensor(per_clip))
            instance = torch.cat(pairs)
            query = torch.cat([track[n] for track, n in zip(tracks, pairs, strict=True)])
            clip, instance, query = (x.to(features.device) for x in (clip, instance, query))
            made = [
                masks_of(e[None], f)  # (T, n_b, h, w)
                for e, f in zip(embeds[clip, query].split(per_clip), features, strict=True)
            ]
            suffix = "" if i == 0 else f"_{i - 1}"
            labels = truth.labels.unflatten(0, shape)[clip, 0, instance]
            losses[f"video_class{suffix}"] = self.set_loss.class_loss(logits, clip, query, labels)
            losses[f"video_mask{suffix}"], losses[f"video_dice{suffix}"] = self.set_loss.mask_losses(
                torch.cat(made, dim=1).transpose(0, 1), tubes[clip, instance], per_clip, count, sampler
            )
        similarity = similarity_loss(video.similarity, chosen[0], matches.query_index, queries.num_queries)
        losses["video_similarity"] = self.config.similarity_weight * similarity
        return losses

    def start(self) -> VITAState:
        return VITAState()

    def similarities(self, state: VITAState, frame: FrameQueries) -> dict[str, Tensor]:
        """All that :meth:`step` goes by, "query", is "mixed" as well; :meth:`finish` goes by others."""
        if state.aligned is None:
            return {}
        cosine = cosine_similarity(state.aligned, frame_vector(frame, "query", "VITA"))
        return {"query": cosine, "mixed": cosine}

    def step(self, state: VITAState, frame: FrameQueries) -> TrackedFrame:
        query = frame_vector(frame, "query", "VITA")
        if self.config.masks == "features":
            features = frame_features(frame, "VITA").detach()
            state.features.append(features.bfloat16() if self.config.half_features else features)
        state.queries.append(query.detach())
        similarities = self.similarities(state, frame)
        tracked = slots_frame(frame, assign_slots(similarities["mixed"]) if similarities else None)
        state.aligned = query.index_select(0, tracked.query_index).detach()
        return tracked

    def finish(self, state: VITAState) -> list[TrackedFrame]:
        """Every frame anew: track v is video query v, with the same class logits in all frames."""
        if not state.queries:
            return []
        device = self.query_feat.weight.device
        video = self._video(torch.stack([query.to(device) for query in state.queries])[None])
        logits = video.logits[0][0]  # (V, K+1)
        scores = class_scores(logits)
        ids = scores.topk(min(self.config.max_tracks or len(scores), len(scores))).indices.sort().values
        logits = logits[ids]
        if self.config.masks == "queries":
            per_frame = video.similarity[0].unflatten(1, (len(state.queries), -1))[ids]  # (M, T, Q)
            return [_chosen(similarity, scores[ids], ids, logits) for similarity in per_frame.unbind(1)]
        mask_embeds = video.mask_embeds[0][0, ids]
        return [
            TrackedFrame(
                ids,
                torch.full_like(ids, -1),
                logits,
                masks_of(mask_embeds, features.to(device)).to(features.device),
            )
            for features in state.features
        ]

    def _video(self, query: Tensor) -> Video:
        """Predictions from the frame queries ``(B, T, Q, C)``."""
        tokens = self.project(query)
        window = self.config.window or query.shape[1]
        shift = self.config.window // 2  # one window of all frames has nowhere to go
        for i, layer in enumerate(self.encoder):
            tokens = layer(tokens, window, shift if i % 2 else 0)
        tokens = tokens.flatten(1, 2)  # (B, T*Q, C)
        position = self.query_embed.weight
        x = self.query_feat.weight.expand(len(tokens), -1, -1)
        after = []
        for block in self.decoder:
            x = block(x, x + position, tokens, tokens, position)
            after.append(x)
        predicted = [self.predict(x) for x in (after[-1], *after[:-1])]
        similarity = self.similar_video(after[-1]) @ self.similar_frame(query.flatten(1, 2)).mT
        return Video([logits for logits, _ in predicted], [embeds for _, embeds in predicted], similarity)

    @torch.no_grad()
    def _match(
        self, video: Video, layers: int, features: Tensor, truth: FrameLabels, sampler: PointSampler
    ) -> list[list[Tensor]]:
        """For each layer and clip ``(N,)`` video queries of the instances, -1 where one never appears.

        The points of a frame are the same for all queries, instances and layers.
        """
        b, t = features.shape[:2]
        points = sampler.draw([t] * b, self.config.num_points, features.device)  # (F, P, 2)

        def at_points(maps: Tensor) -> Tensor:
            """``(F, X, h, w)`` -> ``(B, X, T*P)``."""
            return sample_points(maps, points).unflatten(0, (b, t)).transpose(1, 2).flatten(2)

        present = truth.taking_part.unflatten(0, (b, t)).any(1)
        labels = truth.labels.unflatten(0, (b, t))[:, 0]
        with torch.autocast(features.device.type, enabled=False):
            target = at_points(truth.masks)
            channels = at_points(features.flatten(0, 1))
            chosen = []
            for logits, embeds in zip(video.logits[:layers], video.mask_embeds[:layers], strict=True):
                masks = full_precision(embeds) @ channels  # (B, V, T*P)
                costs = [
                    self.matcher.pair_cost(*clip) for clip in zip(logits, masks, labels, target, strict=True)
                ]
                chosen.append(match_clips(torch.stack(costs), present, truth.instances))
        return chosen


def similarity_loss(
    similarity: Tensor, tracks: Sequence[Tensor], query_index: Sequence[Tensor], num_queries: int
) -> Tensor:
    """Binary cross-entropy of matched video and frame queries: do they belong to one instance?

    Mean over all pairs of the batch; where there are none, a zero that keeps the graph.

    Args:
        similarity: ``(B, V, T*Q)`` logits.
        tracks: for each clip ``(N,)`` int64, the video query of every instance or -1.
        query_index: for each clip ``(N, T)`` int64, its frame queries or -1.
        num_queries: Q.
    """
    similarity = full_precision(similarity)
    of_video = torch.full(similarity.shape[:2], -1)  # the instance of a query; -1 = none
    of_frame = torch.full((similarity.shape[0], similarity.shape[2]), -1)
    for b, (track, query) in enumerate(zip(tracks, query_index, strict=True)):
        n = (track >= 0).nonzero()[:, 0]
        of_video[b, track[n]] = n
        query = query.cpu()
        n, t = (query >= 0).nonzero(as_tuple=True)
        of_frame[b, t * num_queries + query[n, t]] = n
    both = ((of_video >= 0)[:, :, None] & (of_frame >= 0)[:, None]).to(similarity.device)
    same = (of_video[:, :, None] == of_frame[:, None]).to(similarity)
    loss = F.binary_cross_entropy_with_logits(similarity, same, reduction="none")
    return (loss * both).sum() / mean_over_processes(both.sum(), similarity.device, at_least=1.0)


def _chosen(similarity: Tensor, scores: Tensor, ids: Tensor, logits: Tensor) -> TrackedFrame:
    """A frame whose tracks take its own queries, one each, where they are rather similar than not.

    Args:
        similarity: ``(M, Q)`` logits.
        scores, ids, logits: of the M video queries; those with a high class score choose first.
    """
    track, query = best_assignment(similarity.sigmoid() * scores[:, None])
    alike = similarity[track, query] > 0
    track, query = track[alike], query[alike]
    return TrackedFrame(ids[track], query, logits[track])
