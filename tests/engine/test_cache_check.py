"""cached = live, for every tracker that has a name."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from vistk.engine.cache_check import check_cache
from vistk.engine.difference import Difference, difference
from vistk.structures import Tracklet, VideoPrediction
from vistk.trackers.base import Tracker
from vistk.trackers.contract import ContractError
from vistk.trackers.minvis import MinVIS
from vistk.trackers.registry import get_tracker, tracker_names

STORED = [name for name in tracker_names() if get_tracker(name)[0].propagate is Tracker.propagate]


@pytest.mark.parametrize("masks", ["rle", "logits"])
@pytest.mark.parametrize("name", STORED)
def test_predictions_from_the_cache_are_live_ones(name, masks, tmp_path):
    found = check_cache(name, tmp_path, masks=masks)
    assert found.predictions > 3
    assert (found.others, found.score, found.masks) == (0, 0.0, 0)


def test_propagated_queries_are_not_stored(tmp_path):
    with pytest.raises(ContractError, match="propagates queries, and so its frames are not stored"):
        check_cache("propagation", tmp_path)


@pytest.mark.parametrize("name", STORED)
def test_float16_changes_little_and_says_how_much(name, tmp_path, capsys):
    found = check_cache(name, tmp_path, dtype="float16")
    print(f"{name} in float16: {found}")
    assert "scores differ by up to" in capsys.readouterr().out
    assert found.others == 0
    assert 0 < found.score < 2e-3  # 11 bits of logits below 16
    assert found.masks <= 0.1 * found.frames


class LooksAtTypes(MinVIS):
    """Takes the queries in reverse order unless their masks are live."""

    def step(self, state, frame):
        tracked = super().step(state, frame)
        if type(frame.masks).__name__ == "FrameMasks":
            return tracked
        return replace(tracked, track_ids=tracked.track_ids.flip(0))


def test_a_tracker_that_treats_stored_queries_otherwise(tmp_path):
    with pytest.raises(ContractError, match="LooksAtTypes: cached queries give other predictions than live"):
        check_cache(LooksAtTypes, tmp_path)


class Forgets(MinVIS):
    """Has another answer every time."""

    calls = 0

    def start(self):
        Forgets.calls += 1
        return super().start()

    def step(self, state, frame):
        tracked = super().step(state, frame)
        return replace(tracked, logits=tracked.logits + Forgets.calls * torch.arange(len(tracked.logits[0])))


def test_a_tracker_that_is_no_function_of_its_input(tmp_path):
    with pytest.raises(ContractError, match="other predictions when it is read again"):
        check_cache(Forgets, tmp_path)


def test_difference_by_hand():
    a, b, c = ({"size": [1, 2], "counts": text} for text in "abc")
    one = Tracklet(4, 0, 0.5, (a, None, b))
    two = Tracklet(4, 1, 0.25, (a, a, a))
    left = VideoPrediction(1, (one, two))
    right = VideoPrediction(1, (replace(one, score=0.53125, segmentations=(a, c, c)), replace(two, label=2)))
    assert difference(left, left) == Difference(2, 0, 0.0, 0, 6)
    found = difference(left, right)
    assert found == Difference(predictions=2, others=2, score=0.03125, masks=2, frames=3)
    assert str(found) == "2 of 2 predictions are others, scores differ by up to 3.1e-02, 2 of 3 masks differ"
    assert difference(VideoPrediction(1, ()), VideoPrediction(1, ())) == Difference(0, 0, 0.0, 0, 0)
