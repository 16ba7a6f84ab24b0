"""What a tracker remembers of its tracks: from which frames, and how much each of them counts.

Trackers hold vectors, which do not say where they come from. So a :class:`MemoryReader` goes along with a
video: it sees which frames enter the memory, and reads their weights in the formulas of
:func:`vistk.trackers.memory.entry_weights`, :mod:`vistk.trackers.gated_memory` and
:class:`vistk.trackers.tracklets.TrackletBank`. It knows the memories of this package by their types; of a
tracker that has none of them, or one that it does not know, it says nothing. A running mean, which holds no
entries, is said to be of the newest frame that changed it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vistk.structures import TrackedFrame
from vistk.trackers.association import class_scores
from vistk.trackers.gated_memory import SlotMemory
from vistk.trackers.memory import TrackMemory, entry_weights
from vistk.trackers.tracklets import TrackletBank


@dataclass(frozen=True)
class MemoryContents:
    """What R tracks remember after a frame, in up to W entries each, the newest first."""

    track_ids: np.ndarray  # (R,) int64, the tracker's own
    frames: np.ndarray  # (R, W) int64, where an entry comes from; -1: there is none
    weights: np.ndarray  # (R, W) its share of what the track looks like, 0..1


class MemoryReader:
    """Goes along with a tracker through one video: :meth:`read` after every step."""

    def __init__(self) -> None:
        self._entered: dict[int, list[tuple[int, float]]] = defaultdict(list)  # track to (frame, score)
        self._counts: dict[int, int] = {}

    def read(self, t: int, state: Any, tracked: TrackedFrame) -> MemoryContents | None:
        """The memory after frame ``t``; None where there is none that is known.

        Args:
            state: the tracker's, after :meth:`~vistk.trackers.base.Tracker.step` gave ``tracked``.
        """
        memory = _memory_of(state)
        if isinstance(memory, TrackMemory):
            return self._recent(t, memory)
        if isinstance(memory, SlotMemory):
            return self._slots(t, memory)
        if isinstance(memory, TrackletBank):
            return self._bank(t, memory, tracked)
        if isinstance(memory, Tensor):
            return _contents(range(len(memory)), [[(t, 1.0)]] * len(memory))
        return None

    def _recent(self, t: int, memory: TrackMemory) -> MemoryContents:
        """Every track remembers the last n frames."""
        scores = torch.stack(list(memory.scores))
        weights = entry_weights(scores, memory.weighting, memory.score_weighting)
        shares = (weights / weights.sum(0)).flip(0).cpu().numpy()  # (n, R), newest first
        entries = [[(t - age, float(share)) for age, share in enumerate(column)] for column in shares.T]
        return _contents(range(shares.shape[1]), entries)

    def _slots(self, t: int, memory: SlotMemory) -> MemoryContents:
        """A ring of entries for each slot, of the frames in which its counter went on."""
        ring = len(memory.weights)
        entries = []
        for slot, written in enumerate(memory.written.tolist()):
            entered = self._entered[slot]
            if written > self._counts.get(slot, 0):
                entered.append((t, 0.0))
            self._counts[slot] = written
            place = [(written - 1 - age) % ring for age in range(min(written, ring))]
            weight = [float(memory.weights[p, slot]) / (age + 1) for age, p in enumerate(place)]
            newest = reversed(entered[-len(place) :] if place else [])
            total = sum(weight) or 1.0
            entries.append([(frame, w / total) for (frame, _), w in zip(newest, weight, strict=True)])
        return _contents(range(len(entries)), entries)

    def _bank(self, t: int, bank: TrackletBank, tracked: TrackedFrame) -> MemoryContents:
        """Tracks that are born and die, and remember frames in which they were seen."""
        scores = dict(
            zip(tracked.track_ids.tolist(), class_scores(tracked.logits.detach()).tolist(), strict=True)
        )
        entries = []
        for track, lifetime in zip(bank.ids.tolist(), bank.lifetime.tolist(), strict=True):
            entered = self._entered[track]
            if lifetime > self._counts.get(track, 0):
                entered.append((t, scores.get(track, 0.0)))
            self._counts[track] = lifetime
            if bank.memory != "weighted":  # one vector, which the newest frame has changed last
                entries.append([(entered[-1][0], 1.0)])
                continue
            kept = entered[-bank.frames :]
            weights = [score + i / len(kept) for i, (_, score) in enumerate(kept, start=1)]
            shares = [(frame, w / sum(weights)) for (frame, _), w in zip(kept, weights, strict=True)]
            entries.append(shares[::-1])
        return _contents(bank.ids.tolist(), entries)


def _memory_of(state: Any) -> Any:
    """The first field of a state that is a memory of a known kind, or vectors called ``previous``."""
    if not is_dataclass(state):
        return None
    for field in fields(state):
        value = getattr(state, field.name)
        if isinstance(value, TrackMemory | SlotMemory | TrackletBank):
            return value
        if field.name == "previous" and isinstance(value, Tensor):
            return value
    return None


def _contents(track_ids: Any, entries: list[list[tuple[int, float]]]) -> MemoryContents:
    width = max(map(len, entries), default=0)
    frames = np.full((len(entries), width), -1, dtype=np.int64)
    weights = np.zeros((len(entries), width))
    for r, own in enumerate(entries):
        for i, (frame, weight) in enumerate(own):
            frames[r, i], weights[r, i] = frame, weight
    return MemoryContents(np.array(list(track_ids), dtype=np.int64), frames, weights)
