"""Multi-scale deformable attention on a CPU: bags of embeddings, exact and without a stack of samples.

A row of the output is a weighted sum of 4*L*P rows of the value, which is what an embedding bag with
weights per sample computes; its gradients are products of the same sparse matrix. Levels get a border of
zeros one pixel wide and coordinates are clamped to it, so that every point has four neighbours.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vistk.ops.ms_deform_attn.checks import check_count
from vistk.ops.ms_deform_attn.points import Shapes, back_to_inputs


def compute_dtype(value: Tensor) -> torch.dtype:
    """16-bit values are computed in float32."""
    return torch.float64 if value.dtype == torch.float64 else torch.float32


@dataclass(frozen=True)
class Bags:
    """The sparse matrix from padded pixels to rows; corner order: top left, top right, bottom left, right."""

    index: Tensor  # (B, Q, M, 4, L*P) int32, row of the padded value
    share: Tensor  # (B, Q, M, 4, L*P) what that row counts
    fraction: tuple[Tensor, Tensor]  # (B, Q, M, L*P) x and y from the left and upper neighbour
    moves: tuple[Tensor, ...]  # the same, bool: the coordinate was not clamped; only where asked for
    weights: Tensor  # (B, Q, M, L, P) normalised
    padded: Tensor  # (B*Sp*M, D)


def padded_levels(value: Tensor, shapes: Shapes) -> Tensor:
    """``(B, S, M, D)`` -> ``(B*Sp*M, D)``, every level with its border of zeros."""
    b, _, m, d = value.shape
    padded = value.new_zeros(b, sum((h + 2) * (w + 2) for h, w in shapes), m, d)
    start = 0
    for level, (h, w) in zip(value.split([h * w for h, w in shapes], 1), shapes, strict=True):
        inner = padded[:, start : start + (h + 2) * (w + 2)].unflatten(1, (h + 2, w + 2))
        inner[:, 1:-1, 1:-1] = level.unflatten(1, (h, w))
        start += (h + 2) * (w + 2)
    return padded.view(-1, d)


def make_bags(
    value: Tensor,
    shapes: Shapes,
    points: Tensor,
    weights: Tensor,
    references: Tensor | None,
    *,
    for_gradients: bool = False,
) -> Bags:
    """Few passes over planes, most in place, and as few as can be over the L*P samples of one head.

    PyTorch's loops run along the last dimension that all operands share: a dozen samples are too few for
    vectors, those of all heads are enough. So planes are ``(B, Q, M*L*P)`` wherever heads need not be told
    apart, and corners are written from planes that lie in memory as they are read.
    """
    dtype = compute_dtype(value)
    b, q, m, levels, p, _ = points.shape
    n = levels * p
    padded = padded_levels(value.to(dtype), shapes)
    check_count("pixels with borders", padded.shape[0])
    check_count("shares of pixels", 4 * weights.numel())

    def of_samples(numbers: Sequence[int], to: torch.dtype = dtype) -> Tensor:  # (L,) -> (M*L*P,)
        return torch.tensor(numbers, dtype=to)[:, None].expand(m, levels, p).flatten()

    widths, heights = [w for _, w in shapes], [h for h, _ in shapes]
    size = torch.stack([of_samples(widths), of_samples(heights)])[:, None, None]  # (2, 1, 1, M*L*P)
    at = in_pixels(points.to(dtype), None if references is None else references.to(dtype), size)
    moves = tuple((at >= -1).logical_and_(at < size).view(2, b, q, m, n)) if for_gradients else ()
    # Whatever lies at -1 or at the size samples zeros alone.
    torch.clamp(at, size.new_tensor(-1.0), size, out=at)
    corner = at.floor()
    torch.minimum(corner, size - 1, out=corner)
    x, y = at.sub_(corner).view(2, b, q, m, n)
    # Whole numbers below 2^24 are exact in float32.
    whole = torch.float32 if dtype == torch.float32 and padded.shape[0] < 2**24 else torch.float64
    row = [(w + 2) * m for w in widths]
    starts = itertools.accumulate(((h + 2) * (w + 2) * m for h, w in shapes[:-1]), initial=0)
    inner = [start + step + m for start, step in zip(starts, row, strict=True)]  # the first pixel
    base = of_samples(inner, whole) + torch.arange(m).repeat_interleave(n)
    image = torch.arange(b) * (padded.shape[0] // b if b else 0)
    left, top = corner.to(whole)
    top_left = top.mul_(of_samples(row, whole)).add_(left, alpha=m).add_(base + image[:, None, None])
    # A point that is not a number makes its fraction, so the row, not a number; its index is any.
    first = top_left.nan_to_num_(nan=0.0).view(b, q, m, n).int()
    below = of_samples(row, torch.int32)[:n]
    index = torch.empty(b, q, m, 4, n, dtype=torch.int32)
    index[:, :, :, 0] = first
    torch.add(first, m, out=index[:, :, :, 1])
    torch.add(first, below, out=index[:, :, :, 2])
    torch.add(first, below + m, out=index[:, :, :, 3])
    weights = weights.to(dtype) if references is None else softmax(weights.to(dtype).flatten(3))
    weights = weights.reshape(b, q, m, n)
    share = torch.empty(index.shape, dtype=dtype)
    lower = weights * y
    upper = weights - lower
    right = torch.mul(upper, x, out=share[:, :, :, 1])
    torch.sub(upper, right, out=share[:, :, :, 0])
    right = torch.mul(lower, x, out=share[:, :, :, 3])
    torch.sub(lower, right, out=share[:, :, :, 2])
    return Bags(index, share, (x, y), moves, weights.view(b, q, m, levels, p), padded)


def in_pixels(points: Tensor, references: Tensor | None, size: Tensor) -> Tensor:
    """x and y ``(2, B, Q, M*L*P)`` with pixel centres at whole numbers.

    As :func:`points.in_pixels`, with all heads in one dimension and references without copies where they
    are the same for every level.
    """
    m, p = points.shape[2], points.shape[4]
    planes = points.movedim(-1, 0).flatten(3)
    out = planes.new_empty(planes.shape)
    if references is None:
        return torch.mul(planes, size, out=out).sub_(0.5)
    if references.stride(2) == 0:
        references = references[:, :, :1]
    else:
        references = references[:, :, None, :, None].expand(-1, -1, m, -1, p, -1).flatten(2, 4)
    return torch.addcmul(planes, references.movedim(-1, 0), size, out=out).sub_(0.5)


def softmax(logits: Tensor) -> Tensor:
    """Over the last dimension; PyTorch's own takes five times as long where that is short."""
    out = (logits - logits.amax(-1, keepdim=True)).exp_()
    return out.div_(out.sum(-1, keepdim=True))


