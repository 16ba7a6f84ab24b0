"""Windows of frames through the segmenter: their queries on the CPU, their masks where they were made."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from vistk.engine.finishing import FrameMasks, FrameSize
from vistk.models.segmenter import Segmenter
from vistk.structures import FrameQueries, Masks
from vistk.trackers.base import Tracker

Frames = Sequence[Callable[[], Tensor]]
"""T functions that give a frame ``(3, H, W)`` uint8 at test size; one is called again where need be."""


class SizedMasks(Masks, Protocol):
    """Masks of a frame that know its sizes."""

    @property
    def size(self) -> FrameSize: ...


MOST_FRAMES = 30  # a pass, as published
PIXELS_ON_CPU = 2**18  # a pass, about one frame of 640x360: more pay for memory that no cache holds


@dataclass(frozen=True)
class Window:
    """Frames that passed the segmenter together."""

    start: int  # number of the first one in the video
    frames: tuple[dict[str, FrameQueries], ...]  # by name of the describer; ``masks`` are those of `masks`
    masks: tuple[SizedMasks, ...]
    num_bytes: int  # of memory, for the mask logits that `masks` finish
    # What the next frame is told of the last one, leading dim (1,), if the tracker propagates queries.
    last: FrameQueries | None = None

    @property
    def size(self) -> FrameSize:
        return self.masks[0].size


Segment = Callable[[Mapping[str, Tracker]], Iterator[Window]]
"""The windows of a video, live, with the queries of the describers that it is given."""

Source = Callable[[Mapping[str, Tracker], Segment], Iterator[Window]]
"""The same from elsewhere, which may ask for the live ones."""


@dataclass(frozen=True)
class Clip:
    """Consecutive frames of a video or a stream, about to pass the segmenter."""

    images: Tensor  # (T, 3, H, W) uint8, on the segmenter's device
    output_size: tuple[int, int]  # height and width of the finished masks
    start: int = 0  # number of the first frame in the video
    previous: FrameQueries | None = None  # `Window.last` of the frames before
    describers: Collection[str] | None = None  # those of the pass whose queries are wanted; None = all

    def wants(self, describer: str) -> bool:
        return self.describers is None or describer in self.describers


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
        describers: trackers whose ``describe`` is run, by any name; the frames' dicts have these keys. One
            that propagates queries is alone: its frames are no other tracker's (:func:`passes`).
        frames, output_size, window, device: see :func:`read_clips`.
    """
    previous = None
    for clip in read_clips(frames, output_size, window, device):
        passed = segment_together(segmenter, describers, [replace(clip, previous=previous)])
        previous = passed[0].last
        yield passed.pop()  # not to be kept while the next one is segmented


def passes(trackers: Mapping[str, Tracker]) -> list[dict[str, Tracker]]:
    """Trackers that can share what the segmenter says of a frame, and each that cannot."""
    shared = {name: tracker for name, tracker in trackers.items() if not tracker.propagates}
    alone = [{name: tracker} for name, tracker in trackers.items() if tracker.propagates]
    return [*([shared] if shared or not alone else []), *alone]


