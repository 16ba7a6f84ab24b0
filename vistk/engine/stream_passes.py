"""The next frames of several streams through the segmenter, in few passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch

from vistk.engine.incoming_frame import IncomingFrame
from vistk.engine.windows import Clip, Window, segment_together
from vistk.models.segmenter import Segmenter
from vistk.structures import FrameQueries
from vistk.trackers.base import Tracker


@dataclass(frozen=True)
class FrameBatch:
    """The next frames of a stream; those that were stored have their queries by now."""

    frames: Sequence[IncomingFrame]
    size: tuple[int, int] | None  # of the stream's first frame, if there was one
    part: str  # what the tracker's ``describe`` says, by name: streams of one name share it
    tracker: Tracker[Any]
    previous: FrameQueries | None  # `Window.last` of the frames before

    def runs(self) -> list[list[IncomingFrame]]:
        """Consecutive frames of one size, all of them stored, or none."""
        groups = groupby(self.frames, key=lambda frame: (frame.image is None, frame.size))
        return [list(group) for _, group in groups]

    def clip(self, run: Sequence[IncomingFrame], device: torch.device) -> Clip:
        images = torch.stack([frame.image for frame in run if frame.image is not None])
        return Clip(images.to(device), self.size or self.frames[0].size, run[0].number)

    def fill(self, run: Sequence[IncomingFrame], window: Window) -> None:
        """The frames have passed."""
        for frame, queries in zip(run, window.frames, strict=True):
            frame.queries = queries[self.part]
        run[-1].last = window.last


def segment_frames(segmenter: Segmenter, batches: Sequence[FrameBatch]) -> None:
    """Give all frames their queries.

    Those of one size pass at once, and what several streams are given, as one and the same object, passes
    once for all of them. Where queries are propagated, every run of frames is a pass.
    """
    device = segmenter.pixel_mean.device
    clips: dict[Any, Clip] = {}
    seen_by: dict[Any, list[tuple[FrameBatch, list[IncomingFrame]]]] = {}
    for batch in batches:
        if batch.tracker.propagates:
            _in_turn(segmenter, batch, device)
            continue
        for run in batch.runs():
            if (image := run[0].image) is None:
                continue
            key = (*(id(frame.given) for frame in run), image.shape, batch.size or batch.frames[0].size)
            if key not in clips:
                clips[key] = batch.clip(run, device)
            seen_by.setdefault(key, []).append((batch, run))
    describers = {batch.part: batch.tracker for runs in seen_by.values() for batch, _ in runs}
    wanted = [
        replace(clip, describers={batch.part for batch, _ in seen_by[key]}) for key, clip in clips.items()
    ]
    windows = segment_together(segmenter, describers, wanted)
    for runs, window in zip(seen_by.values(), windows, strict=True):
        for batch, run in runs:
            batch.fill(run, window)


def _in_turn(segmenter: Segmenter, batch: FrameBatch, device: torch.device) -> None:
    """The frames of a stream whose tracker propagates queries."""
    previous = batch.previous
    for run in batch.runs():
        if run[0].image is not None:
            clip = replace(batch.clip(run, device), previous=previous)
            (window,) = segment_together(segmenter, {batch.part: batch.tracker}, [clip])
            batch.fill(run, window)
        previous = run[-1].last
