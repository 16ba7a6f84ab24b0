"""Triton kernels of multi-scale deformable attention; launched by ``triton_backend``.

A *row* is one query of one head, the unit of attention. A program owns ``BLOCK_Q`` rows of one head of
one image and walks their points, level by level. With ``BLOCK_Q`` = 32 rows a warp, the arithmetic of
coordinates and weights runs one row a lane, once for all channels; only the four products a channel run
on the ``(BLOCK_Q, D)`` tile. That layout, real loops over points and over the two pixel rows of a point
(unrolled, all gathers are issued at once and registers spill), and gathers without predicates (every
index is inside, see :func:`triton_parts.first_pixel`) are what make it fast. ``tests/ops/compile_only.py``
counts instructions; it needs no GPU.

The loop over points fetches the next point before it ends. That hides a load, and it decides the layout of
everything computed from a point: the compiler lets the last load of a loop win, and the gathers' layout,
in which eight lanes repeat every number of a row, costs 40 registers more in the backward kernel.

Sampling is written with the hat function h(t) = max(0, 1 - |t|): the share of pixel i in a sample at x
is h(x - i), which is zero by itself wherever a point lies too far outside, so clamped pixel indices
need no mask. A coordinate that is not a number makes its row not a number; its index is any inside.
"""

from __future__ import annotations

import triton
import triton.language as tl

from vistk.ops.ms_deform_attn.triton_parts import (
    LEVELS,
    VARYING,
    coordinates,
    first_pixel,
    hat,
    neighbour,
    rows,
    size,
    slope,
    softmax_parts,
)


@triton.jit(do_not_specialize=VARYING)
def forward_kernel(
    value: tl.tensor,
    level0: tl.tensor,
    level1: tl.tensor,
    level2: tl.tensor,
    level3: tl.tensor,
    level4: tl.tensor,
    level5: tl.tensor,
    level6: tl.tensor,
    level7: tl.tensor,
    points: tl.tensor,
    weights: tl.tensor,
    references: tl.tensor,
    out: tl.tensor,
    queries: tl.tensor,
    tiles: tl.tensor,
    pixels: tl.tensor,
    point_stride: tl.tensor,
    weight_stride: tl.tensor,
    image_stride: tl.tensor,
    query_stride: tl.tensor,
    level_stride: tl.tensor,
    M: tl.constexpr,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    L: tl.constexpr,
    P: tl.constexpr,
    BLOCK_LP: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    TILE_W: tl.constexpr,
    FUSED: tl.constexpr,
    PAIRS: tl.constexpr,
) -> None:
    """``out[image, query, head, :]``; arguments as :func:`triton_backend.arguments` lays them out."""
    pid = tl.program_id(0)
    head = pid % M
    tile = (pid // M) % tiles
    image = pid // (M * tiles)
    query, alive = rows(
        tile, level0, level1, level2, level3, level4, level5, level6, level7, queries, L, BLOCK_Q, TILE_W
    )
    channel = tl.arange(0, BLOCK_D)
    inside = channel < D
    value += image.to(tl.int64) * pixels * (M * D) + head * D
    row = image * queries + query
    point_row = row * point_stride + head * (L * P)
    weight_row = row * weight_stride + head * (L * P)
    if FUSED:
        top, share = softmax_parts(weights, weight_row, alive, L * P, BLOCK_LP)
    acc = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)
    start = 0
    for level in range(L):
        h, w = size(level, L, level0, level1, level2, level3, level4, level5, level6, level7)
        hf = h.to(tl.float32)
        wf = w.to(tl.float32)
        x_base = 0.0
        y_base = 0.0
        if FUSED:
            at_reference = image * image_stride + query * query_stride + level * level_stride
            x_base = tl.load(references + at_reference, alive, 0.0) * wf - 0.5
            y_base = tl.load(references + at_reference + 1, alive, 0.0) * hf - 0.5
        k = level * P
        x, y = coordinates(points, point_row + k, alive, x_base, y_base, wf, hf, FUSED)
        weight = tl.load(weights + weight_row + k, alive, 0.0).to(tl.float32)
        for p in range(P):
            if FUSED:
                weight = tl.exp(weight - top) * share
            x0 = first_pixel(x, wf)
            y0 = first_pixel(y, hf)
            if PAIRS:  # no level is one pixel wide
                left = weight * hat(x - x0)
                right = weight * hat(x - x0 - 1.0)
                for below in range(2):
                    yi = tl.minimum(y0 + below, hf - 1.0)
                    share_y = tl.where(y0 + below < hf, hat(y - yi), 0.0)
                    pixel = start + yi.to(tl.int32) * w + x0.to(tl.int32)
                    at = value + (pixel * (M * D))[:, None] + channel[None, :]
                    v0 = tl.load(at) if BLOCK_D == D else tl.load(at, inside[None, :], 0.0)
                    at += M * D
                    v1 = tl.load(at) if BLOCK_D == D else tl.load(at, inside[None, :], 0.0)
                    acc += v0.to(tl.float32) * (left * share_y)[:, None]
                    acc += v1.to(tl.float32) * (right * share_y)[:, None]
            else:
                for corner in range(4):
                    xi, yi, exists = neighbour(x0, y0, corner, wf, hf)
                    c = tl.where(exists, weight * hat(x - xi) * hat(y - yi), 0.0)
                    pixel = start + tl.where(exists, yi.to(tl.int32) * w + xi.to(tl.int32), 0)
                    at = value + (pixel * (M * D))[:, None] + channel[None, :]
                    v = tl.load(at) if BLOCK_D == D else tl.load(at, inside[None, :], 0.0)
                    acc += v.to(tl.float32) * c[:, None]
            k = level * P + tl.minimum(p + 1, P - 1)
            x, y = coordinates(points, point_row + k, alive, x_base, y_base, wf, hf, FUSED)
            weight = tl.load(weights + weight_row + k, alive, 0.0).to(tl.float32)
        start += h * w
    to = out + (row * M + head)[:, None] * D + channel[None, :]
    tl.store(to, acc.to(out.dtype.element_ty), alive[:, None] & inside[None, :])


