"""Streams of random numbers, frames of a clip, batches of a step."""

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from vistk.data.sampling import (
    JointStepSampler,
    StepSampler,
    Stream,
    epoch_order,
    sample_frames,
    stream_of,
    video_of,
)


def test_streams_are_the_same_everywhere():
    """Pinned: a change here would change every data set and every training run."""
    stream = Stream("pinned", 0)
    assert [stream.integer(0, 1000) for _ in range(4)] == [113, 478, 115, 190]
    assert stream.integers(-5, 5, (2, 3)).tolist() == [[-3, -3, -4], [1, -3, 1]]
    assert stream.permutation(7).tolist() == [3, 2, 5, 6, 0, 4, 1]


def test_keys_give_different_streams():
    keys = [("a", 1, 2), ("a", 1, 2, 0), ("a", 12), ("b", 1, 2), ("a", 2, 1), ("a", 1)]
    assert len({Stream(*key).integer(0, 2**31) for key in keys}) == len(keys)
    assert Stream("a", 1).uniform() == Stream("a", np.int64(1)).uniform()


def test_draws_stay_in_range_and_reach_its_ends():
    stream = Stream("range")
    draws = stream.integers(-2, 3, (1000,))
    assert sorted(set(draws.tolist())) == [-2, -1, 0, 1, 2]
    assert {stream.integer(7, 8) for _ in range(10)} == {7}
    floats = [stream.uniform(2.0, 3.0) for _ in range(1000)]
    assert min(floats) >= 2.0
    assert max(floats) < 3.0
    assert abs(np.mean(floats) - 2.5) < 0.05
    assert not stream.chance(0.0)
    assert stream.chance(1.0)
    assert stream.permutation(0).tolist() == []


@pytest.mark.parametrize("n", [2, 3, 7])
def test_a_derangement_moves_everything(n):
    stream = Stream("derangement", n)
    for _ in range(20):
        order = stream.derangement(n)
        assert sorted(order) == list(range(n))
        assert all(order[i] != i for i in range(n))


def test_an_epoch_takes_each_video_once():
    taken = [video_of(3, index, 23) for index in range(46)]
    assert sorted(taken[:23]) == list(range(23))
    assert sorted(taken[23:]) == list(range(23))
    assert taken[:23] != taken[23:]
    assert taken[:23] == epoch_order(3, 0, 23).tolist()
    assert taken[:23] != epoch_order(4, 0, 23).tolist()


@pytest.mark.parametrize("frame_range", [None, 1, 3, 100])
@pytest.mark.parametrize("length", [1, 2, 7, 83])
def test_frames_of_a_clip(length, frame_range):
    seen = set()
    for key in range(60):
        frames = sample_frames(Stream("frames", key), length, 4, frame_range)
        assert len(frames) == 4
        assert frames == sorted(frames)
        assert frames[0] >= 0
        assert frames[-1] < length
        window = length if frame_range is None else min(length, 2 * frame_range + 1)
        if frame_range is not None:
            assert frames[-1] - frames[0] <= 2 * frame_range
        if frame_range is None and length >= 4:
            assert len(set(frames)) == 4
        if window == length < 4 and frame_range is None:
            assert set(frames) == set(range(length))
        seen.update(frames)
    assert len(seen) >= min(length, 40)


def test_without_a_range_frames_lie_far_apart():
    near = [sample_frames(Stream(k), 83, 3, 2) for k in range(100)]
    far = [sample_frames(Stream(k), 83, 3, None) for k in range(100)]
    assert np.mean([f[-1] - f[0] for f in near]) < 4
    assert np.mean([f[-1] - f[0] for f in far]) == pytest.approx(42, abs=6)  # (83 + 1) * 2 / 4


def test_one_frame_clips():
    assert sample_frames(Stream(0), 1, 1, None) == [0]
    assert {sample_frames(Stream(k), 2, 1, 5)[0] for k in range(20)} == {0, 1}


