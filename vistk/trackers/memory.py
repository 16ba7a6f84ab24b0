"""What tracks looked like in the last frames."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

WEIGHTINGS = ("recent", "released", "uniform")


def entry_weights(scores: Tensor, weighting: str, score_weighting: bool) -> Tensor:
    """Weights of the remembered frames, before normalisation.

    With age w = 1 for the newest and w = n for the oldest of n entries, and s the class score of the track
    in that frame (s = 1, or 0 in the sum, without score weighting)::

        recent    s / w        VISAGE as in the paper (arXiv 2312.04885): the newest weighs most
        released  w / n + s    VISAGE as in its released code: the oldest weighs most, s is added
        uniform   s

    Args:
        scores: ``(n, Q)`` in 0..1, oldest first.

    Returns:
        ``(n, Q)`` positive float32, oldest first.
    """
    n = len(scores)
    age = torch.arange(n, 0, -1, device=scores.device, dtype=torch.float32)[:, None]  # (n, 1)
    if weighting == "released":
        return age / n + (scores.float() if score_weighting else torch.zeros_like(scores))
    temporal = 1 / age if weighting == "recent" else torch.ones_like(age)
    # A score that underflowed to zero in all entries must not leave a track without memory.
    factor = (
        scores.float().clamp(min=torch.finfo(torch.float32).tiny) if score_weighting else scores.new_ones(())
    )
    return (temporal * factor).expand(scores.shape)


@dataclass
class TrackMemory:
    """The last ``frames`` frames of Q tracks, oldest first. Part of a tracker's state, not of its module."""

    frames: int
    weighting: str
    score_weighting: bool
    vectors: deque[dict[str, Tensor]] = field(init=False)  # {name: (Q, C)}
    scores: deque[Tensor] = field(init=False)  # (Q,)

    def __post_init__(self) -> None:
        self.vectors = deque(maxlen=self.frames)
        self.scores = deque(maxlen=self.frames)

    def __len__(self) -> int:
        return len(self.scores)

    def add(self, vectors: Mapping[str, Tensor], scores: Tensor) -> None:
        """Remember a frame; the oldest one leaves when there are more than ``frames``.

        Args:
            vectors: ``{name: (Q, C)}``, in the order of the tracks.
            scores: ``(Q,)`` class scores of the tracks in this frame.
        """
        self.vectors.append({name: vector.detach() for name, vector in vectors.items()})
        self.scores.append(scores.detach())

    def read(self) -> dict[str, Tensor]:
        """``{name: (Q, C)}`` weighted means of the remembered vectors; not normalised to unit length."""
        weights = entry_weights(torch.stack(list(self.scores)), self.weighting, self.score_weighting)
        weights = (weights / weights.sum(0))[..., None]  # (n, Q, 1); exactly 1 where n = 1
        return {
            name: (weights * torch.stack([entry[name].float() for entry in self.vectors])).sum(0)
            for name in self.vectors[0]
        }
