"""Convolutions, fast on CPUs at inference."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vistk.ops.onednn import choose_dense

Pair = tuple[int, int]


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
    relu: bool = False,
    add: Tensor | None = None,
) -> Tensor:
    """A 2-D convolution, then a sum, then a ReLU, if asked for.

    float32 on an x86 CPU runs in oneDNN, the sum in the same pass, where no gradient is asked for
    (:func:`vistk.ops.onednn.choose_dense`). There the result is channels last: three to four times as fast
    as planes of channels. All others are ``F.conv2d``.

    Args:
        x: ``(B, C, H, W)``.
        weight: ``(O, C / groups, kh, kw)``.
        bias: ``(O,)``.
        add: ``(B, O, H', W')``, the shape of the result.

    Returns:
        ``(B, O, H', W')``.
    """
    if x.numel() == 0 or choose_dense(x, weight, bias, add).name != "onednn":
        out = F.conv2d(x, weight, bias, stride, padding, dilation, groups)
        out = out if add is None else out + add
        return F.relu(out) if relu else out
    x = x.contiguous(memory_format=torch.channels_last)
    bias = None if bias is None else bias.contiguous()
    geometry = (weight, bias, padding, stride, dilation, groups)
    fused = torch.ops.mkldnn._convolution_pointwise
    if add is None:
        out = fused.default(x, *geometry, "none", [], "")
    else:
        add = add.contiguous(memory_format=torch.channels_last)
        out = fused.binary(x, add, *geometry, "add", 1.0, None, [], None)
    # Not oneDNN's fused ReLU: it turns NaN into 0, and a broken model would give plausible numbers.
    return out.relu_() if relu else out
