"""From a tracker's answers, frame by frame, to the scored tracklets of a video."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from vistk.structures import FinishedMask, Masks, TrackedFrame, Tracklet


class LogitSums:
    """The class logits of every track, summed over its frames: all that says which tracks are kept.

    It grows with the number of tracks, not with that of frames.
    """

    def __init__(self) -> None:
        self._row: dict[int, int] = {}  # track to its row in the arrays
        self._logits = np.zeros((0, 0))  # (rows, K+1) sums over the frames
        self._counts = np.zeros(0)

    def count(self, frame: TrackedFrame) -> None:
        """Add the next frame."""
        tracks = frame.track_ids.tolist()
        if not tracks:
            return
        for track in tracks:
            self._row.setdefault(track, len(self._row))
        rows = np.array([self._row[track] for track in tracks])
        logits = frame.logits.double().cpu().numpy()
        if len(self._counts) < len(self._row):
            more = 2 * len(self._row) - len(self._counts)
            self._counts = np.pad(self._counts, (0, more))
            self._logits = np.pad(self._logits, ((0, more), (0, logits.shape[1] - self._logits.shape[1])))
        np.add.at(self._logits, rows, logits)
        np.add.at(self._counts, rows, 1)

    def scores(self, tracks: Sequence[int]) -> Tensor:
        """``(M, K)`` float64 of some tracks so far: the softmax of the mean logits, without "no object"."""
        rows = [self._row[track] for track in tracks]
        mean = torch.from_numpy(self._logits[rows] / self._counts[rows, None])
        return mean.softmax(-1)[:, :-1]

    def best(self, count: int) -> list[tuple[float, int, int]]:
        """Score, track and label of the ``count`` best (track, class) pairs so far.

        A track may come under several classes, as published.
        """
        if not self._row:
            return []
        tracks = sorted(self._row)
        scores = self.scores(tracks)
        best, index = scores.flatten().topk(min(count, scores.numel()))
        return [
            (score, tracks[i // scores.shape[1]], i % scores.shape[1])
            for score, i in zip(best.tolist(), index.tolist(), strict=True)
        ]

    def tracks(self, count: int) -> list[int]:
        """The tracks in the ``count`` best pairs so far, the best first."""
        return list(dict.fromkeys(track for _, track, _ in self.best(count)))

    def known(self) -> set[int]:
        """All tracks so far."""
        return set(self._row)


class VideoScores(LogitSums):
    """Gathers a tracker's answers over a video and turns them into scored tracklets.

    Which tracks are kept depends on their class logits alone. So this holds sums of logits for all tracks,
    but masks only of those that :meth:`take` is told of, until :meth:`drop_others` is told of others: what
    the result needs and nothing that grows with the size of the image.
    """

    def __init__(self, num_frames: int) -> None:
        super().__init__()
        self.num_frames = num_frames
        self._query: list[dict[int, int]] = [{} for _ in range(num_frames)]  # track to query, each frame
        self._masks: dict[int, dict[int, FinishedMask]] = {}  # track to frame to mask

    def add(self, t: int, frame: TrackedFrame, own: Masks | None = None) -> None:
        """Record frame ``t``.

        Args:
            own: the M masks of ``frame.mask_logits``, from a tracker that predicts masks anew.
        """
        tracks, queries = frame.track_ids.tolist(), frame.query_index.tolist()
        self.count(frame)
        if own is None:
            self._query[t] = dict(zip(tracks, queries, strict=True))
        else:
            for i, track in enumerate(tracks):
                self._masks.setdefault(track, {})[t] = own[i]

    def missing(self, t: int, tracks: Collection[int]) -> list[int]:
        """Queries of frame ``t`` that are in these tracks and whose masks were not taken, or were dropped."""
        query = self._query[t]
        return [query[i] for i in tracks if i in query and t not in self._masks.get(i, ())]

    def take(self, t: int, tracks: Collection[int], masks: Masks) -> None:
        """Take the masks of these tracks from those of the queries of frame ``t``."""
        query = self._query[t]
        for track in tracks:
            if track in query and t not in self._masks.setdefault(track, {}):
                self._masks[track][t] = masks[query[track]]

    def drop_others(self, tracks: Collection[int]) -> None:
        """Drop the masks that were taken for other tracks than these.

        What a tracker made up itself stays: nobody could make it again.
        """
        for track in self._masks.keys() - set(tracks):
            masks = self._masks[track]
            self._masks[track] = {t: mask for t, mask in masks.items() if track not in self._query[t]}

    def num_bytes(self, track: int) -> int:
        """Length of all run lengths that are held for a track."""
        return sum(len(mask.rle["counts"]) for mask in self._masks.get(track, {}).values() if mask.rle)

    def tracklets(self, keep_top: int, rescore: bool) -> tuple[Tracklet, ...]:
        """The ``keep_top`` best pairs with the masks that were taken, see :func:`scored_tracklets`."""
        return scored_tracklets(self.best(keep_top), self._masks, self.num_frames, rescore)


def scored_tracklets(
    best: Sequence[tuple[float, int, int]],
    masks_of: Mapping[int, Mapping[int, FinishedMask]],
    num_frames: int,
    rescore: bool,
) -> tuple[Tracklet, ...]:
    """The tracklets of a video by falling score; without any pixel, a track is none.

    Rescoring multiplies by the mean mask probability inside the mask, over all frames of the video.

    Args:
        best: score, track and label, see :meth:`LogitSums.best`.
        masks_of: of each of these tracks, by frame.
    """
    kept = []
    for score, track, label in best:
        masks = masks_of.get(track, {})
        if rescore:
            probability = sum(masks[t].probability_sum for t in sorted(masks))
            score *= probability / max(sum(masks[t].area for t in sorted(masks)), 1.0)
        rles = tuple(masks[t].rle if t in masks else None for t in range(num_frames))
        if any(rle is not None for rle in rles):
            kept.append(Tracklet(track, label, score, rles))
    return tuple(sorted(kept, key=lambda tracklet: -tracklet.score))
