"""IDOL and CTVIS on videos small enough to do in the head."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from vistk.structures import FrameOutput, FrameQueries, TrackedFrame
from vistk.trackers.base import track_video
from vistk.trackers.contract import check_tracker
from vistk.trackers.idol import (
    IDOL,
    IDOLConfig,
    bisoftmax,
    mask_overlaps,
    not_suppressed,
    one_after_the_other,
)
from vistk.trackers.minvis import MinVIS, MinVISConfig
from vistk.trackers.registry import get_tracker, origin

SIZES = {"embed_dim": 2, "feature_channels": {}, "num_classes": 1}
X, Y, FAR = [9.0, 0.0], [0.0, 9.0], [-9.0, -9.0]
# A dot product of 81 between equal vectors, 0 between others: a bi-softmax of 1 or 0, or 1/2 where one of two
# softmaxes has no choice.


def idol(**fields: object) -> IDOL:
    return IDOL(IDOLConfig(**fields), **SIZES)  # type: ignore[arg-type]


def frame(
    *queries: tuple[list[float], float], overlap: dict[tuple[int, int], float] | None = None
) -> FrameQueries:
    """Queries with their vectors and class scores."""
    matrix = torch.eye(len(queries))
    for (a, b), iou in (overlap or {}).items():
        matrix[a, b] = matrix[b, a] = iou
    logits = torch.tensor([[math.log(s), math.log(1 - s)] for _, s in queries]).reshape(-1, 2)
    vectors = torch.tensor([v for v, _ in queries]).reshape(-1, 2)
    return FrameQueries(logits, {"query": vectors, "overlap": matrix})


def tracks(tracked: list[TrackedFrame]) -> list[dict[int, int]]:
    """For every frame which query each track is."""
    return [dict(zip(f.track_ids.tolist(), f.query_index.tolist(), strict=True)) for f in tracked]


def test_bisoftmax() -> None:
    # Over tracks 3/4 and 1/4; over the one candidate 1 and 1.
    found = bisoftmax(np.array([[math.log(3), 0.0]]))
    assert found.tolist() == [[pytest.approx(0.875), pytest.approx(0.625)]]


@pytest.mark.parametrize("assignment", ["greedy", "optimal"])
def test_vectors_that_are_not_finite_are_refused(assignment: str) -> None:
    # One such track would make all comparisons of later frames false, and every object begin anew.
    video = [frame((X, 0.9), ([math.nan, 0.0], 0.8)), frame((X, 0.9), (Y, 0.8))]
    with pytest.raises(ValueError, match="a similarity is not finite, expected finite vectors"):
        track_video(idol(assignment=assignment), video)


def test_the_best_drop_what_they_overlap_and_the_dropped_drop_nothing() -> None:
    overlap = np.eye(4)
    overlap[0, 1] = overlap[1, 0] = overlap[1, 2] = overlap[2, 1] = 0.6
    overlap[0, 3] = overlap[3, 0] = 0.5
    assert not_suppressed(overlap, 0.5).tolist() == [True, False, True, True]
    assert not_suppressed(overlap, 0.4).tolist() == [True, False, True, False]
    assert not_suppressed(np.zeros((0, 0)), 0.5).tolist() == []


def test_one_after_the_other() -> None:
    value = np.array([[0.6, 0.7], [0.1, 0.9], [0.5, 0.5]])
    assert one_after_the_other(value).tolist() == [1, 0, -1]
    assert value[1, 1] == 0.9  # as it came in
    assert one_after_the_other(np.zeros((2, 3))).tolist() == [-1, -1]


def test_mask_overlaps() -> None:
    masks = torch.tensor([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]).reshape(3, 1, 4)
    expected = [[1.0, 1 / 3, 0.0], [1 / 3, 1.0, 0.0], [0.0, 0.0, 0.0]]
    found = mask_overlaps((2.0 * masks - 1).expand(2, 5, 3, 1, 4))
    assert found.shape == (2, 5, 3, 3)
    torch.testing.assert_close(found, torch.tensor(expected).expand(2, 5, 3, 3))


def test_tracks_are_followed_whatever_the_order_of_queries() -> None:
    video = [
        frame((X, 0.9), (Y, 0.8)),
        frame((FAR, 0.01), (Y, 0.7), (X, 0.6)),
        frame((X, 0.5)),
        frame((Y, 0.5), (X, 0.9)),
    ]
    assert tracks(track_video(idol(), video)) == [{0: 0, 1: 1}, {1: 1, 0: 2}, {0: 0}, {0: 1, 1: 0}]


def test_logits_are_those_of_the_query() -> None:
    video = [frame((X, 0.9), (Y, 0.8)), frame((Y, 0.7), (X, 0.6))]
    last = track_video(idol(), video)[1]
    assert torch.equal(last.logits, video[1].logits[last.query_index])


def test_birth_wants_a_higher_score_than_being_found_again() -> None:
    video = [frame((X, 0.9), (Y, 0.15)), frame((X, 0.15), (Y, 0.3)), frame((X, 0.05), (Y, 0.11))]
    assert tracks(track_video(idol(), video)) == [{0: 0}, {0: 0, 1: 1}, {1: 1}]


def test_a_stranger_begins_a_track() -> None:
    # The newcomer beside X: over tracks it has no choice (1), over candidates X wins (0): 1/2, which is not
    # above 0.5. With a lower threshold X would take the track first, and the newcomer finds none.
    for threshold in (0.5, 0.3):
        video = [frame((X, 0.9)), frame((Y, 0.6), (X, 0.8))]
        assert tracks(track_video(idol(match_score=threshold), video))[1] == {0: 1, 1: 0}


def test_one_candidate_and_one_track_are_always_a_pair() -> None:
    # As published: both softmaxes have one entry. The cosine tells them apart.
    video = [frame((X, 0.9)), frame((Y, 0.9))]
    assert tracks(track_video(idol(), video))[1] == {0: 0}
    assert tracks(track_video(idol(similarity="cosine"), video))[1] == {1: 0}


@pytest.mark.parametrize(("missing", "same"), [(2, True), (3, False)])
def test_death_and_revival(missing: int, same: bool) -> None:
    both, left = frame((X, 0.9), (Y, 0.9)), frame((X, 0.9))
    video = [both, *[left] * missing, both]
    found = tracks(track_video(idol(max_missing=2), video))
    assert set(found[-1].values()) == {0, 1}
    assert (found[-1].get(1) == 1) is same
    assert (found[-1].get(2) == 1) is not same


def test_ids_are_never_used_again() -> None:
    nothing = frame()
    found = tracks(
        track_video(
            idol(max_missing=0), [frame((X, 0.9)), nothing, frame((X, 0.9)), nothing, frame((X, 0.9))]
        )
    )
    assert found == [{0: 0}, {}, {1: 0}, {}, {2: 0}]


def test_duplicates_are_not_reported() -> None:
    twice = frame((X, 0.7), (X, 0.9), (Y, 0.5), overlap={(0, 1): 0.8, (0, 2): 0.8})
    for limit, expected in ((0.5, {0: 1, 1: 2}), (0.8, {0: 1, 1: 0, 2: 2}), (1.0, {0: 1, 1: 0, 2: 2})):
        assert tracks(track_video(idol(nms_iou=limit), [twice])) == [expected]


def test_without_suppression_no_overlap_is_needed() -> None:
    bare = FrameQueries(torch.zeros(2, 2), {"query": torch.tensor([X, Y])})
    assert tracks(track_video(idol(nms_iou=1.0), [bare])) == [{0: 0, 1: 1}]
    with pytest.raises(ValueError, match="vectors query, expected 'overlap'"):
        track_video(idol(), [bare])


def test_of_several_likely_tracks_the_one_seen_most_is_taken() -> None:
    # Tracks of (1, 0) and (0, 1), the second seen three times; then a vector nearer to the first. Bi-softmax
    # over tracks 0.6 and 0.4, over the one candidate 1 and 1: mean 0.8 and 0.7; times 1 and 3: 0.8 and 2.1.
    one, other, between = [1.0, 0.0], [0.0, 1.0], [math.log(1.5), 0.0]
    video = [frame((one, 0.9), (other, 0.8)), *[frame(([0.0, 40.0], 0.8))] * 2, frame((between, 0.9))]
    for weigh, expected in ((True, {1: 0}), (False, {0: 0})):
        tracker = idol(weigh_lifetime=weigh, memory="momentum", momentum=0.0)
        assert tracks(track_video(tracker, video))[1:] == [{1: 0}, {1: 0}, expected]


def test_optimal_assignment_trades_where_the_greedy_one_does_not() -> None:
    # Cosines 0.9, 0.8 of the first candidate, 0.85, 0 of the second: greedy takes 0.9 and leaves the second.
    a, b = [1.0, 0.0], [0.0, 1.0]
    first, second = [0.6, 0.55], [0.9, 0.0]
    video = [frame((a, 0.9), (b, 0.8)), frame((first, 0.9), (second, 0.5))]
    fields = {"similarity": "cosine", "match_score": 0.5, "weigh_lifetime": False, "memory": "last"}
    assert tracks(track_video(idol(assignment="greedy", **fields), video))[1] == {0: 0, 2: 1}
    assert tracks(track_video(idol(assignment="optimal", **fields), video))[1] == {1: 0, 0: 1}


def test_optimal_assignment_keeps_the_threshold() -> None:
    video = [frame((X, 0.9)), frame((Y, 0.9))]
    tracker = idol(assignment="optimal", similarity="cosine")
    assert tracks(track_video(tracker, video))[1] == {1: 0}


@pytest.mark.parametrize("seed", range(5))
def test_ladder_without_its_extras_it_is_minvis(seed: int) -> None:
    # Vectors of positive numbers: no cosine is below the threshold.
    rng = torch.Generator().manual_seed(seed)
    queries, width = [(1, 3), (7, 5), (23, 9), (10, 2), (4, 31)][seed]
    video = [
        FrameQueries(
            torch.randn(queries, 2, generator=rng), {"query": torch.rand(queries, width, generator=rng)}
        )
        for _ in range(9)
    ]
    plain = idol(
        select_score=0.0,
        birth_score=0.0,
        match_score=0.0,
        nms_iou=1.0,
        similarity="cosine",
        assignment="optimal",
        memory="last",
    )
    found, expected = (tracks(track_video(t, video)) for t in (plain, MinVIS(MinVISConfig(), **SIZES)))
    paths = [
        sorted([frame[track] for frame in answer] for track in answer[0]) for answer in (found, expected)
    ]
    assert paths[0] == paths[1]


def test_training_does_not_compare_masks() -> None:
    out = FrameOutput(
        torch.zeros(1, 2, 3, 2),
        torch.zeros(1, 2, 3, 4, 4),
        torch.zeros(1, 2, 3, 2),
        torch.zeros(1, 2, 2, 4, 4),
        {},
    )
    tracker = idol()
    assert set(tracker.train().describe(out).vectors) == {"query"}
    assert tracker.eval().describe(out).vectors["overlap"].shape == (1, 2, 3, 3)


def test_ctvis_is_a_configuration() -> None:
    cls, config = get_tracker("ctvis")
    assert cls is IDOL
    assert (config.memory, config.contrast, config.match_score) == ("similarity", "clip", 0.3)
    assert origin("ctvis") == "ablation of idol"


@pytest.mark.parametrize(
    "config",
    [
        IDOLConfig(memory="momentum", assignment="optimal", similarity="cosine", nms_iou=1.0),
        IDOLConfig(memory="last", hidden_dim=7, head_layers=1, max_missing=0, contrast="clip", noise=0.5),
        IDOLConfig(select_score=0.0, birth_score=0.0, match_score=0.0, memory="similarity"),
        IDOLConfig(contrast_weight=0.0, auxiliary_weight=0.0, memory_frames=1),
    ],
)
def test_contract_of_other_configs(config: IDOLConfig) -> None:
    check_tracker(IDOL, config)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"memory": "weigted"}, "'weigted', expected one of weighted, .*; nearest is 'weighted'"),
        ({"contrast": "clips"}, "expected one of pair, clip; nearest is 'clip'"),
        ({"match_score": 1.5}, "match_score is 1.5, expected 0 to 1"),
        ({"noise": -0.1}, "noise is -0.1, expected 0 to 1"),
        ({"memory_frames": 0}, "memory_frames is 0, expected 1 or more"),
        ({"max_missing": -1}, "max_missing is -1, expected 0 or more"),
    ],
)
def test_fields_out_of_range_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        idol(**fields)


def test_the_page_has_every_knob_and_both_values() -> None:
    page = (Path(__file__).parents[2] / "docs/trackers/idol.md").read_text()
    knobs = page.partition("## Knobs")[2].partition("\n## ")[0]
    table = [line.strip("| ").split(" | ") for line in knobs.splitlines() if line.startswith("| `")]
    shown = {row[0].strip("`"): row[1:3] for row in table}
    configs = [dataclasses.asdict(get_tracker(name)[1]) for name in ("idol", "ctvis")]
    words = {None: "null", True: "true"}
    expected = {key: [words.get(config[key], str(config[key])) for config in configs] for key in configs[0]}
    assert shown == expected
