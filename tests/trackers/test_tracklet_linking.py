"""Tracklets cut and linked by hand."""

import math

import pytest
import torch
from torch import Tensor

from vistk.structures import FrameQueries, TrackedFrame
from vistk.trackers.base import track_video
from vistk.trackers.tracklet_linking import TrackletLinking, TrackletLinkingConfig
from vistk.trackers.visage import VISAGE, VISAGEConfig

SIZES = {"embed_dim": 4, "feature_channels": {"res3": 4, "res4": 4, "res5": 4}, "num_classes": 2}
ATOL = {torch.float32: 1e-6}
RED, GREEN, BLUE, GREY = torch.eye(4).tolist()
GONE = (GREY, 0.05)


def linking(**fields: object) -> TrackletLinking:
    """By query vectors alone against the frame before; single frames are tracks. Unless said otherwise."""
    plain = {"appearance_weight": 0.0, "memory_frames": 1, "least_frames": 1}
    return TrackletLinking(TrackletLinkingConfig(**{**plain, **fields}), **SIZES)  # type: ignore[arg-type]


def frame(*queries: tuple[list[float], float]) -> FrameQueries:
    """Vectors and the probability of the first class; the second has none."""
    logits = torch.tensor([[math.log(p), -30.0, math.log(1 - p)] for _, p in queries])
    return FrameQueries(logits, {"query": torch.tensor([vector for vector, _ in queries])})


def tracks_of(tracked: list[TrackedFrame]) -> list[list[int]]:
    """For every frame the track of each query, tracks numbered as they come."""
    names: dict[int, int] = {}
    found = []
    for answer in tracked:
        by_query = dict(zip(answer.query_index.tolist(), answer.track_ids.tolist(), strict=True))
        found.append([names.setdefault(by_query[q], len(names)) for q in range(len(by_query))])
    return found


def close(found: Tensor, expected: object) -> None:
    torch.testing.assert_close(
        found, torch.as_tensor(expected, dtype=found.dtype), atol=ATOL[torch.float32], rtol=0
    )


def leave_and_return() -> list[FrameQueries]:
    """Red and green leave, and return in each other's slots."""
    shown = [frame((RED, 0.9), (GREEN, 0.8))] * 2
    return [*shown, *[frame(GONE, GONE)] * 2, *[frame((GREEN, 0.8), (RED, 0.9))] * 2]


def test_tracklets_are_linked_by_what_they_look_like() -> None:
    tracked = track_video(linking(), leave_and_return())
    # 0 red, 1 green; the queries of the frames between, 2 and 3, stay in their slots.
    assert tracks_of(tracked) == [[0, 1], [0, 1], [2, 3], [2, 3], [1, 0], [1, 0]]
    assert tracked[0].track_ids.tolist() == [2, 3]  # behind the two slots
    assert tracked[2].track_ids.tolist() == [0, 1]


def test_without_links_every_tracklet_is_a_track() -> None:
    tracked = track_video(linking(link=False), leave_and_return())
    assert tracks_of(tracked) == [[0, 1], [0, 1], [2, 3], [2, 3], [4, 5], [4, 5]]


@pytest.mark.parametrize(("max_gap", "linked"), [(2, False), (3, True), (None, True)])
def test_gap(max_gap: int | None, linked: bool) -> None:
    # From frame 1 to frame 4.
    tracked = tracks_of(track_video(linking(max_gap=max_gap), leave_and_return()))
    assert (tracked[4] == [1, 0]) is linked


def test_steps_answer_like_visage() -> None:
    rng = torch.Generator().manual_seed(0)
    video = [
        FrameQueries(
            torch.randn((7, 3), generator=rng),
            {name: torch.randn((7, 5), generator=rng) for name in ("query", "appearance")},
        )
        for _ in range(23)
    ]
    tracker = TrackletLinking(TrackletLinkingConfig(), **SIZES)  # type: ignore[arg-type]
    state = tracker.start()
    expected = track_video(VISAGE(VISAGEConfig(), **SIZES), video)  # type: ignore[arg-type]
    for frame, answer in zip(video, expected, strict=True):
        assert torch.equal(tracker.step(state, frame).query_index, answer.query_index)