def read_clips(
    frames: Frames,
    output_size: tuple[int, int],
    window: int | None,
    device: torch.device,
    videos: int = 1,
) -> Iterator[Clip]:
    """The frames of a video in order, read one clip at a time, each frame once.

    Args:
        output_size: height and width of the finished masks.
        window: frames a clip; ``None`` = as many as are fast.
        videos: whose clips pass together, and share what is fast.
    """
    if not frames:
        return
    images = [frames[0]()]
    window = window or max(1, fast_window(images[0].shape[-2:], device) // videos)
    for start in range(0, len(frames), window):
        images += [read() for read in frames[start + len(images) : start + window]]
        clip = Clip(torch.stack(images).to(device), output_size, start)
        images = []
        yield clip


def fast_window(size: tuple[int, ...], device: torch.device) -> int:
    """Frames a pass: many on an accelerator; on a CPU, few of a video whose frames are large."""
    if device.type != "cpu":
        return MOST_FRAMES
    return min(MOST_FRAMES, max(1, PIXELS_ON_CPU // math.prod(size)))


def segment_together(
    segmenter: Segmenter, describers: Mapping[str, Tracker], clips: Sequence[Clip]
) -> list[Window]:
    """The windows of clips, of several videos or streams or of one: a pass for all clips of one frame size.

    Frames do not see each other in the segmenter. So this decides how long it takes, and changes its numbers
    by rounding alone. With a tracker that propagates queries, every clip is a pass.

    Args:
        describers: see :func:`segment_windows`.

    Returns:
        A window for each clip.
    """
    if any(tracker.propagates for tracker in describers.values()):
        return [_one_pass(segmenter, describers, [clip])[0] for clip in clips]
    by_size: dict[tuple[int, ...], list[int]] = {}
    for i, clip in enumerate(clips):
        by_size.setdefault(tuple(clip.images.shape[-2:]), []).append(i)
    windows: dict[int, Window] = {}
    for members in by_size.values():
        passed = _one_pass(segmenter, describers, [clips[i] for i in members])
        windows |= zip(members, passed, strict=True)
    return [windows[i] for i in range(len(clips))]


@torch.inference_mode()
def _one_pass(segmenter: Segmenter, describers: Mapping[str, Tracker], clips: Sequence[Clip]) -> list[Window]:
    """Clips of one frame size."""
    images = torch.cat([clip.images for clip in clips]) if len(clips) > 1 else clips[0].images
    last = None
    if propagating := [tracker for tracker in describers.values() if tracker.propagates]:
        ((own,), (clip,)) = propagating, clips
        out = segmenter(images[None], None, own.propagate, clip.previous)
        # Copies: whoever keeps these must not keep the whole window.
        last = FrameQueries(out.logits[:, -1].clone(), {"query": out.embeds[:, -1].clone()})
    else:
        out = segmenter(images[None])
    stops = list(itertools.accumulate(len(clip.images) for clip in clips))
    spans = [range(stop - len(clip.images), stop) for stop, clip in zip(stops, clips, strict=True)]
    row_of = {name: _rows(name, clips, spans) for name in describers}
    described = to_cpu(
        {
            name: replace(
                describers[name].describe(out if len(rows) == len(images) else out[:, list(rows)]),
                mask_logits=None,
            )
            for name, rows in row_of.items()
            if rows
        }
    )
    h, w = out.mask_logits.shape[-2:]
    stride = segmenter.backbone.strides["res2"]
    windows = []
    for clip, span in zip(clips, spans, strict=True):
        size = FrameSize((h * stride, w * stride), (images.shape[-2], images.shape[-1]), clip.output_size)
        masks = tuple(FrameMasks(out.mask_logits[0, t], size) for t in span)
        frames = tuple(
            {
                name: replace(queries[0, row_of[name][t]], masks=own)
                for name, queries in described.items()
                if clip.wants(name)
            }
            for t, own in zip(span, masks, strict=True)
        )
        num_bytes = out.mask_logits[0, span.start : span.stop].nbytes
        windows.append(Window(clip.start, frames, masks, num_bytes, last))
    return windows


def _rows(describer: str, clips: Sequence[Clip], spans: Sequence[range]) -> dict[int, int]:
    """The frames of a pass that a describer is to see, each with its row among them."""
    wanted = [t for clip, span in zip(clips, spans, strict=True) if clip.wants(describer) for t in span]
    return {t: row for row, t in enumerate(wanted)}


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
    """The tensors on the CPU. A tracker may keep one of them for long, so they share no memory."""
    # The widest first: then each one begins at a multiple of its own width.
    order = sorted(range(len(tensors)), key=lambda i: -tensors[i].element_size())
    raw = [tensors[i].contiguous().reshape(-1).view(torch.uint8) for i in order]
    parts = torch.cat(raw).cpu().split([len(part) for part in raw])
    moved = {
        i: part.clone().view(tensors[i].dtype).view(tensors[i].shape)
        for i, part in zip(order, parts, strict=True)
    }
    return [moved[i] for i in range(len(tensors))]
