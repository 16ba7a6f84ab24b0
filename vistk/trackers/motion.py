"""Where masks are and where they go: boxes, their overlap, and a Kalman filter of many boxes at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

TINY = 1e-6  # squared pixels: below it a box has no area


def mask_boxes(mask_logits: Tensor) -> Tensor:
    """The rectangle with a mask's mean and variance along each axis, in cells of the mask map.

    A filled rectangle is its own box. A few stray cells hardly move it, while they would stretch the
    smallest enclosing box over the whole frame.

    Args:
        mask_logits: ``(.., h, w)``.

    Returns:
        ``(.., 4)`` float32: centre x, centre y, width, height; zeros for an empty mask.
    """
    inside = mask_logits > 0
    spans = []
    for counts in (inside.sum(-2).float(), inside.sum(-1).float()):
        area = counts.sum(-1, keepdim=True)
        weight = counts / area.clamp(min=1)
        cells = torch.arange(counts.shape[-1], device=counts.device, dtype=torch.float32) + 0.5
        mean = (weight * cells).sum(-1, keepdim=True)
        variance = (weight * (cells - mean) ** 2).sum(-1, keepdim=True)
        # n cells in a row have the variance (n^2 - 1) / 12.
        spans.append(torch.cat([mean, (12 * variance + 1).sqrt()], -1) * (area > 0))
    (x, width), (y, height) = (span.unbind(-1) for span in spans)
    return torch.stack([x, y, width, height], -1)


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """``(R, Q)`` IoU of boxes ``(R, 4)`` and ``(Q, 4)`` as of :func:`mask_boxes`; 0 where both are points."""
    return _overlap(a, b).iou


def box_giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU (arXiv 1902.09630): less the part of the enclosing box that neither fills; -1 to 1."""
    overlap = _overlap(a, b)
    hull = overlap.hull_width * overlap.hull_height
    return overlap.iou - (hull - overlap.union) / hull.clamp(min=TINY)


def box_diou(a: Tensor, b: Tensor) -> Tensor:
    """Distance IoU (arXiv 1911.08287): less d^2 / c^2 of centres d apart in a hull of diagonal c; -1 to 1."""
    overlap = _overlap(a, b)
    dx, dy = a[:, :1] - b[:, 0], a[:, 1:2] - b[:, 1]
    diagonal = overlap.hull_width**2 + overlap.hull_height**2
    return overlap.iou - (dx**2 + dy**2) / diagonal.clamp(min=TINY)


BOX_SIMILARITIES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "diou": box_diou,
    "giou": box_giou,
    "iou": box_iou,
}


class _Overlap(NamedTuple):
    """Of all pairs, ``(R, Q)`` each."""

    iou: Tensor
    union: Tensor  # area
    hull_width: Tensor  # of the enclosing box
    hull_height: Tensor


def _overlap(a: Tensor, b: Tensor) -> _Overlap:
    shared_width, hull_width = _spans(a[:, 0:1], a[:, 2:3], b[:, 0], b[:, 2])
    shared_height, hull_height = _spans(a[:, 1:2], a[:, 3:4], b[:, 1], b[:, 3])
    shared = shared_width * shared_height
    union = a[:, 2:3] * a[:, 3:4] + b[:, 2] * b[:, 3] - shared
    return _Overlap(shared / union.clamp(min=TINY), union, hull_width, hull_height)


def _spans(at_a: Tensor, side_a: Tensor, at_b: Tensor, side_b: Tensor) -> tuple[Tensor, Tensor]:
    """Along one axis the length that intervals share and that of the interval around both, ``(R, Q)``."""
    low_a, high_a = at_a - side_a / 2, at_a + side_a / 2
    low_b, high_b = at_b - side_b / 2, at_b + side_b / 2
    shared = (torch.minimum(high_a, high_b) - torch.maximum(low_a, low_b)).clamp(min=0)
    return shared, torch.maximum(high_a, high_b) - torch.minimum(low_a, low_b)


