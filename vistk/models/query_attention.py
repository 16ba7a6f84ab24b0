"""Attention among the queries of frames: the parts of which trackers with a transformer are made."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vistk.models.layers import MLP, MultiheadAttention
from vistk.models.transformer_decoder import FFNLayer


class QueryAttention(nn.Module):
    """Multi-head attention, a residual that need not be the query, norm: ``norm(identity + attention)``."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.attention = MultiheadAttention(dim, heads)
        self.norm = nn.LayerNorm(dim)

    def forward(
        self, identity: Tensor, query: Tensor, key: Tensor, value: Tensor, blocked: Tensor | None = None
    ) -> Tensor:
        """``identity``, ``query`` (B, R, C), ``key``, ``value`` (B, S, C); ``blocked`` (B, R or 1, S)."""
        return self.norm(identity + self.attention(query, key, value, blocked))


class AttentionBlock(nn.Module):
    """Cross-attention, self-attention, feed-forward, each with its residual and norm."""

    def __init__(self, dim: int, heads: int, feedforward_dim: int) -> None:
        super().__init__()
        self.cross = QueryAttention(dim, heads)
        self.among = QueryAttention(dim, heads)
        self.ffn = FFNLayer(dim, feedforward_dim)

    def forward(
        self, identity: Tensor, query: Tensor, key: Tensor, value: Tensor, position: Tensor
    ) -> Tensor:
        """``identity``, ``query`` (B, R, C), ``key``, ``value`` (B, S, C).

        ``position`` is added to the queries and keys of the self-attention.
        """
        x = self.cross(identity, query, key, value)
        placed = x + position
        return self.ffn(self.among(x, placed, placed, x))


class WindowBlock(nn.Module):
    """Self-attention among the queries of neighbouring frames, feed-forward."""

    def __init__(self, dim: int, heads: int, feedforward_dim: int) -> None:
        super().__init__()
        self.among = QueryAttention(dim, heads)
        self.ffn = FFNLayer(dim, feedforward_dim)

    def forward(self, x: Tensor, window: int, shift: int) -> Tensor:
        """``(B, T, Q, C)`` queries, which see those of the frames in their own window.

        The first window has ``shift`` frames (``window`` of them where it is 0), every other one ``window``,
        and the last one what is left.
        """
        b, t, q, c = x.shape
        front = (window - shift) % window
        back = -(front + t) % window
        padded = F.pad(x, (0, 0, 0, 0, front, back))
        missing = F.pad(x.new_zeros(t, dtype=torch.bool), (front, back), value=True).view(-1, window)
        blocked = missing.repeat_interleave(q, 1).repeat(b, 1)[:, None]  # (B * windows, 1, window * Q)
        y = padded.reshape(len(blocked), window * q, c)
        y = self.ffn(self.among(y, y, y, y, blocked))
        return y.view(b, -1, q, c)[:, front : front + t]


class QueryHeads(nn.Module):
    """Classes and mask embeddings of queries, after a norm of their own.

    Args:
        dim: width of the queries.
        num_classes: K, without "no object".
        mask_dim: width of the mask features.
    """

    def __init__(self, dim: int, num_classes: int, mask_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.class_embed = nn.Linear(dim, num_classes + 1)
        self.mask_embed = MLP(dim, dim, mask_dim, 3)

    def start_at_zero(self) -> None:
        """Let all logits and embeddings be zero until something is learned."""
        for last in (self.class_embed, *list(self.mask_embed.layers)[-1:]):
            for parameter in last.parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``(.., C)`` -> logits ``(.., K+1)`` and mask embeddings ``(.., D)``."""
        x = self.norm(x)
        return self.class_embed(x), self.mask_embed(x)


def masks_of(mask_embeds: Tensor, mask_features: Tensor) -> Tensor:
    """``(.., M, h, w)`` mask logits of embeddings ``(.., M, C)`` and features ``(.., C, h, w)``."""
    return torch.einsum("...mc,...chw->...mhw", mask_embeds, mask_features.to(mask_embeds.dtype))


def xavier(module: nn.Module) -> None:
    """Start all matrices as in Mask2Former's decoder (Glorot, uniform)."""
    for parameter in module.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)


def feedforward_width(owner: str, dim: int, heads: int, feedforward_dim: int | None) -> int:
    """Width of the feed-forward layers, by default eight times ``dim``, as published (2048 of 256).

    Raises:
        ValueError: the heads do not divide ``dim``, or a number is below 1.
    """
    if heads < 1 or dim % heads:
        raise ValueError(f"{owner}: heads is {heads}, expected a divisor of the width {dim}")
    if feedforward_dim is not None and feedforward_dim < 1:
        raise ValueError(f"{owner}: feedforward_dim is {feedforward_dim}, expected 1 or more")
    return 8 * dim if feedforward_dim is None else feedforward_dim
