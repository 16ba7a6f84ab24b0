"""Augmentation of clips and resizing for inference: every frame of a clip is changed alike."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vistk.data.config import DataConfig
from vistk.data.images import padded
from vistk.data.sampling import Stream
from vistk.ops.runs import run_ends
from vistk.structures import RLE

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601

Window = tuple[int, int, int, int]
"""Top, left, height and width in pixels."""


def resized_size(height: int, width: int, short_side: int | None, max_side: int | None) -> tuple[int, int]:
    """Height and width, scaled to the shorter side ``short_side`` or, if less, the longer ``max_side``.

    ``None`` for the first keeps the size, for the second sets no limit.
    """
    scale = 1.0 if short_side is None else short_side / min(height, width)
    if max_side is not None:
        scale = min(scale, max_side / max(height, width))
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def resize_images(images: Tensor, size: tuple[int, int]) -> Tensor:
    """``(.., 3, H, W)`` uint8 images at another ``(height, width)``; bilinear, antialiased in shrinking.

    In memory each pixel is a word of four bytes, as of images that are read.
    """
    if images.shape[-2:] == size:
        return images
    pixels = padded(images).reshape(-1, 4, *images.shape[-2:]).permute(0, 2, 3, 1)
    # Torch's other paths are wrong when the new width is 1 (seen in 2.15). Flattened and back: of a single
    # image it does not see the order, unless the strides are spelled out, and takes half as long again.
    pixels = pixels.reshape(-1).view(pixels.shape).permute(0, 3, 1, 2)
    out = F.interpolate(pixels, size=size, mode="bilinear", align_corners=False, antialias=True)
    return out[:, :3].reshape(*images.shape[:-2], *size)


def write_planes(out: np.ndarray, image: Tensor) -> None:
    """Set ``out`` to an image, both ``(3, H, W)`` uint8.

    Shifting words of four bytes takes half as long as collecting every third or fourth byte.
    """
    words = np.ascontiguousarray(padded(image).permute(1, 2, 0).numpy()).view("<u4")[..., 0]
    np.copyto(out[0], words, casting="unsafe")  # the lowest byte of each
    shifted = words >> 8
    np.copyto(out[1], shifted, casting="unsafe")
    np.copyto(out[2], np.right_shift(shifted, 8, out=shifted), casting="unsafe")


def resize_for_test(images: Tensor, config: DataConfig) -> Tensor:
    """``(.., 3, H, W)`` uint8 frames at the size of inference."""
    height, width = images.shape[-2:]
    size = resized_size(height, width, config.test_short_side, config.test_max_side)
    return resize_images(images, size).contiguous()


@dataclass(frozen=True)
class ClipTransform:
    """One draw of the training augmentation: crop, resize, flip and colour, for a whole clip.

    The crop window keeps its size and may move: in a straight line, from the first frame to the last.
    """

    window: Window  # the part of the first frame that is kept
    size: tuple[int, int]  # height and width after resizing
    flip: bool
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    drift: tuple[int, int] = (0, 0)  # pixels down and right, from the first frame's window to the last's

    @classmethod
    def draw(cls, stream: Stream, config: DataConfig, height: int, width: int) -> ClipTransform:
        """A random transform of clips of this size."""
        window, drift = (0, 0, height, width), (0, 0)
        if stream.chance(config.crop):
            window = _draw_window(stream, config, height, width)
            if config.crop_drift:
                end = _draw_place(stream, (height, width), window[2:])
                drift = (end[0] - window[0], end[1] - window[1])
        short_side = stream.choice(config.train_short_sides) if config.train_short_sides else None
        size = resized_size(*window[2:], short_side, config.train_max_side)
        flip = stream.chance(config.hflip)
        low, high = 1 - config.colour_jitter, 1 + config.colour_jitter
        brightness, contrast, saturation = (
            stream.uniform(low, high) if config.colour_jitter else 1.0 for _ in range(3)
        )
        return cls(window, size, flip, brightness, contrast, saturation, drift)

    def window_at(self, t: int, num_frames: int) -> Window:
        """The part of frame ``t`` of a clip that is kept."""
        top, left, height, width = self.window
        if num_frames > 1:
            top += round(self.drift[0] * t / (num_frames - 1))
            left += round(self.drift[1] * t / (num_frames - 1))
        return top, left, height, width

    def frame(self, image: Tensor, t: int, num_frames: int) -> Tensor:
        """Frame ``t`` of a clip, ``(3, H, W)`` uint8, at its new place and size; colours as they were."""
        top, left, height, width = self.window_at(t, num_frames)
        out = resize_images(image[..., top : top + height, left : left + width], self.size)
        return padded(out).flip(-1)[:3] if self.flip else out

    def colours(self, images: Tensor) -> Tensor:
        """``(T, 3, h, w)`` uint8, the whole clip, with its colours changed."""
        return _adjust_colour(images, self.brightness, self.contrast, self.saturation)

    def masks(self, tracks: Sequence[Sequence[RLE | None]], num_frames: int) -> tuple[np.ndarray, np.ndarray]:
        """Masks ``(N, T, h, w)`` bool, moved as the images, and whether they have a pixel, ``(N, T)`` bool.

        A pixel of a mask is the nearest one of its place.

        Args:
            tracks: of each of ``N`` instances one entry a frame, ``None`` where it is absent.
        """
        out = np.zeros((len(tracks), num_frames, *self.size), dtype=bool)
        visible = np.zeros((len(tracks), num_frames), dtype=bool)
        shown = [
            (n, t, rle) for n, track in enumerate(tracks) for t, rle in enumerate(track) if rle is not None
        ]
        if not shown:
            return out, visible
        # All masks at once as long as they are runs: there are many, and each is short.
        ends, bounds = run_ends([rle["counts"] for _, _, rle in shown])
        columns, rows = np.divmod(ends, shown[0][2]["size"][0])
        corners = np.array([self.window_at(t, num_frames)[:2] for _, t, _ in shown])
        top, left = corners.repeat(np.diff(bounds), axis=0).T
        grid = _NearestGrid(self.window[2:], self.size)
        ends = grid.pixels_before(rows - top, columns - left)
        view = out[..., ::-1] if self.flip else out
        for (n, t, _), (first, last) in zip(shown, itertools.pairwise(bounds.tolist()), strict=True):
            visible[n, t] = grid.draw(view[n, t], ends[first:last])
        return out, visible


class _NearestGrid:
    """The places of a window that the pixels of a resized mask are taken from.

    They are counted as the pixels of an RLE are: column by column. Where a run ends in the window says where
    it ends among them, so that a mask is resized before any pixel of it is written.
    """

    def __init__(self, window: tuple[int, int], size: tuple[int, int]) -> None:
        """Of a window and of the mask: heights and widths."""
        rows, columns = (_nearest(*sides) for sides in zip(size, window, strict=True))
        self.height = size[0]
        # Columns that are seen several times are repeated later on; here each is counted once.
        self._columns, self._column_of = np.unique(columns, return_inverse=True)
        self._rows_before = np.searchsorted(rows, np.arange(window[0] + 1))
        seen = np.zeros(window[1] + 2, dtype=np.int64)  # one more on either side, outside of the window
        seen[self._columns + 1] = 1
        self._seen, self._columns_before = seen, seen.cumsum() - seen

    def pixels_before(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """How many pixels of the grid lie before these of the window's, which may be outside of it."""
        rows = rows.clip(0, len(self._rows_before) - 1)
        columns = columns.clip(-1, len(self._seen) - 2) + 1
        return self._columns_before[columns] * self.height + self._seen[columns] * self._rows_before[rows]

    def draw(self, out: np.ndarray, ends: np.ndarray) -> bool:
        """Set ``(h, w)``, which is empty, to a mask whose runs have these ends in the grid; True if any."""
        lengths = np.diff(ends)  # from the first run of the mask on
        filled = lengths[::2].nonzero()[0]
        if not len(filled):
            return False
        first, last = 2 * filled[0], 2 * filled[-1] + 1
        tops = ends[first:last:2] % self.height
        top, bottom = tops.min(), (tops + lengths[first:last:2]).max()
        if bottom > self.height:  # a run goes on in the next column
            top, bottom = 0, self.height
        left, right = ends[first] // self.height, -(-ends[last] // self.height)
        before, after = ends[first] - left * self.height, right * self.height - ends[last]
        lengths = np.concatenate(([before], lengths[first:last], [after]))
        values = np.zeros(len(lengths), dtype=bool)
        values[1::2] = True
        pixels = values.repeat(lengths).reshape(right - left, self.height)
        if len(self._columns) < len(self._column_of):
            left, right = np.searchsorted(self._column_of, (left, right))
            pixels = pixels[self._column_of[left:right] - self._column_of[left]]
        out[top:bottom, left:right] = pixels[:, top:bottom].T
        return True


