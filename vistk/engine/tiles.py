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

TILE = 16  # side of a tile in cells of the mask logits

Taps = tuple[tuple[np.ndarray, np.ndarray], ...]
"""Linear interpolation of one axis: for each pixel cells (pixels,) and their weights (pixels, 1)."""


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
    positive = mask_logits > 0
    for rows in _rows(h, network[0], resized[0]):
        positive_columns = positive[:, rows.cells].max(1)
        for columns in _columns(w, network[1], resized[1], width):
            index = np.flatnonzero(positive_columns[:, columns.cells].max(1))
            if not len(index):
                continue
            x = _interpolate(mask_logits[index, rows.cells, columns.cells], rows.taps)
            x = np.ascontiguousarray(x.transpose(0, 2, 1))  # (M, cells, rows)
            logits = _interpolate(x, columns.taps)
            sums = _sums(logits[:, :, : rows.own])
            probability[index] += sums[0]
            area[index] += sums[1]
            if columns.output_taps is not columns.taps:
                logits = _interpolate(x, columns.output_taps)
            tops = index[:, None] * stride + np.arange(columns.start, columns.stop) * height
            keys += _changes(logits, tops.reshape(-1), rows, last_step, height)
    found = _unpaired(np.concatenate(keys))
    behind = np.arange(1, n + 1) * stride - 1
    at = np.searchsorted(found, behind)
    background = np.append(found, -1)[at] != behind  # in the end, so that the last run ends there, too
    found = np.insert(found, at[background], behind[background])
    bounds = np.append(0, np.searchsorted(found, behind) + 1)
    return TiledMasks(probability, area, found - (behind - (stride - 1)).repeat(np.diff(bounds)), bounds)


def _sums(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the positive ones among ``(M, ..)`` logits, the sum of probabilities and the number, each (M,)."""
    values = np.maximum(logits, 0).reshape(len(logits), -1)
    area = np.sign(values).sum(1)  # exact: whole numbers
    np.negative(values, out=values)
    np.exp(values, out=values)
    values += 1
    np.divide(1, values, out=values)
    # Multiples of 2^-24 from 0.5 to 1, so that this sum is exact, too; 0.5 where the logit is not positive.
    total = values.sum(1, dtype=np.float64)
    return total - 0.5 * (values.shape[1] - area), area


def _changes(
    logits: np.ndarray, tops: np.ndarray, rows: _Rows, last_step: _Steps, height: int
) -> list[np.ndarray]:
    """Pixels of the output at which a mask begins or ends, going down each column from background.

    A column that ends in the mask changes behind its last pixel.

    Args:
        logits: ``(M, columns, rows)``, rows at the resized size, columns at output size.
        tops: ``(M * columns,)`` keys of the topmost pixels.
    """
    inside = logits > 0
    found = []
    if rows.start == 0:
        found.append(tops[inside[:, :, 0].reshape(-1)])
    if rows.stop == last_step.count:
        found.append(tops[inside[:, :, -1].reshape(-1)] + height)
    pairs = logits.shape[2] - 1
    if pairs:
        at = np.flatnonzero(inside[:, :, 1:] != inside[:, :, :-1])
        column = at // pairs
        row = at - column * pairs + rows.start
        at += column
        flat = logits.reshape(-1)
        before, after = flat[at], flat[at + 1]
        ends = before > 0
        pixel = tops[column] + last_step.first[row]
        for share in last_step.shares:
            weight = share[row]
            pixel += (before * (1 - weight) + after * weight > 0) == ends  # still as before
        found.append(pixel)
    return found


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

    start: int  # at output size
    stop: int
    cells: slice
    taps: Taps  # to the resized size
    output_taps: Taps


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
        start, stop = i * output // tiles, (i + 1) * output // tiles
        cells = _used(np.concatenate([part, output_weights[start:stop]]))
        taps = _taps(part[:, cells])
        output_taps = taps if output == resized else _taps(output_weights[start:stop, cells])
        bands.append(_Columns(start, stop, cells, taps, output_taps))
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
    most = int(np.count_nonzero(weights, axis=1).max())
    return tuple(
        (cells, np.take_along_axis(weights, cells[:, None], 1).astype(np.float32))
        for cells in np.ascontiguousarray(order[:, :most].T)
    )


def _interpolate(x: np.ndarray, taps: Taps) -> np.ndarray:
    """``(M, cells, X)`` to ``(M, pixels, X)``."""
    (cells, weights), *more = taps
    out = np.take(x, cells, axis=1)
    out *= weights
    if more:
        term = np.empty_like(out)
        for cells, weights in more:
            np.take(x, cells, axis=1, out=term, mode="clip")  # another mode would copy
            term *= weights
            out += term
    return out


def interpolation(source: int, target: int) -> np.ndarray:
    """``(target, source)`` float64: the float32 weights that ``F.interpolate`` gives to unit vectors."""
    if source == target:
        return np.eye(source)
    unit = torch.eye(source)[None]
    return F.interpolate(unit, size=target, mode="linear", align_corners=False)[0].T.double().numpy()
