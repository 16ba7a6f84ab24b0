"""The runs of many compressed RLEs at once, at a few nanoseconds a character.

A number of an RLE has six bits a character: five of the number, the lowest first, and one for "more follow".
Nearly all have up to three characters. Such numbers are put together at every character, whether it ends one
or not, and only then those that do are picked out: that is several times faster than number by number. What
is rare or wrong is left to :mod:`vistk.ops.runs`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_FIRST, _MORE, _BEYOND = 48, 80, 112  # characters: the first, the first of "more follow", none any more
_DENSE = 3  # characters of a number
_LONGEST = 6
"""Characters of a number below 2^29: no run that such numbers lead to passes 31 bits unseen."""


class RunPairs(NamedTuple):
    """The runs of ``N`` RLEs, ``P`` of background and as many of mask, in turn."""

    background: np.ndarray  # (P,) int32, not negative
    inside: np.ndarray  # (P,) int32, likewise
    bounds: np.ndarray  # (N + 1,) int64, where the pairs of each RLE begin, and P
    padded: np.ndarray  # (N,) bool, whether it ends in background: its last run inside is 0, and was added
    canonical: bool  # whether no run but first ones is empty

    def pixels(self, runs: np.ndarray) -> np.ndarray:
        """``(N,)`` int64, the sums of the background or of the runs inside."""
        return np.add.reduceat(runs, self.bounds[:-1], dtype=np.int64)

    def each_canonical(self) -> np.ndarray:
        """``(N,)`` bool, whether no run but the first is empty."""
        if self.canonical:
            return np.ones(len(self.padded), dtype=bool)
        inside, background = self.inside == 0, self.background == 0
        inside[self.bounds[1:][self.padded] - 1] = background[self.bounds[:-1]] = False
        return ~np.logical_or.reduceat(inside | background, self.bounds[:-1])


def run_pairs(counts: Sequence[str]) -> RunPairs | None:
    """The runs of compressed RLEs.

    Args:
        counts: at least one.

    Returns:
        None if one of them is no compressed RLE, has a negative run, or numbers so large that no frame of
        less than 500 megapixels needs them.
    """
    sizes = np.fromiter(map(len, counts), np.int64, len(counts))
    ends = (sizes + 1).cumsum() - 1
    text = "0".join(counts) + "0"  # another number, 0, behind each: it completes a pair, or is left out
    if not text.isascii() or not sizes.all():
        return None
    chars = np.frombuffer(text.encode(), np.uint8)
    if chars.min() < _FIRST or chars.max() >= _BEYOND or (chars[ends - 1] >= _MORE).any():
        return None
    last = chars < _MORE
    whole = np.bitwise_xor.reduceat(last.view(np.uint8), ends - sizes).view(bool)  # pairs without that 0
    last[ends[whole]] = False
    places = np.flatnonzero(last)
    numbers = _numbers(chars, places)
    if numbers is None:
        return None
    background, inside = numbers
    bounds = np.zeros(len(counts) + 1, dtype=np.int64)
    bounds[1:] = np.searchsorted(places, ends, side="right") >> 1
    # From the fourth number on, each is the difference to the run two before.
    second = bounds[:-1][np.diff(bounds) > 1] + 1
    background[second] -= background[second - 1]
    for chain in numbers:
        chain[bounds[1:-1]] -= np.add.reduceat(chain, bounds[:-1])[:-1]  # each RLE starts anew
        np.add.accumulate(chain, out=chain)
    firsts, added = bounds[:-1], bounds[1:][~whole] - 1
    kept = background[firsts]
    background[firsts] = np.where(kept, kept, 1)  # may be empty
    inside[added] = 1
    shortest = min(background.min(), inside.min())
    background[firsts], inside[added] = kept, 0
    return None if shortest < 0 else RunPairs(background, inside, bounds, ~whole, bool(shortest))


def _numbers(chars: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The numbers that end at these places, every other one, int32; None if one has too many characters."""
    more = (chars >= _MORE).view(np.uint8)
    digits = chars & np.uint8(31)  # the highest bit, the sign of a number's last one, the wrong way round
    values = (digits.view(np.int8) - np.int8(16)).astype(np.int16)
    digits ^= np.uint8(16)
    joined = np.ones_like(more)  # whether the characters up to the one so far ahead are of one number
    for ahead in range(1, _DENSE):
        joined = joined[1:] & more[:-ahead]
        values[ahead:] *= (joined * np.uint8(31) + np.uint8(1)).view(np.int8)
        values[ahead:] += (joined * digits[:-ahead]).view(np.int8)
    pairs = values.take(places).view(np.int32)  # two numbers each, much faster taken apart than picked out
    even, odd = (pairs << 16) >> 16, pairs >> 16
    if sys.byteorder == "big":
        even, odd = odd, even
    # The few longer ones character by character, from the last one back.
    long = np.flatnonzero((joined[1:] & more[:-_DENSE]).view(bool)) + _DENSE
    long = long[more[long] == 0]
    value = (digits[long] ^ np.uint8(16)).astype(np.int32) - 16
    rest = np.arange(len(long))
    for back in range(1, _LONGEST):
        rest = rest[more[long[rest] - back] > 0]
        value[rest] = value[rest] * 32 + digits[long[rest] - back]
    if more[long[rest] - _LONGEST].any():
        return None
    number = np.searchsorted(places, long)
    for parity, half in enumerate((even, odd)):
        chosen = number % 2 == parity
        half[number[chosen] >> 1] = value[chosen]
    return even, odd