def test_a_weak_link_is_cut() -> None:
    # One slot: red, red, then blue. 0.6 of red is above the bar, none of it is below.
    like_red = [0.6, 0.8, 0.0, 0.0]
    video = [frame((RED, 0.9)), frame((RED, 0.9)), frame((like_red, 0.9)), frame((BLUE, 0.9))]
    assert tracks_of(track_video(linking(cut_similarity=0.5), video)) == [[0], [0], [0], [1]]
    assert tracks_of(track_video(linking(cut_similarity=0.7, link=False), video)) == [[0], [0], [1], [2]]
    # Red and what is like it are 0.6 similar: linked again where that is enough.
    assert tracks_of(track_video(linking(cut_similarity=0.7, link_similarity=0.5), video))[2] == [0]
    assert tracks_of(track_video(linking(cut_similarity=0.7, link_similarity=0.65), video))[2] == [1]


def test_links_are_the_best_over_the_video_not_one_by_one() -> None:
    # Red and green end; two begin that are 0.8 and 0.6, and 0.7 and 0, similar to them.
    video = [
        frame((RED, 0.9), (GREEN, 0.9)),
        frame(GONE, GONE),
        frame(([0.8, 0.6, 0.0, 0.0], 0.9), ([0.7, 0.0, math.sqrt(0.51), 0.0], 0.9)),
    ]
    # The best pair first leaves 0.8 + 0, all together reach 0.7 + 0.6.
    assert tracks_of(track_video(linking(), video))[2] == [1, 0]


def test_tracklets_of_one_time_are_never_one_track() -> None:
    # Two red objects at once, and one of them later: it joins one of them, and they stay two.
    video = [frame((RED, 0.9), (RED, 0.8)), frame(GONE, GONE), frame((RED, 0.9), GONE)]
    tracked = tracks_of(track_video(linking(), video))
    assert tracked[0] == [0, 1]
    assert tracked[2][0] in (0, 1)


def test_chains_have_one_name() -> None:
    # Red, five times, each time alone for one frame.
    video = [frame((RED, 0.9)), frame(GONE)] * 5
    assert tracks_of(track_video(linking(), video)) == [[0], [1]] * 5


def test_class_logits_move_to_their_weighted_mean() -> None:
    # Scores 0.8 and 0.4, both of red.
    video = [frame((RED, 0.8)), frame(GONE), frame((RED, 0.4))]
    first, last = video[0].logits[0], video[2].logits[0]
    mean = (0.8 * first + 0.4 * last) / 1.2
    for smoothing, expected in ((1.0, mean), (0.5, (first + mean) / 2), (0.0, first)):
        tracked = track_video(linking(smoothing=smoothing), video)
        close(tracked[0].logits[0], expected)
        close(tracked[1].logits, video[1].logits)


def test_short_tracks_are_left_to_their_slots() -> None:
    video = [frame((RED, 0.9), GONE), frame((RED, 0.9), (BLUE, 0.9)), frame((RED, 0.9), GONE)]
    tracked = track_video(linking(least_frames=2), video)
    assert [answer.track_ids.tolist() for answer in tracked] == [[2, 1]] * 3
    close(tracked[1].logits[1], video[1].logits[1])
    # Two pieces of one frame each make a track of two.
    video = [frame((RED, 0.9)), frame(GONE), frame((RED, 0.9))]
    assert tracks_of(track_video(linking(least_frames=2), video)) == [[0], [1], [0]]


@pytest.mark.parametrize("length", [0, 1, 7])
def test_videos_without_any_tracklet(length: int) -> None:
    tracked = track_video(linking(), [frame(GONE, GONE)] * length)
    assert [answer.track_ids.tolist() for answer in tracked] == [[0, 1]] * length


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"memory_weighting": "old"}, "'old', expected one of recent, released, uniform"),
        ({"presence": 2.0}, "presence is 2.0, expected 0 to 1"),
        ({"smoothing": -1.0}, "smoothing is -1.0, expected 0 to 1"),
        ({"memory_frames": 0}, "memory_frames is 0, expected 1 or more"),
        ({"max_gap": 0}, "max_gap is 0, expected 1 or more"),
        ({"least_frames": 0}, "least_frames is 0, expected 1 or more"),
    ],
)
def test_fields_out_of_range(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        linking(**fields)
