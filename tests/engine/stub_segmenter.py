"""A segmenter that says what a test tells it to, frame by frame."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from vistk.structures import FrameOutput

STRIDE = 4


class StubSegmenter(nn.Module):
    """The first pixel of a frame is its number (at most 255).

    Args:
        logits: ``(T, Q, K+1)``.
        mask_logits: ``(T, Q, h, w)``.
        embeds: ``(T, Q, C)``.
    """

    def __init__(self, logits: Tensor, mask_logits: Tensor, embeds: Tensor) -> None:
        super().__init__()
        self.logits, self.mask_logits, self.embeds = logits, mask_logits, embeds
        self.backbone = SimpleNamespace(strides={"res2": STRIDE})
        self.passes: list[list[int]] = []  # frames of every call

    def forward(self, images: Tensor) -> FrameOutput:
        t = images[0, :, 0, 0, 0].long()
        self.passes.append(t.tolist())
        h, w = self.mask_logits.shape[-2:]
        return FrameOutput(
            self.logits[t][None],
            self.mask_logits[t][None],
            self.embeds[t][None],
            torch.zeros(1, len(t), 2, h, w),
            {"res2": torch.zeros(1, len(t), 3, h, w)},
        )

    def frames(self) -> list:
        """T readers of frames as large as the network's size."""
        count, _, h, w = self.mask_logits.shape

        def read(t: int) -> Tensor:
            return torch.full((3, h * STRIDE, w * STRIDE), t, dtype=torch.uint8)

        return [partial(read, t) for t in range(count)]


def random_stub(frames: int, queries: int = 6, classes: int = 3, h: int = 5, w: int = 7) -> StubSegmenter:
    """Queries that look alike from frame to frame, in another order in each."""
    generator = torch.Generator().manual_seed(2)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    order = torch.stack([torch.randperm(queries, generator=generator) for _ in range(frames)])
    logits = 2 * noise(queries, classes + 1) + noise(frames, queries, classes + 1)
    masks = noise(queries, h, w) + 0.3 * noise(frames, queries, h, w)
    embeds = noise(queries, 8) + 0.1 * noise(frames, queries, 8)
    picked = [torch.stack([x[t, order[t]] for t in range(frames)]) for x in (logits, masks, embeds)]
    return StubSegmenter(*picked)
