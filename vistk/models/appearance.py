"""Query and appearance vectors of VISAGE (arXiv 2312.04885)."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from vistk.models.layers import MLP, Conv2d, group_norm, resize
from vistk.structures import FrameOutput


class AppearanceHead(nn.Module):
    """What a query looks like, apart from what and where it is.

    The appearance vector pools maps of the backbone, as published, or of the pixel decoder, level by level,
    under the query's own mask, and so does not pass through the segmenter's query decoder. The query vector
    is an MLP of that decoder's embedding.
    Parameters bear their published names: ``input_proj.{i}.0``, ``appearance_embd``, ``reid_embd``.

    Args:
        feature_channels: width of every map that the segmenter has.
        levels: levels to pool from, finest first; none = no appearance vectors.
        embed_dim: width of the segmenter's embeddings.
        hidden_dim: width of the projections, of the hidden layers and of the vectors.
        query_head: False hands the segmenter's embeddings through as query vectors.

    Raises:
        ValueError: the segmenter has no such level.
    """

    def __init__(
        self,
        feature_channels: Mapping[str, int],
        levels: Sequence[str],
        embed_dim: int,
        hidden_dim: int,
        query_head: bool = True,
    ) -> None:
        super().__init__()
        for level in levels:
            if level not in feature_channels:
                near = difflib.get_close_matches(level, feature_channels, n=1, cutoff=0.0)
                raise ValueError(
                    f"levels: the segmenter has no level {level!r}, expected some of "
                    f"{', '.join(feature_channels)}; nearest is {near[0] if near else 'none'}"
                )
        self.levels = tuple(levels)
        self.input_proj = nn.ModuleList(
            nn.Sequential(_Projection(feature_channels[level], hidden_dim)) for level in levels
        )
        self.appearance_embd = MLP(len(levels) * hidden_dim, hidden_dim, hidden_dim, 3) if levels else None
        self.reid_embd = MLP(embed_dim, hidden_dim, hidden_dim, 3) if query_head else None

    def forward(self, out: FrameOutput) -> dict[str, Tensor]:
        """Vectors of every query.

        Masks and features are detached: the losses of the vectors shape neither the masks nor the backbone
        through the appearance. The query embeddings are not detached.

        Args:
            out: frames with leading dims ``(..)``, any number of them.

        Returns:
            ``{"query": (.., Q, C)}``, and ``{"appearance": (.., Q, C)}`` where there are levels.
        """
        vectors = {"query": out.embeds if self.reid_embd is None else self.reid_embd(out.embeds)}
        if self.appearance_embd is not None:
            vectors["appearance"] = self.appearance_embd(self._pooled(out))
        return vectors

    def _pooled(self, out: FrameOutput) -> Tensor:
        """``(.., Q, levels * hidden_dim)`` means of the projected features under the masks."""
        mask_logits = out.mask_logits.detach()
        *lead, q, h, w = mask_logits.shape
        frames = math.prod(lead)
        pooled = []
        for level, project in zip(self.levels, self.input_proj, strict=True):
            feature = out.features[level].detach()
            projected = project(feature.reshape(frames, *feature.shape[-3:]))  # (F, C, H_l, W_l)
            pooled.append(mean_under_masks(projected, mask_logits.reshape(frames, q, h, w)))
        together = torch.cat(pooled, dim=-1)
        return together.reshape(*lead, q, together.shape[-1])


def mean_under_masks(features: Tensor, mask_logits: Tensor) -> Tensor:
    """Mean of a feature map over each mask.

    The logits are resized (bilinear) to the map and thresholded there at a probability of one half.

    Args:
        features: ``(F, C, H_l, W_l)``.
        mask_logits: ``(F, Q, h, w)``.

    Returns:
        ``(F, Q, C)`` in float32; zeros for a mask that is empty at the size of the map.
    """
    with torch.autocast(features.device.type, enabled=False):
        size = features.shape[-2:]
        resized = resize(mask_logits.float(), (size[0], size[1]))
        masks = (resized > 0).float().flatten(2)  # (F, Q, S)
        total = masks @ features.float().flatten(2).transpose(1, 2)  # (F, Q, C)
        return total / masks.sum(-1, keepdim=True).clamp(min=1)


class _Projection(Conv2d):
    """A 1x1 convolution with bias, then a group norm; named as published."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)
        self.norm = group_norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(super().forward(x))
