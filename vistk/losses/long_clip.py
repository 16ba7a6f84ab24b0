"""Contrast of an instance with its past: IDOL (arXiv 2207.10661) and CTVIS (arXiv 2307.12616).

An anchor ``a`` is the vector of an instance in frame ``t``. Its negatives ``k_j`` are those of all queries of
frame ``t-1`` but the instance's own, background included. Its positive ``p`` is

- IDOL: the vector of the same instance in frame ``t-1``;
- CTVIS: what a memory knows of the instance after the frames up to ``t-1``, as at inference.

With ``A`` the number of anchors of the whole batch, averaged over processes, and ``J`` that of an anchor's
negatives::

    contrast  = sum_a log(1 + sum_j exp(a . k_j - a . p))                      / A
    auxiliary = sum_a ((cos(a, p) - 1)^2 + sum_j cos(a, k_j)^2) / (1 + J)      / A

Letters as in :mod:`vistk.structures`; ``P = T - 1`` counts the neighbouring frame pairs of a clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vistk.losses.contrastive import EmbeddingLosses
from vistk.losses.segmentation import annotation_sampler
from vistk.ops.distributed import mean_over_processes
from vistk.structures import ClipTargets, Matches


def frame_pair_losses(vectors: Tensor, targets: Sequence[ClipTargets], matches: Matches) -> EmbeddingLosses:
    """Contrast between neighbouring frames (IDOL), positives and negatives by the matching.

    Args:
        vectors: ``(B, T, Q, C)``, any float dtype; the losses are computed in float32.
        targets: B clips; only ``visible`` is read.
        matches: query of every instance and frame.

    Returns:
        Two float32 scalars; zeros that keep the graph where there is no anchor.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        vectors = vectors.float()
        clip = _Instances.of(vectors, targets, matches)
        valid = clip.present[:, 1:] & clip.present[:, :-1]
        return _losses(clip, vectors, clip.vectors[:, :-1], valid)


