"""The bank of tracks, on numbers small enough to do in the head."""

import math

import numpy as np
import pytest

from vistk.trackers.tracklets import MEMORIES, TrackletBank


def f32(values: list) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def bank_of(memory: str, frames: int = 2, width: int = 1, momentum: float = 0.75) -> TrackletBank:
    return TrackletBank(memory, frames, momentum, width)


def fed(memory: str, *seen: tuple[list[float], float], frames: int = 2) -> list[float]:
    """What is known of a track that was seen with these vectors and scores."""
    bank = bank_of(memory, frames, len(seen[0][0]))
    row = np.array([0])
    for t, (vector, score) in enumerate(seen):
        vectors, scores = f32([vector]), f32([score])
        bank.update(row, vectors, scores, t) if t else bank.bear(vectors, scores, t)
    return bank.read()[0].tolist()


def test_weighted() -> None:
    # Two vectors: weights 0.5 + 1/2 and 0.25 + 2/2.
    assert fed("weighted", ([1.0], 0.5), ([2.0], 0.25)) == pytest.approx([(1.0 + 1.25 * 2) / 2.25])
    # Of three with room for two, the first has left: weights 0.25 + 1/2 and 0.75 + 2/2.
    found = fed("weighted", ([100.0], 0.5), ([2.0], 0.25), ([6.0], 0.75))
    assert found == pytest.approx([(0.75 * 2 + 1.75 * 6) / 2.5])
    # With more room than vectors, n is that of the vectors: weights 0.5 + 1/2 and 0.25 + 2/2 again.
    assert fed("weighted", ([1.0], 0.5), ([2.0], 0.25), frames=7) == pytest.approx([3.5 / 2.25])
    assert fed("weighted", ([3.0], 0.0)) == [3.0]


def test_similarity() -> None:
    # Cosine of (1, 0) and (1, 1): that share of the way.
    beta = math.sqrt(0.5)
    assert fed("similarity", ([1.0, 0.0], 0.5), ([1.0, 1.0], 0.5)) == pytest.approx([1.0, beta])
    # Then (0, 3): cosines 0 and beta with the two before, mean beta / 2.
    found = fed("similarity", ([1.0, 0.0], 0.5), ([1.0, 1.0], 0.5), ([0.0, 3.0], 0.5))
    assert found == pytest.approx([1 - beta / 2, beta + beta / 2 * (3 - beta)])
    # With room for one, the cosine with (1, 1) alone counts.
    found = fed("similarity", ([1.0, 0.0], 0.5), ([1.0, 1.0], 0.5), ([0.0, 3.0], 0.5), frames=1)
    assert found == pytest.approx([1 - beta, beta + beta * (3 - beta)])
    assert fed("similarity", ([1.0, 0.0], 0.5), ([-5.0, 0.0], 0.5)) == [1.0, 0.0]


def test_momentum_and_last() -> None:
    assert fed("momentum", ([1.0], 0.5), ([5.0], 0.5)) == pytest.approx([0.25 * 1 + 0.75 * 5])
    assert fed("last", ([1.0], 0.5), ([5.0], 0.5), ([-2.0], 0.5)) == [-2.0]


@pytest.mark.parametrize("memory", MEMORIES)
def test_tracks_do_not_mix(memory: str) -> None:
    bank = bank_of(memory, 3, 4)
    vectors = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    scores = f32([0.5] * 3)
    assert bank.bear(vectors, scores, 0).tolist() == [0, 1, 2]
    before = bank.read().copy()
    bank.update(np.array([1]), vectors[:1] + vectors[1:2], scores[:1], 1)
    assert (bank.read() != before).any(1).tolist() == [False, True, False]
    assert bank.lifetime.tolist() == [1, 2, 1]


def test_death_and_ids() -> None:
    bank = bank_of("weighted")
    one, score = f32([[1.0]]), f32([1.0])
    bank.bear(f32([[1.0], [1.0]]), f32([1.0, 1.0]), 0)
    bank.update(np.array([1]), 5 * one, score, 2)
    for t in (1, 2, 3):  # missing in 0, 1, 2 frames
        bank.forget(t, 2)
        assert bank.ids.tolist() == [0, 1]
    bank.forget(4, 2)  # track 0 was missing in frames 1, 2, 3
    assert bank.ids.tolist() == [1]
    # Weights 1 + 1/2 and 1 + 1.
    assert bank.read().tolist() == [[pytest.approx((1.5 + 2 * 5) / 3.5)]]
    assert bank.bear(one, score, 4).tolist() == [2]
    bank.forget(100, 2)
    assert len(bank) == 0
    assert bank.read().shape == (0, 1)
    assert bank.bear(one, score, 100).tolist() == [3]


def test_what_comes_in_is_not_written_to() -> None:
    vectors, scores = f32([[1.0, 1.0]]), f32([1.0])
    for memory in MEMORIES:
        bank = bank_of(memory, 1, 2)
        bank.bear(vectors, scores, 0)
        bank.update(np.array([0]), 2 * vectors, scores, 1)
        assert vectors.tolist() == [[1.0, 1.0]]
