"""Words as pixels."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SMALLEST = 10
"""Height of the font, in pixels, that can still be read."""


@lru_cache(maxsize=1024)
def letters(text: str, size: int) -> np.ndarray:
    """``(h, w)`` float32 coverage 0..1 of one line of text; h depends on ``size`` alone. Not to be changed.

    Args:
        size: of the font, pixels.
    """
    font = _font(size)
    ascent, descent = font.getmetrics()
    words = text.split(" ")
    # The font's own space is so narrow that small words run together.
    starts = np.cumsum([0, *(font.getlength(word) + 0.34 * size for word in words)]).round().astype(int)
    image = Image.new("L", (max(1, int(starts[-1] - round(0.34 * size))), ascent + descent))
    for start, word in zip(starts.tolist(), words, strict=False):
        ImageDraw.Draw(image).text((start, 0), word, fill=255, font=font)
    coverage = np.asarray(image, dtype=np.float32) / 255
    coverage.setflags(write=False)
    return coverage


@lru_cache(maxsize=32)
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("this Pillow was built without FreeType, which text in pictures needs")
    return font


def paint(image: np.ndarray, text: str, size: int, x: int, y: int, ink: tuple[int, int, int]) -> None:
    """Write into ``image`` (H, W, 3) uint8, in place, from (x, y) on; what lies outside is cut off."""
    coverage = letters(text, size)
    top, left = max(0, -y), max(0, -x)
    region = image[max(0, y) : max(0, y + coverage.shape[0]), max(0, x) : max(0, x + coverage.shape[1])]
    alpha = coverage[top : top + region.shape[0], left : left + region.shape[1], None]
    blended = region + alpha * (np.array(ink, dtype=np.float32) - region)
    region[:] = np.rint(blended).astype(np.uint8)
