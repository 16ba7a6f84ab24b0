"""What the tests of streams share: small models, frames, and what two frames' answers have in common."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn

import vistk
from vistk.engine.stream import Stream, StreamedFrame
from vistk.models.checkpoints import load_published_into
from vistk.models.segmenter import Segmenter, TinySegmenterConfig
from vistk.models.weight_files import read_state
from vistk.structures import FrameOutput
from vistk.trackers.base import Tracker
from vistk.trackers.registry import get_tracker

CLASSES = 4


def random_segmenter(seed: int = 0) -> Segmenter:
    torch.manual_seed(seed)
    return Segmenter(TinySegmenterConfig(), CLASSES).eval()


def trained_segmenter() -> Segmenter:
    """The packaged weights."""
    segmenter = Segmenter(TinySegmenterConfig(), CLASSES)
    path = Path(vistk.__file__).parent / "weights" / "tiny-synthetic.safetensors"
    load_published_into(segmenter, None, read_state(path).state)
    return segmenter.eval()


def tracker_of(name: str, segmenter: nn.Module, seed: int = 1) -> Tracker:
    """With weights at which no part does nothing, as parts that begin at zero do."""
    cls, config = get_tracker(name)
    torch.manual_seed(seed)
    tracker = cls(
        config,
        embed_dim=segmenter.embed_dim,
        feature_channels=segmenter.feature_channels,
        num_classes=CLASSES,
    )
    for parameter in tracker.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return tracker.eval()


def noise(count: int, height: int = 40, width: int = 70, seed: int = 2) -> Tensor:
    """``(T, 3, H, W)`` uint8."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, height, width), generator=generator, dtype=torch.uint8)


def same_frame(a: StreamedFrame, b: StreamedFrame) -> bool:
    """To the last bit."""
    return (
        (a.number, a.size) == (b.number, b.size)
        and torch.equal(a.ids, b.ids)
        and torch.equal(a.labels, b.labels)
        and torch.equal(a.scores, b.scores)
        and torch.equal(a.frame_scores, b.frame_scores)
        and a.rles == b.rles
    )


def nearly_same_frame(a: StreamedFrame, b: StreamedFrame) -> None:
    """But for rounding: ids, scores, and most pixels."""
    assert (a.number, a.size) == (b.number, b.size)
    assert sorted(a.ids.tolist()) == sorted(b.ids.tolist())
    ours, theirs = a.ids.argsort(), b.ids.argsort()
    np.testing.assert_allclose(a.scores[ours], b.scores[theirs], atol=1e-4)
    np.testing.assert_allclose(a.frame_scores[ours], b.frame_scores[theirs], atol=1e-4)
    assert (a.masks[ours] != b.masks[theirs]).float().mean() < 1e-2


def pushed(stream: Stream, frames: Tensor) -> list[StreamedFrame]:
    return [stream.push(frame) for frame in frames]


class CountingSegmenter(nn.Module):
    """Cheap, of the interface that streams see: some queries that look at the mean colour of a frame.

    Attributes:
        passes: number of frames of every call.
    """

    def __init__(self, queries: int = 3) -> None:
        super().__init__()
        self.num_classes, self.embed_dim, self.feature_channels = CLASSES, 4, {"res2": 2}
        self.backbone = SimpleNamespace(strides={"res2": 4})
        self.register_buffer("pixel_mean", torch.zeros(3))
        self.passes: list[int] = []
        generator = torch.Generator().manual_seed(7)
        self.logits = torch.randn(queries, CLASSES + 1, generator=generator)
        self.embeds = torch.randn(queries, 4, generator=generator)
        self.mask_logits = torch.randn(queries, 2, 3, generator=generator)

    def forward(self, images: Tensor) -> FrameOutput:
        _, t, _, height, width = images.shape
        self.passes.append(t)
        colour = images.float().mean((0, 2, 3, 4))[:, None, None] / 255
        masks = self.mask_logits.repeat_interleave(height // 8, 1).repeat_interleave(width // 12, 2)
        return FrameOutput(
            (self.logits + colour)[None],
            (masks + colour[..., None] - 0.5)[None],
            (self.embeds + 0.1 * colour)[None],
            torch.zeros(1, t, 4, *masks.shape[-2:]),
            {"res2": torch.zeros(1, t, 2, *masks.shape[-2:])},
        )