def _nearest(new: int, old: int) -> np.ndarray:
    """``(new,)`` int64: the old pixel in which the centre of each new one lies, if a side is resized."""
    return (np.arange(new) * 2 + 1) * old // (2 * new)


def _draw_window(stream: Stream, config: DataConfig, height: int, width: int) -> Window:
    """A window whose sides lie in ``crop_range`` once the shorter side of the image is ``crop_short_sides``.

    The window is cut from the original pixels, so that a clip is interpolated once, not twice.
    """
    scale = stream.choice(config.crop_short_sides) / min(height, width)
    low, high = config.crop_range
    sides = []
    for side in (height, width):
        scaled = int(side * scale + 0.5)
        wanted = stream.integer(min(low, scaled), min(high, scaled) + 1)
        sides.append(max(1, min(side, int(wanted / scale + 0.5))))
    size = (sides[0], sides[1])
    return (*_draw_place(stream, (height, width), size), *size)


def _draw_place(stream: Stream, image: tuple[int, int], window: tuple[int, int]) -> tuple[int, int]:
    """Top and left of a window somewhere in an image, both given by height and width."""
    return stream.integer(0, image[0] - window[0] + 1), stream.integer(0, image[1] - window[1] + 1)


def _adjust_colour(images: Tensor, brightness: float, contrast: float, saturation: float) -> Tensor:
    """Scale brightness, contrast (about the clip's mean grey) and saturation of ``(T, 3, H, W)`` uint8."""
    if brightness == contrast == saturation == 1.0:
        return images
    x = images.float() * brightness
    luma = torch.tensor(_LUMA).view(3, 1, 1)
    if contrast != 1.0:
        mean = (x * luma).sum(1).mean()
        x = mean + (x - mean) * contrast
    if saturation != 1.0:
        grey = (x * luma).sum(1, keepdim=True)
        x = grey + (x - grey) * saturation
    return x.round_().clamp_(0, 255).to(torch.uint8)
