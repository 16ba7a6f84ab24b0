"""Windows of frames through the segmenter: their queries on the CPU, their masks where they were made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vistk.engine.finishing import FrameMasks, FrameSize
from vistk.models.segmenter import Segmenter
from vistk.structures import FrameQueries
from vistk.trackers.base import Tracker

Frames = Sequence[Callable[[], Tensor]]
"""T functions that give a frame ``(3, H, W)`` uint8 at test size; one is called again where need be."""

MOST_FRAMES = 30  # a pass, as published
PIXELS_ON_CPU = 2**18  # a pass, about one frame of 640x360: more pay for memory that no cache holds


@dataclass(frozen=True)
class Window:
    """Frames that passed the segmenter together."""

    start: int  # number of the first one in the video
    frames: tuple[dict[str, FrameQueries], ...]  # by name of the describer; ``masks`` are those of `masks`
    masks: tuple[FrameMasks, ...]
    num_bytes: int  # of the mask logits that `masks` finish

    @property
    def size(self) -> FrameSize:
        return self.masks[0].size


def segment_windows(
    segmenter: Segmenter,
    describers: Mapping[str, Tracker],
    frames: Frames,
    output_size: tuple[int, int],
    window: int | None,
    device: torch.device,
) -> Iterator[Window]:
    """The windows of a video in order.

    Args:
        describers: trackers whose ``describe`` is run, by any name; the frames' dicts have these keys.
        frames: read one window at a time.
        output_size: height and width of the finished masks.
        window: frames a pass; ``None`` = as many as are fast.
    """
    window = window or fast_window(frames, device)
    for start in range(0, len(frames), window):
        yield segment_window(
            segmenter, describers, read_window(frames, start, window, device), output_size, start
        )


def fast_window(frames: Frames, device: torch.device) -> int:
    """Frames a pass: many on an accelerator; on a CPU, few of a video whose frames are large."""
    if device.type != "cpu" or not frames:
        return MOST_FRAMES
    height, width = frames[0]().shape[-2:]
    return min(MOST_FRAMES, max(1, PIXELS_ON_CPU // (height * width)))


def read_window(frames: Frames, start: int, window: int, device: torch.device) -> Tensor:
    """``(T, 3, H, W)`` uint8."""
    return torch.stack([read() for read in frames[start : start + window]]).to(device)


@torch.inference_mode()
def segment_window(
    segmenter: Segmenter,
    describers: Mapping[str, Tracker],
    images: Tensor,
    output_size: tuple[int, int],
    start: int,
) -> Window:
    """One window, from its images ``(T, 3, H, W)`` uint8 on the segmenter's device."""
    out = segmenter(images[None])
    described = to_cpu(
        {name: replace(tracker.describe(out), mask_logits=None) for name, tracker in describers.items()}
    )
    h, w = out.mask_logits.shape[-2:]
    stride = segmenter.backbone.strides["res2"]
    size = FrameSize((h * stride, w * stride), (images.shape[-2], images.shape[-1]), output_size)
    masks = tuple(FrameMasks(frame, size) for frame in out.mask_logits[0])
    frames = tuple(
        {name: replace(queries[0, t], masks=masks[t]) for name, queries in described.items()}
        for t in range(len(masks))
    )
    return Window(start, frames, masks, out.mask_logits.nbytes)


def to_cpu(described: Mapping[str, FrameQueries]) -> dict[str, FrameQueries]:
    """All tensors on the CPU, bit by bit, in one transfer: every transfer waits for the device to be done."""
    tensors: dict[int, Tensor] = {}
    for queries in described.values():
        queries.map(lambda x: tensors.setdefault(id(x), x))
    if all(x.device.type == "cpu" for x in tensors.values()):
        return dict(described)
    moved = dict(zip(tensors, _in_one_transfer(list(tensors.values())), strict=True))
    return {name: queries.map(lambda x: moved[id(x)]) for name, queries in described.items()}


def _in_one_transfer(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors on the CPU: views of one buffer of bytes."""
    # The widest first: then each one begins at a multiple of its own width.
    order = sorted(range(len(tensors)), key=lambda i: -tensors[i].element_size())
    raw = [tensors[i].contiguous().reshape(-1).view(torch.uint8) for i in order]
    parts = torch.cat(raw).cpu().split([len(part) for part in raw])
    moved = {
        i: part.view(tensors[i].dtype).view(tensors[i].shape) for i, part in zip(order, parts, strict=True)
    }
    return [moved[i] for i in range(len(tensors))]
