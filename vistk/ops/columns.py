"""Masks by what they cover of each column of the frame, to count the pixels that many of them share.

A column of most masks is one run of pixels, or two. In tables of where these begin and end, for each column
and frame, the pixels that two tubes share take a few operations on whole tables, where RLEs are compared run
by run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np

from vistk.ops.run_pairs import RunPairs, run_pairs
from vistk.structures import RLE

MOST_LAYERS = 4
"""Runs in a column of one mask that tables are made for; each takes a pair of tables more."""

MOST_PLACES = 2**31 - 1
"""Pixels of all frames, which are counted in 32 bits."""

_COUNTS = itemgetter("counts")


@dataclass(frozen=True, eq=False)
class Columns:
    """``N`` tubes of ``T`` masks each, ``W`` columns wide; the spare column behind them means nothing."""

    tops: np.ndarray  # (L, N, W + 1, T) int16, where the first, second, .. run of each column begins
    stops: np.ndarray  # (L, N, W + 1, T) int16, behind its last pixel; 0 and 0 where there is no run
    areas: np.ndarray  # (N, T) int64, pixels
    layers: np.ndarray  # (N, T) int64, most runs in a column; if more than MOST_LAYERS, not all are here
    left: np.ndarray  # (N,) int64, first column with a pixel in any frame; W without any
    right: np.ndarray  # (N,) int64, behind the last one; 0 without any


def read_columns(
    tubes: Sequence[Sequence[RLE | None]], num_frames: int, size: Sequence[int]
) -> Columns | None:
    """The columns of compressed RLEs.

    Args:
        tubes: of ``num_frames`` masks each.
        size: height and width of all frames.

    Returns:
        None if an RLE is broken, does not cover its frame, or has an empty run other than its first; or if
        all is too large to be counted in this way.
    """
    height, width = size
    shape = len(tubes), num_frames
    if len(tubes) * num_frames * height * (width + 1) > MOST_PLACES or height > np.iinfo(np.int16).max:
        return None
    masks, counts = _texts(tubes)
    areas, layers, left, right = np.zeros((4, len(tubes) * num_frames), dtype=np.int64)
    left[:] = width
    if not len(masks):
        none = np.zeros((0, len(tubes), width + 1, num_frames), dtype=np.int16)
        areas, layers = areas.reshape(shape), layers.reshape(shape)
        return Columns(none, none, areas, layers, left[: len(tubes)], right[: len(tubes)])
    runs = run_pairs(counts)
    if runs is None or not runs.canonical:
        return None
    # As if all frames lay side by side, each with a column more: what ends one does not begin the next.
    origins = masks * (width + 1)
    starts = _starts(runs, origins * height, height * width)
    if starts is None:
        return None
    stops = starts + runs.inside.view(np.uint32)
    areas[masks] = runs.pixels(runs.inside)
    filled = areas[masks] > 0
    layers[masks[filled]] = 1
    left[masks[filled]] = (starts[runs.bounds[:-1]] // height - origins)[filled]
    right[masks[filled]] = ((stops[runs.bounds[1:] - 1 - runs.padded] - 1) // height + 1 - origins)[filled]
    # From there to tables of (tube, column, frame).
    shift = (masks // num_frames * (width + 1) - origins) * num_frames + masks % num_frames
    parts = _by_column(starts, stops, shift.repeat(np.diff(runs.bounds)), height)
    tables = _tables(*parts, layers, (width + 1, num_frames))
    tops, stops = tables.reshape(2, -1, len(tubes), width + 1, num_frames)
    return Columns(
        tops=tops,
        stops=stops,
        areas=areas.reshape(shape),
        layers=layers.reshape(shape),
        left=left.reshape(shape).min(1),
        right=right.reshape(shape).max(1),
    )


def read_areas(
    tubes: Sequence[Sequence[RLE | None]], num_frames: int, size: Sequence[int]
) -> np.ndarray | None:
    """``(N, T)`` int64 pixels, as :func:`read_columns` counts and checks them."""
    height, width = size
    if len(tubes) * num_frames * height * (width + 1) > MOST_PLACES:
        return None
    masks, counts = _texts(tubes)
    areas = np.zeros(len(tubes) * num_frames, dtype=np.int64)
    if len(masks):
        runs = run_pairs(counts)
        if runs is None or not runs.canonical:
            return None
        areas[masks] = runs.pixels(runs.inside)
        if (areas[masks] + runs.pixels(runs.background) != height * width).any():
            return None
    return areas.reshape(len(tubes), num_frames)


def _texts(tubes: Sequence[Sequence[RLE | None]]) -> tuple[np.ndarray, list[str]]:
    """Which of all masks of the tubes, one tube after the other, are there; and their counts."""
    masks: list[Any] = list(chain.from_iterable(tubes))
    if None not in masks:
        return np.arange(len(masks)), list(map(_COUNTS, masks))
    there = np.flatnonzero([mask is not None for mask in masks])
    return there, [_COUNTS(masks[i]) for i in there.tolist()]


def _starts(runs: RunPairs, origins: np.ndarray, pixels: int) -> np.ndarray | None:
    """``(P,)`` uint32, where runs inside masks begin if each RLE begins at its origin; None if one covers
    another number of pixels than its frame has.
    """
    if max(runs.background.max(), runs.inside.max()) > min(pixels, 2**30):
        return None
    firsts, lasts = runs.bounds[:-1], runs.bounds[1:] - 1
    starts = runs.background.copy()
    starts[1:] += runs.inside[:-1]
    starts[0] += origins[0]
    starts[firsts[1:]] += (np.diff(origins) - pixels).astype(np.int32)
    np.add.accumulate(starts, out=starts)
    # No step is longer than 2^31, so that a sum cannot pass 32 bits without one that has a sign.
    ends = starts[lasts].astype(np.int64) + runs.inside[lasts]
    return None if starts.min() < 0 or (ends != origins + pixels).any() else starts.view(np.uint32)


def _by_column(
    starts: np.ndarray, stops: np.ndarray, shift: np.ndarray, height: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Runs as parts of one column: which, their shift, and where they begin and end in it."""
    side = np.uint32(height)
    column = starts // side
    corner = column * side
    top, stop = starts - corner, stops - corner
    if stop.max() > side:  # goes on in the next column
        parts = (stop + side - np.uint32(1)) // side
        run = np.arange(len(parts)).repeat(parts)
        nth = (np.arange(len(run)) - (parts.cumsum() - parts)[run]).astype(np.uint32)
        column, shift = column[run] + nth, shift[run]
        top, stop = np.where(nth, np.uint32(0), top[run]), np.minimum(stop[run] - nth * side, side)
    return column, shift, top.astype(np.int16), stop.astype(np.int16)


