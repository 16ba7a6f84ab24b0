"""Multi-scale deformable attention (Zhu et al., Deformable DETR, arXiv 2010.04159, equation 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vistk.ops.ms_deform_attn.reference import ms_deform_attn_reference

__all__ = ["ms_deform_attn"]

BACKENDS = {"reference": ms_deform_attn_reference}


def ms_deform_attn(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]] | Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    backend: str | None = None,
) -> Tensor:
    """Weighted sum of values sampled bilinearly at a few points of every level.

    Letters: ``B`` images, ``S`` pixels of all levels, ``M`` heads, ``D`` channels of a head,
    ``Q`` queries, ``L`` levels, ``P`` points.

    Args:
        value: ``(B, S, M, D)``, the levels one after the other, each in row-major order.
        spatial_shapes: L pairs ``(H_l, W_l)``; a tensor is accepted and costs one device sync.
        sampling_locations: ``(B, Q, M, L, P, 2)``, x and y with [0, 1] from border to border of a
            level; points outside sample zeros.
        attention_weights: ``(B, Q, M, L, P)``, already normalised.
        backend: name of an implementation; ``None`` chooses.

    Returns:
        ``(B, Q, M*D)`` in the dtype of ``value``.

    Raises:
        ValueError: shapes that disagree, or an unknown backend.
    """
    if isinstance(spatial_shapes, Tensor):
        spatial_shapes = [(int(h), int(w)) for h, w in spatial_shapes.tolist()]
    shapes = tuple((int(h), int(w)) for h, w in spatial_shapes)
    b, s, m, _ = value.shape
    if sum(h * w for h, w in shapes) != s:
        raise ValueError(
            f"ms_deform_attn: levels {shapes} have {sum(h * w for h, w in shapes)} pixels, value has {s}"
        )
    expected = (b, attention_weights.shape[1], m, len(shapes), attention_weights.shape[-1])
    if tuple(attention_weights.shape) != expected or tuple(sampling_locations.shape) != (*expected, 2):
        raise ValueError(
            f"ms_deform_attn: sampling_locations {tuple(sampling_locations.shape)} and attention_weights "
            f"{tuple(attention_weights.shape)}; expected (B, Q, M, L, P, 2) and (B, Q, M, L, P) "
            f"with B={b}, M={m}, L={len(shapes)}"
        )
    name = backend or "reference"
    if name not in BACKENDS:
        raise ValueError(f"ms_deform_attn: unknown backend {name!r}; available: {', '.join(BACKENDS)}")
    if value.dtype in (torch.float16, torch.bfloat16):
        # PyTorch's 16-bit grid_sample on CPU computes gather offsets in 16 bits and reads out of bounds.
        # Locations rounded to 16 bits cost far more accuracy than values, so everything goes up.
        out = BACKENDS[name](value.float(), shapes, sampling_locations.float(), attention_weights.float())
        return out.to(value.dtype)
    return BACKENDS[name](
        value, shapes, sampling_locations.to(value.dtype), attention_weights.to(value.dtype)
    )
