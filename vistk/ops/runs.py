"""The runs of compressed RLEs, read in bulk: whether they are sound, and where they lie.

pycocotools decodes to all pixels of a frame or to none, and believes what it is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from vistk.ops.run_pairs import run_pairs
from vistk.structures import RLE


class PixelCounts(NamedTuple):
    """Of ``N`` compressed RLEs."""

    covered: np.ndarray  # (N,) int64, by all runs, background included; -1 where the counts are broken
    inside: np.ndarray  # (N,) int64, of the mask; -1 likewise
    canonical: np.ndarray  # (N,) bool, no run but the first is empty


def covered_pixels(rles: Sequence[RLE]) -> np.ndarray:
    """``(N,)`` int64 pixels that the runs of each RLE cover, background included; -1 where the counts are
    not a compressed RLE at all, or a run is negative.

    Anything but height x width is a broken mask, and pycocotools does not look: it computes nonsense,
    or never ends when it compares two masks that cover different numbers of pixels.
    """
    return count_pixels([rle["counts"] for rle in rles]).covered


def count_pixels(counts: Sequence[str]) -> PixelCounts:
    """Reads the runs of compressed RLEs: what they cover (see :func:`covered_pixels`), what is inside, and
    whether pycocotools may compare them: it does so only up to an empty run that two masks share.
    """
    found = PixelCounts(*(np.empty(len(counts), dtype) for dtype in (np.int64, np.int64, bool)))
    characters = np.cumsum([0, *map(len, counts)])
    first = 0
    while first < len(counts):
        last = max(first + 1, int(np.searchsorted(characters, characters[first] + CHUNK)))
        for values, part in zip(found, _count(counts[first:last]), strict=True):
            values[first:last] = part
        first = last
    return found


_LONGEST = 2**32
"""A run of more pixels than an RLE can count is no run."""

CHUNK = 250_000
"""Characters read at a time: few enough that all that is made of them stays in the processor's cache."""


def _count(counts: Sequence[str]) -> PixelCounts:
    """:func:`count_pixels` of a chunk."""
    pairs = run_pairs(counts)
    if pairs is not None:
        inside = pairs.pixels(pairs.inside)
        return PixelCounts(inside + pairs.pixels(pairs.background), inside, pairs.each_canonical())
    text = "".join(counts)
    stops = np.cumsum([len(text) for text in counts])
    digits = np.frombuffer(text.encode(), np.uint8) - np.uint8(48) if text.isascii() else None
    if digits is None or not _readable(digits, stops):
        if len(counts) == 1:
            return PixelCounts(np.array([-1]), np.array([-1]), np.array([False]))
        parts = [_count([text]) for text in counts]  # what cannot be read would be in the way of the others
        return PixelCounts(*map(np.concatenate, zip(*parts, strict=True)))
    runs, bounds = _decode(digits, stops)
    sums = np.zeros((2, len(counts)), dtype=np.int64)
    for parity, chain, starts, filled in _chains(runs, bounds):
        sums[parity, filled] = np.add.reduceat(chain, starts)
    covered = sums.sum(0)
    inside = np.where(bounds[:-1] % 2, sums[0], sums[1])
    canonical = np.ones(len(counts), dtype=bool)
    unsigned = runs.view(np.uint64)  # negative runs are huge ones
    if unsigned.max() > _LONGEST:
        broken = _owners(np.flatnonzero(unsigned > _LONGEST), bounds)
        covered[broken] = inside[broken] = -1
    empty = np.flatnonzero(runs == 0)
    if len(empty):
        owners = _owners(empty, bounds)
        canonical[owners[empty > bounds[owners]]] = False
    return PixelCounts(covered, inside, canonical)


def _owners(places: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Which RLE the runs at these places belong to."""
    return np.searchsorted(bounds, places, side="right") - 1


def _readable(digits: np.ndarray, stops: np.ndarray) -> bool:
    """Whether every text is a sequence of numbers that 64 bits hold the sums of."""
    if not len(digits) or stops[0] == 0 or (np.diff(stops) == 0).any() or digits.max() > 63:
        return False
    if (digits[stops - 1] >= 32).any():
        return False
    more = np.flatnonzero(digits >= 32)  # of a number of 8 digits, the first and the seventh
    return len(more) < 7 or not (more[6:] - more[:-6] == 6).any()


def _decode(digits: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lengths of the runs of several RLEs, int64, and the ``(N + 1,)`` bounds of each among them.

    Args:
        digits: of all RLEs, six bits a character: five of a number, the lowest first, and one for "more
            follow".
        stops: ``(N,)`` where the digits of each end.
    """
    last = digits < 32
    # The highest of the last five bits is the sign.
    values = ((digits[last] ^ np.uint8(16)).view(np.int8) - np.int8(16)).astype(np.int64)
    more = np.flatnonzero(~last)  # few: most numbers have one digit
    number = more - np.arange(len(more))  # the one that each belongs to
    together = number[1:] == number[:-1]
    high = np.flatnonzero(np.append(~together, True)) if len(more) else more
    while len(high):  # a digit of each number, from the highest down
        at = number[high]
        values[at] = (values[at] << 5) | (digits[more[high]] & np.uint8(31))
        high = high[high > 0] - 1
        high = high[together[high]]
    bounds = np.zeros(len(stops) + 1, dtype=np.int64)
    bounds[1:] = stops - np.searchsorted(more, stops)
    # From the fourth on, a number is the difference to the run two before. So every other run is a cumulative
    # sum, which starts anew with each RLE, and with its third run once more.
    starts = bounds[:-1]
    third = starts[np.diff(bounds) > 2] + 2
    values[third] -= values[third - 2]
    for _, chain, first_of, _ in _chains(values, bounds):
        chain[first_of[1:]] -= np.add.reduceat(chain, first_of)[:-1]
        chain.cumsum(out=chain)
    return values, bounds


def _chains(
    values: np.ndarray, bounds: np.ndarray
) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """Every other value from the first (0) and from the second (1): a view, where RLEs begin in it, and
    which of them have a part there.
    """
    for parity in (0, 1):
        at = (bounds + 1 - parity) >> 1
        filled = at[1:] > at[:-1]
        if filled.any():
            yield parity, values[parity::2], at[:-1][filled], filled


def first_broken(rles: Sequence[RLE]) -> tuple[int, str] | None:
    """Position of the first RLE whose runs do not cover exactly its frame, and what is wrong with it."""
    covered = covered_pixels(rles)
    expected = np.array([rle["size"][0] * rle["size"][1] for rle in rles], dtype=np.int64)
    wrong = np.flatnonzero(covered != expected)
    if not len(wrong):
        return None
    return int(wrong[0]), what_is_wrong(int(covered[wrong[0]]), int(expected[wrong[0]]))


def what_is_wrong(covered: int, expected: int) -> str:
    """Of counts that cover so many pixels, as :func:`count_pixels` has it, of so many of the frame."""
    found = "are not a compressed RLE" if covered < 0 else f"cover {covered} pixels"
    return f"the counts {found}, expected {expected} pixels"


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
    digits = np.frombuffer("".join(counts).encode(), dtype=np.uint8) - np.uint8(48)
    return _decode(digits, np.cumsum([len(text) for text in counts]))