def _tables(
    column: np.ndarray,
    shift: np.ndarray,
    top: np.ndarray,
    stop: np.ndarray,
    layers: np.ndarray,
    shape: tuple[int, int],
) -> np.ndarray:
    """``(2, cells)`` tops and stops, layer after layer; notes in ``layers`` where there are more than one."""
    width, num_frames = shape
    places = column.astype(np.int64)
    places *= num_frames
    places += shift
    cells = len(layers) * width
    depth = 1
    same = column[1:] == column[:-1]
    if same.any():
        again = np.flatnonzero(same) + 1
        of_masks = np.searchsorted(column, np.arange(len(layers) + 1, dtype=np.uint32) * np.uint32(width))
        of_masks = np.searchsorted(again, of_masks)  # where those of each mask begin
        several = np.flatnonzero(np.diff(of_masks))
        depth = 2
        layers[several] = 2
        if (same[1:] & same[:-1]).any():
            order = np.arange(len(again))
            layer = order - np.maximum.accumulate(np.where(np.diff(again, prepend=-1) > 1, order, 0)) + 1
            depth = min(int(layer.max()) + 1, MOST_LAYERS)
            layers[several] = np.maximum.reduceat(layer, of_masks[several]) + 1
            places[again] += layer * cells
            places[again[layer >= MOST_LAYERS]] = cells - 1  # spare
        else:
            places[again] += cells
    tables = np.zeros((2, depth * cells), dtype=np.int16)
    for table, values in zip(tables, (top, stop), strict=True):
        table[places] = values
    return tables


def shared_pixels(a: Columns, b: Columns, pairs: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """``(A, B, T)`` int64 pixels that tubes share in each frame, of masks with up to ``MOST_LAYERS``.

    Args:
        pairs: ``(A, B)`` bool; the others are 0.
    """
    (height, width), num_frames = size, a.areas.shape[1]
    out = np.zeros((len(a.areas), len(b.areas), num_frames), dtype=np.int64)
    nothing = np.zeros((width, num_frames), dtype=np.int16)  # far faster than a number to compare with
    ones = np.ones(width, np.float32 if height * width < 2**24 else np.float64)  # sums of these are exact
    first, last = np.maximum(a.left[:, None], b.left), np.minimum(a.right[:, None], b.right)
    depth_a, depth_b = (np.minimum(x.layers.max(1), MOST_LAYERS) for x in (a, b))
    for i, j in np.argwhere((first < last) & pairs).tolist():
        part = slice(first[i, j], last[i, j])
        empty = nothing[part]
        total = empty
        for m in range(depth_a[i]):
            top, stop = a.tops[m, i, part], a.stops[m, i, part]
            for n in range(depth_b[j]):
                shared = np.minimum(stop, b.stops[n, j, part])
                shared -= np.maximum(top, b.tops[n, j, part])
                np.maximum(shared, empty, out=shared)
                total = shared if total is empty else np.add(total, shared, out=total)
        out[i, j] = ones[part] @ total.astype(ones.dtype)
    return out
