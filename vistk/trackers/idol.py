"""IDOL (arXiv 2207.10661) and CTVIS (arXiv 2307.12616): tracks that are born, die and are found again.

Per frame, the candidates are the queries with a class score above ``select_score``, best first, less those
whose mask overlaps a better candidate (IoU above ``nms_iou``). With embeddings ``d_i`` of the candidates and
``m_j`` of the tracks, by dot products::

    f(i, j) = (softmax over tracks + softmax over candidates of d_i . m_j) / 2

One candidate after the other, best class score first, takes the free track with the greatest
``f * (frames the track was seen in)`` among those with ``f > match_score``. Who finds none and has a score
above ``birth_score`` begins a track. A track dies after more than ``max_missing`` frames without candidate;
until then it can be found again. ``m_j``: :class:`vistk.trackers.tracklets.TrackletBank`. Losses:
:mod:`vistk.losses.long_clip`.

IDOL and CTVIS are one class: CTVIS is named in :mod:`vistk.trackers.ablations`. Departures from both: the
segmenter is a Mask2Former for both, so class scores are softmax and one query is the positive of an
instance (IDOL: sigmoid scores, several positives by optimal transport); a frame without candidates reports
none (there: its best query); short tracks are not removed afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from vistk.losses.long_clip import frame_pair_losses, long_clip_losses
from vistk.models.layers import MLP
from vistk.ops.assignment import best_assignment
from vistk.structures import ClipTargets, FrameOutput, FrameQueries, Matches, TrackedFrame
from vistk.trackers.association import class_scores, cosine_similarity, frame_vector
from vistk.trackers.base import Range, Tracker, TrackerError, check_choice, check_least
from vistk.trackers.tracklets import MEMORIES, TrackletBank

SIMILARITIES = ("bisoftmax", "cosine")
ASSIGNMENTS = ("greedy", "optimal")
CONTRASTS = ("pair", "clip")


@dataclass
class IDOLConfig:
    """The defaults are IDOL's; those of CTVIS are in the table of ablations."""

    select_score: float = 0.1  # class score, 0..1, that a candidate must exceed; IDOL on YouTube-VIS 0.05
    nms_iou: float = 0.5  # mask IoU, 0..1, with a better candidate that is too much; 1 = no suppression
    birth_score: float = 0.2  # class score, 0..1; IDOL on OVIS 0.3
    match_score: float = 0.5  # similarity, 0..1
    max_missing: int = 9  # frames
    similarity: str = "bisoftmax"  # bisoftmax | cosine
    assignment: str = "greedy"  # greedy | optimal: the best sum of similarities, then the threshold
    weigh_lifetime: bool = True  # greedy: of several tracks above the threshold, prefer the one seen most
    memory: str = "weighted"  # weighted | similarity | momentum | last
    memory_frames: int = 3  # vectors of a track; of weighted and similarity
    momentum: float = 0.75  # weight of the new vector; of memory=momentum
    hidden_dim: int | None = None  # width of the head; none = that of the segmenter's embeddings
    head_layers: int = 3
    contrast: str = "pair"  # pair | clip: positives from the frame before, or from the clip so far
    memory_share: float = 0.5  # contrast=clip: weight of positives that are memories; rest: last vectors
    noise: float = 0.001  # contrast=clip: probability of a wrong vector in the memory of an absent instance
    contrast_weight: float = 2.0  # of the contrastive loss
    auxiliary_weight: float = 3.0  # of the loss on cosines


@dataclass
class IDOLState:
    """Tracks alive, and the number of the next frame."""

    bank: TrackletBank | None = None  # from the first frame on
    frame: int = 0


