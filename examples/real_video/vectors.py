"""What a moving thing is told apart by: where it is and how it moves, and which colours it has.

No number here is learned. Both kinds of vectors are made to be compared by their cosine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

REACH = 0.05  # of the frame's height: how far apart two places are alike, finely and four times as far
SIZE_REACH = 0.4  # of the log of the height
SPEED_REACH = 0.01  # of the frame's height, a frame
FREQUENCIES = 128  # of the location; twice as many numbers
LEVELS = 6  # of red, green and blue each
BANDS = 3  # head, trunk and legs of a person who stands
# Bisoftmax reads dot products, whose scale a network learns: here the greatest is this.
SHARPNESS = 20.0

SEARCH = 12  # pixels each way that a thing may have moved since the frame before
MATCHED_PIXELS = 400  # of a thing, that are looked for in the frame before


@dataclass(frozen=True)
class Component:
    """A connected piece of foreground."""

    left: int  # pixels
    top: int
    mask: np.ndarray  # (h, w) bool, of its box

    @property
    def area(self) -> int:
        return int(self.mask.sum())

    @property
    def place(self) -> tuple[slice, slice]:
        """Rows and columns of its box in the frame."""
        height, width = self.mask.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


def location(found: Sequence[Component], frame: np.ndarray, previous: np.ndarray | None) -> np.ndarray:
    """``(n, 256)`` float32: position, size and motion as an embedding.

    The cosine of two is about exp(-d^2 / 2) of their distance d in units of the reaches above, at two
    scales and averaged: random Fourier features (Rahimi and Recht, 2007) with fixed frequencies.

    Args:
        frame, previous: ``(H, W, 3)`` uint8; without a frame before, nothing moves.
    """
    height = frame.shape[0]
    place = np.zeros((len(found), 5), np.float64)
    for row, component in enumerate(found):
        y, x = np.nonzero(component.mask)
        tall = component.mask.shape[0]
        place[row, :2] = (component.left + x.mean(), component.top + y.mean())
        place[row, 2] = np.log(tall)
        if previous is not None:
            place[row, 3:] = motion(component, frame, previous)
    reach = np.array([REACH * height, REACH * height, SIZE_REACH, SPEED_REACH * height, SPEED_REACH * height])
    frequencies = np.random.default_rng(0).standard_normal((5, FREQUENCIES))
    frequencies[:, ::2] /= 4
    angles = (place / reach) @ frequencies
    return _scaled(np.concatenate([np.cos(angles), np.sin(angles)], 1))


def motion(component: Component, frame: np.ndarray, previous: np.ndarray) -> tuple[float, float]:
    """Pixels to the right and down since the frame before: where its pixels are found there again.

    The shift of the least sum of absolute differences over some of its pixels, of all shifts of whole
    pixels up to ``SEARCH`` each way, every second one; of equals, the shortest.
    """
    y, x = np.nonzero(component.mask)
    every = max(len(y) // MATCHED_PIXELS, 1)
    y, x = y[::every] + component.top, x[::every] + component.left
    steps = np.arange(-SEARCH, SEARCH + 1, 2)
    dy, dx = (shift.ravel() for shift in np.meshgrid(steps, steps, indexing="ij"))
    order = np.argsort(dx**2 + dy**2, kind="stable")
    dy, dx = dy[order], dx[order]
    rows = (y - dy[:, None]).clip(0, frame.shape[0] - 1)
    columns = (x - dx[:, None]).clip(0, frame.shape[1] - 1)
    there = previous[..., 1][rows, columns].astype(np.int16)
    best = int(np.abs(there - frame[..., 1][y, x].astype(np.int16)).sum(1).argmin())
    return float(dx[best]), float(dy[best])


def appearance(found: Sequence[Component], frame: np.ndarray) -> np.ndarray:
    """``(n, 648)`` float32: which colours it has, at the top, in the middle and below.

    Histograms of red, green and blue together, the square root of each share, so that the cosine of two
    is Bhattacharyya's coefficient. A pixel is shared among the eight nearest bins by its nearness: a
    little more light moves little.
    """
    out = np.zeros((len(found), BANDS * LEVELS**3))
    for row, component in enumerate(found):
        y, _ = np.nonzero(component.mask)
        band = y * BANDS // component.mask.shape[0]
        level = frame[component.place][component.mask] * ((LEVELS - 1) / 255)
        low = np.minimum(level.astype(int), LEVELS - 2)
        high_share = level - low  # (pixels, 3)
        for corner in np.ndindex(2, 2, 2):
            share = np.where(corner, high_share, 1 - high_share).prod(1)
            red, green, blue = (low + corner).T
            bins = ((band * LEVELS + red) * LEVELS + green) * LEVELS + blue
            out[row] += np.bincount(bins, share, out.shape[1])
    return _scaled(np.sqrt(out))


def _scaled(vectors: np.ndarray) -> np.ndarray:
    """To the length at which a dot product is ``SHARPNESS`` times the cosine."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-12)
    return (np.sqrt(SHARPNESS) * vectors / length).astype(np.float32)