@triton.jit(do_not_specialize=VARYING)
def backward_kernel(
    value: tl.tensor,
    level0: tl.tensor,
    level1: tl.tensor,
    level2: tl.tensor,
    level3: tl.tensor,
    level4: tl.tensor,
    level5: tl.tensor,
    level6: tl.tensor,
    level7: tl.tensor,
    points: tl.tensor,
    weights: tl.tensor,
    references: tl.tensor,
    out: tl.tensor,
    grad_out: tl.tensor,
    grad_value: tl.tensor,
    grad_points: tl.tensor,
    grad_weights: tl.tensor,
    queries: tl.tensor,
    tiles: tl.tensor,
    pixels: tl.tensor,
    point_stride: tl.tensor,
    weight_stride: tl.tensor,
    image_stride: tl.tensor,
    query_stride: tl.tensor,
    level_stride: tl.tensor,
    M: tl.constexpr,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    L: tl.constexpr,
    P: tl.constexpr,
    BLOCK_LP: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    TILE_W: tl.constexpr,
    FUSED: tl.constexpr,
    SCATTER: tl.constexpr,
    SAMPLE: tl.constexpr,
) -> None:
    """All gradients. ``grad_value`` is a float32 sum of relaxed atomics; without ``SCATTER`` it is left out.

    The softmax's Jacobian needs sum_k weight_k * grad_weight_k of a row. Both are inner products with the
    output gradient, so the sum is <out, grad_out>, known before the first point.
    """
    pid = tl.program_id(0)
    head = pid % M
    tile = (pid // M) % tiles
    image = pid // (M * tiles)
    query, alive = rows(
        tile, level0, level1, level2, level3, level4, level5, level6, level7, queries, L, BLOCK_Q, TILE_W
    )
    channel = tl.arange(0, BLOCK_D)
    inside = channel < D
    image_start = image.to(tl.int64) * pixels * (M * D) + head * D
    value += image_start
    grad_value += image_start
    row = image * queries + query
    point_row = row * point_stride + head * (L * P)
    weight_row = row * weight_stride + head * (L * P)
    grad_row = (row * M + head) * (L * P)
    at_out = (row * M + head)[:, None] * D + channel[None, :]
    some = alive[:, None] & inside[None, :]
    go = tl.load(grad_out + at_out, some, 0.0).to(tl.float32)
    if FUSED:
        top, share = softmax_parts(weights, weight_row, alive, L * P, BLOCK_LP)
        total = tl.sum(tl.load(out + at_out, some, 0.0).to(tl.float32) * go, 1)
    pair = tl.arange(0, 2)
    start = 0
    for level in range(L):
        h, w = size(level, L, level0, level1, level2, level3, level4, level5, level6, level7)
        hf = h.to(tl.float32)
        wf = w.to(tl.float32)
        x_base = 0.0
        y_base = 0.0
        if FUSED:
            at_reference = image * image_stride + query * query_stride + level * level_stride
            x_base = tl.load(references + at_reference, alive, 0.0) * wf - 0.5
            y_base = tl.load(references + at_reference + 1, alive, 0.0) * hf - 0.5
        k = level * P
        x, y = coordinates(points, point_row + k, alive, x_base, y_base, wf, hf, FUSED)
        weight = tl.load(weights + weight_row + k, alive, 0.0).to(tl.float32)
        for p in range(P):
            if FUSED:
                weight = tl.exp(weight - top) * share
            x0 = first_pixel(x, wf)
            y0 = first_pixel(y, hf)
            grad_x = tl.zeros([BLOCK_Q], tl.float32)
            grad_y = tl.zeros([BLOCK_Q], tl.float32)
            grad_w = tl.zeros([BLOCK_Q], tl.float32)
            for corner in range(4):
                xi, yi, exists = neighbour(x0, y0, corner, wf, hf)
                share_x = tl.where(exists, hat(x - xi), 0.0)
                share_y = tl.where(exists, hat(y - yi), 0.0)
                pixel = start + tl.where(exists, yi.to(tl.int32) * w + xi.to(tl.int32), 0)
                at = (pixel * (M * D))[:, None] + channel[None, :]
                c = (weight * share_x * share_y)[:, None]
                if SCATTER:
                    # Points outside share nothing; left out, they do not queue for the border's pixels.
                    shares = (c != 0.0) & inside[None, :] if BLOCK_D != D else c != 0.0
                    tl.atomic_add(grad_value + at, go * c, shares, sem="relaxed")
                if SAMPLE:
                    v = tl.load(value + at) if BLOCK_D == D else tl.load(value + at, inside[None, :], 0.0)
                    if SCATTER and value.dtype.element_ty.primitive_bitwidth == 16:
                        # The atomics hold the output gradient in their own layout, four channels a lane;
                        # a second copy in that of the 16-bit gathers, eight a lane, would spill.
                        go_again = tl.load(grad_out + at_out, some, 0.0).to(tl.float32)
                        s = tl.sum(v.to(tl.float32) * go_again, 1)
                    else:
                        s = tl.sum(v.to(tl.float32) * go, 1)
                    grad_w += share_x * share_y * s
                    grad_x += tl.where(exists, slope(x - xi), 0.0) * share_y * s
                    grad_y += tl.where(exists, slope(y - yi), 0.0) * share_x * s
            if SAMPLE:
                if FUSED:
                    grad_w = weight * (grad_w - total)
                else:
                    grad_x *= wf
                    grad_y *= hf
                grad_xy = tl.join(weight * grad_x, weight * grad_y).to(grad_points.dtype.element_ty)
                tl.store(grad_points + (grad_row + k)[:, None] * 2 + pair[None, :], grad_xy, alive[:, None])
                tl.store(grad_weights + grad_row + k, grad_w.to(grad_weights.dtype.element_ty), alive)
            k = level * P + tl.minimum(p + 1, P - 1)
            x, y = coordinates(points, point_row + k, alive, x_base, y_base, wf, hf, FUSED)
            weight = tl.load(weights + weight_row + k, alive, 0.0).to(tl.float32)
        start += h * w


@triton.jit(do_not_specialize=[*LEVELS, "pixels", "cells"])
def gather_kernel(
    order: tl.tensor,
    firsts: tl.tensor,
    xs: tl.tensor,
    ys: tl.tensor,
    weights: tl.tensor,
    grad_out: tl.tensor,
    grad_value: tl.tensor,
    level0: tl.tensor,
    level1: tl.tensor,
    level2: tl.tensor,
    level3: tl.tensor,
    level4: tl.tensor,
    level5: tl.tensor,
    level6: tl.tensor,
    level7: tl.tensor,
    pixels: tl.tensor,
    cells: tl.tensor,
    M: tl.constexpr,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    L: tl.constexpr,
    LP: tl.constexpr,
    BLOCK_S: tl.constexpr,
) -> None:
    """``grad_value`` without atomics, the same to the last bit every time.

    A cell is the square between four pixels; the border of a level has a ring of them outside. ``order``
    lists all sampling points by (image, head, level, cell), ``firsts`` says where a cell's points begin.
    A program owns ``BLOCK_S`` pixels and walks the points of the four cells around each, in order.
    """
    group = tl.program_id(1)
    image = group // M
    head = group % M
    index = tl.program_id(0) * BLOCK_S + tl.arange(0, BLOCK_S)
    alive = index < pixels
    channel = tl.arange(0, BLOCK_D)
    inside = channel < D
    xi = tl.zeros([BLOCK_S], tl.int32)
    yi = tl.zeros([BLOCK_S], tl.int32)
    across = tl.zeros([BLOCK_S], tl.int32)
    cell = tl.zeros([BLOCK_S], tl.int32)
    first_cell = 0
    start = 0
    for level in range(L):
        h, w = size(level, L, level0, level1, level2, level3, level4, level5, level6, level7)
        here = (index >= start) & (index < start + h * w)
        y = (index - start) // w
        x = (index - start) % w
        xi = tl.where(here, x, xi)
        yi = tl.where(here, y, yi)
        across = tl.where(here, w + 1, across)
        cell = tl.where(here, first_cell + y * (w + 1) + x, cell)
        first_cell += (h + 1) * (w + 1)
        start += h * w
    cell += group * cells
    xf = xi.to(tl.float32)
    yf = yi.to(tl.float32)
    acc = tl.zeros([BLOCK_S, BLOCK_D], tl.float32)
    for corner in range(4):
        key = cell + (corner // 2) * across + (corner % 2)
        first = tl.load(firsts + key, alive, 0)
        count = tl.load(firsts + key + 1, alive, 0) - first
        longest = tl.max(count, 0)
        j = 0
        while j < longest:
            some = j < count
            at = tl.load(order + first + j, some, 0)
            share = hat(tl.load(xs + at, some, 0.0) - xf) * hat(tl.load(ys + at, some, 0.0) - yf)
            c = tl.load(weights + at, some, 0.0) * share
            row = (at // LP).to(tl.int32)
            mask = some[:, None] & inside[None, :]
            go = tl.load(grad_out + row[:, None] * D + channel[None, :], mask, 0.0).to(tl.float32)
            acc += go * c[:, None]
            j += 1
    to = grad_value + ((image.to(tl.int64) * pixels + index) * M + head)[:, None] * D + channel[None, :]
    tl.store(to, acc.to(grad_value.dtype.element_ty), alive[:, None] & inside[None, :])
