"""What trackers say they go by is what they go by."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from vistk.ops.assignment import best_assignment
from vistk.structures import FrameQueries, TrackedFrame
from vistk.trackers.base import Tracker
from vistk.trackers.contract import CHECKS, ContractError, Subject, check_similarities
from vistk.trackers.contract_videos import make_videos
from vistk.trackers.minvis import MinVIS, MinVISConfig, MinVISState
from vistk.trackers.registry import get_tracker

SIZES = {"embed_dim": 2, "feature_channels": {"res3": 2, "res4": 2, "res5": 2}, "num_classes": 1}


def build(name: str, **fields: Any) -> Tracker[Any]:
    cls, config = get_tracker(name)
    return cls(replace(config, **fields), **SIZES).eval()


def frame(logits: list[list[float]], **vectors: list[list[float]]) -> FrameQueries:
    return FrameQueries(torch.tensor(logits), {name: torch.tensor(value) for name, value in vectors.items()})


SURE = [[9.0, -9.0], [9.0, -9.0]]


def test_by_hand_of_minvis() -> None:
    tracker = build("minvis")
    state = tracker.start()
    first = frame(SURE, query=[[1.0, 0.0], [0.0, 2.0]])
    assert tracker.similarities(state, first) == {}
    tracker.step(state, first)
    found = tracker.similarities(state, frame(SURE, query=[[0.0, 3.0], [3.0, 4.0]]))
    assert found.keys() == {"query", "mixed"}
    torch.testing.assert_close(found["mixed"], torch.tensor([[0.0, 0.6], [1.0, 0.8]]))


def test_by_hand_of_visage() -> None:
    tracker = build("visage", appearance_weight=0.25, levels=["res3"])
    state = tracker.start()
    tracker.step(state, frame(SURE, query=[[1.0, 0.0], [0.0, 1.0]], appearance=[[0.0, 1.0], [1.0, 0.0]]))
    found = tracker.similarities(
        state, frame(SURE, query=[[1.0, 0.0], [0.0, 1.0]], appearance=[[3.0, 4.0], [0.0, 1.0]])
    )
    torch.testing.assert_close(found["query"], torch.eye(2))
    torch.testing.assert_close(found["appearance"], torch.tensor([[0.8, 1.0], [0.6, 0.0]]))
    torch.testing.assert_close(found["mixed"], torch.tensor([[0.95, 0.25], [0.15, 0.75]]))


def test_what_has_no_weight_is_not_compared() -> None:
    tracker = build("visage-no-appearance")
    state = tracker.start()
    queries = frame(SURE, query=[[1.0, 0.0], [0.0, 1.0]])
    tracker.step(state, queries)
    assert tracker.similarities(state, queries).keys() == {"query", "mixed"}


def test_the_gate_is_in_mixed_and_not_in_the_parts() -> None:
    tracker = build("gated-memory", appearance_weight=0.0, new_similarity=None, query_power=1.0)
    state = tracker.start()
    look = [[1.0, 0.0], [0.0, 1.0]]
    tracker.step(state, frame(SURE, query=look))
    even = [[9.0, -9.0], [0.0, 0.0]]  # the second query is an object with probability 1/2
    found = tracker.similarities(state, frame(even, query=look))
    torch.testing.assert_close(found["query"], torch.eye(2))
    torch.testing.assert_close(found["mixed"], torch.tensor([[1.0, 0.0], [0.0, 0.5]]))


def test_tracks_that_die_have_no_rows_and_queries_that_are_not_compared_no_numbers() -> None:
    tracker = build("idol", max_missing=1, nms_iou=1.0, similarity="cosine")
    state = tracker.start()
    assert tracker.tracks(state).tolist() == []
    no_object = [-9.0, 9.0]
    tracker.step(state, frame(SURE, query=[[1.0, 0.0], [0.0, 1.0]]))  # tracks 0 and 1
    one = frame([SURE[0], no_object], query=[[1.0, 0.0], [5.0, 5.0]])
    found = tracker.similarities(state, one)
    assert tracker.tracks(state).tolist() == [0, 1]
    torch.testing.assert_close(
        found["mixed"], torch.tensor([[1.0, torch.nan], [0.0, torch.nan]]), equal_nan=True
    )
    tracker.step(state, one)
    assert tracker.tracks(state).tolist() == [0, 1]  # track 1 was missing once
    tracker.step(state, one)
    assert tracker.tracks(state).tolist() == [0]
    assert tracker.similarities(state, one)["mixed"].shape == (1, 2)
    nothing = frame([no_object, no_object], query=[[1.0, 0.0], [0.0, 1.0]])
    assert tracker.similarities(state, nothing)["mixed"].isnan().all()


def test_the_tracks_of_idol_are_those_above_its_limit() -> None:
    cls, config = get_tracker("idol")
    config = replace(config, assignment="optimal", similarity="cosine")
    subject = Subject("idol", cls, config)
    tracker = subject.build()
    videos = make_videos(3)
    with torch.no_grad():
        frames = videos.with_targets(tracker.describe(videos.out))[0]
    state = tracker.start()
    continued = 0
    for queries in frames:
        mixed, ids = tracker.similarities(state, queries).get("mixed"), tracker.tracks(state)
        tracked = dict(zip(*(x.tolist() for x in _fields(tracker.step(state, queries))), strict=True))
        if mixed is None:
            continue
        compared = (~mixed.isnan().any(0)).nonzero()[:, 0]
        rows, columns = best_assignment(mixed[:, compared])
        for row, column in zip(rows.tolist(), compared[columns].tolist(), strict=True):
            expected = column if mixed[row, column] > config.match_score else None
            assert tracked.get(int(ids[row])) == expected
            continued += expected is not None
    assert continued > 5


def _fields(tracked: TrackedFrame) -> tuple[Tensor, Tensor]:
    return tracked.track_ids, tracked.query_index


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("cavis", {"query", "mixed"}),
        ("dvis", {"query", "mixed"}),
        ("gated-memory", {"query", "appearance", "mixed"}),
        ("identity", set()),
        ("idol", {"mixed"}),
        ("kalman", {"box", "mixed"}),
        ("mask-iou", {"mask", "mixed"}),
        ("minvis", {"query", "mixed"}),
        ("oracle", set()),
        ("propagation", set()),
        ("tracklet-linking", {"query", "appearance", "mixed"}),
        ("visage", {"query", "appearance", "mixed"}),
        ("vita", {"query", "mixed"}),
    ],
)
def test_who_goes_by_what(name: str, keys: set[str]) -> None:
    tracker = Subject.of(name).build()
    videos = make_videos(4)
    with torch.no_grad():
        frames = videos.with_targets(tracker.describe(videos.out))[0]
        state = tracker.start()
        tracker.step(state, frames[0])
        assert tracker.similarities(state, frames[1]).keys() == keys


# ---------------------------------------------------------------- the check of the contract


class Broken(MinVIS):
    Config = MinVISConfig


class TakesTheSecondBest(Broken):
    def step(self, state: MinVISState, frame: FrameQueries) -> TrackedFrame:
        tracked = super().step(state, frame)
        swapped = tracked.query_index.roll(1)
        state.previous = frame.vectors["query"][swapped]
        return TrackedFrame(tracked.track_ids, swapped, frame.logits[swapped])


class NamesItsTracks(TakesTheSecondBest):
    """Promises nothing of how it decides."""

    def tracks(self, state: MinVISState) -> Tensor:
        return torch.arange(0 if state.previous is None else len(state.previous))


class LeavesSlotsOut(Broken):
    def step(self, state: MinVISState, frame: FrameQueries) -> TrackedFrame:
        tracked = super().step(state, frame)
        return TrackedFrame(tracked.track_ids[1:], tracked.query_index[1:], tracked.logits[1:])


class Forgets(Broken):
    def similarities(self, state: MinVISState, frame: FrameQueries) -> dict[str, Tensor]:
        found = super().similarities(state, frame)
        state.previous = frame.vectors["query"]
        return found


class WritesIntoTheFrame(Broken):
    def similarities(self, state: MinVISState, frame: FrameQueries) -> dict[str, Tensor]:
        frame.vectors["query"].mul_(2)
        return super().similarities(state, frame)


class FewQueries(Broken):
    def similarities(self, state: MinVISState, frame: FrameQueries) -> dict[str, Tensor]:
        found = super().similarities(state, frame)
        return {**found, **({"query": found["mixed"][:, 1:]} if found else {})}


class Numbered(Broken):
    def similarities(self, state: MinVISState, frame: FrameQueries) -> dict[str, Tensor]:
        found = super().similarities(state, frame)
        return {**found, 3: found["mixed"]} if found else {}  # type: ignore[dict-item]


class SameNames(NamesItsTracks):
    def tracks(self, state: MinVISState) -> Tensor:
        return torch.zeros_like(super().tracks(state))


def test_the_check_is_one_of_the_contract_and_asks_no_optimum_of_who_names_tracks() -> None:
    assert check_similarities in CHECKS
    check_similarities(Subject.of(NamesItsTracks))


@pytest.mark.parametrize(
    ("tracker", "message"),
    [
        (TakesTheSecondBest, "in frame 1, the tracks of step.. have 'mixed' similarities of .* in sum"),
        (LeavesSlotsOut, "in frame 1, step.. reports the tracks .* expected all of 7 slots"),
        (Forgets, "similarities.. in frame 1 changed the tracks"),
        (WritesIntoTheFrame, "similarities.. changed the frame"),
        (FewQueries, r"similarities..\['query'\] is torch.float32 \(7, 6\), .* \(7, 7\)"),
        (Numbered, "key 3, expected a str"),
        (SameNames, "expected unique int64 ids"),
    ],
)
def test_who_breaks_it_is_told(tracker: type[Tracker[Any]], message: str) -> None:
    with pytest.raises(ContractError, match=f"{tracker.__name__}: .*{message}"):
        check_similarities(Subject.of(tracker))
