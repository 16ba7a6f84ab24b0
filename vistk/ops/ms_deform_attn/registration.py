"""The op as PyTorch sees it: schema, fake kernels, autograd; what ``torch.compile`` and ``export`` go by.

One pair of ops serves both sets of inputs: ``points`` are locations and ``weights`` are normalised, or,
with ``references``, ``points`` are offsets in pixels and ``weights`` are logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vistk.ops.ms_deform_attn import cpu
from vistk.ops.ms_deform_attn.checks import check_extent
from vistk.ops.ms_deform_attn.points import Shapes, level_sizes

FORWARD, BACKWARD = "vistk::ms_deform_attn", "vistk::ms_deform_attn_backward"
# Plain definitions: torch.library.custom_op costs four times their dispatch, as much as a small kernel.
torch.library.define(
    FORWARD,
    "(Tensor value, SymInt[] sizes, Tensor points, Tensor weights, Tensor? references, "
    "str backend) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)
torch.library.define(
    BACKWARD,
    "(Tensor grad_out, Tensor value, SymInt[] sizes, Tensor points, Tensor weights, Tensor? references, "
    "Tensor? out, str backend) -> (Tensor, Tensor, Tensor)",
    tags=(torch.Tag.pt2_compliant_tag,),
)


def _shapes(sizes: Sequence[int]) -> Shapes:
    return [(sizes[i], sizes[i + 1]) for i in range(0, len(sizes), 2)]


@torch.library.impl(FORWARD, "CompositeExplicitAutograd")
def _forward(
    value: Tensor,
    sizes: Sequence[int],
    points: Tensor,
    weights: Tensor,
    references: Tensor | None,
    backend: str,
) -> Tensor:
    # Here and not in front of the op: no condition on sizes that a traced graph would have to carry.
    check_extent(value=value, points=points, weights=weights)
    if backend == "cpu":
        return cpu.forward(value, _shapes(sizes), points, weights, references)
    # Imported on first use: most machines that import this package have no GPU.
    from vistk.ops.ms_deform_attn import triton_backend

    return triton_backend.forward(value, _shapes(sizes), points, weights, references)


@torch.library.impl(BACKWARD, "CompositeExplicitAutograd")
def _backward(
    grad_out: Tensor,
    value: Tensor,
    sizes: Sequence[int],
    points: Tensor,
    weights: Tensor,
    references: Tensor | None,
    out: Tensor | None,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    if backend == "cpu":
        return cpu.backward(grad_out, value, _shapes(sizes), points, weights, references)
    from vistk.ops.ms_deform_attn import triton_backend

    return triton_backend.backward(grad_out, value, _shapes(sizes), points, weights, references, out)


@torch.library.register_fake(FORWARD)
def _fake_forward(
    value: Tensor,
    sizes: Sequence[int],
    points: Tensor,
    weights: Tensor,
    references: Tensor | None,
    backend: str,
) -> Tensor:
    return value.new_empty(points.shape[0], points.shape[1], value.shape[2] * value.shape[3])


@torch.library.register_fake(BACKWARD)
def _fake_backward(
    grad_out: Tensor,
    value: Tensor,
    sizes: Sequence[int],
    points: Tensor,
    weights: Tensor,
    references: Tensor | None,
    out: Tensor | None,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    return value.new_empty(value.shape), points.new_empty(points.shape), weights.new_empty(weights.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    value, ctx.sizes, points, weights, references, ctx.backend = inputs
    # The Triton backward takes the softmax's inner product from the output, see backward_kernel.
    out = output if ctx.backend == "triton" and references is not None else None
    ctx.save_for_backward(value, points, weights, references, out)


def _gradients(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
    value, points, weights, references, out = ctx.saved_tensors
    grad_value, grad_points, grad_weights = torch.ops.vistk.ms_deform_attn_backward(
        grad_out, value, ctx.sizes, points, weights, references, out, ctx.backend
    )
    grad_references = None
    if references is not None and ctx.needs_input_grad[4]:
        by_pixel = grad_points.to(references.dtype).sum((2, 4))
        grad_references = by_pixel * level_sizes(_shapes(ctx.sizes), references)
    return grad_value, None, grad_points, grad_weights, grad_references, None


def _no_second_gradients(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    raise RuntimeError("ms_deform_attn: second derivatives are not implemented")


torch.library.register_autograd(FORWARD, _gradients, setup_context=_setup_context)
torch.library.register_autograd(BACKWARD, _no_second_gradients)


def apply(
    value: Tensor,
    shapes: Shapes,
    points: Tensor,
    weights: Tensor,
    references: Tensor | None,
    backend: str,
) -> Tensor:
    """``(B, Q, M*D)``; ``references`` ``(B, Q, L, 2)`` or None, ``backend`` "cpu" or "triton"."""
    sizes = [size for shape in shapes for size in shape]
    out: Tensor = torch.ops.vistk.ms_deform_attn(value, sizes, points, weights, references, backend)
    return out
