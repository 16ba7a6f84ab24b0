"""Frames side by side, one row for each way to see them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from PIL import Image

from vistk.viz.lettering import letters, paint

PAPER, INK, MARK = (255, 255, 255), (20, 20, 20), (220, 0, 30)


def film_strip(
    rows: Mapping[str, Sequence[np.ndarray]],
    numbers: Sequence[int],
    marked: Collection[tuple[str, int]] = (),
) -> Image.Image:
    """Rows of frames under each other, with their names on the left and frame numbers above.

    Args:
        rows: ``{name: n images (H, W, 3) uint8}``, all of one size.
        numbers: of the n frames.
        marked: (name of the row, place in it from 0) of images that get a frame.

    Raises:
        ValueError: there is no image, a row has another length, an image another size, or nothing is there
            to be marked.
    """
    if not rows or not len(numbers):
        raise ValueError(
            f"a film strip of {len(rows)} rows and {len(numbers)} frames, expected 1 or more of both"
        )
    for name, row in rows.items():
        if len(row) != len(numbers):
            raise ValueError(
                f"row {name!r} has {len(row)} images, expected one for each of {len(numbers)} frames"
            )
    shape = next(iter(rows.values()))[0].shape
    for name, row in rows.items():
        for number, image in zip(numbers, row, strict=True):
            if image.shape != shape or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
                raise ValueError(
                    f"row {name!r}, frame {number}: the image is {image.dtype} {image.shape}, "
                    f"expected uint8 (H, W, 3) like the first, {shape}"
                )
    for name, column in marked:
        if name not in rows or not 0 <= column < len(numbers):
            raise ValueError(
                f"marked is {(name, column)}, expected the name of a row and 0 to {len(numbers) - 1}"
            )
    height, width = shape[:2]
    size = min(max(12, height // 14), 32)  # of the font
    line = letters("0", size).shape[0]
    widest = max(letters(str(number), size).shape[1] for number in numbers)
    gap = max(4, min(height, width) // 40)  # wide enough for the frame of a marked image
    margin = max(letters(text, size).shape[1] for text in ("frame", *rows)) + 2 * gap
    across, down = max(width, widest) + gap, max(height, line) + gap
    canvas = np.full((line + 2 * gap + down * len(rows), margin + across * len(numbers), 3), PAPER, np.uint8)
    paint(canvas, "frame", size, gap, gap, INK)
    for column, number in enumerate(numbers):
        indent = (width - letters(str(number), size).shape[1]) // 2
        paint(
            canvas,
            str(number),
            size,
            max(margin + column * across, margin + column * across + indent),
            gap,
            INK,
        )
    for i, (name, row) in enumerate(rows.items()):
        top = line + 2 * gap + i * down
        paint(canvas, name, size, gap, top + max(0, (height - line) // 2), INK)
        for column, image in enumerate(row):
            left = margin + column * across
            if (name, column) in marked:
                edge = gap - 1
                canvas[top - edge : top + height + edge, left - edge : left + width + edge] = MARK
            canvas[top : top + height, left : left + width] = image
    return Image.fromarray(canvas)