def forward(
    value: Tensor, shapes: Shapes, points: Tensor, weights: Tensor, references: Tensor | None
) -> Tensor:
    """``(B, Q, M*D)`` in the dtype of ``value``; arguments as :func:`points.in_pixels` takes them."""
    b, q, m = points.shape[:3]
    if points.numel() == 0:
        return value.new_zeros(b, q, m * value.shape[-1])
    bags = make_bags(value, shapes, points, weights, references)
    index, share = (t.view(b * q * m, -1) for t in (bags.index, bags.share))
    out = F.embedding_bag(index, bags.padded, mode="sum", per_sample_weights=share)
    return out.view(b, q, m * value.shape[-1]).to(value.dtype)


def bag_products(bags: Bags, rows: Tensor) -> Tensor:
    """Inner products, shaped as ``bags.index``, of row r of ``rows`` ``(R, D)`` with the pixels in bag r."""
    count, n = rows.shape[0], bags.index.shape[3] * bags.index.shape[4]
    if not torch.backends.mkl.is_available():
        # The sparse product is MKL's.
        return (bags.padded[bags.index.view(count, n)] @ rows[:, :, None]).view(bags.index.shape)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        pattern = torch.sparse_csr_tensor(
            torch.arange(0, count * n + 1, n, dtype=torch.int32),
            bags.index.view(-1),
            rows.new_zeros(count * n),
            (count, bags.padded.shape[0]),
            check_invariants=False,
        )
    products = torch.sparse.sampled_addmm(pattern, rows, bags.padded.t(), beta=0.0)
    return products.values().view(bags.index.shape)


def spread(bags: Bags, rows: Tensor, shapes: Shapes) -> Tensor:
    """``(B, S, M, D)``: pixels, each the sum of its shares in ``rows`` ``(R, D)``.

    Points are sorted by their upper left pixel, once for all four corners; the sums of a corner are then
    moved to where it lies. The sort is stable, so every sum has one order.
    """
    b, _, m, _, n = bags.index.shape
    cell = bags.index[:, :, :, 0].reshape(-1)
    order = cell.sort(stable=True).indices
    offsets = F.pad(torch.bincount(cell, minlength=bags.padded.shape[0]).cumsum(0)[:-1], (1, 0))
    owner = order.div(n, rounding_mode="floor")
    sums = []
    for share in bags.share.movedim(3, 0).reshape(4, -1):
        weights = share.index_select(0, order)
        bag = F.embedding_bag(owner, rows, offsets, mode="sum", per_sample_weights=weights)
        sums.append(bag.unflatten(0, (b, -1, m)))
    out, start = [], 0
    for h, w in shapes:
        end = start + (h + 2) * (w + 2)
        top_left, top_right, bottom_left, bottom_right = (
            corner[:, start:end].unflatten(1, (h + 2, w + 2)) for corner in sums
        )
        level = top_left[:, 1:-1, 1:-1] + top_right[:, 1:-1, :-2]
        level += bottom_left[:, :-2, 1:-1]
        level += bottom_right[:, :-2, :-2]
        out.append(level.flatten(1, 2))
        start = end
    return torch.cat(out, 1)


def backward(
    grad_out: Tensor,
    value: Tensor,
    shapes: Shapes,
    points: Tensor,
    weights: Tensor,
    references: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients by ``value``, ``points`` and ``weights``, in their dtypes."""
    b, q, m = points.shape[:3]
    if points.numel() == 0:
        return torch.zeros_like(value), torch.zeros_like(points), torch.zeros_like(weights)
    bags = make_bags(value, shapes, points, weights, references, for_gradients=True)
    rows = grad_out.to(bags.padded.dtype).reshape(b * q * m, -1)
    top_left, top_right, bottom_left, bottom_right = bag_products(bags, rows).unbind(3)
    fx, fy = bags.fraction
    d_top, d_bottom = top_right - top_left, bottom_right - bottom_left
    top = top_left + fx * d_top
    d_y = bottom_left + fx * d_bottom - top
    d_x = d_top + fy * (d_bottom - d_top)
    grad_weights = (top + fy * d_y).view(bags.weights.shape)
    by_pixel = torch.stack([d_x * bags.moves[0], d_y * bags.moves[1]], -1).view(points.shape)
    by_pixel *= bags.weights[..., None]
    grad_points, grad_weights = back_to_inputs(by_pixel, grad_weights, bags.weights, references, shapes)
    return (
        spread(bags, rows, shapes).to(value.dtype),
        grad_points.to(points.dtype),
        grad_weights.to(weights.dtype),
    )