class IDOL(Tracker[IDOLState]):
    """A contrastive embedding head; birth, death and revival of tracks against a memory.

    Raises:
        ValueError: a field of ``config`` is outside its range or names no choice.
    """

    Config: ClassVar[type] = IDOLConfig
    search_space: ClassVar[Mapping[str, Range | Sequence[Any]]] = {
        "select_score": Range(0.01, 0.3, log=True),
        "nms_iou": Range(0.3, 1),
        "birth_score": Range(0.01, 0.5, log=True),
        "match_score": Range(0.1, 0.8),
        "max_missing": Range(0, 30),
        "similarity": SIMILARITIES,
        "assignment": ASSIGNMENTS,
        "memory": MEMORIES,
        "memory_frames": Range(1, 10),
        "momentum": Range(0.1, 1),
    }
    association_fields = (*search_space, "weigh_lifetime")
    config: IDOLConfig

    def __init__(
        self,
        config: IDOLConfig,
        *,
        embed_dim: int,
        feature_channels: Mapping[str, int],
        num_classes: int,
    ) -> None:
        super().__init__(
            config, embed_dim=embed_dim, feature_channels=feature_channels, num_classes=num_classes
        )
        for name, choices in (
            ("similarity", SIMILARITIES),
            ("assignment", ASSIGNMENTS),
            ("memory", MEMORIES),
            ("contrast", CONTRASTS),
        ):
            check_choice("IDOL", name, getattr(config, name), choices)
        shares = (
            "select_score", "nms_iou", "birth_score", "match_score", "momentum", "memory_share", "noise"
        )  # fmt: skip
        for name in shares:
            if not 0 <= (value := getattr(config, name)) <= 1:
                raise ValueError(f"IDOL: {name} is {value}, expected 0 to 1")
        check_least("IDOL", config, max_missing=0, memory_frames=1, hidden_dim=1, head_layers=1)
        check_least("IDOL", config, contrast_weight=0, auxiliary_weight=0)
        width = embed_dim if config.hidden_dim is None else config.hidden_dim
        self.reid_embed = MLP(embed_dim, width, width, config.head_layers)

    def describe(self, out: FrameOutput) -> FrameQueries:
        """Vectors "query", the embeddings; and "overlap", ``(.., Q, Q)`` mask IoU, when not in training."""
        vectors = {"query": self.reid_embed(out.embeds)}
        if not self.training:
            vectors["overlap"] = mask_overlaps(out.mask_logits)
        return FrameQueries(out.logits, vectors, mask_logits=out.mask_logits)

    def losses(
        self, queries: FrameQueries, targets: Sequence[ClipTargets], matches: Matches
    ) -> dict[str, Tensor]:
        """``reid`` (contrast) and ``aux_reid`` of the embeddings."""
        vectors, config = queries.vectors["query"], self.config
        if config.contrast == "pair":
            losses = frame_pair_losses(vectors, targets, matches)
        else:
            losses = long_clip_losses(vectors, targets, matches, config.memory_share, config.noise)
        return {
            "reid": config.contrast_weight * losses.contrast,
            "aux_reid": config.auxiliary_weight * losses.auxiliary,
        }

    def start(self) -> IDOLState:
        return IDOLState()

    def similarities(self, state: IDOLState, frame: FrameQueries) -> dict[str, Tensor]:
        """As "mixed" f, or the cosine, that ``match_score`` is the limit of; NaN for all but candidates."""
        if state.bank is None:
            return {}
        query = frame_vector(frame, "query", "IDOL").detach().float().cpu().numpy()
        tracks = state.bank.read()[state.bank.surviving(state.frame, self.config.max_missing)]
        candidates, _ = self._candidates(frame)
        mixed = np.full((len(tracks), len(query)), np.nan, dtype=np.float32)
        mixed[:, candidates] = self._similarity(query[candidates], tracks).T
        return {"mixed": torch.from_numpy(mixed)}

    def tracks(self, state: IDOLState) -> Tensor:
        if state.bank is None:
            return torch.zeros(0, dtype=torch.int64)
        alive = state.bank.surviving(state.frame, self.config.max_missing)
        return torch.from_numpy(state.bank.ids[alive])

    def step(self, state: IDOLState, frame: FrameQueries) -> TrackedFrame:
        config = self.config
        query = frame_vector(frame, "query", "IDOL").detach().float().cpu().numpy()
        if state.bank is None:
            state.bank = TrackletBank(config.memory, config.memory_frames, config.momentum, query.shape[-1])
        bank, t = state.bank, state.frame
        state.frame += 1
        bank.forget(t, config.max_missing)

        candidates, scores = self._candidates(frame)
        vectors = query[candidates]
        tracks = self._match(vectors, bank)
        found, new = tracks >= 0, (tracks < 0) & (scores > config.birth_score)
        ids = bank.ids[tracks[found]]
        bank.update(tracks[found], vectors[found], scores[found], t)
        ids = np.concatenate([ids, bank.bear(vectors[new], scores[new], t)])
        reported = torch.from_numpy(np.concatenate([candidates[found], candidates[new]]))
        reported = reported.to(frame.logits.device)
        return TrackedFrame(torch.from_numpy(ids).to(reported.device), reported, frame.logits[reported])

    def _candidates(self, frame: FrameQueries) -> tuple[np.ndarray, np.ndarray]:
        """Queries that may be objects, ``(D,)`` int64, and their class scores ``(D,)``, best first."""
        scores = class_scores(frame.logits.detach()).cpu().numpy()
        order = np.flatnonzero(scores > self.config.select_score)
        order = order[np.argsort(-scores[order], kind="stable")]
        if self.config.nms_iou < 1:
            overlap = frame_vector(frame, "overlap", "IDOL").cpu().numpy()
            order = order[not_suppressed(overlap[order[:, None], order], self.config.nms_iou)]
        return order, scores[order]

    def _similarity(self, vectors: np.ndarray, tracks: np.ndarray) -> np.ndarray:
        """``(D, M)`` of candidates ``(D, C)`` and tracks ``(M, C)``."""
        if not len(vectors) or not len(tracks):
            return np.zeros((len(vectors), len(tracks)), dtype=np.float32)
        if self.config.similarity == "bisoftmax":
            return bisoftmax(vectors @ tracks.T)
        return cosine_similarity(torch.from_numpy(vectors), torch.from_numpy(tracks)).numpy()

    def _match(self, vectors: np.ndarray, bank: TrackletBank) -> np.ndarray:
        """``(D,)`` int64: the track of the bank that each candidate takes, by place, -1 for none."""
        config = self.config
        matched = np.full(len(vectors), -1, dtype=np.int64)
        if not len(vectors) or not len(bank):
            return matched
        similarity = self._similarity(vectors, bank.read())
        if not np.isfinite(similarity).all():  # all comparisons would be false: everybody begins a track
            raise TrackerError("IDOL: a similarity is not finite, expected finite vectors")
        if config.assignment == "optimal":
            candidate, track = (x.numpy() for x in best_assignment(torch.from_numpy(similarity)))
            good = similarity[candidate, track] > config.match_score
            matched[candidate[good]] = track[good]
            return matched
        value = np.where(similarity > config.match_score, similarity, 0.0)
        return one_after_the_other(value * bank.lifetime if config.weigh_lifetime else value)


