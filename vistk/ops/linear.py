"""Linear layers and products of matrices, fast on CPUs at inference."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vistk.ops.onednn import choose_dense

# Multiply-adds below which a call costs more than it saves: 14 us against 5 for the smallest layers, even
# at 100 rows from 256 to 41 channels.
WORTH_A_CALL = 2**20


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, relu: bool = False) -> Tensor:
    """``x @ weight.T + bias``, then a ReLU if asked for.

    Large float32 products on an x86 CPU run in oneDNN where no gradient is asked for
    (:func:`vistk.ops.onednn.choose_dense`); all others are ``F.linear``.

    Args:
        x: ``(.., I)``, any strides.
        weight: ``(O, I)``.
        bias: ``(O,)``.
        relu: clamp the result at zero.

    Returns:
        ``(.., O)``, contiguous where oneDNN ran.
    """
    if _is_large(x, weight.shape[0]) and choose_dense(x, weight, bias).name == "onednn":
        # Of a bias, the kernel reads memory, not strides.
        bias = None if bias is None else bias.contiguous()
        kernel = torch.ops.mkldnn._linear_pointwise.default
        out = kernel(x.contiguous(), weight.contiguous(), bias, "none", [], "")
        # Not oneDNN's fused ReLU: it turns NaN into 0, and a broken model would give plausible numbers.
        return out.relu_() if relu else out
    out = F.linear(x, weight, bias)
    return F.relu(out) if relu else out


def products(x: Tensor, y: Tensor) -> Tensor:
    """``x @ y``, a product of two matrices for each of B; where it is large, in oneDNN as :func:`linear`.

    Args:
        x: ``(B, Q, C)``.
        y: ``(B, C, N)``.

    Returns:
        ``(B, Q, N)``.
    """
    if _is_large(x, y.shape[-1]) and choose_dense(x, y).name == "onednn":
        kernel = torch.ops.mkldnn._linear_pointwise.default
        # As weights of layers, which have their input last; of weights the kernel knows the strides.
        weights = (m.mT if m.is_contiguous() else m.mT.contiguous() for m in y)
        made = [
            kernel(rows, weight, None, "none", [], "")
            for rows, weight in zip(x.contiguous(), weights, strict=True)
        ]
        return made[0][None] if len(made) == 1 else torch.stack(made)
    return x @ y


def _is_large(x: Tensor, columns: int) -> bool:
    # A tracer that met the sizes first would make a graph for small ones and another for large ones.
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return not traced and x.numel() * columns >= WORTH_A_CALL
