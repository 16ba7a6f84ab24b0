"""Finished masks: from a query's low-resolution logits to run lengths at output size, when asked for.

As published: bilinear to the network's size, crop the padding, bilinear to the output size, > 0. The mask
probability is summed at the resized size, before the last step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vistk.ops.masks import encode_columns, to_rle
from vistk.structures import RLE, FinishedMask, FinishedMasks

CHUNK_BYTES = 2**26  # of device memory that masks take on their way to run lengths
TOGETHER = 64  # masks of a video that are gathered at a time
TILE = 16  # side of a tile in cells of the mask logits


@dataclass(frozen=True)
class FrameSize:
    """Sizes of a frame on its way through the network, ``(height, width)`` in pixels."""

    network: tuple[int, int]  # resized and padded
    resized: tuple[int, int]  # resized, before padding
    output: tuple[int, int]  # of the masks asked for


@torch.no_grad()
def finish_masks(mask_logits: Tensor, size: FrameSize) -> FinishedMasks:
    """Masks at output size, and the sums that rescoring needs. Floats of any width; computed in float32.

    Memory beside the result does not depend on the number of masks.

    Args:
        mask_logits: ``(N, h, w)``.
    """
    on_cpu = mask_logits.device.type == "cpu"
    pixels = max(math.prod(size.output), math.prod(size.network))
    chunk = max(1, CHUNK_BYTES // ((2 if on_cpu else 12) * pixels))
    parts = [(_by_tiles if on_cpu else _by_pixels)(part, size) for part in mask_logits.split(chunk)]
    return FinishedMasks(
        tuple(rle for rles, _, _ in parts for rle in rles),
        torch.cat([probability for _, probability, _ in parts]),
        torch.cat([area for _, _, area in parts]),
    )


Finished = tuple[list[RLE | None], Tensor, Tensor]


def _by_pixels(mask_logits: Tensor, size: FrameSize) -> Finished:
    """All pixels, step by step as published: what an accelerator is good at."""
    logits = F.interpolate(mask_logits[None].float(), size=size.network, mode="bilinear", align_corners=False)
    logits = logits[..., : size.resized[0], : size.resized[1]]
    inside = logits[0] > 0
    probability = (logits[0].sigmoid() * inside).flatten(1).sum(1, dtype=torch.float64)
    area = inside.flatten(1).sum(1, dtype=torch.float64)
    if size.output != size.resized:
        logits = F.interpolate(logits, size=size.output, mode="bilinear", align_corners=False)
    rles = _encoded((logits[0] > 0).mT)
    probability, area = torch.stack([probability, area]).cpu()
    return rles, probability, area


def _by_tiles(mask_logits: Tensor, size: FrameSize) -> Finished:
    """Both steps as one, and only the tiles in which a mask is positive somewhere: what a CPU is good at.

    Where no logit around a pixel is positive, it is not either, as the weights of interpolation are not
    negative. All arithmetic is elementwise, in an order that is the same for a mask alone and among others:
    no matrix product, and no ``sigmoid`` of torch, which treats the last elements of an array in another way.
    """
    n = len(mask_logits)
    probability, area = torch.zeros(2, n, dtype=torch.float64)
    for index, _, _, logits in _tiles(mask_logits, size, size.resized):
        logits = logits.flatten(1).clamp_(min=0)
        inside = logits.sign().sum(1)
        values = logits.neg_().numpy()
        np.exp(values, out=values)
        values += 1
        np.divide(1, values, out=values)
        # Multiples of 2^-24 from 0.5 to 1, so that their sum is exact; 0.5 outside of the mask.
        area[index] += inside
        probability[index] += logits.sum(1, dtype=torch.float64) - 0.5 * (logits.shape[1] - inside)
    columns = np.zeros((n, size.output[1], size.output[0]), dtype=bool)
    for index, rows, across, logits in _tiles(mask_logits, size, size.output):
        # NumPy compares six times as fast as torch does.
        columns[index.numpy(), across, rows] = logits.numpy() > 0
    return _encoded(torch.from_numpy(columns)), probability, area


def _encoded(columns: Tensor) -> list[RLE | None]:
    """RLEs of ``(N, W, H)`` masks, ``None`` where empty."""
    width, height = columns.shape[1:]
    empty = to_rle({"size": [height, width], "counts": [height * width]}, height, width)
    return [None if rle == empty else rle for rle in encode_columns(columns)]


def _tiles(
    mask_logits: Tensor, size: FrameSize, wanted: tuple[int, int]
) -> Iterator[tuple[Tensor, slice, slice, Tensor]]:
    """Resized logits, tile by tile, of the masks that are positive there.

    Args:
        wanted: ``size.resized`` or ``size.output``.

    Yields:
        which masks (M,), rows and columns of the tile, and the logits ``(M, columns, rows)``, transposed.
    """
    h, w = mask_logits.shape[1:]
    down = _bands(h, size.network[0], size.resized[0], wanted[0])
    across = _bands(w, size.network[1], size.resized[1], wanted[1])
    positive = mask_logits > 0
    for rows in down:
        positive_columns = positive[:, rows.cells].any(1)
        for columns in across:
            index = positive_columns[:, columns.cells].any(1).nonzero()[:, 0]
            if len(index):
                logits = rows.interpolate(mask_logits[index, rows.cells, columns.cells].float())
                yield index, rows.pixels, columns.pixels, columns.interpolate(logits.mT.contiguous())


@dataclass(frozen=True)
class _Band:
    """A tile's part of one axis."""

    pixels: slice
    cells: slice  # of the mask logits, those that the pixels depend on
    taps: tuple[tuple[Tensor, Tensor], ...]  # for each pixel a cell (pixels,) and its weight (pixels, 1)

    def interpolate(self, logits: Tensor) -> Tensor:
        """``(M, cells, X)`` to ``(M, pixels, X)``."""
        (cells, weights), *more = self.taps
        out = logits.index_select(1, cells).mul_(weights)
        for cells, weights in more:
            out += logits.index_select(1, cells).mul_(weights)
        return out


