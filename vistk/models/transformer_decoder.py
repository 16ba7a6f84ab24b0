"""Masked-attention transformer decoder of Mask2Former (arXiv 2112.01527, section 3.2.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vistk.models.layers import MLP, Linear, MultiheadAttention, sine_position
from vistk.ops import products
from vistk.structures import LayerOutput


class SelfAttentionLayer(nn.Module):
    """Self-attention among queries, residual, norm."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.self_attn = MultiheadAttention(dim, heads)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        q = x + position
        return self.norm(x + self.self_attn(q, q, x))


class CrossAttentionLayer(nn.Module):
    """Masked cross-attention from queries to pixels, residual, norm."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.multihead_attn = MultiheadAttention(dim, heads)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, position: Tensor, keys: Tensor, values: Tensor, blocked: Tensor) -> Tensor:
        return self.norm(x + self.multihead_attn(x + position, keys, values, blocked))


class FFNLayer(nn.Module):
    """Feed-forward block, residual, norm."""

    def __init__(self, dim: int, feedforward_dim: int) -> None:
        super().__init__()
        self.linear1 = Linear(dim, feedforward_dim)
        self.linear2 = Linear(feedforward_dim, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.linear2(self.linear1(x, relu=True)))


@dataclass(frozen=True)
class DecoderOutput:
    """Predictions of the last layer, of every earlier one, and the queries' embeddings."""

    logits: Tensor  # (B, Q, K+1)
    mask_logits: Tensor  # (B, Q, h, w)
    embeds: Tensor  # (B, Q, C)
    aux: tuple[LayerOutput, ...]  # before layer 0, then after each layer but the last

    @classmethod
    def in_turn(cls, frames: Sequence[DecoderOutput]) -> DecoderOutput:
        """One output of T, each of frame t of B clips; its B*T frames are in the order of ``(B, T)``."""

        def join(parts: Sequence[Tensor]) -> Tensor:
            return torch.stack(list(parts), dim=1).flatten(0, 1)

        aux = tuple(
            LayerOutput(join([x.logits for x in layer]), join([x.mask_embeds for x in layer]))
            for layer in zip(*(frame.aux for frame in frames), strict=True)
        )
        return cls(
            join([frame.logits for frame in frames]),
            join([frame.mask_logits for frame in frames]),
            join([frame.embeds for frame in frames]),
            aux,
        )


class TransformerDecoder(nn.Module):
    """Queries attend, layer by layer, to the pixels that their last mask marks.

    Layer ``i`` looks at level ``i % L`` of the pyramid, coarsest first. Predictions are made before
    the first layer and after each one (deep supervision).
    """

    def __init__(
        self,
        num_classes: int,
        dim: int = 256,
        feedforward_dim: int = 2048,
        num_queries: int = 100,
        num_layers: int = 9,
        heads: int = 8,
        levels: int = 3,
    ) -> None:
        super().__init__()
        self.transformer_self_attention_layers = nn.ModuleList(
            SelfAttentionLayer(dim, heads) for _ in range(num_layers)
        )
        self.transformer_cross_attention_layers = nn.ModuleList(
            CrossAttentionLayer(dim, heads) for _ in range(num_layers)
        )
        self.transformer_ffn_layers = nn.ModuleList(FFNLayer(dim, feedforward_dim) for _ in range(num_layers))
        self.decoder_norm = nn.LayerNorm(dim)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        self.query_feat = nn.Embedding(num_queries, dim)
        self.query_embed = nn.Embedding(num_queries, dim)
        self.level_embed = nn.Embedding(levels, dim)
        self.class_embed = nn.Linear(dim, num_classes + 1)
        self.mask_embed = MLP(dim, dim, dim, 3)

    def forward(
        self, mask_features: Tensor, pyramid: Sequence[Tensor], with_aux: bool, added: Tensor | None = None
    ) -> DecoderOutput:
        """Queries of B frames.

        Args:
            mask_features: ``(B, C, h, w)``.
            pyramid: L maps ``(B, C, H_l, W_l)``, coarsest first.
            added: ``(B, Q, C)`` to add to the learned queries before the first layer.
        """
        b = mask_features.shape[0]
        values, keys, sizes = [], [], []
        for level, x in enumerate(pyramid):
            height, width = x.shape[-2:]
            flat = x.flatten(2).transpose(1, 2) + self.level_embed.weight[level]  # (B, S_l, C)
            code = sine_position(height, width, x.shape[1], x.device, x.dtype).flatten(1).T
            values.append(flat)
            keys.append(flat + code)
            sizes.append((height, width))
        # Masks are linear in the mask features, and so is resizing: small features give the small masks
        # that attention needs, and no layer but the last makes masks of stride 4.
        small = [
            F.interpolate(mask_features.detach(), size=size, mode="bilinear", align_corners=False).flatten(2)
            for size in sizes
        ]
        queries = self.query_feat.weight.expand(b, -1, -1)
        if added is not None:
            queries = queries + added
        position = self.query_embed.weight.expand(b, -1, -1)
        embeds = self.decoder_norm(queries)
        aux = []
        for i, (cross, self_attention, ffn) in enumerate(
            zip(
                self.transformer_cross_attention_layers,
                self.transformer_self_attention_layers,
                self.transformer_ffn_layers,
                strict=True,
            )
        ):
            level = i % len(sizes)
            mask_embeds = self.mask_embed(embeds)
            if with_aux:
                aux.append(LayerOutput(self.class_embed(embeds), mask_embeds))
            blocked = attention_mask(products(mask_embeds.detach(), small[level]))
            queries = ffn(
                self_attention(cross(queries, position, keys[level], values[level], blocked), position)
            )
            embeds = self.decoder_norm(queries)
        last = LayerOutput(self.class_embed(embeds), self.mask_embed(embeds))
        mask_logits = products(last.mask_embeds, mask_features.flatten(2)).unflatten(
            2, mask_features.shape[2:]
        )
        return DecoderOutput(last.logits, mask_logits, embeds, tuple(aux))


def attention_mask(mask_logits: Tensor) -> Tensor:
    """Where queries must not look: outside their last mask; one with an empty mask sees all.

    Args:
        mask_logits: ``(B, Q, S_l)`` at the size of a level.

    Returns:
        ``(B, Q, S_l)`` bool.
    """
    blocked = mask_logits.sigmoid() < 0.5
    return blocked & ~blocked.all(-1, keepdim=True)
