"""Masks at output size on a CPU: only the pixels where a mask begins or ends, and only where it is.

Bilinear interpolation is one matrix an axis, and most of its numbers are never needed. A mask is resized in
tiles, those in which it is positive somewhere (where no logit around a pixel is positive, the pixel is not
either, as no weight of interpolation is negative). Along the columns, in which run lengths count, the last
step is linear between two pixels of the resized frame. So it is done for pairs of unlike sign only.

All arithmetic is elementwise and in NumPy, in an order that is the same for a mask alone and among others:
what is finished later, or in other company, has the same bits. Matrix products do not promise that, nor do
functions of PyTorch that treat the last elements of an array in another way.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F

TILE = 32  # side of a tile in cells of the mask logits; many small calls are slow, above all in two threads
COLUMNS = 255  # that are counted at once, in bytes
BUFFER = 1024  # numbers; see _interpolate

Taps = tuple[tuple[np.ndarray, np.ndarray], ...]
"""Linear interpolation of one axis: a cell of each pixel (K,) and its weight (K, 1), then the next cell of
the first pixels, as far as any has one."""


@dataclass(frozen=True)
class TiledMasks:
    """What masks are made of."""

    probability_sum: np.ndarray  # (N,) float64, at the resized size
    area: np.ndarray  # (N,) float64, at the resized size
    ends: np.ndarray  # (E,) int64, of runs at output size, all masks after each other
    bounds: np.ndarray  # (N + 1,) int64, where each mask begins among them, and E


def resize_by_tiles(
    mask_logits: np.ndarray, network: tuple[int, int], resized: tuple[int, int], output: tuple[int, int]
) -> TiledMasks:
    """Interpolate to the network's size, crop, interpolate to the output size.

    Args:
        mask_logits: ``(N, h, w)`` float32.
        network, resized, output: height and width.
    """
    n, h, w = mask_logits.shape
    height, width = output
    probability, area = np.zeros((2, n))
    # Keys count the pixels of all masks; each mask has one more, behind its last column.
    stride = height * width + 1
    keys = [np.zeros(0, dtype=np.int64)]
    last_step = _steps(resized[0], height)
    # Masks on the last axis and rows before them: a column is one long array. Negated, as probabilities want
    # them: no rounding depends on the sign.
    negated = np.ascontiguousarray(-mask_logits.transpose(1, 2, 0))
    positive = negated < 0
    for rows in _rows(h, network[0], resized[0]):
        changes = []
        positive_columns = positive[rows.cells].max(0)
        for columns in _columns(w, network[1], resized[1], width):
            index = np.flatnonzero(positive_columns[columns.cells].max(0))
            if not len(index):
                continue
            x = negated[rows.cells, columns.cells]
            if len(index) < n:
                x = x[..., index]
            x = _interpolate(x.reshape(len(x), -1), rows.taps).reshape(-1, *x.shape[1:])
            x = x.swapaxes(0, 1).reshape(x.shape[1], -1)  # (cells, rows * M)
            logits = _interpolate(x, columns.taps)
            for first in range(0, len(logits), COLUMNS):
                sums = _sums(logits[first : first + COLUMNS, : rows.own * len(index)], len(index))
                probability[index] += sums[0]
                area[index] += sums[1]
            if columns.output_taps is not columns.taps:
                logits = _interpolate(x, columns.output_taps)
            logits = logits.reshape(len(logits), -1, len(index))
            tops = columns.pixels[:, None] * height + index * stride
            # From background above the first row, and to background behind the last pixel.
            if rows.start == 0:
                keys.append(tops[logits[:, 0] < 0])
            if rows.stop == resized[0]:
                keys.append(tops[logits[:, -1] < 0] + height)
            changes.append(_changes(logits, tops))
        if changes:
            top, row, before, after = map(np.concatenate, zip(*changes, strict=True))
            keys.append(_keys(top, row + rows.start, before, after, last_step))
    found = _unpaired(np.concatenate(keys))
    behind = np.arange(1, n + 1) * stride - 1
    at = np.searchsorted(found, behind)
    background = np.append(found, -1)[at] != behind  # in the end, so that the last run ends there, too
    found = np.insert(found, at[background], behind[background])
    bounds = np.append(0, np.searchsorted(found, behind) + 1)
    return TiledMasks(probability, area, found - (behind - (stride - 1)).repeat(np.diff(bounds)), bounds)


def _sums(negated: np.ndarray, masks: int) -> tuple[np.ndarray, np.ndarray]:
    """Of the positive ones among ``(columns, rows * M)`` logits, the probabilities summed and the number."""
    area = np.add.reduce((negated < 0).view(np.uint8), 0, dtype=np.uint8).reshape(-1, masks).sum(0)
    values = np.clip(negated, -np.inf, 0)  # several times faster than np.minimum
    np.exp(values, out=values)
    values += 1
    np.divide(1, values, out=values)
    # Multiples of 2^-24 from 0.5 to 1, so that this sum is exact; 0.5 where the logit is not positive.
    total = values.sum(0, dtype=np.float64).reshape(-1, masks).sum(0)
    return total - 0.5 * (values.size // masks - area), area


def _changes(negated: np.ndarray, tops: np.ndarray) -> tuple[np.ndarray, ...]:
    """Pairs of unlike sign among ``(columns, rows, M)`` logits, of which one is right below the other.

    Args:
        negated: rows at the resized size, columns at output size.
        tops: ``(columns, M)`` keys of the topmost pixels.

    Returns:
        Of each pair the topmost pixel of its column, the row of the upper one, and both logits.
    """
    _, rows, masks = negated.shape
    inside = negated < 0
    at = np.flatnonzero(inside[:, 1:] != inside[:, :-1])
    row = at // masks
    mask = at - row * masks
    column = row // max(1, rows - 1)
    row -= column * (rows - 1)
    column *= masks
    at += column
    column += mask
    flat = negated.reshape(-1)
    return tops.reshape(-1)[column], row, flat[at], flat[at + masks]


def _keys(
    top: np.ndarray, row: np.ndarray, before: np.ndarray, after: np.ndarray, last_step: _Steps
) -> np.ndarray:
    """Pixels of the output at which a mask begins or ends, from what :func:`_changes` finds."""
    ends = before < 0
    pixel = top + last_step.first[row]
    for share in last_step.shares:
        weight = share[row]
        pixel += (before * (1 - weight) + after * weight < 0) == ends  # still as before
    return pixel


def _unpaired(keys: np.ndarray) -> np.ndarray:
    """Keys that come an odd number of times, sorted: two changes at one pixel are none."""
    keys.sort()
    again = np.flatnonzero(keys[1:] == keys[:-1])
    repeated, times = np.unique(keys[again], return_counts=True)  # times - 1
    kept = np.ones(len(keys), dtype=bool)
    kept[again] = False
    kept[np.searchsorted(keys, repeated[times % 2 == 1], side="right") - 1] = False
    return keys[kept]


@dataclass(frozen=True)
class _Rows:
    """A tile's part of the resized rows, and one row more, which begins the next tile."""

    start: int
    stop: int
    own: int  # without the one more
    cells: slice  # that they depend on
    taps: Taps


