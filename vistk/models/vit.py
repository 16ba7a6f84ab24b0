"""Plain vision transformers as backbones: one map of stride 16, made into a pyramid (ViTDet)."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from vistk.schema import ConfigError

STRIDE = 16
OPTIONS = {"dynamic_img_size": True, "num_classes": 0}
"""Keyword arguments for timm: position codes interpolated to the frame, no classifier."""


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of ``(B, C, H, W)``."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class SimplePyramid(nn.Module):
    """The simple feature pyramid of ViTDet (arXiv 2203.16527, section 3): every level from the last map.

    Transposed convolutions for strides 4 and 8, the map itself for 16, a max pool for 32. The 1x1
    convolutions to a common width that follow there are the pixel decoder's here.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.channels = (dim // 4, dim // 2, dim, dim)
        self.res2 = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 2, 2, stride=2),
            ChannelNorm(dim // 2),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 2, dim // 4, 2, stride=2),
        )
        self.res3 = nn.ConvTranspose2d(dim, dim // 2, 2, stride=2)

    def forward(self, x: Tensor) -> list[Tensor]:
        """``(B, C, h, w)`` -> four maps, ``4h x 4w`` to ``h/2 x w/2``."""
        return [self.res2(x), self.res3(x), x, F.max_pool2d(x, 2)]


def patch_size(body: Any, name: str) -> int:
    """Side of the square patches of a timm vision transformer, in pixels.

    Raises:
        ConfigError: patches that are not square, or too far from 16 pixels for a map of stride 16.
    """
    tall, wide = body.patch_embed.patch_size
    if tall != wide or not 12 <= tall <= 20:
        raise ConfigError(
            f"segmenter.backbone={name!r} has patches of {tall}x{wide} pixels, expected squares of 12 to 20; "
            "segmenter.backbone_options={patch_size: 16} resamples them"
        )
    return tall


def plain_features(body: Any, images: Tensor, patch: int) -> Tensor:
    """The last map of a timm vision transformer, normalised by its final norm, at stride 16 exactly.

    With patches of other than 16 pixels (DINOv2: 14) the frame is resampled, so that one patch covers
    16 of its pixels. That keeps all levels aligned with the frame to the pixel, the cost that of a
    16-pixel model, and the scale of patches as in pretraining; padding to whole patches would leave
    levels of strides 3.5, 7, 14 and 28 that end beside the frame's edge.

    Args:
        images: ``(B, 3, H, W)``, multiples of 16.

    Returns:
        ``(B, C, H / 16, W / 16)``.
    """
    if patch != STRIDE:
        size = [side // STRIDE * patch for side in images.shape[-2:]]
        images = F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)
    return body.forward_intermediates(images, indices=1, norm=True, intermediates_only=True)[0]