def test_frames_drawn_with_replacement():
    clips = [sample_frames(Stream("again", key), 83, 4, 2, repeat=True) for key in range(400)]
    sizes = Counter(len(set(frames)) for frames in clips)
    # Three draws from the four neighbours of the centre: all equal 4/64, two values 36/64, distinct 24/64
    assert [sizes[n] / 400 for n in (2, 3, 4)] == pytest.approx([1 / 16, 9 / 16, 6 / 16], abs=0.07)
    for frames in clips:
        assert frames == sorted(frames)
        # the centre, which comes once, has all others within two frames
        assert any(frames.count(c) == 1 and all(abs(t - c) <= 2 for t in frames) for c in frames)
    assert sample_frames(Stream(0), 1, 3, 10, repeat=True) == [0, 0, 0]
    pairs = {tuple(sample_frames(Stream(key), 2, 3, 10, repeat=True)) for key in range(20)}
    assert pairs == {(0, 0, 1), (0, 1, 1)}  # the other frame of two, twice


@pytest.mark.parametrize("num_frames", [0, -1])
def test_a_clip_without_frames_is_refused(num_frames):
    with pytest.raises(ValueError, match=f"num_frames is {num_frames}, expected 1 or more"):
        sample_frames(Stream(0), 7, num_frames, None)


@pytest.mark.parametrize("start", [0, 2])
def test_ranks_share_out_the_global_batch(start):
    both = [list(StepSampler(3, start, 5, rank, 2)) for rank in range(2)]
    one = list(StepSampler(6, start, 5))
    assert [a + b for a, b in zip(*both, strict=True)] == one
    assert one[0][0] == 6 * start
    assert len(StepSampler(3, start, 5)) == len(one) == 5 - start


def test_any_step_can_be_the_first():
    assert list(StepSampler(2, 3, 7, 1, 2)) == list(StepSampler(2, 0, 7, 1, 2))[3:]
    assert list(StepSampler(2, 9, 7)) == []
    assert len(StepSampler(2, 9, 7)) == 0


@pytest.mark.parametrize("arguments", [(0, 0, 5), (1, -1, 5), (1, 0, 5, 2, 2)])
def test_impossible_samplers_are_refused(arguments):
    with pytest.raises(ValueError, match="StepSampler: batch_size"):
        StepSampler(*arguments)


def test_streams_alternate_by_their_ratio():
    """Of 1 : 0.75 four batches of seven are of stream 0, by hand: floor(n * 4/7) = 0 0 1 1 2 2 3 4."""
    share = Fraction(4, 7)
    assert [stream_of(step, share) for step in range(9)] == [
        *[(1, 0), (0, 0), (1, 1), (0, 1), (1, 2), (0, 2), (0, 3)],
        *[(1, 3), (0, 4)],
    ]


@pytest.mark.parametrize("share", [Fraction(4, 7), Fraction(1, 2), Fraction(1, 83), Fraction(0.3)])
def test_every_stream_counts_without_a_gap(share):
    counts = [0, 0]
    for step in range(300):
        stream, number = stream_of(step, share)
        assert number == counts[stream]
        counts[stream] += 1
        assert counts[0] == (step + 1) * share.numerator // share.denominator


def test_a_joint_batch_is_of_one_stream_on_all_ranks():
    share = Fraction(4, 7)
    one = list(JointStepSampler(6, 0, 21, share=share))
    both = [list(JointStepSampler(3, 0, 21, rank, 2, share=share)) for rank in range(2)]
    assert [a + b for a, b in zip(*both, strict=True)] == one
    assert list(JointStepSampler(6, 13, 21, share=share)) == one[13:]
    assert all(len({n % 2 for n in batch}) == 1 for batch in one)
    for stream, count in ((0, 12), (1, 9)):
        assert [n // 2 for batch in one for n in batch if n % 2 == stream] == list(range(6 * count))
