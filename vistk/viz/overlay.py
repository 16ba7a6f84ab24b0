"""Tracks drawn over a frame: tinted masks, contours, labels, trails."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from vistk.ops.masks import decode
from vistk.structures import RLE
from vistk.viz.colors import color_of, ink_on
from vistk.viz.lettering import SMALLEST, letters, paint

TINT = 0.45
"""Share of the track's colour in the pixels of a mask."""

_SMOOTH = 2  # lines are drawn this many times larger


@dataclass(frozen=True)
class Shown:
    """A track in one frame."""

    id: int
    rle: RLE | None  # of the size of the image; None = not there
    text: str = ""  # after the id, as "person 0.93"


class Trails:
    """Where tracks have been: the centres of their masks in the last frames.

    Args:
        length: frames that a trail reaches back.
    """

    def __init__(self, length: int = 30) -> None:
        if length < 1:
            raise ValueError(f"the length of a trail is {length}, expected 1 or more")
        self.length = length
        self._frame = -1
        self._centres: dict[int, deque[tuple[int, float, float]]] = {}

    def add(self, shown: Sequence[Shown]) -> None:
        """A frame passes; a track that is not among ``shown``, or has no mask, has a gap in its trail."""
        self._frame += 1
        for track in shown:
            centre = None if track.rle is None else _centre(track.rle)
            if centre is not None:
                self._centres.setdefault(track.id, deque()).append((self._frame, *centre))
        oldest = self._frame - self.length
        for track_id, trail in list(self._centres.items()):
            while trail and trail[0][0] < oldest:
                trail.popleft()
            if not trail:
                del self._centres[track_id]

    def segments(self) -> dict[int, list[tuple[float, tuple[float, float], tuple[float, float]]]]:
        """By track: (opacity, from, to), oldest first, of neighbouring frames; points are (x, y) pixels."""
        return {
            track_id: [
                (1 - (self._frame - after[0]) / self.length, before[1:], after[1:])
                for before, after in zip(trail, list(trail)[1:], strict=False)
                if after[0] == before[0] + 1
            ]
            for track_id, trail in self._centres.items()
        }


def draw(
    image: np.ndarray, shown: Sequence[Shown], trails: Trails | None = None, *, scale: int = 1
) -> np.ndarray:
    """Draw tracks over a frame; those named first lie on top and have the first choice of where to write.

    Args:
        image: ``(H, W, 3)`` uint8, not changed.
        trails: as they are; whoever wants this frame in them adds it before.
        scale: enlarge the picture this many times, pixel by pixel, before anything is written on it. Pictures
            of a hundred pixels want 4.

    Returns:
        ``(scale * H, scale * W, 3)`` uint8. A label that fits nowhere is shortened to the id, or left out.

    Raises:
        ValueError: the image is none, or a mask has another size.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"the image is {image.dtype} {image.shape}, expected uint8 (H, W, 3)")
    if scale < 1:
        raise ValueError(f"scale is {scale}, expected 1 or more")
    for track in shown:
        if track.rle is not None and tuple(track.rle["size"]) != image.shape[:2]:
            raise ValueError(
                f"the mask of track {track.id} has size {tuple(track.rle['size'])}, "
                f"the image {image.shape[:2]}"
            )
    canvas = _enlarged(image, scale) if scale > 1 else image.copy()
    width = math.ceil(min(canvas.shape[:2]) / 240)  # of contours
    boxes: dict[int, tuple[int, int, int, int]] = {}  # by place in shown: left, top, right, bottom
    for i, track in reversed(list(enumerate(shown))):
        found = None if track.rle is None else _cropped(decode(track.rle))
        if found is not None:
            left, top, mask = found
            mask = _enlarged(mask, scale)
            boxes[i] = (
                scale * left,
                scale * top,
                scale * left + mask.shape[1],
                scale * top + mask.shape[0],
            )
            _tint(canvas, mask, boxes[i], color_of(track.id), width)
    if trails is not None:
        for track_id, segments in trails.segments().items():
            _draw_trail(canvas, segments, scale, 1.5 * width, color_of(track_id))
    _draw_labels(canvas, [(shown[i], boxes[i]) for i in sorted(boxes)])
    return canvas


def _enlarged(pixels: np.ndarray, scale: int) -> np.ndarray:
    return pixels.repeat(scale, 0).repeat(scale, 1)


def _cropped(mask: np.ndarray) -> tuple[int, int, np.ndarray] | None:
    """Left, top and the pixels between the first and last of a mask; None for an empty one."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    return columns[0], rows[0], mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _centre(rle: RLE) -> tuple[float, float] | None:
    """x, y of the middle of a mask, pixels; None for an empty one."""
    mask = decode(rle)
    rows, columns = mask.sum(1), mask.sum(0)
    area = rows.sum()
    if not area:
        return None
    return (
        float(columns @ np.arange(len(columns)) / area + 0.5),
        float(rows @ np.arange(len(rows)) / area + 0.5),
    )


def _tint(
    canvas: np.ndarray,
    mask: np.ndarray,
    box: tuple[int, int, int, int],
    color: tuple[int, int, int],
    width: int,
) -> None:
    """Mix the colour into the mask and draw its edge, which lies inside it; in place."""
    left, top, right, bottom = box
    region = canvas[top:bottom, left:right]
    inside = region[mask]
    ink = np.array(color, dtype=np.float32)
    region[mask] = np.rint(inside + np.float32(TINT) * (ink - inside)).astype(np.uint8)
    region[mask & ~_eroded(mask, width, box, canvas.shape)] = color


