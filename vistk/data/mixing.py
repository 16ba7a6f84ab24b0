"""What training clips come from, and how two sources are trained on side by side."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from vistk.structures import ClipTargets

Clip = tuple[Tensor, ClipTargets]
"""Images ``(T, 3, H, W)`` uint8 and their targets."""


class ClipSource(Protocol):
    """Training clips by number, without end."""

    def __len__(self) -> int:
        """Number of videos or stills; an epoch takes one clip of each."""

    def sample(self, seed: int, index: int, num_frames: int) -> Clip:
        """Training sample number ``index``, fully determined by the arguments."""


class JointClips:
    """Stills and videos, mixed by the batch: each is wholly of one source.

    Each source goes through epochs of its own, as if it were trained on alone. (The released code of
    VISAGE shares one pool of waiting samples between its sources, so that clips end up in the batches of
    the other one and the ratio is not kept.)

    Args:
        stills, videos: the two streams.
        ratio: batches of stills and batches of videos, e.g. ``(1.0, 0.75)``: four of seven are of stills.
    """

    def __init__(self, stills: ClipSource, videos: ClipSource, ratio: Sequence[float]) -> None:
        self.stills, self.videos = stills, videos
        # As the numbers are written, 0.1 a tenth: so no step depends on rounding.
        of_stills, of_videos = (Fraction(str(part)) for part in ratio)
        self.share = of_stills / (of_stills + of_videos)

    def __len__(self) -> int:
        """Stills and videos together."""
        return len(self.stills) + len(self.videos)

    def sample(self, seed: int, index: int, num_frames: int) -> Clip:
        """Sample ``n`` of the stills is number ``2 * n``, sample ``n`` of the videos ``2 * n + 1``.

        Which of them a step takes is up to :class:`vistk.data.sampling.JointStepSampler`.
        """
        number, stream = divmod(index, 2)
        return (self.videos if stream else self.stills).sample(seed, number, num_frames)


def visible_targets(labels: Sequence[int], masks: np.ndarray, visible: np.ndarray) -> ClipTargets:
    """Targets of ``(N, T, h, w)`` bool masks without the instances that no frame shows.

    A crop, the resizing or what is in front of it may have taken an instance's last pixel.

    Args:
        visible: ``(N, T)`` bool, whether a mask has a pixel.
    """
    chosen, shown = np.array(labels, dtype=np.int64), visible.any(1)
    if not shown.all():  # rarely; choosing copies all masks
        chosen, masks, visible = chosen[shown], masks[shown], visible[shown]
    return ClipTargets(torch.from_numpy(chosen), torch.from_numpy(visible), torch.from_numpy(masks))