def long_clip_losses(
    vectors: Tensor,
    targets: Sequence[ClipTargets],
    matches: Matches,
    memory_share: float = 0.5,
    noise: float = 0.0,
) -> EmbeddingLosses:
    """Contrast with a memory that is built along the clip (CTVIS).

    The memory of an instance is a mean that follows new vectors as far as they resemble the old ones::

        m <- (1 - beta) m + beta e,   beta = max(0, mean over the earlier vectors e' of cos(e', e))

    Where CTVIS draws one of two positives, this takes the mean of both losses: the expectation.

    Args:
        vectors, targets, matches: as of :func:`frame_pair_losses`; ``masks`` of the targets are read too, if
            there is noise.
        memory_share: weight of the loss whose positives are the memories; the other positive is the last
            vector of the instance before frame t.
        noise: probability that the memory of an instance that is not in a frame takes in the vector of a
            random query of that frame, as it would at inference after a wrong link.

    Returns:
        Two float32 scalars; zeros that keep the graph where there is no anchor.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        vectors = vectors.float()
        clip = _Instances.of(vectors, targets, matches)
        wrong = _wrong_queries(targets, vectors.shape[2], noise, vectors.device) if noise > 0 else None
        memory, last, known = _remember(clip, vectors, wrong)
        valid = clip.present[:, 1:] & known
        by_memory = _losses(clip, vectors, memory, valid)
        by_last = _losses(clip, vectors, last, valid)
        return EmbeddingLosses(
            *(memory_share * a + (1 - memory_share) * b for a, b in zip(by_memory, by_last, strict=True))
        )


class _Instances(NamedTuple):
    """Annotated instances of clips, padded to ``N``."""

    query: Tensor  # (B, T, N) int64, 0 where absent
    present: Tensor  # (B, T, N) bool: visible and matched
    vectors: Tensor  # (B, T, N, C)

    @classmethod
    def of(cls, vectors: Tensor, targets: Sequence[ClipTargets], matches: Matches) -> _Instances:
        query = pad_sequence(list(matches.query_index), batch_first=True, padding_value=-1).transpose(1, 2)
        visible = pad_sequence([t.visible for t in targets], batch_first=True).transpose(1, 2)
        present = visible & (query >= 0)
        query = query.clamp(min=0)
        index = query[..., None].expand(-1, -1, -1, vectors.shape[-1])
        return cls(query, present, vectors.gather(2, index))


def _remember(clip: _Instances, vectors: Tensor, wrong: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """What is known of every instance before the frames 1 to T-1.

    Args:
        wrong: ``(B, T, N)`` int64, queries that an absent instance's memory takes in, -1 for none.

    Returns:
        memories ``(B, P, N, C)``, last vectors ``(B, P, N, C)``, and whether there are any ``(B, P, N)``.
    """
    memory = last = directions = torch.zeros_like(clip.vectors[:, 0])  # (B, N, C)
    count = torch.zeros_like(memory[..., 0])  # of the vectors that were taken in
    memories, lasts, known = [], [], []
    for t in range(clip.present.shape[1] - 1):
        taken, new = clip.present[:, t], clip.vectors[:, t]
        if wrong is not None:
            mistaken = (wrong[:, t] >= 0) & ~taken & (count > 0)
            index = wrong[:, t].clamp(min=0)[..., None].expand_as(new)
            new = torch.where(mistaken[..., None], vectors[:, t].gather(1, index), new)
            taken = taken | mistaken
        direction = F.normalize(new, dim=-1)
        resemblance = (directions * direction).sum(-1) / count.clamp(min=1)
        beta = torch.where(count > 0, resemblance.clamp(min=0), 1.0) * taken
        memory = torch.lerp(memory, new, beta[..., None])
        last = torch.where(taken[..., None], new, last)
        directions = directions + direction * taken[..., None]
        count = count + taken
        memories.append(memory)
        lasts.append(last)
        known.append(count > 0)
    if not memories:  # clips of one frame
        return clip.vectors[:, 1:], clip.vectors[:, 1:], clip.present[:, 1:]
    return torch.stack(memories, 1), torch.stack(lasts, 1), torch.stack(known, 1)


def _wrong_queries(
    targets: Sequence[ClipTargets], queries: int, noise: float, device: torch.device
) -> Tensor:
    """``(B, T, N)`` int64 random queries, each with probability ``noise``, else -1; by clip, not by batch."""
    instances = [len(t.labels) for t in targets]
    frames = targets[0].visible.shape[1]
    drawn = annotation_sampler(targets, device).draw(instances, frames, device)  # (sum of N, T, 2)
    query = (drawn[..., 1] * queries).long().clamp(max=queries - 1)
    wrong = torch.where(drawn[..., 0] < noise, query, -1)
    return pad_sequence(list(wrong.split(instances)), batch_first=True, padding_value=-1).transpose(1, 2)


def _losses(clip: _Instances, vectors: Tensor, positive: Tensor, valid: Tensor) -> EmbeddingLosses:
    """The formulas at the top.

    Args:
        vectors: ``(B, T, Q, C)``.
        positive: ``(B, P, N, C)`` of the anchors in frames 1 to T-1.
        valid: ``(B, P, N)`` bool, which of the anchors count.
    """
    anchor, others = clip.vectors[:, 1:], vectors[:, :-1]  # (B, P, N, C), (B, P, Q, C)
    slots = torch.arange(vectors.shape[2], device=vectors.device)
    own = (slots == clip.query[:, :-1, :, None]) & clip.present[:, :-1, :, None]  # (B, P, N, Q)
    count = mean_over_processes(valid.sum(), vectors.device)

    # Finite, so that what does not take part has finite gradients before it is left out.
    closed = torch.finfo(torch.float32).min
    negative = (anchor @ others.transpose(-1, -2)).masked_fill(own, closed)
    close = (anchor * positive).sum(-1, keepdim=True)  # (B, P, N, 1)
    contrast = torch.cat([close, negative], dim=-1).logsumexp(-1) - close[..., 0]

    anchor, positive, others = (F.normalize(x, dim=-1) for x in (anchor, positive, others))
    error = ((anchor * positive).sum(-1) - 1) ** 2
    error = error + ((anchor @ others.transpose(-1, -2)) ** 2).masked_fill(own, 0.0).sum(-1)
    auxiliary = error / (1 + (~own).sum(-1))
    return EmbeddingLosses(*(torch.where(valid, x, 0.0).sum() / count for x in (contrast, auxiliary)))
