"""Stills as training clips: one image seen ``T`` times, turning, and drifting under a moving crop window."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vistk.data.config import DataConfig
from vistk.data.mixing import Clip, visible_targets
from vistk.data.sampling import Stream, video_of
from vistk.data.stills import with_targets
from vistk.data.transforms import ClipTransform, resize_images
from vistk.data.ytvis import YTVIS
from vistk.ops.runs import MaskBox
from vistk.structures import RLE, VideoRecord

PASTED_SCALE = (0.5, 1.0)
"""A pasted still is made smaller by a factor between these."""
MOST_COVERED = 0.5
"""A pasted instance must cover less than this share of every instance that was there."""


class PseudoClips:
    """Augmented pseudo clips from the stills of a split (as in VITA, arXiv 2206.04403).

    Every frame shows the whole still turned about its centre by an angle of its own, within
    ``config.stills.rotation`` degrees; the angles rise, so that the clip turns one way. Corners that the
    still does not reach are black. Crop, size, flip and colour are those of clips from videos.

    With probability ``config.stills.copy_paste`` the instances of another still, moving in their own way,
    are pasted in. Where, how large and which of them is drawn once a clip. (The released code of VISAGE
    draws it for each frame, so that pasted objects jump.)

    Args:
        source: videos of one frame.

    Raises:
        DataError: no still has an instance that is not a crowd; those without one are left out.
    """

    def __init__(self, source: YTVIS, config: DataConfig) -> None:
        self.source, self.config = source, config
        self.videos = with_targets(source)
        self._labels = {category: label for label, category in enumerate(source.category_ids)}

    def __len__(self) -> int:
        """Number of stills; an epoch takes one clip of each."""
        return len(self.videos)

    def sample(self, seed: int, index: int, num_frames: int) -> Clip:
        """Training sample number ``index``, fully determined by the arguments."""
        stream = Stream("still", seed, index)
        clip = self._clip(self.videos[video_of(seed, index, len(self.videos))], stream, num_frames)
        if stream.chance(self.config.stills.copy_paste):
            other = self.videos[stream.integer(0, len(self.videos))]
            clip = paste(clip, self._clip(other, stream, num_frames, stream.uniform(*PASTED_SCALE)), stream)
        return clip

    def _clip(self, still: VideoRecord, stream: Stream, num_frames: int, scale: float = 1.0) -> Clip:
        transform = StillTransform.draw(stream, self.config, still.height, still.width, num_frames, scale)
        images = transform.images(self.source.read_frame(still, 0))
        labels, rles = [], []
        for annotation in still.annotations:
            rle = annotation.segmentations[0]
            if not annotation.iscrowd and rle is not None:
                labels.append(self._labels[annotation.category_id])
                rles.append(rle)
        return images, visible_targets(labels, *transform.masks(rles))


@dataclass(frozen=True)
class StillTransform:
    """One draw of the augmentation that makes a clip of a still of ``height`` x ``width`` pixels.

    Position and size of what is cut out, and the flip, are ``clip``'s; it is cut from the still turned by
    ``angles[t]``. Turning, cutting and resizing are one interpolation; where the still is shrunk, it is
    resized before, once for all frames, since a turned grid cannot be antialiased.
    """

    clip: ClipTransform
    angles: tuple[float, ...]  # degrees, one a frame
    height: int
    width: int

    @classmethod
    def draw(
        cls,
        stream: Stream,
        config: DataConfig,
        height: int,
        width: int,
        num_frames: int,
        scale: float = 1.0,
    ) -> StillTransform:
        """A random transform; ``scale`` makes the result smaller than the configuration says."""
        clip = ClipTransform.draw(stream, config, height, width)
        size = (max(1, round(clip.size[0] * scale)), max(1, round(clip.size[1] * scale)))
        limit = config.stills.rotation
        angles = sorted(stream.uniform(-limit, limit) for _ in range(num_frames))
        return cls(replace(clip, size=size), tuple(angles), height, width)

    def images(self, still: Tensor) -> Tensor:
        """``(T, 3, h, w)`` uint8 clip of a ``(3, H, W)`` uint8 still."""
        (h, w), (_, _, *cut) = self.clip.size, self.clip.window
        shrunk = (
            max(1, round(self.height * min(1.0, h / cut[0]))),
            max(1, round(self.width * min(1.0, w / cut[1]))),
        )
        pixels = resize_images(still, shrunk)[None].float()
        out = torch.empty(len(self.angles), 3, h, w, dtype=torch.uint8)
        for t in range(len(self.angles)):
            grid, inside = self._frame(t).grid()
            where = torch.from_numpy(grid)[None]
            seen = F.grid_sample(pixels, where, padding_mode="border", align_corners=False)[0]
            out[t] = seen.round_()
            if inside is not None:
                out[t] *= torch.from_numpy(inside)
        return self.clip.colours(out)

    def masks(self, rles: Sequence[RLE]) -> tuple[np.ndarray, np.ndarray]:
        """Masks ``(N, T, h, w)`` bool and whether they have a pixel, ``(N, T)`` bool.

        For each pixel of the clip, the one of the still in which its centre lies.
        """
        shape = (len(rles), len(self.angles))
        out, visible = np.zeros((*shape, *self.clip.size), dtype=bool), np.zeros(shape, dtype=bool)
        frames = [self._frame(t) for t in range(len(self.angles))]
        for n, rle in enumerate(rles):
            box = MaskBox(rle)
            for t, frame in enumerate(frames):
                visible[n, t] = frame.draw_mask(out[n, t], box)
        return out, visible

    def _frame(self, t: int) -> _TurnedFrame:
        top, left, height, width = self.clip.window_at(t, len(self.angles))
        h, w = self.clip.size
        centre = (self.height / 2, self.width / 2)
        rows = top + (np.arange(h) + 0.5) * (height / h) - centre[0]
        columns = left + (np.arange(w) + 0.5) * (width / w) - centre[1]
        angle = math.radians(self.angles[t])
        return _TurnedFrame(rows, columns[::-1] if self.clip.flip else columns, angle, centre)


@dataclass(frozen=True)
class _TurnedFrame:
    """Where in a still the pixels of one frame come from."""

    rows: np.ndarray  # (h,) pixels below the still's centre in the turned still, rising
    columns: np.ndarray  # (w,) pixels right of it, rising or falling
    angle: float  # radians, clockwise
    centre: tuple[float, float]  # y and x in the still

    def terms(self) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """Places in the still, in pixels from its left and upper edge: ``x[i, j] = x0[i] + x1[j]``; so ``y``.

        Returns:
            ``(x0, x1), (y0, y1)``, float64 of ``(h,)`` and ``(w,)``.
        """
        sin, cos = math.sin(self.angle), math.cos(self.angle)
        y, x = self.centre
        return (-sin * self.rows, cos * self.columns + x), (cos * self.rows, sin * self.columns + y)

    def grid(self) -> tuple[np.ndarray, np.ndarray | None]:
        """The places for ``grid_sample``, ``(h, w, 2)`` float32, -1 and 1 at the edges of the still.

        Returns:
            also which of them lie in the still, ``(h, w)`` bool; ``None`` if all do.
        """
        grid = np.empty((len(self.rows), len(self.columns), 2), dtype=np.float32)
        inside: np.ndarray | None = None
        for axis, (by_row, by_column) in enumerate(self.terms()):
            half = self.centre[1 - axis]
            by_row, by_column = (by_row / half).astype(np.float32), (by_column / half - 1).astype(np.float32)
            places = np.add.outer(by_row, by_column)
            grid[..., axis] = places
            # The least and the greatest are at corners, as the sum of ends.
            if by_row.min() + by_column.min() < -1 or by_row.max() + by_column.max() >= 1:
                fits = (places >= -1) & (places < 1)
                inside = fits if inside is None else inside & fits
        return grid, inside

    def draw_mask(self, out: np.ndarray, box: MaskBox) -> bool:
        """Set ``(h, w)``, which is empty, to the mask of an instance of the still; True if it has a pixel."""
        width, height = box.pixels.shape
        rows, columns = self._reach(box.top, box.left, box.top + height, box.left + width)
        part = replace(self, rows=self.rows[rows], columns=self.columns[columns])
        x, y = (np.floor(np.add.outer(*terms)).astype(np.int64) for terms in part.terms())
        x, y = x - box.left, y - box.top
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        seen = box.pixels[x[inside], y[inside]]
        out[rows, columns][inside] = seen
        return bool(seen.any())

    def _reach(self, top: float, left: float, bottom: float, right: float) -> tuple[slice, slice]:
        """Rows and columns of the frame outside of which nothing of a box of the still is seen."""
        sin, cos = math.sin(self.angle), math.cos(self.angle)
        y = np.array([top, top, bottom, bottom]) - self.centre[0]
        x = np.array([left, right, left, right]) - self.centre[1]
        rows, columns = cos * y - sin * x, cos * x + sin * y
        return _span(self.rows, rows), _span(self.columns, columns)


def _span(places: np.ndarray, wanted: np.ndarray) -> slice:
    """The part of rising or falling places that lies between the least and the greatest wanted one."""
    ends = (wanted.min() - 1e-6, wanted.max() + 1e-6)  # rounding must not cut off what lies on an end
    if len(places) > 1 and places[0] > places[-1]:
        first, last = len(places) - np.searchsorted(places[::-1], ends[::-1])
    else:
        first, last = np.searchsorted(places, ends)
    return slice(int(first), int(last))


def paste(clip: Clip, pasted: Clip, stream: Stream) -> Clip:
    """A clip with the instances of another in front of its own, at one random place in all frames.

    A pasted instance that covers half of an instance of the clip or more, counted over all frames, is left
    out. What is covered is cut from the clip's masks.

    Args:
        clip, pasted: of equally many frames; what reaches out of ``clip`` is cut off.
    """
    (images, targets), (new_images, new_targets) = clip, pasted
    (h, w), (new_h, new_w) = images.shape[-2:], new_images.shape[-2:]
    down = stream.integer(min(0, h - new_h), max(0, h - new_h) + 1)
    right = stream.integer(min(0, w - new_w), max(0, w - new_w) + 1)
    here = (..., slice(max(0, down), down + new_h), slice(max(0, right), right + new_w))
    there = (..., slice(max(0, -down), h - down), slice(max(0, -right), w - right))
    before, new = targets.masks.numpy(), new_targets.masks[there].numpy()
    areas = np.count_nonzero(before, axis=(1, 2, 3))
    kept = [
        i
        for i, mask in enumerate(new)
        if mask.any()
        and all(
            np.count_nonzero(covered & mask) < MOST_COVERED * area
            for covered, area in zip(before[here], areas, strict=True)
        )
    ]
    if not kept:
        return clip
    n = len(before)
    masks = np.zeros((n + len(kept), *before.shape[1:]), dtype=bool)
    masks[:n], masks[n:][here] = before, new[kept]
    front = new[kept].any(0)  # (T, .., ..)
    masks[:n][here] &= ~front
    out = images.clone()
    out[here] = torch.where(torch.from_numpy(front)[:, None], new_images[there], images[here])
    labels = [*targets.labels.tolist(), *new_targets.labels[kept].tolist()]
    return out, visible_targets(labels, masks, np.any(masks, axis=(2, 3)))
