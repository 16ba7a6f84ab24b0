"""Pixels of mask tubes, and those that they share, frame by frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from vistk.ops.columns import MOST_LAYERS, MOST_PLACES, read_areas, read_columns, shared_pixels
from vistk.structures import RLE

Masks = Sequence[RLE | None]
"""One tube: an entry a frame, None where there is nothing."""

_MASKS_AT_ONCE = 400  # few enough that their tables stay in the processor's cache
_PLACES_AT_ONCE = 2**22  # columns of masks: a window of frames of many tubes takes some 20 MB


class TubePixels(NamedTuple):
    """Of ``A`` tubes, beside ``B`` others, in ``T`` frames."""

    areas: np.ndarray  # (A, T) int64
    other_areas: np.ndarray  # (B, T) int64
    shared: np.ndarray  # (A, B, T) int64
    sound: np.ndarray  # (A,) bool; what is said of other tubes is not so


def tube_pixels(
    a: Sequence[Masks],
    b: Sequence[Masks],
    num_frames: int,
    size: Sequence[int],
    pairs: np.ndarray | None = None,
) -> TubePixels | None:
    """Counts the pixels of tubes whose masks may be broken.

    A tube is sound if the runs of each of its RLEs cover the frame, and no run but the first is empty. One
    that is not may spoil those that are read with it.

    Args:
        a, b: tubes of ``num_frames`` masks each, of the same ``size``, height and width.
        pairs: ``(A, B)`` bool, whose shared pixels are counted; None = all.

    Returns:
        None if those of ``b`` are not all sound, or frames are larger than can be counted.
    """
    found = TubePixels(
        areas=np.zeros((len(a), num_frames), dtype=np.int64),
        other_areas=np.zeros((len(b), num_frames), dtype=np.int64),
        shared=np.zeros((len(a), len(b), num_frames), dtype=np.int64),
        sound=np.ones(len(a), dtype=bool),
    )
    if pairs is None:
        pairs = np.ones((len(a), len(b)), dtype=bool)
    paired = pairs.any(1)
    most = max(1, MOST_PLACES // max(1, size[0] * (size[1] + 1)))  # masks whose pixels can be counted at once
    window = max(1, min(num_frames, _PLACES_AT_ONCE // max(1, len(b) * size[1]), most // max(1, len(b))))
    together = max(1, min(_MASKS_AT_ONCE, most) // window)
    for start in range(0, num_frames, window):
        frames = slice(start, min(start + window, num_frames))
        length = frames.stop - start
        others = [tube[frames] for tube in b]
        known = read_columns(others, length, size)
        if known is None:
            return None
        found.other_areas[:, frames] = known.areas
        for rows in _chunks(np.flatnonzero(~paired), together):
            areas = read_areas([a[i][frames] for i in rows.tolist()], length, size)
            if areas is None:
                found.sound[rows] = False
            else:
                found.areas[rows, frames] = areas
        for rows in _chunks(np.flatnonzero(paired), together):
            tubes = [a[i][frames] for i in rows.tolist()]
            columns = read_columns(tubes, length, size)
            if columns is None:
                found.sound[rows] = False
                continue
            shared = shared_pixels(columns, known, pairs[rows], size)
            _many_layers(tubes, others, columns.layers, known.layers, pairs[rows], shared)
            found.areas[rows, frames] = columns.areas
            found.shared[rows, :, frames] = shared
    return found


def _chunks(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Parts of about equal length, none longer than ``size``."""
    return filter(len, np.array_split(rows, -(-len(rows) // size) or 1))


def _many_layers(
    a: Sequence[Masks],
    b: Sequence[Masks],
    layers_a: np.ndarray,
    layers_b: np.ndarray,
    wanted: np.ndarray,
    shared: np.ndarray,
) -> None:
    """Puts right what masks share that have too many runs in a column for tables."""
    many_a, many_b = layers_a > MOST_LAYERS, layers_b > MOST_LAYERS
    for t in np.flatnonzero(many_a.any(0) | many_b.any(0)).tolist():
        pairs = many_a[:, t, None] | many_b[:, t]
        pairs &= (layers_a[:, t, None] > 0) & (layers_b[:, t] > 0) & wanted
        rows, columns = np.flatnonzero(pairs.any(1)), np.flatnonzero(pairs.any(0))
        if len(rows) and len(columns):
            counted = shared_by_runs([a[i][t] for i in rows.tolist()], [b[j][t] for j in columns.tolist()])
            shared[rows[:, None], columns, t] = counted * wanted[rows[:, None], columns]


def shared_by_runs(a: Masks, b: Masks) -> np.ndarray:
    """``(len(a), len(b))`` float64 pixels that masks of one frame share, as pycocotools counts them."""
    area_a, area_b = (
        np.array([coco_mask.area(mask) for mask in masks], dtype=np.float64) for masks in (a, b)
    )
    iou = coco_mask.iou(list(a), list(b), [0] * len(b))
    # It says IoU only; an integer below 2^31 survives the way through a double.
    return np.rint(iou * (area_a[:, None] + area_b) / (1.0 + iou))
