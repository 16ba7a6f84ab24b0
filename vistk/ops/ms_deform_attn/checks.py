"""What the deformable op refuses, each with one sentence, and the shapes it accepts brought to one form."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

Shapes = tuple[tuple[int, int], ...]


def to_shapes(spatial_shapes: Sequence[tuple[int, int]] | Tensor) -> Shapes:
    """L pairs (height, width) of plain numbers, or of symbols while a graph is traced."""
    if isinstance(spatial_shapes, Tensor):
        return tuple((int(h), int(w)) for h, w in spatial_shapes.tolist())
    return tuple((h, w) for h, w in spatial_shapes)


def _check_pixels(value: Tensor, shapes: Shapes) -> None:
    if value.dim() != 4:
        raise ValueError(f"ms_deform_attn: value {tuple(value.shape)}; expected (B, S, M, D)")
    pixels = sum(h * w for h, w in shapes)
    if pixels != value.shape[1]:
        raise ValueError(f"ms_deform_attn: levels {shapes} have {pixels} pixels, value has {value.shape[1]}")
    if not value.is_floating_point():
        raise ValueError(f"ms_deform_attn: value is {value.dtype}; expected a floating point dtype")


def _check_devices(value: Tensor, **others: Tensor) -> None:
    for name, tensor in others.items():
        if tensor.device != value.device:
            raise ValueError(f"ms_deform_attn: {name} is on {tensor.device}, value on {value.device}")


def check_locations(value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> None:
    """Raises ValueError where the arguments of ``ms_deform_attn`` disagree."""
    _check_pixels(value, shapes)
    b, _, m, _ = value.shape
    expected = (b, weights.shape[1] if weights.dim() == 5 else -1, m, len(shapes), weights.shape[-1])
    if tuple(weights.shape) != expected or tuple(locations.shape) != (*expected, 2):
        raise ValueError(
            f"ms_deform_attn: sampling_locations {tuple(locations.shape)} and attention_weights "
            f"{tuple(weights.shape)}; expected (B, Q, M, L, P, 2) and (B, Q, M, L, P) "
            f"with B={b}, M={m}, L={len(shapes)}"
        )
    _check_devices(value, sampling_locations=locations, attention_weights=weights)


def check_fused(
    value: Tensor, shapes: Shapes, references: Tensor, offsets: Tensor, logits: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """References ``(B, Q, L, 2 or 4)``, offsets ``(B, Q, M, L, P, 2)``, logits ``(B, Q, M, L, P)``."""
    _check_pixels(value, shapes)
    b, _, m, _ = value.shape
    levels = len(shapes)
    if logits.dim() == 3 and logits.shape[2] % (m * levels) == 0:
        logits = logits.unflatten(2, (m, levels, logits.shape[2] // (m * levels)))
    if offsets.dim() == 3 and logits.dim() == 5 and offsets.shape[2] == 2 * m * levels * logits.shape[4]:
        offsets = offsets.unflatten(2, (*logits.shape[2:], 2))
    expected = (b, logits.shape[1], m, levels, logits.shape[-1])
    if tuple(logits.shape) != expected or tuple(offsets.shape) != (*expected, 2):
        raise ValueError(
            f"ms_deform_attn_fused: sampling_offsets {tuple(offsets.shape)} and attention_logits "
            f"{tuple(logits.shape)}; expected (B, Q, M, L, P, 2) and (B, Q, M, L, P), or both with all after "
            f"Q in one dimension, with B={b}, M={m}, L={levels}"
        )
    given = tuple(references.shape)
    if references.dim() == 2:
        references = references[None]
    if references.dim() == 3:
        references = references[:, :, None]
    fits = references.dim() == 4 and all(
        size in (1, wanted) for size, wanted in zip(references.shape[::2], (b, levels), strict=True)
    )
    if not fits or references.shape[1] != expected[1] or references.shape[3] not in (2, 4):
        raise ValueError(
            f"ms_deform_attn_fused: reference_points {given}; expected (Q, 2), (B, Q, 2) or (B, Q, L, 2), "
            f"or 4 in place of 2, with B={b} or 1, Q={expected[1]}, L={levels}"
        )
    _check_devices(value, reference_points=references, sampling_offsets=offsets, attention_logits=logits)
    return references.expand(b, -1, levels, -1), offsets, logits


def check_count(what: str, count: int) -> None:
    """Raises ValueError for more of something than 32-bit numbers can index."""
    if count >= 2**31:
        raise ValueError(f"ms_deform_attn: {count} {what}; expected fewer than 2^31, split the batch")


def check_extent(**tensors: Tensor) -> None:
    """Raises ValueError for tensors whose elements 32-bit offsets cannot count."""
    for name, tensor in tensors.items():
        span = 1 + sum(
            (size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
        )
        if max(tensor.numel(), span) >= 2**31:
            raise ValueError(
                f"ms_deform_attn: {name} {tuple(tensor.shape)} spans {max(tensor.numel(), span)} elements; "
                "expected fewer than 2^31, split the batch"
            )
