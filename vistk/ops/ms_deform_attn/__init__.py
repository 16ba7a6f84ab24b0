"""Multi-scale deformable attention (Zhu et al., Deformable DETR, arXiv 2010.04159, equation 3).

Letters: ``B`` images, ``S`` pixels of all levels, ``M`` heads, ``D`` channels of a head, ``Q`` queries,
``L`` levels, ``P`` points.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vistk.ops.ms_deform_attn.backends import Choice, choose_backend
from vistk.ops.ms_deform_attn.checks import check_fused, check_locations, to_shapes
from vistk.ops.ms_deform_attn.points import level_sizes, normalised
from vistk.ops.ms_deform_attn.reference import ms_deform_attn_reference
from vistk.ops.ms_deform_attn.registration import apply

__all__ = ["Choice", "choose_backend", "ms_deform_attn", "ms_deform_attn_fused"]


def ms_deform_attn(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]] | Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    backend: str | None = None,
) -> Tensor:
    """Weighted sum of values sampled bilinearly at a few points of every level.

    Arithmetic and gradient sums are float32 (float64 for float64 values on the ``reference`` and ``cpu``
    backends) whatever the storage; locations stay float32, since rounded to 16 bits they cost far more
    accuracy than values do. Under autocast ``value`` is taken to the autocast dtype.

    Args:
        value: ``(B, S, M, D)``, the levels one after the other, each in row-major order; finite.
        spatial_shapes: L pairs ``(H_l, W_l)``; a tensor is accepted and costs one device sync.
        sampling_locations: ``(B, Q, M, L, P, 2)``, x and y with [0, 1] from border to border of a
            level; points outside sample zeros.
        attention_weights: ``(B, Q, M, L, P)``, already normalised.
        backend: ``"triton"``, ``"cpu"`` or ``"reference"``; ``None`` chooses, see :func:`choose_backend`.

    Returns:
        ``(B, Q, M*D)`` in the dtype of ``value``, or of autocast.

    Raises:
        ValueError: shapes that disagree, an unknown backend, or, except for ``reference``, tensors of 2^31
            elements or more.
        RuntimeError: a backend asked for by name that cannot run here; says why.
    """
    shapes = to_shapes(spatial_shapes)
    check_locations(value, shapes, sampling_locations, attention_weights)
    value, compute = _dtypes(value)
    locations = sampling_locations.to(compute)
    name = choose_backend(value, len(shapes), backend).name
    if name == "reference":
        weights = attention_weights.to(compute)
        return ms_deform_attn_reference(value.to(compute), shapes, locations, weights).to(value.dtype)
    return apply(value, shapes, locations, attention_weights, None, name)


def ms_deform_attn_fused(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]] | Tensor,
    reference_points: Tensor,
    sampling_offsets: Tensor,
    attention_logits: Tensor,
    backend: str | None = None,
) -> Tensor:
    """:func:`ms_deform_attn` from raw linear outputs: softmax and locations are computed inside.

    The locations are ``reference + offset / (W_l, H_l)`` for points and ``centre + offset * size / (2 P)``
    for boxes; the weights are the softmax of the logits over levels and points. Offsets may be 16-bit:
    they count pixels, so rounding moves a point by a fraction of its distance to the reference.

    Args:
        value: ``(B, S, M, D)``, as in :func:`ms_deform_attn`.
        spatial_shapes: L pairs ``(H_l, W_l)``.
        reference_points: ``(Q, 2)``, ``(B or 1, Q, 2)`` or ``(B or 1, Q, L, 2)``, x and y in [0, 1]; with
            4 in place of 2, boxes as centre and size. Taken to float32.
        sampling_offsets: ``(B, Q, M*L*P*2)`` or ``(B, Q, M, L, P, 2)``.
        attention_logits: ``(B, Q, M*L*P)`` or ``(B, Q, M, L, P)``.
        backend: as in :func:`ms_deform_attn`.

    Returns:
        ``(B, Q, M*D)`` in the dtype of ``value``, or of autocast.

    Raises:
        ValueError, RuntimeError: as :func:`ms_deform_attn`.
    """
    shapes = to_shapes(spatial_shapes)
    references, offsets, logits = check_fused(
        value, shapes, reference_points, sampling_offsets, attention_logits
    )
    value, compute = _dtypes(value)
    references = references.to(compute)
    name = choose_backend(value, len(shapes), backend).name
    if name != "reference" and references.shape[-1] == 2:
        return apply(value, shapes, offsets, logits, references, name)
    offsets = offsets.to(compute)
    centre = references[:, :, None, :, None, :2]
    if references.shape[-1] == 2:
        locations = centre + offsets / level_sizes(shapes, references)[:, None]
    else:
        size = references[:, :, None, :, None, 2:]
        locations = centre + offsets * size * (0.5 / offsets.shape[4])
    weights = normalised(logits, references, compute)
    return ms_deform_attn(value, shapes, locations, weights, name)


def _dtypes(value: Tensor) -> tuple[Tensor, torch.dtype]:
    """``value`` as autocast wants it, and the dtype to compute in."""
    kind = value.device.type
    if torch.is_autocast_enabled(kind) and value.dtype == torch.float32:
        value = value.to(torch.get_autocast_dtype(kind))
    return value, torch.float64 if value.dtype == torch.float64 else torch.float32
