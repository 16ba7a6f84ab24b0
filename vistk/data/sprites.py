"""Drawing for the synthetic benchmark: objects, backgrounds and their composition.

A class is a shape with a coloured rim; an instance is an interior texture, a pattern in two colours.
All arithmetic that reaches a pixel is on integers, so that every machine draws the same pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np

from vistk.data.sampling import Stream

PIXEL = 256
"""Positions and lengths are integers in units of 1/256 pixel."""
TURN = 60
"""Angles are integers in units of 1/60 turn."""

# Rounded to 1/4096, far coarser than the differences between libraries of mathematics.
_COS = np.rint(np.cos(2 * np.pi * np.arange(TURN) / TURN) * 4096).astype(np.int64)

CLASSES = ("disc", "square", "triangle", "star")
_RIMS = np.array([[235, 30, 30], [40, 215, 40], [45, 60, 255], [250, 230, 0]], np.int64)
# Distance from the centre to the contour's sides, in thousandths of the object's size.
_INRADIUS = (500, 440, 330, 290)
_RIM_WIDTH = 3 * PIXEL // 2

COLOURS = np.array(
    [
        [245, 245, 245],  # white
        [25, 25, 25],  # black
        [245, 140, 20],  # orange
        [250, 130, 190],  # pink
        [130, 40, 180],  # purple
        [0, 140, 140],  # teal
        [130, 205, 250],  # sky
        [115, 65, 25],  # brown
        [150, 155, 30],  # olive
        [165, 245, 185],  # mint
    ],
    np.int64,
)
PATTERNS = ("stripes", "checks", "dots", "rings", "halves")


@dataclass(frozen=True)
class Texture:
    """An interior: ``COLOURS[first]`` with a pattern in ``COLOURS[second]``."""

    pattern: int
    first: int
    second: int

    @property
    def pair(self) -> tuple[int, int]:
        return min(self.first, self.second), max(self.first, self.second)


@lru_cache
def textures(held_out: bool) -> tuple[Texture, ...]:
    """All textures for training, or all held-out ones for validation.

    Colour *pairs* are held out: each of the ten colours keeps six partners for training and has three for
    validation, so every colour is seen in training, but no combination of validation, in no pattern.
    """
    pairs = [(a, b) for a, b in combinations(range(len(COLOURS)), 2) if (b - a in (3, 5, 7)) == held_out]
    return tuple(
        Texture(pattern, *order) for pattern in range(len(PATTERNS)) for p in pairs for order in (p, p[::-1])
    )


def _cos(angle: int) -> int:
    return int(_COS[angle % TURN])


def _sin(angle: int) -> int:
    return int(_COS[(angle - TURN // 4) % TURN])


def _distance(shape: int, x: np.ndarray, y: np.ndarray, angle: int) -> np.ndarray:
    """Of each point, the inradius of the similar shape on whose contour it lies, in 1/256 pixel."""
    name = CLASSES[shape]
    if name == "disc":
        return np.floor(np.sqrt((x * x + y * y).astype(np.float64))).astype(np.int64)
    sides = {"square": 4, "triangle": 3, "star": 5}[name]
    planes = np.stack(
        [
            (x * _cos(angle + k * TURN // sides) + y * _sin(angle + k * TURN // sides)) >> 12
            for k in range(sides)
        ]
    )
    planes.sort(axis=0)
    if name == "star":
        # The second largest alone gives the pentagram, what lies inside of at least four of five lines;
        # with a quarter of the largest, the star is fat enough to show its texture.
        return (3 * planes[-2] + planes[-1]) // 4
    return planes[-1]


def _second_colour(pattern: int, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Where the texture shows its second colour, bool."""
    name = PATTERNS[pattern]
    if name == "stripes":
        return u % (5 * PIXEL) >= 3 * PIXEL
    if name == "checks":
        return (u // (4 * PIXEL) + v // (4 * PIXEL)) % 2 == 0
    if name == "dots":
        du, dv = u % (5 * PIXEL) - 5 * PIXEL // 2, v % (5 * PIXEL) - 5 * PIXEL // 2
        return du * du + dv * dv < (7 * PIXEL // 4) ** 2
    if name == "rings":
        return np.sqrt((u * u + v * v).astype(np.float64)).astype(np.int64) % (6 * PIXEL) >= 3 * PIXEL
    return u >= 0  # halves


@dataclass(frozen=True)
class Sprite:
    """A drawn object. The centre is the middle of the odd-sized square arrays."""

    colour: np.ndarray  # (side, side, 3) int64, times alpha / 256
    alpha: np.ndarray  # (side, side, 1) int64, coverage 0..256
    solid: np.ndarray  # (side, side) bool, what belongs to the mask: coverage of at least a half


def draw_sprite(shape: int, size: int, angle: int, texture: Texture) -> Sprite:
    """An object of class ``shape``, about ``size`` pixels across, turned by ``angle / TURN``."""
    reach = size * 7 // 10 + 2
    axis = np.arange(-reach, reach + 1, dtype=np.int64) * PIXEL
    x, y = axis[None, :], axis[:, None]
    distance = _distance(shape, x, y, angle)
    radius = size * PIXEL * _INRADIUS[shape] // 1000
    alpha = np.clip(radius - distance + PIXEL // 2, 0, PIXEL)
    interior = np.clip(radius - _RIM_WIDTH - distance + PIXEL // 2, 0, PIXEL)[..., None]
    u, v = (x * _cos(angle) + y * _sin(angle)) >> 12, (y * _cos(angle) - x * _sin(angle)) >> 12
    second = _second_colour(texture.pattern, u, v)[..., None]
    fill = np.where(second, COLOURS[texture.second], COLOURS[texture.first])
    colour = (fill * interior + _RIMS[shape] * (PIXEL - interior)) // PIXEL
    return Sprite(colour * alpha[..., None] // PIXEL, alpha[..., None], alpha >= PIXEL // 2)


def _ramp(cells: int, pixels: int) -> np.ndarray:
    """``(pixels, cells + 1)`` int64 weights of linear interpolation in a grid; rows sum to 256."""
    place = np.arange(pixels) * cells * 256 // pixels
    out = np.zeros((pixels, cells + 1), np.int64)
    rows = np.arange(pixels)
    out[rows, place // 256] = 256 - place % 256
    out[rows, place // 256 + 1] = place % 256
    return out


def draw_background(stream: Stream, height: int, width: int) -> np.ndarray:
    """A muted, low-contrast random texture, ``(height, width, 3)`` int64 in 0..255."""
    base = stream.integer(70, 180) + stream.integers(-20, 21, (3,))
    out = np.broadcast_to(base, (height, width, 3)).copy()
    # A coarse wash in colour, then finer grey clouds, each about half the contrast of the one before.
    for cells, contrast, channels in ((stream.integer(1, 4), 22, 3), (stream.integer(6, 14), 10, 1)):
        rows, columns = max(1, cells * height // width), cells
        grid = stream.integers(-contrast, contrast + 1, (channels, rows + 1, columns + 1))
        cloud = _ramp(rows, height) @ grid @ _ramp(columns, width).T  # (channels, H, W), times 2^16
        out += (cloud >> 16).transpose(1, 2, 0)
    out += stream.integers(-4, 5, (height, width, 1))
    return np.clip(out, 0, 255)


def compose(
    background: np.ndarray, sprites: list[Sprite], centres: np.ndarray, present: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One frame: sprites drawn over the background, the first one furthest back.

    Args:
        centres: ``(n, 2)`` int64, x and y in 1/256 pixel; may lie outside of the frame.
        present: ``(n,)`` bool.

    Returns:
        The frame ``(H, W, 3)`` uint8, the visible part of each object ``(n, H, W)`` bool, and the number
        of its pixels inside the frame that would be visible without the others ``(n,)`` int64.
    """
    height, width = background.shape[:2]
    frame = background.copy()
    owner = np.full((height, width), -1, np.int64)
    whole = np.zeros(len(sprites), np.int64)
    for k, sprite in enumerate(sprites):
        if not present[k]:
            continue
        reach = sprite.solid.shape[0] // 2
        left, top = (int(c) // PIXEL - reach for c in centres[k])
        rows = slice(max(0, top), max(0, min(height, top + 2 * reach + 1)))
        columns = slice(max(0, left), max(0, min(width, left + 2 * reach + 1)))
        cut = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
        if rows.start >= rows.stop or columns.start >= columns.stop:
            continue
        under = frame[rows, columns]
        under *= PIXEL - sprite.alpha[cut]
        under //= PIXEL
        under += sprite.colour[cut]
        solid = sprite.solid[cut]
        owner[rows, columns][solid] = k
        whole[k] = np.count_nonzero(solid)
    visible = owner[None] == np.arange(len(sprites))[:, None, None]
    return frame.astype(np.uint8), visible, whole
