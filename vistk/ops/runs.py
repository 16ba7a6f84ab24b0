"""The runs of compressed RLEs, read in bulk: whether they are sound, and where they lie.

pycocotools decodes to all pixels of a frame or to none, and believes what it is given.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from vistk.structures import RLE


def covered_pixels(rles: Sequence[RLE]) -> np.ndarray:
    """``(N,)`` int64 pixels that the runs of each RLE cover, background included; -1 where the counts are
    not a compressed RLE at all, or a run is negative.

    Anything but height x width is a broken mask, and pycocotools does not look: it computes nonsense,
    or never ends when it compares two masks that cover different numbers of pixels.
    """
    texts = [rle["counts"].encode("utf-8", "surrogatepass") for rle in rles]
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    stops = lengths.cumsum()
    digits = np.frombuffer(b"".join(texts), dtype=np.uint8) - np.uint8(48)
    fine = lengths > 0
    fine[fine] = digits[stops[fine] - 1] < 32
    fine[np.searchsorted(stops, np.flatnonzero(digits > 63), side="right")] = False
    totals = np.full(len(texts), -1, dtype=np.int64)
    if not fine.all():  # texts that cannot be read would be in the way of the others
        totals[fine] = covered_pixels([rle for rle, kept in zip(rles, fine, strict=True) if kept])
        return totals
    if not texts:
        return totals
    # Six bits a character: five of the number, the lowest first, and one for "more follow".
    ends = np.flatnonzero(digits < 32)
    values = digits[ends].astype(np.int64)
    values -= (values & 16) << 1  # the highest of the last five bits is the sign
    width = np.diff(ends, prepend=-1)
    more = np.flatnonzero(width > 1)
    for back in range(1, 7):
        values[more] = (values[more] << 5) | (digits[ends[more] - back] & 31)
        more = more[width[more] > back + 1]
    broken = np.zeros(len(texts), dtype=bool)
    broken[np.searchsorted(stops, ends[more], side="right")] = True
    # From the fourth on, a number is the difference to the run two before. So behind the first, every
    # other run is a cumulative sum: of the columns of a table, in which each text begins a row.
    counts = np.diff(np.searchsorted(ends, stops), prepend=0)
    firsts = counts.cumsum() - counts
    rows = counts // 2
    bottom = rows.cumsum()
    behind = np.ones(len(values), dtype=bool)
    behind[firsts] = False
    table = np.zeros((bottom[-1], 2), dtype=np.int64)
    used = np.ones(table.size, dtype=bool)
    used[2 * bottom[counts % 2 == 0] - 1] = False  # an even number of runs: the last row is half empty
    table.reshape(-1)[used] = values[behind]
    totals = values[firsts]
    broken |= totals < 0
    filled = np.flatnonzero(rows)
    if len(filled):
        starts = bottom[filled] - rows[filled]
        table[starts[1:]] -= np.add.reduceat(table, starts)[:-1]  # the sums start anew with each text
        runs = table.cumsum(0).reshape(-1)
        runs[~used] = 0
        totals[filled] += np.add.reduceat(runs, 2 * starts)
        broken[np.searchsorted(bottom, np.flatnonzero(runs < 0) // 2, side="right")] = True
    return np.where(broken, -1, totals)


def first_broken(rles: Sequence[RLE]) -> tuple[int, str] | None:
    """Position of the first RLE whose runs do not cover exactly its frame, and what is wrong with it."""
    for first in range(0, len(rles), 128):  # a few megabytes at a time, about 100 bytes a character
        chunk = rles[first : first + 128]
        for i, (rle, pixels) in enumerate(zip(chunk, covered_pixels(chunk).tolist(), strict=True)):
            expected = rle["size"][0] * rle["size"][1]
            if pixels != expected:
                found = "are not a compressed RLE" if pixels < 0 else f"cover {pixels} pixels"
                return first + i, f"the counts {found}, expected {expected} pixels"
    return None


class MaskBox:
    """The pixels of a mask inside its bounding box.

    An object covers a small part of most frames, and a decoder that writes every pixel of the frame takes
    longer than all that is done with the mask afterwards.

    Attributes:
        top, left: of the box, in pixels of the frame.
        pixels: ``(width, height)`` bool, transposed: the order in which an RLE runs.
    """

    def __init__(self, rle: RLE) -> None:
        side = rle["size"][0]
        lengths = run_lengths(rle["counts"])
        if len(lengths) % 2 == 0:  # ends in the mask; else in background
            lengths = np.append(lengths, 0)
        stop = int(lengths[:-1].sum())  # where the mask ends, counting down the columns
        self.left = int(lengths[0]) // side if len(lengths) > 1 else 0
        right = -(-stop // side) if len(lengths) > 1 else 0
        lengths[0] -= self.left * side
        lengths[-1] = right * side - stop
        values = np.zeros(len(lengths), dtype=bool)
        values[1::2] = True
        columns = values.repeat(lengths).reshape(right - self.left, side)
        filled = np.flatnonzero(columns.any(0))
        self.top = int(filled[0]) if len(filled) else 0
        self.pixels = columns[:, self.top : filled[-1] + 1 if len(filled) else 0]


def run_lengths(counts: str) -> np.ndarray:
    """Lengths of the runs of a compressed RLE, int64; background first, then turn by turn."""
    return _all_run_lengths([counts])[0]


def run_ends(counts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Where the runs of ``N`` compressed RLEs end, in pixels from the start of each.

    Returns:
        the ends of all, one RLE after the other, int64, and ``(N + 1,)`` int64: where each RLE begins among
        them, and how many there are.
    """
    runs, bounds = _all_run_lengths(counts)
    ends = runs.cumsum()
    return ends - (ends - runs)[bounds[:-1]].repeat(np.diff(bounds)), bounds


def _all_run_lengths(counts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The runs' lengths of several RLEs; otherwise as :func:`run_ends`."""
    digits = np.frombuffer("".join(counts).encode(), dtype=np.uint8).astype(np.int64) - 48
    ends = (digits < 32).nonzero()[0]  # six bits a character: five of a number, one for "more follow"
    starts = np.zeros_like(ends)
    starts[1:] = ends[:-1] + 1
    shifts = 5 * (np.arange(len(digits)) - starts.repeat(ends - starts + 1))
    runs = np.add.reduceat((digits & 31) << shifts, starts)
    runs -= (digits[ends] & 16) << (shifts[ends] + 1)  # the highest bit is the sign
    bounds = np.searchsorted(ends, np.cumsum([0, *(len(text) for text in counts)]))
    for first, last in itertools.pairwise(bounds.tolist()):
        # From the fourth on, a number is the difference to the run two before.
        for part in (runs[first + 1 : last : 2], runs[first + 2 : last : 2]):
            part.cumsum(out=part)
    return runs, bounds
