"""The bench of identities: what it counts, by hand and on the recorded permutations."""

import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def identities(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    sys.modules.pop("identities", None)
    import identities

    return identities


def test_accuracy_by_hand(identities):
    objects = np.array([[7, 8], [8, 7], [7, 8]])
    kept = [{0: 1, 1: 2}, {0: 2, 1: 1}, {0: 1, 1: 2}]
    assert identities.accuracy(kept, objects) == (1, 1)
    swapped = [{0: 1, 1: 2}, {0: 1, 1: 2}, {0: 1, 1: 2}]  # as if places were kept: wrong in frame 1 only
    assert identities.accuracy(swapped, objects) == (0.5, 1)
    born = [{0: 1}, {1: 1}, {0: 1, 1: 5}]  # object 8 is found in frame 2, which is where its track begins
    assert identities.accuracy(born, objects) == (0.75, 0.75)
    assert str(identities.Accuracy(0.6, 0.75)) == "60.0 (80.0)"
    assert identities.accuracy([{0: 0}], objects[:1, :1]) == (0, 0)  # one frame: nothing to keep


@pytest.mark.parametrize("scenario", ["mild", "occlusion", "drift", "chaos"])
def test_minvis_has_the_accuracy_of_the_recorded_permutations(identities, scenario):
    stored = np.load(identities.GOLDEN / f"{scenario}.npz")
    recorded = [
        {query: slot for slot, query in enumerate(order)} for order in stored["minvis_perms"].tolist()
    ]
    expected = identities.accuracy(recorded, stored["object_of_slot"])
    assert identities.measure("minvis", scenario) == expected
    assert expected.right < 1 or scenario == "mild"


def test_every_tracker_is_measured_or_left_out_with_a_reason(identities):
    family = identities.families()
    assert set(identities.LEFT_OUT) <= set(family)
    for name, own in family.items():
        if own not in identities.LEFT_OUT:
            found = identities.measure(name, "mild")
            assert 0 < found.right <= found.tracked <= 1, name
