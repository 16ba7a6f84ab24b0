"""Parts of the Triton kernels: sizes of levels, rows of a program, points and their neighbours."""

from __future__ import annotations

import triton
import triton.language as tl

# Levels come as plain numbers, (height << 32) + width, and not as a tensor: nothing to copy to the device,
# nothing to keep alive across CUDA graphs. Numbers that vary from image to image must not compile a new
# kernel when one of them is 1 or a multiple of 16.
MAX_LEVELS = 8
LEVELS = [f"level{i}" for i in range(MAX_LEVELS)]
VARYING = [*LEVELS, "queries", "tiles", "pixels", "image_stride", "query_stride", "level_stride"]


@triton.jit
def size(
    level: tl.tensor,
    L: tl.constexpr,
    level0: tl.tensor,
    level1: tl.tensor,
    level2: tl.tensor,
    level3: tl.tensor,
    level4: tl.tensor,
    level5: tl.tensor,
    level6: tl.tensor,
    level7: tl.tensor,
) -> tl.tensor:
    """Height and width of a level, known when the kernel runs."""
    packed = level0
    if L > 1:
        packed = tl.where(level == 1, level1, packed)
    if L > 2:
        packed = tl.where(level == 2, level2, packed)
    if L > 3:
        packed = tl.where(level == 3, level3, packed)
    if L > 4:
        packed = tl.where(level == 4, level4, packed)
    if L > 5:
        packed = tl.where(level == 5, level5, packed)
    if L > 6:
        packed = tl.where(level == 6, level6, packed)
    if L > 7:
        packed = tl.where(level == 7, level7, packed)
    return (packed >> 32).to(tl.int32), (packed & 0xFFFFFFFF).to(tl.int32)


@triton.jit
def hat(t: tl.tensor) -> tl.tensor:
    return tl.maximum(1.0 - tl.abs(t), 0.0, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def slope(t: tl.tensor) -> tl.tensor:
    """Derivative of the hat; at its corners the one of the cell to the right, as floor() has it."""
    return tl.where((t >= -1.0) & (t < 1.0), tl.where(t < 0.0, 1.0, -1.0), 0.0)


@triton.jit
def rows(
    tile: tl.tensor,
    level0: tl.tensor,
    level1: tl.tensor,
    level2: tl.tensor,
    level3: tl.tensor,
    level4: tl.tensor,
    level5: tl.tensor,
    level6: tl.tensor,
    level7: tl.tensor,
    queries: tl.tensor,
    L: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    TILE_W: tl.constexpr,
) -> tl.tensor:
    """Queries of a program and which of them exist.

    ``TILE_W`` > 0 says that the queries are the pixels of the pyramid: a program then takes a rectangle
    ``TILE_W`` wide, whose points share far more pixels than those of a run of queries.
    """
    lane = tl.arange(0, BLOCK_Q)
    if TILE_W == 0:
        query = tile * BLOCK_Q + lane
        alive = query < queries
    else:
        tile_h: tl.constexpr = BLOCK_Q // TILE_W
        own = tile
        own_h, own_w = size(0, L, level0, level1, level2, level3, level4, level5, level6, level7)
        own_start = 0
        first = 0
        start = 0
        for level in range(L):
            h, w = size(level, L, level0, level1, level2, level3, level4, level5, level6, level7)
            if tile >= first:
                own = tile - first
                own_h = h
                own_w = w
                own_start = start
            first += tl.cdiv(w, TILE_W) * tl.cdiv(h, tile_h)
            start += h * w
        across = tl.cdiv(own_w, TILE_W)
        y = (own // across) * tile_h + lane // TILE_W
        x = (own % across) * TILE_W + lane % TILE_W
        query = own_start + y * own_w + x
        alive = (y < own_h) & (x < own_w)
    return query, alive


@triton.jit
def coordinates(
    points: tl.tensor,
    at: tl.tensor,
    alive: tl.tensor,
    x_base: tl.tensor,
    y_base: tl.tensor,
    w: tl.tensor,
    h: tl.tensor,
    FUSED: tl.constexpr,
) -> tl.tensor:
    """Sampling points in pixels, pixel centres at whole numbers."""
    pair = tl.arange(0, 2)
    x, y = tl.split(tl.load(points + at[:, None] * 2 + pair[None, :], alive[:, None], 0.0).to(tl.float32))
    if FUSED:
        return x + x_base, y + y_base
    return x * w - 0.5, y * h - 0.5


@triton.jit
def first_pixel(x: tl.tensor, size: tl.tensor) -> tl.tensor:
    """The left of two neighbouring pixels around ``x``, moved so that both are inside the level."""
    return tl.minimum(tl.maximum(tl.floor(x), 0.0), tl.maximum(size - 2.0, 0.0))


@triton.jit
def neighbour(x0: tl.tensor, y0: tl.tensor, corner: tl.tensor, w: tl.tensor, h: tl.tensor) -> tl.tensor:
    """One of the four pixels around a point, and whether the level has it: one may be one pixel wide."""
    xi = x0 + (corner % 2)
    yi = y0 + (corner // 2)
    return xi, yi, (xi < w) & (yi < h)


@triton.jit
def softmax_parts(
    logits: tl.tensor, at: tl.tensor, alive: tl.tensor, N: tl.constexpr, BLOCK_N: tl.constexpr
) -> tl.tensor:
    """Greatest logit of a row, and one over the sum of exponentials relative to it; 0 for no row."""
    k = tl.arange(0, BLOCK_N)
    tile = tl.load(logits + at[:, None] + k[None, :], alive[:, None] & (k < N)[None, :], float("-inf"))
    tile = tl.where(alive[:, None], tile.to(tl.float32), 0.0)
    top = tl.max(tile, 1)
    return top, tl.where(alive, 1.0 / tl.sum(tl.exp(tile - top[:, None]), 1), 0.0)
