"""Masks as run-length encodings: conversion, IoU over frames and over tubes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from vistk.ops.tube_pixels import tube_pixels
from vistk.structures import RLE


def to_rle(segmentation: Any, height: int, width: int) -> RLE:
    """A COCO segmentation of one frame as a compressed RLE.

    Args:
        segmentation: compressed RLE (``counts`` str or bytes), uncompressed RLE (``counts`` list) or
            polygons (list of flat ``[x0, y0, x1, y1, ..]`` lists).
        height, width: size of the video frame in pixels.

    Raises:
        ValueError: the encoding is none of these, an RLE is of another size, or the frame is larger than
            pycocotools can count.
    """
    if height * width > MOST_PIXELS:
        raise ValueError(f"a frame of {width}x{height} pixels is larger than an RLE can be")
    if isinstance(segmentation, dict):
        if "counts" not in segmentation or "size" not in segmentation:
            raise ValueError(f"an RLE needs 'counts' and 'size', found keys {sorted(segmentation)}")
        size, found = [height, width], segmentation["size"]
        if not isinstance(found, Iterable) or list(found) != size:
            raise ValueError(f"RLE size is {found}, the video is {size} (height, width)")
        counts = segmentation["counts"]
        if isinstance(counts, list):
            try:
                runs = np.array(counts)
            except ValueError:  # lists among them
                runs = np.zeros((0, 0))
            if runs.dtype.kind not in "iu" or runs.ndim != 1:
                raise ValueError("uncompressed RLE counts are not integers")
            if runs.min() < 0 or runs.max() > MOST_PIXELS:
                wrong = runs.min() if runs.min() < 0 else runs.max()
                raise ValueError(f"uncompressed RLE has a run of {wrong} pixels")
            if runs.sum() != height * width:
                raise ValueError(
                    f"uncompressed RLE covers {runs.sum()} pixels, the frame has {height * width}"
                )
            # pycocotools compares two masks only up to a zero-length run that they share.
            kept = runs if runs.all() else _without_empty_runs(counts)
            return _as_text(coco_mask.frPyObjects({"size": size, "counts": kept}, height, width))
        if isinstance(counts, str | bytes):
            return _as_text({"size": size, "counts": counts})
        raise ValueError(f"RLE counts are {type(counts).__name__}, expected a string or a list")
    if isinstance(segmentation, list):
        if not segmentation:
            raise ValueError("an empty list of polygons; an absent instance is written as null")
        if _is_bitmap(segmentation, height, width):
            raise ValueError("rows of pixels, expected an RLE or polygons")
        if not all(isinstance(p, list) and len(p) >= 6 and len(p) % 2 == 0 for p in segmentation):
            raise ValueError("a polygon needs at least three points, as a flat list [x0, y0, x1, y1, ..]")
        # pycocotools reads whatever it is given as numbers, and draws edges of any length.
        if not all(_is_coordinate(x) for polygon in segmentation for x in polygon):
            raise ValueError(f"a polygon has a coordinate that is no number between +-{FARTHEST:.0f}")
        return _as_text(coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width)))
    raise ValueError(f"a segmentation is {type(segmentation).__name__}, expected an RLE or polygons")


MOST_PIXELS = 2**32 - 1
"""Of a frame: pycocotools counts them in 32 bits, and crashes or goes wrong beyond."""

FARTHEST = 1e6
"""Coordinates of polygons beyond it, in pixels, are mistakes."""


def _is_bitmap(polygons: list[Any], height: int, width: int) -> bool:
    """Whether it is a mask written pixel by pixel, which would pass for polygons with corners at 0 and 1."""
    if len(polygons) != height or not all(isinstance(row, list) and len(row) == width for row in polygons):
        return False
    return all(value in (0, 1) for row in polygons for value in row)


def _is_coordinate(x: Any) -> bool:
    return type(x) in (int, float) and abs(x) <= FARTHEST  # false for NaN


def _without_empty_runs(counts: Sequence[int]) -> list[int]:
    """The same runs without zero-length ones; only the first (background) may be empty."""
    merged = [0]
    for position, count in enumerate(counts):
        if not count:
            continue
        if len(merged) % 2 != position % 2:  # of the same value as the last run kept
            merged[-1] += count
        else:
            merged.append(count)
    return merged


def _as_text(rle: dict[str, Any]) -> RLE:
    counts = rle["counts"]
    return {
        "size": list(rle["size"]),
        "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts,
    }


def decode(rle: RLE) -> np.ndarray:
    """``(H, W)`` bool array of an RLE."""
    return coco_mask.decode(rle).astype(bool)


def encode(masks: Tensor) -> list[RLE]:
    """RLEs of ``(N, H, W)`` bool masks.

    The transpose happens on the masks' device, so that pycocotools gets Fortran-ordered memory
    without another copy (about three times faster than ``np.asfortranarray`` per mask).
    """
    if masks.shape[0] == 0:
        return []
    columns = masks.to(torch.uint8).transpose(1, 2).contiguous().cpu().numpy()  # (N, W, H)
    return [_as_text(rle) for rle in coco_mask.encode(columns.transpose(2, 1, 0))]


def rles_of_run_ends(ends: np.ndarray, bounds: np.ndarray, size: tuple[int, int]) -> list[RLE | None]:
    """RLEs of masks from the ends of their runs; the reverse of :func:`vistk.ops.runs.run_ends`.

    Args:
        ends: ``(E,)`` int64, ascending within a mask: pixels, counted down the columns, that are unlike the
            one before (before the first one is background), and in the end the number of all pixels.
        bounds: ``(N + 1,)`` int64, where each mask begins among them, and E.
        size: height and width.

    Returns:
        N RLEs, ``None`` for a mask without pixels.
    """
    starts, stops = bounds[:-1], bounds[1:]
    runs = np.diff(ends, prepend=0)
    runs[starts] = ends[starts]
    # From the fourth on, a number is the difference to the run two before.
    numbers = runs.copy()
    numbers[2:] -= runs[:-2]
    for i in range(3):
        plain = (starts + i)[starts + i < stops]
        numbers[plain] = runs[plain]
    # Six bits a character: five of the number, the lowest first, and one for "more follow".
    magnitude = numbers ^ (numbers >> 63)  # -1 - n for a negative n
    widths = np.ones_like(numbers)
    wide = np.flatnonzero(magnitude >= 16)
    while len(wide):
        widths[wide] += 1
        wide = wide[magnitude[wide] >> 5 * widths[wide] - 1 > 0]
    lasts = widths.cumsum()
    text = np.empty(widths.sum(), dtype=np.uint8)
    at = lasts - widths
    while len(numbers):
        more = widths > 1
        text[at] = (numbers & 31) + (32 * more + 48)
        numbers, at, widths = numbers[more] >> 5, at[more] + 1, widths[more] - 1
    counts = text.tobytes().decode("ascii")
    texts = itertools.pairwise([0, *lasts[stops - 1].tolist()])
    return [
        {"size": list(size), "counts": counts[first:last]} if number > 1 else None
        for (first, last), number in zip(texts, np.diff(bounds).tolist(), strict=True)
    ]


def areas(rles: Sequence[RLE | None]) -> np.ndarray:
    """``(N,)`` float64 pixel counts; 0 for ``None``."""
    out = np.zeros(len(rles))
    present = [i for i, rle in enumerate(rles) if rle is not None]
    # pycocotools counts the masks of one call in 8 bits
    for first in range(0, len(present), 255):
        chunk = present[first : first + 255]
        out[chunk] = coco_mask.area([rles[i] for i in chunk])
    return out


class Tube(tuple[RLE | None, ...]):
    """The masks of one object, one entry a frame, which count their pixels once."""

    @cached_property
    def areas(self) -> np.ndarray:
        """``(T,)`` float64 pixel counts; 0 for ``None``."""
        return areas(self)


def tube_areas(tubes: Sequence[Sequence[RLE | None]], num_frames: int) -> np.ndarray:
    """``(T, len(tubes))`` float64 pixel counts; 0 for ``None``."""
    out = np.zeros((num_frames, len(tubes)))
    for i, tube in enumerate(tubes):
        out[:, i] = tube.areas if isinstance(tube, Tube) else areas(tube)
    return out


def frame_iou(a: Sequence[RLE | None], b: Sequence[RLE | None]) -> np.ndarray:
    """``(len(a), len(b))`` float64 IoU between masks of one frame; empty against empty is 0."""
    area_a, area_b = areas(a), areas(b)
    return iou_from_counts(_shared_pixels(_sparse_iou(a, b), area_a, area_b), area_a, area_b)


def _sparse_iou(a: Sequence[RLE | None], b: Sequence[RLE | None]) -> np.ndarray:
    """``(len(a), len(b))`` IoU as pycocotools has it, 0 for ``None``."""
    rows = [i for i, rle in enumerate(a) if rle is not None]
    cols = [j for j, rle in enumerate(b) if rle is not None]
    out = np.zeros((len(a), len(b)))
    if rows and cols:
        out[np.array(rows)[:, None], cols] = coco_mask.iou(
            [a[i] for i in rows], [b[j] for j in cols], [0] * len(cols)
        )
    return out


def _shared_pixels(iou: np.ndarray, area_a: np.ndarray, area_b: np.ndarray) -> np.ndarray:
    # pycocotools gives IoU only; the intersection is recovered exactly from it and the areas
    # (an integer below 2^31 survives the round trip through a double).
    return np.rint(iou * (area_a[..., :, None] + area_b[..., None, :]) / (1.0 + iou))


def iou_from_counts(intersection: np.ndarray, area_a: np.ndarray, area_b: np.ndarray) -> np.ndarray:
    """``(.., A, B)`` IoU from shared pixels ``(.., A, B)`` and areas ``(.., A)``, ``(.., B)``; 0/0 is 0."""
    union = area_a[..., :, None] + area_b[..., None, :] - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def tube_overlaps(
    a: Sequence[Sequence[RLE | None]],
    b: Sequence[Sequence[RLE | None]],
    num_frames: int,
    labels: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shared pixels and areas of mask tubes, frame by frame.

    Args:
        labels: ``(A,)`` and ``(B,)`` integers; only pairs of equal labels are intersected, for others the
            shared pixels are 0. None: all pairs are.

    Returns:
        intersections ``(T, A, B)``, areas of ``a`` ``(T, A)`` and of ``b`` ``(T, B)``, all float64.

    Raises:
        ValueError: a tube has not ``num_frames`` entries.
    """
    for tube in (*a, *b):
        if len(tube) != num_frames:
            raise ValueError(f"a mask tube has {len(tube)} frames, expected {num_frames}")
    sizes = {tuple(mask["size"]) for tube in (*a, *b) for mask in tube if mask is not None}
    pairs = None if labels is None else labels[0][:, None] == labels[1]
    found = tube_pixels(a, b, num_frames, next(iter(sizes)), pairs) if len(sizes) == 1 else None
    if found is not None and found.sound.all():
        shared = found.shared.transpose(2, 0, 1).astype(np.float64, order="C")
        area_a, area_b = (x.T.astype(np.float64, order="C") for x in (found.areas, found.other_areas))
    else:
        area_a, area_b = tube_areas(a, num_frames), tube_areas(b, num_frames)
        frames = (([tube[t] for tube in a], [tube[t] for tube in b]) for t in range(num_frames))
        iou = np.array([_sparse_iou(*pair) for pair in frames]).reshape(num_frames, len(a), len(b))
        shared = _shared_pixels(iou, area_a, area_b)
        if pairs is not None:
            shared *= pairs
    return shared, area_a, area_b


def tube_iou(a: Sequence[Sequence[RLE | None]], b: Sequence[Sequence[RLE | None]]) -> np.ndarray:
    """``(len(a), len(b))`` IoU of mask tubes: summed intersections over summed unions of all frames.

    A missing frame counts as an empty mask; two empty tubes have IoU 0 (the YouTube-VIS definition).
    """
    num_frames = len(a[0]) if len(a) else len(b[0]) if len(b) else 0
    intersections, area_a, area_b = tube_overlaps(a, b, num_frames)
    return iou_from_counts(intersections.sum(0), area_a.sum(0), area_b.sum(0))
