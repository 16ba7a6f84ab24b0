"""Offline: tracks are cut where they are doubtful, and the pieces linked over the whole video at once.

While frames come, slots are associated as in VISAGE (arXiv 2312.04885), and :meth:`TrackletLinking.step`
answers as VISAGE does. A slot is present in a frame if the class score p of its query is at least
``presence``. A tracklet is a run of present frames of one slot in which every query is at least
``cut_similarity`` similar to the slot's memory. After the last frame, with f_i the mean of a tracklet's unit
vectors, weighted by p, and S the similarity of VISAGE::

    b_ij = S(f_i, f_j) - link_similarity        if 0 < start_j - end_i <= max_gap, and b_ij > 0
    maximise the sum of b_ij over links; a tracklet has at most one successor and one predecessor

That is the network flow of Zhang, Li and Nevatia (CVPR 2008), were it free to begin and to end a track, and
every tracklet in one. The flow is then an assignment of ends to starts, which the Hungarian algorithm solves
exactly. Also other than there, nodes are tracklets, not detections, and the similarity is appearance alone,
without position or time.

Linked tracklets are one track, reported in their frames. Its class logits move to their mean over the track,
weighted by p. All other queries stay in the track of their slot, so that an object of low score is not lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vistk.ops.assignment import best_assignment
from vistk.structures import FrameQueries, TrackedFrame
from vistk.trackers.association import assign_slots, class_scores, slots_frame
from vistk.trackers.base import Range, check_choice, check_least
from vistk.trackers.heads import HeadsConfig, HeadsTracker, require_share
from vistk.trackers.memory import WEIGHTINGS, TrackMemory

LOGITS = "class logits"  # beside the names of vectors


@dataclass
class TrackletLinkingConfig(HeadsConfig):
    """Association while frames come is VISAGE's, with its defaults; similarities are cosines."""

    memory_frames: int = 5  # W
    memory_weighting: str = "recent"  # recent | released | uniform
    score_weighting: bool = True  # class scores in the weights of the memory
    presence: float = 0.3  # least class score of a query that belongs to a tracklet, 0..1
    cut_similarity: float = 0.3  # least similarity with the slot's memory that continues a tracklet
    link: bool = True  # false: every tracklet is a track
    link_similarity: float = 0.3  # least similarity of two tracklets that are linked
    max_gap: int | None = None  # frames from the end of a tracklet to the start of the next; none = any
    least_frames: int = 2  # of a track; shorter ones are left to their slots
    smoothing: float = 1.0  # 0..1: how far the class logits of a track move to their mean


@dataclass
class Tracklets:
    """What is known of ``n`` tracklets: sums over their frames, weighted by class score."""

    number: Tensor  # (n,) int64, in the order in which they began
    start: Tensor  # (n,) int64, frame
    end: Tensor  # (n,) int64, last frame
    weight: Tensor  # (n,) sum of class scores
    sums: dict[str, Tensor]  # {name: (n, C)}, of unit vectors; and of class logits

    def __getitem__(self, rows: Tensor) -> Tracklets:
        """Those of these ``rows`` (m,) int64."""
        return Tracklets(
            self.number[rows],
            self.start[rows],
            self.end[rows],
            self.weight[rows],
            {name: value[rows] for name, value in self.sums.items()},
        )


@dataclass
class TrackletLinkingState:
    """The memory of the slots, the tracklets so far, and where every query went."""

    memory: TrackMemory
    open: Tracklets | None = None  # a row for every slot; number -1 where the slot is absent
    closed: list[Tracklets] = field(default_factory=list)
    begun: int = 0  # number of tracklets so far
    frames: list[TrackedFrame] = field(default_factory=list)  # as answered: Q slots
    numbers: list[Tensor] = field(default_factory=list)  # (Q,) int64, tracklet of every slot, or -1


