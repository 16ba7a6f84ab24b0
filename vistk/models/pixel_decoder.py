"""Multi-scale deformable pixel decoder of Mask2Former (arXiv 2112.01527, section 3.2.2)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from vistk.models.layers import Conv2d, ConvNorm, Linear, flatten_levels, group_norm, resize, sine_position
from vistk.ops import ms_deform_attn_fused


class MSDeformAttn(nn.Module):
    """Multi-scale deformable attention with its projections (Deformable DETR, equation 3)."""

    def __init__(self, dim: int, levels: int, heads: int, points: int) -> None:
        super().__init__()
        self.levels, self.heads, self.points = levels, heads, points
        self.sampling_offsets = Linear(dim, heads * levels * points * 2)
        self.attention_weights = Linear(dim, heads * levels * points)
        self.value_proj = Linear(dim, dim)
        self.output_proj = Linear(dim, dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Offsets start as rings around the query, one direction a head, uniform weights."""
        angle = torch.arange(self.heads, dtype=torch.float32) * (2 * math.pi / self.heads)
        ring = torch.stack([angle.cos(), angle.sin()], -1)
        ring = ring / ring.abs().max(-1, keepdim=True).values
        radius = torch.arange(1, self.points + 1, dtype=torch.float32)
        bias = ring[:, None, None, :] * radius[:, None]  # (heads, 1, points, 2)
        nn.init.zeros_(self.sampling_offsets.weight)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(bias.expand(-1, self.levels, -1, -1).flatten())
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        query: Tensor,
        reference_points: Tensor,
        pixels: Tensor,
        spatial_shapes: Sequence[tuple[int, int]],
        padding: Tensor | None = None,
    ) -> Tensor:
        """``query`` (B, Q, C), ``reference_points`` (B or 1, Q, L, 2) in [0, 1], ``pixels`` (B, S, C).

        ``padding`` (B, S) bool marks pixels whose value is taken as zero.
        """
        value = self.value_proj(pixels)
        if padding is not None:
            value = value.masked_fill(padding[..., None], 0.0)
        value = value.unflatten(-1, (self.heads, -1))
        sampled = ms_deform_attn_fused(
            value,
            spatial_shapes,
            reference_points,
            self.sampling_offsets(query),
            self.attention_weights(query),
        )
        return self.output_proj(sampled)


class EncoderLayer(nn.Module):
    """Deformable self-attention over all levels, then a feed-forward block; norms come last."""

    def __init__(self, dim: int, feedforward_dim: int, levels: int, heads: int, points: int) -> None:
        super().__init__()
        self.self_attn = MSDeformAttn(dim, levels, heads, points)
        self.norm1 = nn.LayerNorm(dim)
        self.linear1 = Linear(dim, feedforward_dim)
        self.linear2 = Linear(feedforward_dim, dim)
        self.norm2 = nn.LayerNorm(dim)

    def forward(
        self, x: Tensor, position: Tensor, reference_points: Tensor, spatial_shapes: Sequence[tuple[int, int]]
    ) -> Tensor:
        x = self.norm1(x + self.self_attn(x + position, reference_points, x, spatial_shapes))
        return self.norm2(x + self.linear2(self.linear1(x, relu=True)))


class Encoder(nn.Module):
    """The stack of layers; a module of its own for the sake of the published parameter names."""

    def __init__(self, layers: Sequence[EncoderLayer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)


class DeformableTransformer(nn.Module):
    """Encoder plus the learned code of each level."""

    def __init__(
        self, dim: int, feedforward_dim: int, num_layers: int, levels: int, heads: int, points: int
    ) -> None:
        super().__init__()
        self.level_embed = nn.Parameter(torch.empty(levels, dim))
        self.encoder = Encoder(
            [EncoderLayer(dim, feedforward_dim, levels, heads, points) for _ in range(num_layers)]
        )
        for parameter in self.encoder.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        for module in self.encoder.modules():
            if isinstance(module, MSDeformAttn):
                module.reset_parameters()
        nn.init.normal_(self.level_embed)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Projected maps ``(B, C, H_l, W_l)``, coarsest first -> the same shapes, refined."""
        shapes = [(x.shape[-2], x.shape[-1]) for x in maps]
        device, dim = maps[0].device, maps[0].shape[1]
        codes = [
            (sine_position(h, w, dim, device, maps[0].dtype) + self.level_embed[level][:, None, None])[None]
            for level, (h, w) in enumerate(shapes)
        ]
        position = flatten_levels(codes)  # (1, S, C)
        centres = torch.cat([_pixel_centres(h, w, device) for h, w in shapes])  # (S, 2)
        reference = centres[None, :, None, :].expand(1, -1, len(shapes), 2)
        x = flatten_levels(maps)
        for layer in self.encoder.layers:
            x = layer(x, position, reference, shapes)
        levels = x.split([h * w for h, w in shapes], dim=1)
        return [
            level.transpose(1, 2).unflatten(2, shape) for level, shape in zip(levels, shapes, strict=True)
        ]


def _pixel_centres(height: int, width: int, device: torch.device) -> Tensor:
    """``(H*W, 2)`` x and y of pixel centres in [0, 1]."""
    y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / height
    x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) / width
    return torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1).flatten(0, 1)


class PixelDecoder(nn.Module):
    """Backbone maps in, mask features and the pyramid for the query decoder out.

    The three coarsest maps go through a deformable encoder, the finest joins by one FPN step.

    Args:
        channels: width of every backbone map, ``{"res2": C_2, ..., "res5": C_5}``.
        mask_position: add a sine position code before the mask features; a tiny model on tiny images
            needs it to separate objects that look alike. Published: off.
    """

    def __init__(
        self,
        channels: Mapping[str, int],
        dim: int = 256,
        feedforward_dim: int = 1024,
        num_layers: int = 6,
        heads: int = 8,
        points: int = 4,
        mask_position: bool = False,
    ) -> None:
        super().__init__()
        self.mask_position = mask_position
        self.levels = ("res5", "res4", "res3")  # coarsest first, the order of the published weights
        self.input_proj = nn.ModuleList(
            nn.Sequential(Conv2d(channels[name], dim, 1), group_norm(dim)) for name in self.levels
        )
        self.transformer = DeformableTransformer(
            dim, feedforward_dim, num_layers, len(self.levels), heads, points
        )
        self.mask_features = Conv2d(dim, dim, 1)
        self.adapter_1 = ConvNorm(channels["res2"], dim, 1)
        self.layer_1 = ConvNorm(dim, dim, 3)
        for conv in self.input_proj.modules():
            if isinstance(conv, nn.Conv2d):
                nn.init.xavier_uniform_(conv.weight)
                nn.init.zeros_(cast(Tensor, conv.bias))
        for conv in (self.mask_features, self.adapter_1, self.layer_1):
            nn.init.kaiming_uniform_(conv.weight, a=1)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)

    def forward(self, features: Mapping[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
        """``{"res2": ..}`` of ``(B, C_l, H_l, W_l)`` -> mask features ``(B, C, h, w)``, three maps."""
        maps = [proj(features[name]) for proj, name in zip(self.input_proj, self.levels, strict=True)]
        pyramid = self.transformer(maps)
        lateral = self.adapter_1(features["res2"])
        # The sum lies where the lateral map was: at 720p each of these maps takes 60 MB.
        lateral.add_(resize(pyramid[-1], (lateral.shape[-2], lateral.shape[-1])))
        y = self.layer_1(lateral).relu_()
        if self.mask_position:
            y = y + sine_position(y.shape[-2], y.shape[-1], y.shape[1], y.device, y.dtype)
        return self.mask_features(y), pyramid