@dataclass(frozen=True)
class _Columns:
    """A tile's part of the columns."""

    pixels: np.ndarray  # at output size; those that need more cells come first
    cells: slice
    taps: Taps  # to the resized size
    output_taps: Taps  # to the pixels


@dataclass(frozen=True)
class _Steps:
    """Where the rows of the output lie among those of the resized frame."""

    count: int  # of resized rows
    first: np.ndarray  # (count,) first row of the output at or behind each
    shares: tuple[
        np.ndarray, ...
    ]  # (count,) each: way of that row and of the next ones to the next resized row


@lru_cache(maxsize=64)
def _rows(source: int, network: int, resized: int) -> tuple[_Rows, ...]:
    weights = interpolation(source, network)[:resized]
    tiles = _number_of_tiles(source, resized)
    bands = []
    for i in range(tiles):
        start, end = i * resized // tiles, (i + 1) * resized // tiles
        stop = min(end + 1, resized)
        cells = _used(weights[start:stop])
        bands.append(_Rows(start, stop, end - start, cells, _taps(weights[start:stop, cells])))
    return tuple(bands)


@lru_cache(maxsize=64)
def _columns(source: int, network: int, resized: int, output: int) -> tuple[_Columns, ...]:
    weights = interpolation(source, network)[:resized]
    output_weights = interpolation(resized, output) @ weights
    tiles = _number_of_tiles(source, min(resized, output))
    bands = []
    for i in range(tiles):
        part = weights[i * resized // tiles : (i + 1) * resized // tiles]
        pixels = np.arange(i * output // tiles, (i + 1) * output // tiles)
        pixels = pixels[np.argsort(-np.count_nonzero(output_weights[pixels], axis=1), kind="stable")]
        output_part = output_weights[pixels]
        cells = _used(np.concatenate([part, output_part]))
        output_taps = _taps(output_part[:, cells])
        # Sums do not depend on the order of pixels.
        taps = output_taps if output == resized else _taps(part[:, cells])
        bands.append(_Columns(pixels, cells, taps, output_taps))
    return tuple(bands)


@lru_cache(maxsize=64)
def _steps(resized: int, output: int) -> _Steps:
    knots = np.arange(resized)
    positions = interpolation(resized, output) @ knots
    first = np.searchsorted(positions, knots)
    longest = int(np.diff(first).max()) if resized > 1 else 0
    positions = np.append(positions, np.full(longest, np.inf))
    shares = (np.minimum(positions[first + i] - knots, 1).astype(np.float32) for i in range(longest))
    return _Steps(resized, first, tuple(shares))


def _number_of_tiles(source: int, pixels: int) -> int:
    return min(pixels, max(1, round(source / TILE)))


def _used(weights: np.ndarray) -> slice:
    """The cells ``(pixels, cells)`` weights give weight to, and those between."""
    cells = np.flatnonzero(weights.any(0))
    return slice(cells[0], cells[-1] + 1)


def _taps(weights: np.ndarray) -> Taps:
    """The numbers of ``(pixels, cells)`` weights that are not zero."""
    order = np.argsort(weights == 0, axis=1, kind="stable")
    weights = np.take_along_axis(weights, order, 1).astype(np.float32)
    taps = []
    for cells, numbers in zip(order.T, weights.T, strict=True):
        used = np.flatnonzero(numbers)
        if len(used):
            first = slice(used[-1] + 1)
            taps.append((cells[first].copy(), numbers[first, None].copy()))
    return tuple(taps)


def _interpolate(x: np.ndarray, taps: Taps) -> np.ndarray:
    """``(cells, X)`` to ``(pixels, X)``."""
    (cells, weights), *more = taps
    out = np.take(x, cells, axis=0)
    # A buffer that rows do not fit in: NumPy 2.4 would fill it with copies of the weights.
    usual = np.setbufsize(BUFFER)
    try:
        out *= weights
        if more:
            terms = np.empty_like(out[: len(more[0][0])])
            for cells, weights in more:
                term = terms[: len(cells)]
                np.take(x, cells, axis=0, out=term, mode="clip")  # another mode would copy
                term *= weights
                out[: len(cells)] += term
    finally:
        np.setbufsize(usual)
    return out


def interpolation(source: int, target: int) -> np.ndarray:
    """``(target, source)`` float64: the float32 weights that ``F.interpolate`` gives to unit vectors."""
    if source == target:
        return np.eye(source)
    unit = torch.eye(source)[None]
    return F.interpolate(unit, size=target, mode="linear", align_corners=False)[0].T.double().numpy()