class TrackletLinking(HeadsTracker[TrackletLinkingState]):
    """VISAGE while frames come; tracklets linked by one assignment over the video when they have.

    Memory: a frame leaves its class logits and two integers a query, a tracklet one vector of each kind.
    Linking takes a matrix of the tracklets of the video by themselves.

    Raises:
        ValueError: a field of ``config`` is outside its range or names no choice.
    """

    Config: ClassVar[type] = TrackletLinkingConfig
    association_fields = (
        "appearance_weight",
        "memory_frames",
        "memory_weighting",
        "score_weighting",
        "presence",
        "cut_similarity",
        "link",
        "link_similarity",
        "max_gap",
        "least_frames",
        "smoothing",
    )
    search_space: ClassVar[Mapping[str, Range | Sequence[Any]]] = {
        "appearance_weight": Range(0, 1),
        "memory_frames": Range(1, 10),
        "memory_weighting": WEIGHTINGS,
        "presence": Range(0, 0.9),
        "cut_similarity": Range(-0.2, 0.9),
        "link_similarity": Range(0, 0.9),
        "max_gap": (None, 2, 5, 10, 20, 50),
        "least_frames": Range(1, 10),
        "smoothing": Range(0, 1),
    }
    config: TrackletLinkingConfig

    def __init__(self, config: TrackletLinkingConfig, **sizes: Any) -> None:
        super().__init__(config, **sizes)
        check_choice("TrackletLinking", "memory_weighting", config.memory_weighting, WEIGHTINGS)
        require_share("TrackletLinking", presence=config.presence, smoothing=config.smoothing)
        check_least("TrackletLinking", config, memory_frames=1, max_gap=1, least_frames=1)

    def start(self) -> TrackletLinkingState:
        config = self.config
        return TrackletLinkingState(
            TrackMemory(config.memory_frames, config.memory_weighting, config.score_weighting)
        )

    def similarities(self, state: TrackletLinkingState, frame: FrameQueries) -> dict[str, Tensor]:
        """As VISAGE; :meth:`finish` links by other ones."""
        return {} if len(state.memory) == 0 else self.compare(state.memory.read(), self.vectors(frame))

    def step(self, state: TrackletLinkingState, frame: FrameQueries) -> TrackedFrame:
        vectors, similarities = self.vectors(frame), self.similarities(state, frame)
        if not similarities:
            tracked = slots_frame(frame)
            kept = torch.ones_like(tracked.track_ids, dtype=torch.bool)
        else:
            tracked = slots_frame(frame, assign_slots(similarities["mixed"]))
            own = similarities["mixed"].gather(1, tracked.query_index[:, None])[:, 0]
            kept = own >= self.config.cut_similarity
        order = tracked.query_index
        ordered = {name: vector.index_select(0, order).detach() for name, vector in vectors.items()}
        scores = class_scores(tracked.logits).detach()
        state.memory.add(ordered, scores)
        self._extend(state, ordered, tracked, scores, kept)
        return tracked

    def _extend(
        self,
        state: TrackletLinkingState,
        vectors: Mapping[str, Tensor],
        tracked: TrackedFrame,
        scores: Tensor,
        kept: Tensor,
    ) -> None:
        """Continue, end and begin tracklets; all in the order of the slots."""
        weight = scores[:, None]
        sums = {name: weight * F.normalize(vector.float(), dim=-1) for name, vector in vectors.items()}
        sums[LOGITS] = weight * tracked.logits.float()
        t = torch.full_like(tracked.track_ids, len(state.frames))
        present = scores >= self.config.presence
        before = state.open
        if before is None:
            before = Tracklets(torch.full_like(t, -1), t, t, torch.zeros_like(scores), sums)
        goes_on = present & kept & (before.number >= 0)
        ended = ((before.number >= 0) & ~goes_on).nonzero()[:, 0]
        if len(ended):
            state.closed.append(before[ended])
        begins = present & ~goes_on
        number = torch.where(begins, state.begun + begins.cumsum(0) - 1, -1)
        number = torch.where(goes_on, before.number, number)
        state.open = Tracklets(
            number,
            torch.where(goes_on, before.start, t),
            t,
            torch.where(goes_on, before.weight, 0.0) + scores,
            {
                name: torch.where(goes_on[:, None], before.sums[name], 0.0) + value
                for name, value in sums.items()
            },
        )
        state.begun += int(begins.sum())
        state.frames.append(tracked)
        state.numbers.append(number)

    def finish(self, state: TrackletLinkingState) -> list[TrackedFrame]:
        if state.open is None:
            return []
        tracklets = _together([*state.closed, state.open[(state.open.number >= 0).nonzero()[:, 0]]])
        if not len(tracklets.number):
            return state.frames
        track = self._tracks(tracklets)  # number of a tracklet to that of its track
        slots = len(state.open.number)
        weight = torch.zeros_like(tracklets.weight).index_add(0, track, tracklets.weight)
        mean = torch.zeros_like(tracklets.sums[LOGITS]).index_add(0, track, tracklets.sums[LOGITS])
        mean = mean / weight.clamp(min=torch.finfo(weight.dtype).tiny)[:, None]
        frames_of = torch.zeros_like(track).index_add(0, track, tracklets.end - tracklets.start + 1)
        reported = frames_of[track] >= self.config.least_frames  # by tracklet
        frames = []
        for frame, number in zip(state.frames, state.numbers, strict=True):
            ids, logits = frame.track_ids.clone(), frame.logits.clone()
            linked = (number >= 0) & reported[number.clamp(min=0)]
            ids[linked] = slots + track[number[linked]]
            smooth = mean[track[number[linked]]].to(logits.dtype)
            logits[linked] = logits[linked].lerp(smooth, self.config.smoothing)
            frames.append(TrackedFrame(ids, frame.query_index, logits))
        return frames

    def _tracks(self, tracklets: Tracklets) -> Tensor:
        """``(n,)`` int64: the number of the first tracklet of each one's track."""
        first = torch.arange(len(tracklets.number), device=tracklets.number.device)
        if not self.config.link or len(first) < 2:
            return first
        gap = tracklets.start[None, :] - tracklets.end[:, None]
        allowed = gap > 0
        if self.config.max_gap is not None:
            allowed &= gap <= self.config.max_gap
        benefit = self.similarity(tracklets.sums, tracklets.sums)
        benefit = torch.where(allowed, benefit - self.config.link_similarity, 0.0).clamp(min=0)
        ends, starts = best_assignment(benefit)
        chosen = benefit[ends, starts] > 0
        first[starts[chosen]] = ends[chosen]
        # Every link leads back in time, so that jumps of twice the length reach the first one soon.
        while not torch.equal(first, first[first]):
            first = first[first]
        return first


def _together(parts: Sequence[Tracklets]) -> Tracklets:
    """All tracklets in the order of their numbers, which are those of the rows."""
    order = torch.cat([part.number for part in parts]).argsort()
    return Tracklets(
        number=torch.cat([part.number for part in parts])[order],
        start=torch.cat([part.start for part in parts])[order],
        end=torch.cat([part.end for part in parts])[order],
        weight=torch.cat([part.weight for part in parts])[order],
        sums={name: torch.cat([part.sums[name] for part in parts])[order] for name in parts[0].sums},
    )
