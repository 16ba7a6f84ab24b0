"""Moving things in front of a fixed camera: background, foreground masks, sharing of masks.

Everything here is plain image arithmetic without a learned model, so that the masks of the data set
owe nothing to the networks which will be trained and measured on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels, x1 and y1 exclusive


@dataclass(frozen=True)
class ForegroundConfig:
    """Thresholds of the background subtraction; grey levels are 0..255, sizes in source pixels."""

    threshold: float = 28.0  # a pixel moved if one colour channel departs by more than this ...
    noise_factor: float = 5.0  # ... and by more than this many times the channel's own noise
    shadow_darkest: float = 0.6  # a shadow keeps at least this part of the background's brightness ...
    shadow_colour: float = 14.0  # ... and its colour, up to this many grey levels
    open_height: int = 4  # flatter streaks (barrier tape in the wind) are removed ...
    speckle_area: int = 12  # ... and smaller specks too, before gaps are closed
    close_width: int = 3  # gaps closed sideways; small, lest people who walk side by side grow together
    close_height: int = 9  # gaps closed upward: belts, pale hands, the bands of a lamp post
    min_area: int = 90  # smaller components are no person


@dataclass(frozen=True)
class Background:
    """Per-pixel model of the empty scene."""

    colour: np.ndarray  # (H, W, 3) float32, median
    noise: np.ndarray  # (H, W, 3) float32, robust standard deviation


def median_background(frames: Sequence[np.ndarray]) -> Background:
    """Median and robust spread of sampled ``(H, W, 3)`` uint8 frames.

    A pixel shows the empty scene in its median as long as people cover it in less than half of the
    samples. The spread is 1.4826 times the median absolute deviation (the standard deviation, if the
    noise is Gaussian). Rows are worked through in bands, which bounds the memory of the sort.
    """
    height = frames[0].shape[0]
    colour = np.empty(frames[0].shape, np.float32)
    noise = np.empty_like(colour)
    for top in range(0, height, 32):
        band = np.stack([frame[top : top + 32] for frame in frames]).astype(np.float32)
        colour[top : top + 32] = np.median(band, axis=0)
        noise[top : top + 32] = 1.4826 * np.median(np.abs(band - colour[top : top + 32]), axis=0)
    return Background(colour, noise)


def foreground(frame: np.ndarray, background: Background, config: ForegroundConfig) -> np.ndarray:
    """``(H, W)`` bool mask of what moved in a ``(H, W, 3)`` uint8 frame, cleaned and without shadows.

    A shadow dims the scene and keeps its colour: the frame is close to the background times one
    brightness ratio between ``shadow_darkest`` and 1.
    """
    image = frame.astype(np.float32)
    difference = np.abs(image - background.colour)
    moved = (difference > np.maximum(config.threshold, config.noise_factor * background.noise)).any(axis=2)

    brightness = background.colour.sum(axis=2)
    ratio = image.sum(axis=2) / np.maximum(brightness, 1.0)
    colour_change = np.abs(image - ratio[..., None] * background.colour).max(axis=2)
    shadow = (ratio >= config.shadow_darkest) & (ratio <= 1.0) & (colour_change < config.shadow_colour)

    mask = ndimage.binary_opening(moved & ~shadow, np.ones((config.open_height, 1)))
    mask = _without_small(mask, config.speckle_area)
    # Padding keeps the closing from eating what touches the border of the frame.
    pad = config.close_height
    closed = ndimage.binary_closing(np.pad(mask, pad), np.ones((config.close_height, config.close_width)))
    mask = ndimage.binary_fill_holes(closed[pad:-pad, pad:-pad])
    return _without_small(mask, config.min_area)


def _without_small(mask: np.ndarray, min_area: int) -> np.ndarray:
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    keep = np.bincount(labels.ravel(), minlength=count + 1) >= min_area
    keep[0] = False
    return keep[labels]


def components(mask: np.ndarray) -> tuple[np.ndarray, list[Box]]:
    """Connected components (8 neighbours): ``(H, W)`` int labels from 1, and the box of each label."""
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    return labels, [_box_of(slices) for slices in ndimage.find_objects(labels)]


def _box_of(slices: tuple[slice, slice]) -> Box:
    rows, columns = slices
    return float(columns.start), float(rows.start), float(columns.stop), float(rows.stop)


def mask_box(mask: np.ndarray) -> Box | None:
    """Tight box of a ``(H, W)`` bool mask; None if it is empty."""
    found = ndimage.find_objects(mask.astype(np.uint8))
    return _box_of(found[0]) if found else None


def share_pixels(
    mask: np.ndarray, boxes: Mapping[int, Box], margin: float = 5.0, core: float = 0.8, min_share: float = 0.2
) -> dict[int, np.ndarray]:
    """Gives each foreground pixel to at most one person.

    Distance is measured from the centre of a person's box, in half widths and half heights of it. A
    pixel closer than ``core`` to somebody goes to the frontmost such person, which is the one whose
    box ends lowest (people stand on a plane that the camera looks down on). Any other pixel goes to
    the nearest person whose box, grown by ``margin``, it lies in, and to nobody if there is none. So
    the halves of a person behind a lamp post stay one mask. Boxes of people who do not touch may
    overlap: what a person would take of a component is left to the component's largest owner if it
    is less than ``min_share`` of the person.

    Args:
        mask: ``(H, W)`` bool foreground.
        boxes: person to box; may reach beyond the frame.
        margin: pixels.
        core: radius of the ellipse in which the frontmost person wins, 1 = inscribed in the box.
        min_share: part of a person's pixels, 0..1.

    Returns:
        Person to ``(H, W)`` bool mask, without people who got no pixel. The masks do not overlap.
    """
    labels, _ = components(mask)
    y, x = np.nonzero(mask)
    height = mask.shape[0]
    if not boxes or not len(y):
        return {}
    distance = np.full((len(boxes), len(y)), np.inf)  # squared; below 0 in somebody's core
    for row, (x0, y0, x1, y1) in enumerate(boxes.values()):
        inside = (x >= x0 - margin) & (x < x1 + margin) & (y >= y0 - margin) & (y < y1 + margin)
        dx = (x[inside] + 0.5 - (x0 + x1) / 2) / max((x1 - x0) / 2, 1.0)
        dy = (y[inside] + 0.5 - (y0 + y1) / 2) / max((y1 - y0) / 2, 1.0)
        squared = dx**2 + dy**2
        distance[row, inside] = np.where(squared < core**2, -y1 - height, squared)
    owner = np.where(np.isfinite(distance.min(axis=0)), distance.argmin(axis=0), len(boxes))

    component = labels[y, x]
    counts = np.zeros((len(boxes) + 1, labels.max() + 1), int)  # last row: nobody
    np.add.at(counts, (owner, component), 1)
    counts = counts[:-1]
    small = counts < min_share * counts.sum(axis=1, keepdims=True)
    heir = np.where(small, counts.argmax(axis=0), np.arange(len(boxes))[:, None])
    heir = np.vstack([heir, np.full(counts.shape[1], len(boxes))])
    owner = heir[owner, component]

    shared = {}
    for row, person in enumerate(boxes):
        mine = owner == row
        if mine.any():
            shared[person] = np.zeros_like(mask)
            shared[person][y[mine], x[mine]] = True
    return shared
