"""Sampling points in pixels and normalised weights, out of either set of inputs, and the way back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Shapes = Sequence[tuple[int, int]]


def level_sizes(shapes: Shapes, like: Tensor) -> Tensor:
    """``(L, 2)`` widths and heights on the device and in the dtype of ``like``."""
    return torch.tensor([(w, h) for h, w in shapes], dtype=like.dtype, device=like.device)


def in_pixels(
    points: Tensor, references: Tensor | None, shapes: Shapes, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """x and y, each ``(B, Q, M, L*P)``, with pixel centres at whole numbers.

    ``points`` are locations in [0, 1], or, with ``references`` ``(B, Q, L, 2)``, offsets in pixels.
    """
    sizes = level_sizes(shapes, torch.empty((), dtype=dtype, device=points.device))
    planes = points.to(dtype).unbind(-1)
    if references is None:
        x, y = (plane * size[:, None] for plane, size in zip(planes, sizes.unbind(-1), strict=True))
    else:
        bases = (references.to(dtype) * sizes)[:, :, None, :, None].unbind(-1)
        x, y = (plane + base for plane, base in zip(planes, bases, strict=True))
    return x.sub_(0.5).flatten(3), y.sub_(0.5).flatten(3)


def normalised(weights: Tensor, references: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Attention weights ``(B, Q, M, L, P)``; with ``references`` the softmax over levels and points."""
    weights = weights.to(dtype)
    return weights if references is None else weights.flatten(3).softmax(-1).view(weights.shape)


def back_to_inputs(
    grad_pixels: Tensor, grad_weights: Tensor, weights: Tensor, references: Tensor | None, shapes: Shapes
) -> tuple[Tensor, Tensor]:
    """Gradients by pixels and normalised weights -> by ``points`` and the weights as they came in."""
    if references is None:
        return grad_pixels * level_sizes(shapes, grad_pixels)[:, None], grad_weights
    mean = (weights * grad_weights).sum((3, 4), keepdim=True)
    return grad_pixels, weights * (grad_weights - mean)
