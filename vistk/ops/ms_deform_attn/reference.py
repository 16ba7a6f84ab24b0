"""Multi-scale deformable attention in plain PyTorch: the specification of every other backend."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def ms_deform_attn_reference(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """One ``grid_sample`` a level; shapes as in :func:`vistk.ops.ms_deform_attn.ms_deform_attn`.

    Accumulates level by level, so that no ``(B*M, D, Q, L*P)`` stack of all samples is built.
    Works in float32 and float64.
    """
    b, _, m, d = value.shape
    q, points = sampling_locations.shape[1], sampling_locations.shape[4]
    grids = (2 * sampling_locations - 1).permute(3, 0, 2, 1, 4, 5).flatten(1, 2)  # (L, B*M, Q, P, 2)
    weights = attention_weights.permute(3, 0, 2, 1, 4).reshape(len(spatial_shapes), b * m, 1, q, points)
    out = value.new_zeros(b * m, d, q)
    levels = value.split([h * w for h, w in spatial_shapes], dim=1)
    for level, (h, w), grid, weight in zip(levels, spatial_shapes, grids, weights, strict=True):
        pixels = level.permute(0, 2, 3, 1).reshape(b * m, d, h, w)
        sampled = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        out = out + (sampled * weight).sum(-1)  # (B*M, D, Q)
    return out.view(b, m * d, q).transpose(1, 2).contiguous()
