"""Recorded random points and ground truth of the golden loss files."""

from __future__ import annotations

import numpy as np
import torch

from vistk.ops.points import PointSampler
from vistk.structures import ClipTargets


class RecordedPoints(PointSampler):
    """Replays the draws of the published implementation.

    It drew, decoder output after decoder output, a matching set for each of F frames, then candidates
    and uniform points for the mask loss; we match all layers first.
    """

    def __init__(self, z, layers, frames):
        draws, offset = [], 0
        for shape in z["draw_shapes"]:
            size = int(np.prod(shape))
            draws.append(torch.from_numpy(z["draws_flat"][offset : offset + size].reshape(shape)))
            offset += size
        each = frames + 2
        matching = [torch.cat(draws[i * each : i * each + frames]) for i in range(layers)]
        losses = [draw for i in range(layers) for draw in draws[i * each + frames : (i + 1) * each]]
        self.queue = matching + losses

    def draw(self, rows, num_points, device):
        points = self.queue.pop(0)
        assert points.shape == (sum(rows), num_points, 2)
        return points


def golden_targets(z, labels="gt_labels"):
    """The two clips of a golden loss file."""
    targets = []
    for clip in range(2):
        shape = z[f"gt_masks_shape_{clip}"]
        bits = np.unpackbits(z[f"gt_masks_{clip}"])[: int(np.prod(shape))]
        targets.append(
            ClipTargets(
                torch.from_numpy(z[f"{labels}_{clip}"]),
                torch.from_numpy(z[f"gt_ids_{clip}"] >= 0),
                torch.from_numpy(bits.reshape(shape).astype(bool)),
            )
        )
    return targets