def mask_overlaps(mask_logits: Tensor) -> Tensor:
    """``(.., Q, Q)`` float32 IoU between the masks of a frame at the size of its logits ``(.., Q, h, w)``."""
    *lead, queries, height, width = mask_logits.shape
    frames = mask_logits.detach().reshape(-1, queries, height * width)
    with torch.autocast(mask_logits.device.type, enabled=False):
        overlaps = []
        for logits in frames:  # one frame's masks at a time
            masks = (logits > 0).float()
            shared = masks @ masks.T
            area = shared.diagonal()
            overlaps.append(shared / (area[:, None] + area - shared).clamp(min=1))
    return torch.stack(overlaps).reshape(*lead, queries, queries)


def bisoftmax(products: np.ndarray) -> np.ndarray:
    """Mean of the softmax over rows and that over columns of dot products ``(D, M)``, neither of them 0."""
    over_rows = np.exp(products - products.max(0))
    over_columns = np.exp(products - products.max(1, keepdims=True))
    over_rows /= over_rows.sum(0)
    over_columns /= over_columns.sum(1, keepdims=True)
    return (over_rows + over_columns) / 2


def not_suppressed(overlap: np.ndarray, limit: float) -> np.ndarray:
    """``(D,)`` bool: who is kept when, best first, each drops those behind it that overlap it too much.

    Args:
        overlap: ``(D, D)`` symmetric, the best candidate first.
    """
    close = np.triu(overlap > limit, 1)
    kept = np.ones(len(overlap), dtype=bool)
    for i in np.flatnonzero(close.any(1)):
        if kept[i]:
            kept &= ~close[i]
    return kept


def one_after_the_other(value: np.ndarray) -> np.ndarray:
    """``(D,)`` int64: row by row the free column of the greatest value, -1 where none is above 0.

    Args:
        value: ``(D, M)``, 0 or more.
    """
    value = value.copy()
    taken = np.full(len(value), -1, dtype=np.int64)
    for i in np.flatnonzero(value.any(1)):
        row = value[i]
        best = row.argmax()
        if row[best] > 0:
            taken[i] = best
            value[i + 1 :, best] = 0
    return taken
