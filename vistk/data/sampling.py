"""Which frames of which video make training sample number ``n``: a pure function of seed and number.

Nothing here has a state that must be saved. A run that stops at step ``s`` goes on with exactly the
samples it would have seen, whatever the number of loader workers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import TypeVar

import numpy as np
from torch.utils.data import Sampler

Item = TypeVar("Item")


class Stream:
    """Random draws that depend on a key alone, the same on every machine.

    numpy keeps the raw output of PCG64 and of SeedSequence fixed for ever, but not the distributions
    of ``numpy.random.Generator``; so the few that are needed are derived here from the raw output.

    Args:
        key: any mixture of strings and integers; different keys give independent streams.
    """

    def __init__(self, *key: str | int) -> None:
        # Hashed: SeedSequence pads with zeros, so that (1, 2) and (1, 2, 0) would be the same stream.
        digest = hashlib.sha256("/".join(str(part) for part in key).encode()).digest()
        self._bits = np.random.PCG64(np.random.SeedSequence(int.from_bytes(digest[:16], "little")))

    def integer(self, low: int, high: int) -> int:
        """One integer in ``[low, high)``."""
        return low + ((self._bits.random_raw() >> 32) * (high - low) >> 32)

    def integers(self, low: int, high: int, size: tuple[int, ...]) -> np.ndarray:
        """int64 array of ``size`` with values in ``[low, high)``; the span must be below 2^31."""
        raw = self._bits.random_raw(int(np.prod(size))) >> np.uint64(32)
        return ((raw * np.uint64(high - low)) >> np.uint64(32)).astype(np.int64).reshape(size) + low

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """One float in ``[low, high)``."""
        return low + (high - low) * ((self._bits.random_raw() >> 11) * 2.0**-53)

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.uniform() < probability

    def choice(self, items: Sequence[Item]) -> Item:
        """One of the items."""
        return items[self.integer(0, len(items))]

    def permutation(self, n: int) -> np.ndarray:
        """``0 .. n-1`` in random order, int64."""
        return np.argsort(self._bits.random_raw(n), kind="stable") if n else np.zeros(0, np.int64)

    def derangement(self, n: int) -> np.ndarray:
        """A permutation of ``0 .. n-1`` (``n >= 2``) that leaves nothing in its place."""
        while True:  # each draw succeeds with probability about 1/e
            order = self.permutation(n)
            if not np.any(order == np.arange(n)):
                return order


@lru_cache(maxsize=4)
def epoch_order(seed: int, epoch: int, n: int) -> np.ndarray:
    """The order of ``n`` videos in an epoch, ``(n,)`` int64."""
    return Stream("epoch", seed, epoch).permutation(n)


def video_of(seed: int, index: int, n: int) -> int:
    """Which of ``n`` videos is training sample ``index`` of an endless run of shuffled epochs."""
    epoch, offset = divmod(index, n)
    return int(epoch_order(seed, epoch, n)[offset])


def sample_frames(
    stream: Stream, length: int, num_frames: int, frame_range: int | None, repeat: bool = False
) -> list[int]:
    """Sorted frame numbers of a clip from a video of ``length`` frames.

    Args:
        frame_range: all frames lie within this distance of a random centre, which is one of them.
            ``None``: anywhere in the video, so that frames tend to be far apart.
        repeat: frames other than the centre are drawn with replacement, as published (VISAGE,
            arXiv 2312.04885): some come twice, the centre does not. A video of one frame repeats it.

    Without ``repeat`` frames are distinct as long as there are enough; a shorter video repeats some.

    Raises:
        ValueError: ``num_frames`` is less than 1.
    """
    if num_frames < 1:
        raise ValueError(f"num_frames is {num_frames}, expected 1 or more frames a clip")
    centre = stream.integer(0, length)
    low, high = (0, length) if frame_range is None else (centre - frame_range, centre + frame_range + 1)
    others = [t for t in range(max(low, 0), min(high, length)) if t != centre]
    if repeat and others:
        return sorted([centre, *(stream.choice(others) for _ in range(num_frames - 1))])
    picked = [others[i] for i in stream.permutation(len(others))[: num_frames - 1]]
    window = [centre, *others]
    picked += [stream.choice(window) for _ in range(num_frames - 1 - len(picked))]
    return sorted([centre, *picked])


class StepSampler(Sampler[list[int]]):
    """The sample numbers of each step's batch on one rank, from any step on.

    Sample ``j`` of the batch at ``step`` on ``rank`` is number ``(step * world + rank) * batch_size + j``:
    the ranks share out one global batch. With gradient accumulation a step is a micro-step.
    """

    def __init__(
        self, batch_size: int, start_step: int, total_steps: int, rank: int = 0, world: int = 1
    ) -> None:
        if batch_size < 1 or not 0 <= rank < world or start_step < 0:
            raise ValueError(
                f"StepSampler: batch_size {batch_size}, start_step {start_step}, rank {rank} of {world}; "
                "expected a batch of at least 1, a step of at least 0 and 0 <= rank < world"
            )
        self.batch_size, self.rank, self.world = batch_size, rank, world
        self.start_step, self.total_steps = start_step, total_steps

    def __len__(self) -> int:
        return max(0, self.total_steps - self.start_step)

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.start_step, self.total_steps):
            yield list(self._batch(step))

    def _batch(self, number: int) -> range:
        """Sample numbers of this rank's part of a batch."""
        first = (number * self.world + self.rank) * self.batch_size
        return range(first, first + self.batch_size)


def stream_of(step: int, share: Fraction) -> tuple[int, int]:
    """Which of two streams the batch of a step is from, and which batch of that stream it is.

    Of the first ``n`` steps, ``floor(n * share)`` are of stream 0, for every ``n``: the streams alternate
    as evenly as their ratio allows, and each counts its own batches without a gap.
    """
    before = step * share.numerator // share.denominator
    if (step + 1) * share.numerator // share.denominator > before:
        return 0, before
    return 1, step - before


class JointStepSampler(StepSampler):
    """Batches of two streams, each wholly of one, the same on all ranks (:func:`stream_of`).

    Sample ``n`` of stream ``s`` has the number ``2 * n + s``. All ranks of a step share one stream, so that
    they have equal work and the ratio of the streams is exact for any number of them.
    """

    def __init__(
        self,
        batch_size: int,
        start_step: int,
        total_steps: int,
        rank: int = 0,
        world: int = 1,
        *,
        share: Fraction,
    ) -> None:
        super().__init__(batch_size, start_step, total_steps, rank, world)
        self.share = share

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.start_step, self.total_steps):
            stream, number = stream_of(step, self.share)
            yield [2 * n + stream for n in self._batch(number)]