def _eroded(
    mask: np.ndarray, width: int, box: tuple[int, int, int, int], shape: tuple[int, ...]
) -> np.ndarray:
    """Pixels more than ``width`` steps away from any that is not of the mask. Beyond the picture all are."""
    left, top, right, bottom = box
    # Outside the box all is background, but where the box ends with the picture.
    ends = ((top > 0, bottom < shape[0]), (left > 0, right < shape[1]))
    padded = mask
    for axis, sides in enumerate(ends):
        for side in (0, 1):
            edge = padded.take([0 if side == 0 else -1], axis)
            if sides[side]:
                edge = np.zeros_like(edge)
            edge = edge.repeat(width, axis)
            padded = np.concatenate([edge, padded] if side == 0 else [padded, edge], axis)
    for _ in range(width):
        padded = (
            padded[1:-1, 1:-1] & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        )
    return padded


def _draw_trail(
    canvas: np.ndarray,
    segments: Sequence[tuple[float, tuple[float, float], tuple[float, float]]],
    scale: int,
    width: float,
    color: tuple[int, int, int],
) -> None:
    """Lines that fade, over a dark rim that shows on their own tint; in place."""
    if not segments:
        return
    points = scale * np.array([ends for _, *ends in segments]).reshape(-1, 2)
    margin = 2 * width + 2
    left, top = np.maximum(np.floor(points.min(0) - margin), 0).astype(int)
    right, bottom = np.minimum(np.ceil(points.max(0) + margin), canvas.shape[1::-1]).astype(int)
    size = (int(right - left), int(bottom - top))
    region = canvas[top:bottom, left:right]
    lines = (_SMOOTH * (points - (left, top))).reshape(-1, 4).tolist()
    shades = [255 * opacity for opacity, *_ in segments]
    for thickness, ink, strength in ((width + 2, ink_on(color), 0.5), (width, color, 1.0)):
        layer = Image.new("L", (_SMOOTH * size[0], _SMOOTH * size[1]))
        pen = ImageDraw.Draw(layer)
        radius = _SMOOTH * thickness / 2
        for (x0, y0, x1, y1), opaque in zip(lines, shades, strict=True):  # the newest last, over the others
            shade = round(strength * opaque)
            pen.line((x0, y0, x1, y1), fill=shade, width=max(1, round(2 * radius)))
            pen.ellipse((x1 - radius, y1 - radius, x1 + radius, y1 + radius), fill=shade)
        alpha = np.asarray(layer.resize(size, Image.Resampling.BOX), dtype=np.float32)[..., None] / 255
        region[:] = np.rint(region + alpha * (np.array(ink, dtype=np.float32) - region)).astype(np.uint8)


def _draw_labels(canvas: np.ndarray, tracks: Sequence[tuple[Shown, tuple[int, int, int, int]]]) -> None:
    """A box with the id and the text of each track, inside the picture; in place."""
    size = max(SMALLEST, round(0.75 * math.sqrt(min(canvas.shape[:2]))))
    boxes = np.array([box for _, box in tracks]).reshape(-1, 4)
    taken = np.zeros_like(boxes)
    for i, (track, _) in enumerate(tracks):
        for label in dict.fromkeys((f"{track.id} {track.text}".strip(), str(track.id))):
            height, width = (side + 2 * _PADDING for side in letters(label, size).shape)
            if height <= canvas.shape[0] and width <= canvas.shape[1]:
                break
        else:
            continue
        left, top = _place(i, boxes, taken[:i], width, height, canvas.shape)
        taken[i] = left, top, left + width, top + height
        color = color_of(track.id)
        canvas[top : top + height, left : left + width] = color
        paint(canvas, label, size, left + _PADDING, top + _PADDING, ink_on(color))


_PADDING = 1  # pixels around the words of a label


def _place(
    own: int, boxes: np.ndarray, taken: np.ndarray, width: int, height: int, shape: tuple[int, ...]
) -> tuple[int, int]:
    """Left and top of a label where it hides least: other labels first of all, then objects.

    Args:
        own: row of its track in ``boxes``, which are (n, 4): left, top, right, bottom.
        taken: labels so far, likewise.
    """
    left, top, right, bottom = boxes[own].tolist()
    # Above, within at the top, below, within at the bottom; or, where that hides too much, a line further
    # away. From the left, the right, in the middle.
    near = (top - height, top, bottom, bottom - height)
    lines = np.array([*near, top - 2 * height, bottom + height])
    columns = np.array([left, right - width, (left + right - width) // 2])
    corners = np.stack([np.tile(columns, len(lines)), lines.repeat(len(columns))], axis=1)
    away = (np.arange(len(corners)) >= len(near) * len(columns)) * width * height
    corners = corners.clip(0, (shape[1] - width, shape[0] - height))

    def covered(rectangles: np.ndarray) -> np.ndarray:
        low = np.maximum(corners[:, None], rectangles[:, :2])
        high = np.minimum(corners[:, None] + np.array([width, height]), rectangles[:, 2:])
        return (high - low).clip(min=0).prod(-1).sum(-1)  # pixels

    own_box, others = boxes[own : own + 1], np.delete(boxes, own, axis=0)
    hidden = 20 * covered(taken) + 2 * covered(others) + covered(own_box) + away
    x, y = corners[hidden.argmin()].tolist()
    return x, y
