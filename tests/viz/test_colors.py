"""Colours of tracks: stable, far apart, and words on them that can be read."""

from __future__ import annotations

import numpy as np
import pytest

from vistk.viz.colors import color_of, hex_of, ink_on


def oklab(color: tuple[int, int, int]) -> np.ndarray:
    """Lightness and two axes of hue (Ottosson 2020); a just noticeable difference is about 0.02."""
    linear = np.array(
        [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in np.divide(color, 255)]
    )
    cone = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    lab = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    return lab @ np.cbrt(cone @ linear)


def test_stable() -> None:
    assert [hex_of(i) for i in range(4)] == ["#2b97ff", "#e31200", "#91eb06", "#407929"]
    assert color_of(1) == (0xE3, 0x12, 0x00)
    assert color_of(64) == color_of(0) == color_of(np.int64(128))


def test_well_apart() -> None:
    colors = np.array([oklab(color_of(i)) for i in range(64)])
    distance = np.linalg.norm(colors[:, None] - colors, axis=-1) + np.eye(64)
    assert distance[:51, :51].min() > 0.07
    assert distance[:8, :8].min() > 0.13
    assert np.diagonal(distance, 1).min() > 0.17  # neighbours
    assert np.diagonal(distance, 2).min() > 0.15


def test_seen_on_black_and_on_white() -> None:
    lightness = [oklab(color_of(i))[0] for i in range(64)]
    assert min(lightness) > 0.5
    assert max(lightness) < 0.87


def luminance(color: tuple[int, int, int]) -> float:
    r, g, b = ((c / 255 + 0.055) / 1.055 if c > 10 else c / 255 / 12.92 for c in color)
    return float(0.2126 * r**2.4 + 0.7152 * g**2.4 + 0.0722 * b**2.4)


@pytest.mark.parametrize("track", range(64))
def test_words_on_a_colour_can_be_read(track: int) -> None:
    color = color_of(track)
    light, dark = sorted((luminance(color), luminance(ink_on(color))), reverse=True)
    assert (light + 0.05) / (dark + 0.05) > 4.5  # WCAG 2, level AA


def test_ink() -> None:
    assert ink_on((255, 255, 255)) == (0, 0, 0)
    assert ink_on((0, 0, 0)) == (255, 255, 255)