@lru_cache(maxsize=64)
def _bands(source: int, network: int, resized: int, wanted: int) -> tuple[_Band, ...]:
    """One axis of :func:`_tiles`: the weights of ``F.interpolate``, once or twice, on unit vectors."""
    weights = _interpolation(source, network)[:resized]
    if wanted != resized:
        weights = _interpolation(resized, wanted) @ weights
    tiles = min(wanted, max(1, round(source / TILE)))
    bands = []
    for i in range(tiles):
        pixels = slice(i * wanted // tiles, (i + 1) * wanted // tiles)
        used = weights[pixels].any(0).nonzero()
        cells = slice(int(used[0]), int(used[-1]) + 1)
        part = weights[pixels, cells]
        order = (part == 0).int().argsort(stable=True)  # cells that count come first
        most = int((part != 0).sum(1).max())
        taps = tuple((cell, part.gather(1, cell[:, None]).float()) for cell in order[:, :most].unbind(1))
        bands.append(_Band(pixels, cells, taps))
    return tuple(bands)


def _interpolation(source: int, target: int) -> Tensor:
    """``(target, source)`` float64 matrix of the float32 weights of linear interpolation."""
    unit = torch.eye(source)[None]
    return F.interpolate(unit, size=target, mode="linear", align_corners=False)[0].T.double()


class FrameMasks:
    """The masks of one frame, each finished once, when asked for; :class:`vistk.structures.Masks`.

    Attributes:
        size: of the frame.
        seconds: spent on finishing because somebody read a mask that nobody had finished.
    """

    def __init__(self, mask_logits: Tensor, size: FrameSize) -> None:
        """Takes ``(Q, h, w)``."""
        self.size = size
        self.seconds = 0.0
        self._mask_logits = mask_logits
        self._finished: dict[int, FinishedMask] = {}

    def __len__(self) -> int:
        return len(self._mask_logits)

    def __getitem__(self, query: int) -> FinishedMask:
        if query not in self._finished:
            self._finish([query])
        return self._finished[query]

    @property
    def rles(self) -> tuple[RLE | None, ...]:
        return self.finished().rles

    @property
    def probability_sum(self) -> Tensor:
        return self.finished().probability_sum

    @property
    def area(self) -> Tensor:
        return self.finished().area

    def finished(self) -> FinishedMasks:
        """All masks, free of the logits."""
        self._finish(range(len(self)))
        masks = [self._finished[query] for query in range(len(self))]
        return FinishedMasks(
            tuple(mask.rle for mask in masks),
            torch.tensor([mask.probability_sum for mask in masks], dtype=torch.float64),
            torch.tensor([mask.area for mask in masks], dtype=torch.float64),
        )

    def _finish(self, queries: Collection[int]) -> None:
        started = time.perf_counter()
        finish_chosen([(self, queries)])
        self.seconds += time.perf_counter() - started


def finish_chosen(wanted: Iterable[tuple[FrameMasks, Collection[int]]]) -> None:
    """Finish some masks of some frames together, which is faster than one by one or frame by frame.

    Args:
        wanted: frames of one size and the queries whose masks are wanted; some may be finished by now.
    """
    missing = [(frame, q) for frame, queries in wanted for q in queries if q not in frame._finished]
    for first in range(0, len(missing), TOGETHER):
        part = missing[first : first + TOGETHER]
        masks = finish_masks(torch.stack([frame._mask_logits[q] for frame, q in part]), part[0][0].size)
        for (frame, q), *mask in zip(
            part, masks.rles, masks.probability_sum.tolist(), masks.area.tolist(), strict=True
        ):
            frame._finished[q] = FinishedMask(*mask)
