"""VISAGE with a memory that only confident queries refresh.

In VISAGE (arXiv 2312.04885) whatever takes a track's slot enters its memory. An object that is hidden for W
frames has then been replaced by W queries that are no object. Here a slot remembers objects only. With p the
greatest class probability of a query ("no object" left out), in every frame, for every slot r and its query
q::

    remember   q if p_q >= tau
    window     m_r = sum_w e_w p_w^gamma / w / sum_w p_w^gamma / w     of the last W of them, w = 1 the newest
    average    m_r <- m_r + rho p_q^gamma (e_q - m_r)
    associate  S'_rq = p_q^eta S_rq                     where r was an object at some time
               S'_rq = p_q^eta (theta + S_rq / 1000)    where r is free

S is VISAGE's similarity. A column that is scaled down has little say in the assignment: queries that are no
object take the slots that objects leave over. ``theta`` is what a remembered identity has to exceed, else the
object begins a new one.

A memory that follows presence is the idea of LOMM (arXiv 2507.19754), to keep, update or revive a track by
confidence that of POSReasoner, a rate of update that depends on a score that of CTVIS (arXiv 2307.12616). The
formulas are this project's own, and reproduce no paper. With ``presence=0``, ``query_power=0`` and
``new_similarity=None`` it is VISAGE exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from vistk.structures import FrameQueries, TrackedFrame
from vistk.trackers.association import assign_slots, class_scores, slots_frame
from vistk.trackers.base import Range, check_choice, check_least
from vistk.trackers.heads import HeadsConfig, HeadsTracker, require_share

MEMORIES = ("average", "window")
NEW_TIE = 1e-3  # weight of the similarity with a slot that is free: which of the free ones it is


@dataclass
class GatedMemoryConfig(HeadsConfig):
    """Scores are in 0..1."""

    memory: str = "window"  # window | average
    presence: float = 0.3  # tau: least class score of a query that is remembered
    memory_frames: int = 5  # W, of the window: confident frames of the slot, not frames of the video
    score_power: float = 1.0  # gamma: 0 = all that is remembered counts alike
    rate: float = 0.3  # rho, of the average
    query_power: float = 1.0  # eta: 0 = queries that are no object choose like all others
    new_similarity: float | None = 0.3  # theta; none = free slots compare like all others


@dataclass
class SlotMemory:
    """What Q slots remember: up to W entries each, in a ring. Part of the state, and changed in place."""

    vectors: dict[str, Tensor]  # {name: (W, Q, C)}, float32
    weights: Tensor  # (W, Q) p^gamma of the entries, 0 where there is none
    written: Tensor  # (Q,) int64, entries so far; the newest lies at (written - 1) % W
    begun: Tensor  # (Q,) bool: was an object at some time


@dataclass
class GatedMemoryState:
    """The memory of the slots after the last frame."""

    memory: SlotMemory | None = None


class GatedMemory(HeadsTracker[GatedMemoryState]):
    """VISAGE's heads and similarity; memory and assignment gated by the class score.

    Raises:
        ValueError: a field of ``config`` is outside its range or names no choice.
    """

    Config: ClassVar[type] = GatedMemoryConfig
    association_fields = (
        "appearance_weight",
        "memory",
        "presence",
        "memory_frames",
        "score_power",
        "rate",
        "query_power",
        "new_similarity",
    )
    search_space: ClassVar[Mapping[str, Range | Sequence[Any]]] = {
        "appearance_weight": Range(0, 1),
        "memory": MEMORIES,
        "presence": Range(0, 0.9),
        "memory_frames": Range(1, 20),
        "score_power": Range(0, 4),
        "rate": Range(0.01, 1, log=True),
        "query_power": Range(0, 4),
        "new_similarity": Range(0, 0.9),
    }
    config: GatedMemoryConfig

    def __init__(self, config: GatedMemoryConfig, **sizes: Any) -> None:
        super().__init__(config, **sizes)
        check_choice("GatedMemory", "memory", config.memory, MEMORIES)
        require_share("GatedMemory", presence=config.presence, rate=config.rate)
        check_least("GatedMemory", config, memory_frames=1, score_power=0, query_power=0)

    def start(self) -> GatedMemoryState:
        return GatedMemoryState()

    def similarities(self, state: GatedMemoryState, frame: FrameQueries) -> dict[str, Tensor]:
        """The cosines "query" and "appearance", as far as they have a weight; "mixed" is S'."""
        if state.memory is None:
            return {}
        return self._gated(state.memory, self.vectors(frame), class_scores(frame.logits))

    def _gated(self, memory: SlotMemory, vectors: Mapping[str, Tensor], scores: Tensor) -> dict[str, Tensor]:
        compared = self.compare(self._read(memory), vectors)
        similarity = compared["mixed"]
        if self.config.new_similarity is not None:
            free = self.config.new_similarity + NEW_TIE * similarity
            similarity = torch.where(memory.begun[:, None], similarity, free)
        return {**compared, "mixed": scores**self.config.query_power * similarity}

    def step(self, state: GatedMemoryState, frame: FrameQueries) -> TrackedFrame:
        vectors = self.vectors(frame)
        scores = class_scores(frame.logits)
        if state.memory is None:
            tracked = slots_frame(frame)
            state.memory = self._empty(vectors)
        else:
            similarity = self._gated(state.memory, vectors, scores)["mixed"]
            # Every column is used once, so that a constant in it changes nothing; but columns that differ in
            # scale would make the assignment twenty times slower.
            tracked = slots_frame(frame, assign_slots(similarity - similarity.amax(0)))
        order = tracked.query_index
        ordered = {name: vector.index_select(0, order).detach().float() for name, vector in vectors.items()}
        self._remember(state.memory, ordered, scores.index_select(0, order).detach())
        return tracked

    def _empty(self, vectors: Mapping[str, Tensor]) -> SlotMemory:
        frames = self.config.memory_frames if self.config.memory == "window" else 1
        some = next(iter(vectors.values()))
        written = torch.zeros(len(some), dtype=torch.int64, device=some.device)
        return SlotMemory(
            {
                name: torch.zeros(frames, *vector.shape, device=vector.device)
                for name, vector in vectors.items()
            },
            torch.zeros(frames, len(some), device=some.device),
            written,
            written > 0,
        )

    def _read(self, memory: SlotMemory) -> dict[str, Tensor]:
        """``{name: (Q, C)}``; not normalised to unit length."""
        frames = len(memory.weights)
        place = torch.arange(frames, device=memory.written.device)[:, None]
        age = (memory.written - 1 - place) % frames + 1  # (W, Q), 1 = newest
        weights = memory.weights / age
        weights = (weights / weights.sum(0))[..., None]
        return {name: (weights * entries).sum(0) for name, entries in memory.vectors.items()}

    def _remember(self, memory: SlotMemory, vectors: Mapping[str, Tensor], scores: Tensor) -> None:
        """Take in a frame, in the order of the slots: ``{name: (Q, C)}`` and scores ``(Q,)``."""
        present = scores >= self.config.presence
        # A score that underflowed must not leave a slot without memory.
        weights = (scores**self.config.score_power).clamp(min=torch.finfo(torch.float32).tiny)
        memory.weights.mul_(memory.begun)  # a slot that has yet to begin holds its newest query alone
        slots = (present | ~memory.begun).nonzero()[:, 0]
        place = memory.written[slots] % len(memory.weights)
        if self.config.memory == "window":
            rate = None
        else:
            rate = torch.where(memory.begun, self.config.rate * weights, 1.0)[slots, None]
        for name, entries in memory.vectors.items():
            new = vectors[name].index_select(0, slots)
            entries[place, slots] = new if rate is None else entries[place, slots].lerp(new, rate)
        memory.weights[place, slots] = weights[slots]
        memory.written[slots] += 1
        memory.begun |= present
