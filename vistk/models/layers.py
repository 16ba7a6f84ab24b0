"""Small parts that several modules of the segmenter share."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vistk.ops import choose_dense, conv2d, linear
from vistk.ops.norm import group_norm_


class Linear(nn.Linear):
    """A linear layer that is fast on CPUs at inference (:func:`vistk.ops.linear`)."""

    def forward(self, x: Tensor, relu: bool = False) -> Tensor:
        """``(.., I)`` -> ``(.., O)``, clamped at zero with ``relu``."""
        return linear(x, self.weight, self.bias, relu)


class Conv2d(nn.Conv2d):
    """A convolution padded with zeros that is fast on CPUs at inference (:func:`vistk.ops.conv2d`)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> ``(B, O, H, W)``, there in memory with channels last."""
        side = self.kernel_size[0] // 2
        if len(x) == 1 and choose_dense(x).name == "onednn":
            # Views of leading dims leave the only frame with any stride, and oneDNN goes by it: it takes
            # channels that are last for planes, and moves them all.
            x = x.as_strided(x.shape, (x[0].numel(), *x.stride()[1:]))
        return conv2d(x, self.weight, self.bias, padding=(side, side))


class MLP(nn.Module):
    """Linear layers with ReLU between them; the parameters are named ``layers.{i}``."""

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int, num_layers: int) -> None:
        super().__init__()
        dims = [in_dim, *[hidden_dim] * (num_layers - 1), out_dim]
        self.layers = nn.ModuleList(Linear(a, b) for a, b in itertools.pairwise(dims))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = layer(x, relu=True)
        return self.layers[-1](x)


class ConvNorm(Conv2d):
    """A convolution without bias followed by a group norm, named as Detectron2 names them."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size, bias=False)
        self.norm = group_norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        norm = self.norm
        return group_norm_(super().forward(x), norm.num_groups, norm.weight, norm.bias, norm.eps)


def group_norm(channels: int) -> nn.GroupNorm:
    """32 groups, as published; the largest divisor below 32 for widths that 32 does not divide."""
    return nn.GroupNorm(math.gcd(32, channels), channels)


class MultiheadAttention(nn.Module):
    """Multi-head attention with the parameter names of :class:`torch.nn.MultiheadAttention`.

    Runs through ``scaled_dot_product_attention``, whose mask broadcasts over heads; the module of
    PyTorch wants the mask repeated for every head.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = Linear(dim, dim)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, blocked: Tensor | None = None) -> Tensor:
        """``query`` (B, Q, C), ``key``, ``value`` (B, S, C); ``blocked`` (B, Q, S) bool, True = not seen."""
        w_q, w_k, w_v = self.in_proj_weight.chunk(3)
        b_q, b_k, b_v = self.in_proj_bias.chunk(3)
        q, k, v = (
            linear(x, w, b).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, Q or S, C/heads)
            for x, w, b in ((query, w_q, b_q), (key, w_k, b_k), (value, w_v, b_v))
        )
        mask = None if blocked is None else ~blocked[:, None]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out_proj(out.transpose(1, 2).flatten(2))


def sine_position(height: int, width: int, dim: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Sine position code of a map (DETR, arXiv 2005.12872, appendix A.4, normalised to 2 pi).

    Returns:
        ``(dim, height, width)``: the first half of the channels codes y, the second x;
        sine and cosine alternate.
    """
    steps = dim // 2
    exponent = torch.arange(steps, device=device, dtype=torch.float32)
    period = 10000 ** (2 * torch.div(exponent, 2, rounding_mode="floor") / steps)

    def code(size: int) -> Tensor:  # (size, steps)
        ordinal = torch.arange(1, size + 1, device=device, dtype=torch.float32)
        angle = (ordinal / (size + 1e-6) * 2 * math.pi)[:, None] / period
        return torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], dim=2).flatten(1)

    y = code(height)[:, None, :].expand(height, width, steps)
    x = code(width)[None, :, :].expand(height, width, steps)
    return torch.cat([y, x], dim=2).permute(2, 0, 1).to(dtype)


def flatten_levels(maps: Sequence[Tensor]) -> Tensor:
    """``(B, C, H_l, W_l)`` maps, one after the other, as ``(B, S, C)``."""
    return torch.cat([x.flatten(2).transpose(1, 2) for x in maps], dim=1)


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """``(B, C, H, W)`` at another size, bilinear between pixel centres.

    On a CPU, where no gradient is asked for, ``F.interpolate`` is slow at two kinds of sizes. To twice the
    size, two passes along memory with channels last take a tenth of its time, as it has no loop over channels
    for maps this large. To a half, a quarter, an eighth .., a new pixel is the mean of four; for small
    results it would bring all channels to the end of memory first, in thirty times the time.
    """
    height, width = x.shape[-2:]
    step = height // size[0]
    doubled = size == (2 * height, 2 * width)
    reduced = step > 0 and step % 2 == 0 and (height, width) == (step * size[0], step * size[1])
    if not (doubled or reduced) or choose_dense(x).name != "onednn":
        return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
    if reduced:
        return _means_of_four(x, step)
    rows = _doubled(x.permute(0, 2, 3, 1), 1)
    return _doubled(rows, 2).permute(0, 3, 1, 2)


def _means_of_four(x: Tensor, step: int) -> Tensor:
    """Of every square of ``step`` x ``step`` pixels, an even number, the mean of the four in the middle."""
    before, after = slice(step // 2 - 1, None, step), slice(step // 2, None, step)
    upper, lower = x[..., before, :], x[..., after, :]
    return ((upper[..., before] + upper[..., after]) + (lower[..., before] + lower[..., after])).mul_(0.25)


def _doubled(x: Tensor, dim: int) -> Tensor:
    """Each entry along ``dim`` as two, a quarter of the way towards the one before and the one after."""
    out = x.new_empty(*x.shape[: dim + 1], 2, *x.shape[dim + 1 :])
    earlier, later = out.unbind(dim + 1)
    inner = x.shape[dim] - 1
    left, right = x.narrow(dim, 0, inner), x.narrow(dim, 1, inner)
    torch.lerp(right, left, 0.25, out=earlier.narrow(dim, 1, inner))
    torch.lerp(left, right, 0.25, out=later.narrow(dim, 0, inner))
    earlier.select(dim, 0).copy_(x.select(dim, 0))
    later.select(dim, inner).copy_(x.select(dim, inner))
    return out.flatten(dim, dim + 1)
