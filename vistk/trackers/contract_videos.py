"""Small made-up videos on which :mod:`vistk.trackers.contract` tries a tracker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from vistk.ops.masks import encode
from vistk.structures import ClipTargets, FrameOutput, FrameQueries, FrameTargets, Matches

QUERIES = 7
CLASSES = 3
INSTANCES = 3  # annotated objects: the first of the QUERIES
EMBED_DIM = 32
FEATURE_CHANNELS = {"res2": 12, "res3": 20, "res4": 28, "res5": 36}
MASK_SIZE = (16, 24)  # stride 4
NO_OBJECT = 20.0  # logit


@dataclass(frozen=True)
class ContractVideos:
    """Segmented clips with ground truth. Every query is an object with its own look, class and place."""

    out: FrameOutput  # leading dims (B, T)
    objects: Tensor  # (B, T, Q) int64, which object a query is
    targets: tuple[ClipTargets, ...]  # B
    matches: Matches
    frame_targets: tuple[tuple[FrameTargets, ...], ...]  # B x T

    def with_order(self, order: Tensor) -> ContractVideos:
        """The same clips with the queries of every frame in another order, ``(B, T, Q)`` int64."""
        inverse = order.argsort(-1)  # query i moves to inverse[i]
        moved = tuple(
            torch.where(query >= 0, position.gather(1, query.clamp(min=0).T).T, -1)
            for query, position in zip(self.matches.query_index, inverse, strict=True)
        )
        out = replace(
            self.out,
            logits=_reorder(self.out.logits, order),
            mask_logits=_reorder(self.out.mask_logits, order),
            embeds=_reorder(self.out.embeds, order),
        )
        return replace(self, out=out, objects=self.objects.gather(2, order), matches=Matches(moved))

    def with_targets(self, queries: FrameQueries) -> list[list[FrameQueries]]:
        """Single frames, B x T, each with its ground truth, of queries with leading dims ``(B, T)``."""
        return [
            [replace(queries[b, t], targets=targets) for t, targets in enumerate(clip)]
            for b, clip in enumerate(self.frame_targets)
        ]


def make_videos(seed: int, clips: int = 1, frames: int = 6) -> ContractVideos:
    """Clips whose objects keep their look, with a little noise, while the order of queries is random.

    The second instance is invisible in the third frame of each clip.
    """
    rng = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng)

    shape = (clips, frames, QUERIES)
    looks = noise(clips, 1, QUERIES, EMBED_DIM) + 0.1 * noise(*shape, EMBED_DIM)
    logits = 2 * noise(clips, 1, QUERIES, CLASSES + 1) + 0.1 * noise(*shape, CLASSES + 1)
    coarse = noise(clips, 1, QUERIES, 4, 6) + 0.05 * noise(*shape, 4, 6)
    mask_logits = 4 * _resize(coarse, MASK_SIZE)
    out = FrameOutput(
        logits=logits,
        mask_logits=mask_logits,
        embeds=looks,
        mask_features=noise(clips, frames, EMBED_DIM, *MASK_SIZE),
        features=_features(noise, mask_logits),
    )

    visible = torch.ones(INSTANCES, frames, dtype=torch.bool)
    visible[1, 2:3] = False
    masks = mask_logits[:, :, :INSTANCES].transpose(1, 2) > 0  # (B, N, T, h, w)
    full = masks.repeat_interleave(4, -1).repeat_interleave(4, -2) & visible[:, :, None, None]
    labels = torch.arange(INSTANCES) % CLASSES
    in_order = ContractVideos(
        out=out,
        objects=torch.arange(QUERIES).expand(shape),
        targets=tuple(ClipTargets(labels, visible, clip) for clip in full),
        matches=Matches(tuple(_own_queries(visible) for _ in range(clips))),
        frame_targets=tuple(
            tuple(_frame_targets(labels, visible[:, t], clip[:, t]) for t in range(frames)) for clip in masks
        ),
    )
    return in_order.with_order(random_order(seed + 1, shape))


def random_order(seed: int, shape: tuple[int, ...]) -> Tensor:
    """Permutations of the last dim of ``shape``, int64."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)).argsort(-1)


def without_objects(videos: ContractVideos, frames: slice = slice(None)) -> ContractVideos:
    """The same clips where the given frames hold nothing: all queries "no object", zero and without mask."""
    logits, mask_logits = videos.out.logits.clone(), videos.out.mask_logits.clone()
    embeds = videos.out.embeds.clone()
    logits[:, frames] = 0.0
    logits[:, frames, :, -1] = NO_OBJECT
    mask_logits[:, frames] = -NO_OBJECT
    embeds[:, frames] = 0.0
    nothing = FrameTargets(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), ())
    empty = set(range(*frames.indices(logits.shape[1])))
    return replace(
        videos,
        out=replace(videos.out, logits=logits, mask_logits=mask_logits, embeds=embeds),
        frame_targets=tuple(
            tuple(nothing if t in empty else targets for t, targets in enumerate(clip))
            for clip in videos.frame_targets
        ),
    )


def without_instances(videos: ContractVideos) -> ContractVideos:
    """The same clips without annotated instances."""
    return replace(
        videos,
        targets=tuple(ClipTargets(t.labels[:0], t.visible[:0], t.masks[:0]) for t in videos.targets),
        matches=Matches(tuple(query[:0] for query in videos.matches.query_index)),
        frame_targets=tuple(
            tuple(FrameTargets(f.instance_ids[:0], f.labels[:0], ()) for f in clip)
            for clip in videos.frame_targets
        ),
    )


def without_matches(videos: ContractVideos) -> ContractVideos:
    """The same clips with instances of which no query is matched to any."""
    unmatched = tuple(torch.full_like(query, -1) for query in videos.matches.query_index)
    return replace(videos, matches=Matches(unmatched))


def _reorder(x: Tensor, order: Tensor) -> Tensor:
    """``(B, T, Q, ..)`` with the queries of every frame in the given order."""
    index = order.reshape(*order.shape, *[1] * (x.ndim - 3)).expand(*order.shape, *x.shape[3:])
    return x.gather(2, index)


def _resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    lead = x.shape[:-2]
    return F.interpolate(x.reshape(-1, 1, *x.shape[-2:]), size=size, mode="bilinear").reshape(*lead, *size)


def _features(noise: Callable[..., Tensor], mask_logits: Tensor) -> dict[str, Tensor]:
    """Backbone maps in which every object paints its own vector where its mask is."""
    features = {}
    for i, (level, channels) in enumerate(FEATURE_CHANNELS.items()):
        size = (MASK_SIZE[0] >> i, MASK_SIZE[1] >> i)
        inside = (_resize(mask_logits, size) > 0).float()  # (B, T, Q, H_l, W_l)
        paint = noise(mask_logits.shape[0], QUERIES, channels)
        grain = noise(*mask_logits.shape[:2], channels, *size)
        features[level] = torch.einsum("btqhw,bqc->btchw", inside, paint) + 0.1 * grain
    return features


def _own_queries(visible: Tensor) -> Tensor:
    """``(N, T)``: before shuffling, instance n is query n wherever it is visible."""
    return torch.where(visible, torch.arange(len(visible))[:, None], -1)


def _frame_targets(labels: Tensor, visible: Tensor, masks: Tensor) -> FrameTargets:
    ids = 11 + 10 * visible.nonzero()[:, 0]  # not positions in any list
    return FrameTargets(ids, labels[visible], tuple(encode(masks[visible])))
