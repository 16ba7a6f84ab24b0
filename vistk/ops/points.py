"""Sampling maps at points, and choosing the points (PointRend, arXiv 1912.08193)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def sample_points(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear samples of ``maps`` at ``points``, zeros outside.

    Args:
        maps: ``(N, C, H, W)``; 16-bit maps are sampled in float32 (PyTorch's 16-bit ``grid_sample``
            is wrong on CPU).
        points: ``(N, P, 2)``, x and y with [0, 1] from border to border.

    Returns:
        ``(N, C, P)``, float32 or float64.
    """
    if maps.dtype in (torch.float16, torch.bfloat16, torch.bool, torch.uint8):
        maps = maps.float()
    grid = (2.0 * points - 1.0).to(maps.dtype).unsqueeze(2)  # (N, P, 1, 2)
    return F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False).squeeze(3)


class PointSampler:
    """Draws the random points of matching and of the mask losses from PyTorch's global generator."""

    def draw(self, rows: Sequence[int], num_points: int, device: torch.device) -> Tensor:
        """``(sum(rows), num_points, 2)`` uniform points in [0, 1]; ``rows[b]`` of them belong to clip b."""
        return torch.rand(sum(rows), num_points, 2, device=device)


class ClipPointSampler(PointSampler):
    """Draws every clip's points from a generator of its own.

    So a clip meets the same points whatever process it is on and whatever else is in its batch:
    two processes give the losses of one, and a resumed run those of an uninterrupted one.

    Args:
        seeds: one non-negative integer for every clip of the batch.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def draw(self, rows: Sequence[int], num_points: int, device: torch.device) -> Tensor:
        """As :meth:`PointSampler.draw`; ``rows`` has one entry a clip."""
        return torch.cat(
            [
                torch.rand(n, num_points, 2, device=device, generator=generator)
                for n, generator in zip(rows, self.generators, strict=True)
            ]
        )


def uncertain_points(
    mask_logits: Tensor,
    rows: Sequence[int],
    num_points: int,
    sampler: PointSampler,
    oversample: float = 3.0,
    importance: float = 0.75,
) -> Tensor:
    """Points near the decision boundary of each mask, plus some uniform ones.

    Args:
        mask_logits: ``(N, h, w)``.
        rows: how many of the N masks belong to each clip of the batch, in order.
        num_points: points per mask.
        oversample: candidates drawn per point kept.
        importance: share of the points chosen by uncertainty (small ``|logit|``).

    Returns:
        ``(N, num_points, 2)`` points in [0, 1], without gradient.
    """
    device = mask_logits.device
    with torch.no_grad():
        candidates = sampler.draw(rows, int(num_points * oversample), device)
        uncertainty = -sample_points(mask_logits[:, None], candidates).squeeze(1).abs()  # (N, oversample*P)
        kept = int(importance * num_points)
        index = uncertainty.topk(kept, dim=1).indices
        points = candidates.gather(1, index[..., None].expand(-1, -1, 2))
        if num_points > kept:
            points = torch.cat([points, sampler.draw(rows, num_points - kept, device)], dim=1)
    return points
