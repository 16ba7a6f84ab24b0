"""Sampling maps at points, and choosing the points (PointRend, arXiv 1912.08193)."""

from __future__ import annotations

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
    """Draws the random points of matching and of the mask losses.

    A class, so that a test can replay recorded points. Draws come from PyTorch's global generator,
    as in the published code; the training loop seeds it for every step.
    """

    def matching(self, frames: int, num_points: int, device: torch.device) -> Tensor:
        """``(frames, num_points, 2)`` uniform points: one set a frame, shared by its queries."""
        return torch.rand(frames, num_points, 2, device=device)

    def candidates(self, masks: int, num_points: int, device: torch.device) -> Tensor:
        """``(masks, num_points, 2)`` uniform points, of which the most uncertain will be kept."""
        return torch.rand(masks, num_points, 2, device=device)

    def uniform(self, masks: int, num_points: int, device: torch.device) -> Tensor:
        """``(masks, num_points, 2)`` uniform points beside the uncertain ones."""
        return torch.rand(masks, num_points, 2, device=device)


def uncertain_points(
    mask_logits: Tensor,
    num_points: int,
    sampler: PointSampler,
    oversample: float = 3.0,
    importance: float = 0.75,
) -> Tensor:
    """Points near the decision boundary of each mask, plus some uniform ones.

    Args:
        mask_logits: ``(N, h, w)``.
        num_points: points per mask.
        oversample: candidates drawn per point kept.
        importance: share of the points chosen by uncertainty (small ``|logit|``).

    Returns:
        ``(N, num_points, 2)`` points in [0, 1], without gradient.
    """
    n = mask_logits.shape[0]
    device = mask_logits.device
    with torch.no_grad():
        candidates = sampler.candidates(n, int(num_points * oversample), device)
        uncertainty = -sample_points(mask_logits[:, None], candidates).squeeze(1).abs()  # (N, oversample*P)
        kept = int(importance * num_points)
        index = uncertainty.topk(kept, dim=1).indices
        points = candidates.gather(1, index[..., None].expand(-1, -1, 2))
        if num_points > kept:
            points = torch.cat([points, sampler.uniform(n, num_points - kept, device)], dim=1)
    return points
