"""What surrounds an instance: context features of CAVIS (arXiv 2407.03010)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def mask_edges(masks: Tensor) -> Tensor:
    """Pixels of a mask that have one of their eight neighbours outside of it.

    Those are the pixels where the Laplacian ``8 m - sum of the neighbours`` of the binary mask is positive.
    Beyond the border of the image nothing is outside.

    Args:
        masks: ``(.., h, w)`` bool.
    """
    # Erosion by 3x3: along the rows, then along the columns.
    rows = masks.clone()
    rows[..., 1:] &= masks[..., :-1]
    rows[..., :-1] &= masks[..., 1:]
    inner = rows.clone()
    inner[..., 1:, :] &= rows[..., :-1, :]
    inner[..., :-1, :] &= rows[..., 1:, :]
    return masks & ~inner


def context_features(features: Tensor, mask_logits: Tensor, filter_size: int) -> Tensor:
    """Mean over each mask's edge of the map, after a mean filter::

        context_n = sum_p mean_{r in W(p)} F(r) [p in edge_n] / |edge_n|

    ``W(p)`` is the window around p, cut at the border. The filter is applied to the edges, of which there are
    fewer than channels, and not to the map: the sums are the same ones.

    Args:
        features: ``(.., C, H_l, W_l)``; gradients flow into it, and none into the masks.
        mask_logits: ``(.., Q, h, w)``; resized to the map (bilinear) where they differ in size.
        filter_size: side of the window in pixels of the map, odd; 1 = no filter.

    Returns:
        ``(.., Q, C)`` float32; zeros for a mask without edge.
    """

    def weigh(masks: Tensor) -> Tensor:
        return _spread(_weights_of(mask_edges(masks)), filter_size)

    return _pooled(features, mask_logits, weigh)


def prototypes(features: Tensor, mask_logits: Tensor) -> Tensor:
    """Mean of the map inside each mask; arguments and result as of :func:`context_features`."""
    return _pooled(features, mask_logits, _weights_of)


def _pooled(features: Tensor, mask_logits: Tensor, weigh: Callable[[Tensor], Tensor]) -> Tensor:
    """Weighted sums of the map; ``weigh`` takes masks ``(Q, H_l, W_l)``. One frame's masks at a time."""
    lead, size = features.shape[:-3], features.shape[-2:]
    pooled = []
    with torch.autocast(features.device.type, enabled=False):
        for frame, logits in zip(
            features.reshape(-1, *features.shape[-3:]),
            mask_logits.detach().reshape(-1, *mask_logits.shape[-3:]),
            strict=True,
        ):
            if logits.shape[-2:] != size:
                logits = F.interpolate(logits[None].float(), size=size, mode="bilinear", align_corners=False)[
                    0
                ]
            pooled.append(weigh(logits > 0).flatten(1) @ frame.float().flatten(1).T)
    return torch.stack(pooled).reshape(*lead, *pooled[0].shape)


def _weights_of(masks: Tensor) -> Tensor:
    """``(Q, H_l, W_l)`` float32 that sum to 1 for every mask which is not empty."""
    weights = masks.float()
    return weights / weights.sum((-1, -2), keepdim=True).clamp(min=1)


def _spread(weights: Tensor, filter_size: int) -> Tensor:
    """Each pixel's weight in equal parts over the window around it, cut at the border."""
    for dim in (-2, -1):  # the window is the product of two intervals
        pixels = _interval_sums(weights.new_ones(weights.shape[dim]), -1, filter_size)
        weights = weights / (pixels[:, None] if dim == -2 else pixels)
        weights = _interval_sums(weights, dim, filter_size)
    return weights


def _interval_sums(x: Tensor, dim: int, width: int) -> Tensor:
    """At each place the sum over the ``width`` places around it along ``dim``, cut at the border."""
    n = x.shape[dim]
    sums = x.clone()
    for step in range(1, min(width // 2, n - 1) + 1):  # four times as fast as a pooling on a CPU
        sums.narrow(dim, 0, n - step).add_(x.narrow(dim, step, n - step))
        sums.narrow(dim, step, n - step).add_(x.narrow(dim, 0, n - step))
    return sums
