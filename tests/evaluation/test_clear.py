"""CLEAR by hand; its agreement with TrackEval is in test_hota.py."""

import numpy as np
import pytest

from vistk.evaluation.clear import clear_counts, clear_matches


def test_a_pair_goes_on_although_another_fits_better():
    similarity = np.array([[[0.9, 0.0]], [[0.5, 1.0]], [[0.49, 1.0]]])  # one instance, two tracks
    everywhere = np.ones((3, 1), dtype=bool), np.ones((3, 2), dtype=bool)
    assert clear_matches(similarity, *everywhere)[:, 0].tolist() == [0, 0, 1]
    counts = clear_counts(similarity, *everywhere)
    assert [float(counts[name]) for name in ("CLR_TP", "CLR_FN", "CLR_FP", "IDSW", "Frag", "MT")] == [
        *(3.0, 0.0, 3.0, 1.0, 0.0, 1.0)
    ]
    assert counts["MOTP_sum"] == pytest.approx(0.9 + 0.5 + 1.0, abs=1e-15)


def test_a_gap_without_any_track_is_no_fragment():
    """Frames in which nothing could match are passed over; one in which another instance could is not."""
    similarity = np.ones((4, 2, 1)) * np.array([1.0, 0.0])[None, :, None]
    instances, tracks = np.ones((4, 2), dtype=bool), np.array([[True], [False], [True], [True]])
    assert clear_counts(similarity, instances, tracks)["Frag"] == 0
    similarity[2] = [[0.0], [0.0]]
    counts = clear_counts(similarity, instances, np.ones((4, 1), dtype=bool))
    assert (counts["Frag"], counts["IDSW"], counts["PT"], counts["ML"]) == (1, 0, 1, 1)


@pytest.mark.parametrize("shape", [(0, 2, 1), (1, 0, 3), (23, 3, 0), (7, 0, 0)])
def test_nothing_to_match(shape):
    num_frames, num_instances, num_tracks = shape
    there = np.ones((num_frames, num_instances), dtype=bool), np.ones((num_frames, num_tracks), dtype=bool)
    assert (clear_matches(np.ones(shape), *there) == -1).all()
    counts = clear_counts(np.ones(shape), *there)
    assert counts["CLR_TP"] == counts["IDSW"] == counts["Frag"] == counts["MT"] == 0
    assert counts["ML"] == (num_instances if num_frames else 0)
