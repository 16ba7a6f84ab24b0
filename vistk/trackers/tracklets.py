"""What is remembered of tracks that are born and die."""

from __future__ import annotations

import numpy as np

MEMORIES = ("weighted", "similarity", "momentum", "last")


class TrackletBank:
    """The tracks alive in a video. Part of a tracker's state, not of its module.

    A track is known by one vector. Of its last n vectors e_1 (oldest) .. e_n with class scores s_1 .. s_n::

        weighted    sum_i (s_i + i/n) e_i / sum_i (s_i + i/n)      IDOL (arXiv 2207.10661)
        similarity  m <- (1 - beta) m + beta e,                    CTVIS (arXiv 2307.12616)
                    beta = max(0, mean_i cos(e_i, e))
        momentum    m <- (1 - mu) m + mu e
        last        e_n

    where e is the vector of a new frame, and m that of the first one to begin with.

    NumPy, as all of it runs on the CPU, on few numbers, hundreds of times a second.

    Args:
        memory: one of :data:`MEMORIES`.
        frames: the largest n.
        momentum: mu.
        width: C of the vectors.
    """

    def __init__(self, memory: str, frames: int, momentum: float, width: int) -> None:
        self.memory = memory
        self.frames = frames
        self.momentum = momentum
        self.born = 0
        # Tracks have rows in the arrays; those of the dead go to the newly born.
        self._rows = np.zeros(0, dtype=np.int64)  # (M,) of those alive
        self._free: list[int] = []
        self._ids = np.zeros(0, dtype=np.int64)
        self._seen = np.zeros(0, dtype=np.int64)
        self._lifetime = np.zeros(0, dtype=np.int64)
        self._mean = np.zeros((0, width), dtype=np.float32)
        # Rings: the vector number k of a track, from 0, is in slot k modulo frames.
        self._vectors = np.zeros((0, frames, width), dtype=np.float32)
        self._scores = np.zeros((0, frames), dtype=np.float32)
        self._directions = np.zeros((0, width), dtype=np.float32)  # sums of the ring's vectors at length 1

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def ids(self) -> np.ndarray:
        """``(M,)`` int64, unique in the video."""
        return self._ids[self._rows]

    @property
    def lifetime(self) -> np.ndarray:
        """``(M,)`` int64, frames in which a track was seen."""
        return self._lifetime[self._rows]

    def read(self) -> np.ndarray:
        """``(M, C)`` float32, what every track looks like."""
        rows = self._rows
        if self.memory != "weighted":
            return self._mean[rows]
        lifetime = self._lifetime[rows, None]
        n = np.minimum(lifetime, self.frames)
        place = n - (lifetime - 1 - np.arange(self.frames)) % self.frames  # i; below 1 in empty slots
        weights = np.where(place > 0, self._scores[rows] + place / n, 0.0)
        weights /= weights.sum(1, keepdims=True)
        return (weights[:, None].astype(np.float32) @ self._vectors[rows])[:, 0]

    def surviving(self, frame: int, max_missing: int) -> np.ndarray:
        """``(M,)`` bool: tracks that :meth:`forget` would leave alive."""
        return frame - self._seen[self._rows] - 1 <= max_missing

    def forget(self, frame: int, max_missing: int) -> None:
        """Before frame ``frame``: tracks that were missing in more than ``max_missing`` frames die."""
        alive = self.surviving(frame, max_missing)
        if not alive.all():
            self._free += self._rows[~alive].tolist()
            self._rows = self._rows[alive]

    def update(self, tracks: np.ndarray, vectors: np.ndarray, scores: np.ndarray, frame: int) -> None:
        """Tracks are seen in a frame.

        Args:
            tracks: ``(m,)`` int64, places in :attr:`ids`, unique.
            vectors: ``(m, C)`` float32.
            scores: ``(m,)`` class scores.
        """
        if not len(tracks):
            return
        rows = self._rows[tracks]
        if self.memory == "similarity":
            cosine = (self._directions[rows] * _unit(vectors)).sum(1)
            beta = np.maximum(cosine / np.minimum(self._lifetime[rows], self.frames), 0)[:, None]
        else:
            beta = np.float32(self.momentum if self.memory == "momentum" else 1)
        self._mean[rows] += beta * (vectors - self._mean[rows])
        self._see(rows, vectors, scores, frame)

    def bear(self, vectors: np.ndarray, scores: np.ndarray, frame: int) -> np.ndarray:
        """New tracks; arguments as of :meth:`update`.

        Returns:
            ``(m,)`` int64, their ids, which no track of the video ever had.
        """
        new = np.arange(self.born, self.born + len(vectors))
        if not len(new):
            return new
        self.born += len(vectors)
        if len(self._free) < len(new):
            self._grow(max(16, len(self._ids), len(new)))
        rows = np.array([self._free.pop() for _ in new], dtype=np.int64)
        self._rows = np.concatenate([self._rows, rows])
        self._ids[rows] = new
        self._mean[rows] = vectors
        for array in (self._lifetime, self._vectors, self._scores, self._directions):
            array[rows] = 0
        self._see(rows, vectors, scores, frame)
        return new

    def _see(self, rows: np.ndarray, vectors: np.ndarray, scores: np.ndarray, frame: int) -> None:
        slots = self._lifetime[rows] % self.frames
        if self.memory == "similarity":
            self._directions[rows] += _unit(vectors) - _unit(self._vectors[rows, slots])
        self._vectors[rows, slots] = vectors
        self._scores[rows, slots] = scores
        self._lifetime[rows] += 1
        self._seen[rows] = frame

    def _grow(self, more: int) -> None:
        """Room for ``more`` tracks."""
        self._free += range(len(self._ids) + more - 1, len(self._ids) - 1, -1)
        for name in ("_ids", "_seen", "_lifetime", "_mean", "_vectors", "_scores", "_directions"):
            array = getattr(self, name)
            setattr(self, name, np.concatenate([array, np.zeros((more, *array.shape[1:]), array.dtype)]))


def _unit(vectors: np.ndarray) -> np.ndarray:
    """``(m, C)`` at length 1; zeros stay."""
    length = np.sqrt((vectors * vectors).sum(1, keepdims=True))
    return vectors / np.maximum(length, np.float32(1e-12))