@dataclass(frozen=True)
class Noise:
    """Standard deviations as shares of a box's size (the root of its area); for log aspect as they are."""

    measured: float  # of what a mask says of its box
    position: float  # added to the state in a frame
    velocity: float  # added to the velocity in a frame
    start: float  # of the unknown velocity of a new track, a frame


MOVES = (1.0, 1.0, 1.0, 0.0)
"""Which parts of a filter's state have a velocity."""


@dataclass(frozen=True)
class BoxFilter:
    """Kalman filters of Q boxes that keep their velocity.

    The state of a box is (centre x, centre y, size, log aspect) and its velocity, with size the root of the
    area and aspect width / height; the aspect is at rest, since its exponential would run away. All noise is
    diagonal, so the 8x8 covariance falls apart into four 2x2 blocks [[pp, pv], [pv, vv]], and no matrix has
    to be inverted: the same numbers as with the full one.
    Values are never changed: every method returns another filter.
    """

    values: Tensor  # (5, Q, 4): mean, velocity (a frame), pp, pv, vv

    @classmethod
    def at(cls, boxes: Tensor, noise: Noise) -> BoxFilter:
        """At rest at ``boxes`` (Q, 4), in the form of :func:`mask_boxes`."""
        mean = _state(boxes)
        unit, zero = _unit(mean), torch.zeros_like(mean)
        return cls(torch.stack([mean, zero, (noise.measured * unit) ** 2, zero, (noise.start * unit) ** 2]))

    @property
    def boxes(self) -> Tensor:
        """``(Q, 4)`` as of :func:`mask_boxes`."""
        mean = self.values[0]
        size = mean[:, 2:3].clamp(min=math.sqrt(TINY))
        half = (mean[:, 3:] / 2).exp()
        return torch.cat([mean[:, :2], size * half, size / half], -1)

    def predicted(self, noise: Noise, moving: Tensor) -> BoxFilter:
        """One frame later; tracks that are not ``moving`` (Q,) bool stay where they are, ever less sure."""
        mean, velocity, pp, pv, vv = self.values
        unit, go = _unit(mean), moving[:, None].to(mean.dtype) * mean.new_tensor(MOVES)
        return BoxFilter(
            torch.stack(
                [
                    mean + go * velocity,
                    velocity,
                    pp + go * (2 * pv + vv) + (noise.position * unit) ** 2,
                    pv + go * vv,
                    vv + (noise.velocity * unit) ** 2,
                ]
            )
        )

    def updated(self, boxes: Tensor, noise: Noise) -> BoxFilter:
        """Corrected by what is seen: ``boxes`` (Q, 4)."""
        mean, velocity, pp, pv, vv = self.values
        innovation = _state(boxes) - mean
        total = pp + (noise.measured * _unit(mean)) ** 2
        gain, gain_v = pp / total, pv / total
        return BoxFilter(
            torch.stack(
                [
                    mean + gain * innovation,
                    velocity + gain_v * innovation,
                    (1 - gain) * pp,
                    (1 - gain) * pv,
                    vv - gain_v * pv,
                ]
            )
        )

    def where(self, chosen: Tensor, other: BoxFilter) -> BoxFilter:
        """This filter for the tracks that are ``chosen`` (Q,) bool, the other one for the rest."""
        return BoxFilter(torch.where(chosen[:, None], self.values, other.values))


def _state(boxes: Tensor) -> Tensor:
    """Boxes as (centre x, centre y, size, log aspect); finite for boxes without area."""
    sides = boxes[:, 2:].clamp(min=math.sqrt(TINY))
    width, height = sides.unbind(-1)
    return torch.stack([boxes[:, 0], boxes[:, 1], (width * height).sqrt(), (width / height).log()], -1)


def _unit(mean: Tensor) -> Tensor:
    """``(Q, 4)`` of what noise is a share: the size for centre and size, 1 for log aspect."""
    size = mean[:, 2:3].clamp(min=1)
    return torch.cat([size, size, size, torch.ones_like(size)], -1)
