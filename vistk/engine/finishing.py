"""Finished masks: from a query's low-resolution logits to run lengths at output size, when asked for.

As published: bilinear to the network's size, crop the padding, bilinear to the output size, > 0. The mask
probability is summed at the resized size, before the last step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vistk.engine.tiles import resize_by_tiles
from vistk.ops.masks import rles_of_run_ends
from vistk.structures import RLE, FinishedMask, FinishedMasks

CHUNK_BYTES = 2**26  # of an accelerator's memory that masks take on their way to run lengths
BYTES_A_PIXEL = 12  # of that: floats before and after the last step, and what comes from comparing them
MASKS_ON_CPU = 16  # about, at once and thread; 60 MB where masks are noise, 5 MB where they are objects
TOGETHER = 64  # masks of a video that are gathered at a time


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
    if len(mask_logits) == 0:
        return FinishedMasks((), *torch.zeros(2, 0, dtype=torch.float64, device="cpu"))
    if mask_logits.device.type == "cpu":
        # Gradients are off in this thread alone. As many for each thread.
        turns = max(1, round(len(mask_logits) / (MASKS_ON_CPU * torch.get_num_threads())))
        at_once = math.ceil(len(mask_logits) / (turns * torch.get_num_threads()))
        parts = _in_threads(partial(_by_tiles, size=size), mask_logits.detach().split(at_once))
    else:
        pixels = max(math.prod(size.output), math.prod(size.network))
        at_once = max(1, CHUNK_BYTES // (BYTES_A_PIXEL * pixels))
        parts = [_by_pixels(part, size) for part in mask_logits.split(at_once)]
    return FinishedMasks(
        tuple(rle for part in parts for rle in part.rles),
        torch.cat([part.probability_sum for part in parts]),
        torch.cat([part.area for part in parts]),
    )


def _in_threads(work: Callable[[Tensor], FinishedMasks], parts: Sequence[Tensor]) -> list[FinishedMasks]:
    """``work`` on every part, on as many cores as PyTorch may use: NumPy lets go of the interpreter."""
    threads = min(torch.get_num_threads(), len(parts))
    if threads == 1:
        return [work(part) for part in parts]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, parts))


def _by_tiles(mask_logits: Tensor, size: FrameSize) -> FinishedMasks:
    """What a CPU is good at: few numbers."""
    tiled = resize_by_tiles(mask_logits.float().numpy(), size.network, size.resized, size.output)
    rles = rles_of_run_ends(tiled.ends, tiled.bounds, size.output)
    return FinishedMasks(tuple(rles), torch.from_numpy(tiled.probability_sum), torch.from_numpy(tiled.area))


def _by_pixels(mask_logits: Tensor, size: FrameSize) -> FinishedMasks:
    """What an accelerator is good at: all pixels, step by step. Only changes along the columns leave it."""
    logits = F.interpolate(mask_logits[None].float(), size=size.network, mode="bilinear", align_corners=False)
    logits = logits[..., : size.resized[0], : size.resized[1]]
    inside = logits[0] > 0
    probability = (logits[0].sigmoid() * inside).flatten(1).sum(1, dtype=torch.float64)
    area = inside.flatten(1).sum(1, dtype=torch.float64)
    if size.output != size.resized:
        logits = F.interpolate(logits, size=size.output, mode="bilinear", align_corners=False)
    pixels = (logits[0] > 0).mT.flatten(1)  # in the order in which an RLE counts
    mask, change = (pixels != F.pad(pixels[:, :-1], (1, 0))).nonzero().cpu().numpy().T
    probability, area = torch.stack([probability, area]).cpu()
    stops = np.bincount(mask, minlength=len(pixels)).cumsum()
    ends = np.insert(change, stops, pixels.shape[1])
    bounds = np.append(0, stops + np.arange(1, len(pixels) + 1))
    return FinishedMasks(tuple(rles_of_run_ends(ends, bounds, size.output)), probability, area)


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

    @property
    def mask_logits(self) -> Tensor:
        """``(Q, h, w)``, as they came."""
        return self._mask_logits

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

    def finished(self, queries: Collection[int] | None = None) -> FinishedMasks:
        """All masks, free of the logits.

        Args:
            queries: those that are wanted, the others are without a pixel; ``None`` = all.
        """
        wanted = range(len(self)) if queries is None else set(queries)
        self._finish(wanted)
        none = FinishedMask(None, 0.0, 0.0)
        masks = [self._finished[query] if query in wanted else none for query in range(len(self))]
        return FinishedMasks(
            tuple(mask.rle for mask in masks),
            torch.tensor([mask.probability_sum for mask in masks], dtype=torch.float64, device="cpu"),
            torch.tensor([mask.area for mask in masks], dtype=torch.float64, device="cpu"),
        )

    def only(self, queries: Sequence[int]) -> FrameMasks:
        """Some of the masks with memory of their own: frames that passed together are views of one."""
        some = FrameMasks(self._mask_logits[list(queries)], self.size)
        some._finished = {row: self._finished[q] for row, q in enumerate(queries) if q in self._finished}
        return some

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
