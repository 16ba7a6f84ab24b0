"""Embedding losses of VISAGE (arXiv 2312.04885): an instance is close to itself in the next frame.

Letters as in :mod:`vistk.structures`. ``P = T - 1`` counts the neighbouring frame pairs of a clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vistk.ops.distributed import mean_over_processes
from vistk.structures import ClipTargets, Matches


class EmbeddingLosses(NamedTuple):
    """Unweighted losses of one kind of vector."""

    contrast: Tensor  # scalar
    auxiliary: Tensor  # scalar


def embedding_losses(vectors: Tensor, targets: Sequence[ClipTargets], matches: Matches) -> EmbeddingLosses:
    """Contrast between the instances of neighbouring sampled frames.

    An instance takes part in the pair of frames ``(t, t+1)`` if it is visible and matched in both. With
    its vectors ``e_a`` in frame ``t`` and ``k_j`` those of all instances that take part in ``t+1``::

        contrast  = sum_a log(1 + sum_{j != a} exp(e_a . k_j - e_a . k_a)) / A
        auxiliary = sum_a mean_j (cos(e_a, k_j) - [j = a])^2               / A

    where ``A`` counts the (instance, frame pair) entries of the whole batch, averaged over processes. The
    first is cross-entropy with the diagonal as target. Where nothing takes part, both are zeros that keep
    the graph, so that every parameter still gets a gradient.

    Args:
        vectors: ``(B, T, Q, C)``, any float dtype; the losses are computed in float32.
        targets: B clips; only ``visible`` is read.
        matches: query of every instance and frame.

    Returns:
        Two float32 scalars.
    """
    width = vectors.shape[-1]
    query = pad_sequence(list(matches.query_index), batch_first=True, padding_value=-1)  # (B, N, T)
    visible = pad_sequence([t.visible for t in targets], batch_first=True)  # (B, N, T), False where padded
    present = (visible & (query >= 0)).transpose(1, 2)  # (B, T, N)
    both = present[:, :-1] & present[:, 1:]  # (B, P, N)

    with torch.autocast(vectors.device.type, enabled=False):
        index = query.clamp(min=0).transpose(1, 2)[..., None].expand(-1, -1, -1, width)  # (B, T, N, C)
        chosen = vectors.float().gather(2, index)
        key, ref = chosen[:, :-1], chosen[:, 1:]  # (B, P, N, C)

        count = mean_over_processes(both.sum(), vectors.device)
        # Finite, so that rows which do not take part have finite gradients before they are left out.
        closed = torch.finfo(torch.float32).min
        logits = (key @ ref.transpose(-1, -2)).masked_fill(~both[:, :, None, :], closed)  # (B, P, N, N)
        own = logits.diagonal(dim1=-2, dim2=-1)
        contrast = torch.where(both, logits.logsumexp(-1) - own, 0.0) if logits.numel() else own

        cosine = F.normalize(key, dim=-1) @ F.normalize(ref, dim=-1).transpose(-1, -2)
        error = (cosine - torch.eye(cosine.shape[-1], device=cosine.device)) ** 2
        columns = both.sum(-1, keepdim=True).clamp(min=1)  # (B, P, 1)
        auxiliary = (error * both[:, :, None, :]).sum(-1) / columns * both
        return EmbeddingLosses(contrast.sum() / count, auxiliary.sum() / count)
