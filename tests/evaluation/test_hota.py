"""Tracking metrics against the TrackEval package, and by hand."""

import numpy as np
import pytest
from trackeval.metrics import CLEAR, HOTA, Identity

from vistk.evaluation.files import load_ground_truth, load_results
from vistk.evaluation.hota import COUNTS, HOTA_COUNTS, PLAIN_COUNTS, count_sequence, tracking_metrics
from vistk.evaluation.keys import Key
from vistk.evaluation.overlaps import cells
from vistk.evaluation.scores import score

ATOL = 1e-9
QUIET = {"PRINT_CONFIG": False}


def as_trackeval(similarity, instances, tracks):
    """The data dict that TrackEval's metrics read."""
    gt_ids = [np.flatnonzero(row) for row in instances]
    tracker_ids = [np.flatnonzero(row) for row in tracks]
    known = [np.unique(np.concatenate(ids)) for ids in (gt_ids, tracker_ids)]
    return {
        "num_timesteps": len(similarity),
        "num_gt_dets": int(instances.sum()),
        "num_tracker_dets": int(tracks.sum()),
        "num_gt_ids": len(known[0]),
        "num_tracker_ids": len(known[1]),
        "gt_ids": [np.searchsorted(known[0], ids) for ids in gt_ids],
        "tracker_ids": [np.searchsorted(known[1], ids) for ids in tracker_ids],
        "similarity_scores": [
            s[np.ix_(g, d)] for s, g, d in zip(similarity, gt_ids, tracker_ids, strict=True)
        ],
    }


def trackeval_metrics():
    return HOTA(), Identity(QUIET), CLEAR(QUIET)


def assert_equal(counts, metrics, hota, identity, clear):
    for name in ("HOTA_TP", "HOTA_FN", "HOTA_FP"):
        np.testing.assert_allclose(counts[name], hota[name], rtol=0, atol=ATOL)
    expected = hota | identity | clear
    for name in PLAIN_COUNTS:
        assert counts[name] == pytest.approx(expected[name], rel=0, abs=ATOL), name
    for name, value in metrics.items():
        if not np.isnan(value):  # undefined here, 0 or 1 there
            assert value == pytest.approx(np.mean(expected[name]), abs=ATOL), name


@pytest.mark.parametrize("levels", [None, 4], ids=["distinct", "ties"])
@pytest.mark.parametrize("size", [(1, 1, 1), (7, 3, 2), (7, 2, 5), (23, 4, 6), (5, 0, 3), (5, 3, 0)])
def test_sequences_as_trackeval(size, levels):
    rng = np.random.default_rng(sum(size))
    for _ in range(10):
        similarity = rng.random(size)
        if levels:
            similarity = np.round(similarity * levels) / levels
        instances, tracks = rng.random((size[0], size[1])) < 0.7, rng.random((size[0], size[2])) < 0.7
        counts = count_sequence(similarity, instances, tracks).counts
        data = as_trackeval(similarity, instances, tracks)
        expected = [metric.eval_sequence(data) for metric in trackeval_metrics()]
        assert_equal(counts, tracking_metrics(counts), *expected)


@pytest.fixture(scope="module")
def swept(make_random_scene):
    """One pass over three thresholds; the first counts in ``metrics``."""
    scene = make_random_scene(11)
    return scene, score(scene.ground_truth, scene.results, score_threshold=(0.4, 0.0, 0.8))


@pytest.mark.parametrize("place", range(3))
def test_videos_and_classes_pooled_as_trackeval(swept, place):
    scene, report = swept
    tracking = report.tracking[place]
    threshold = tracking.score_threshold
    ground_truth = load_ground_truth(scene.ground_truth)
    by_class = {}
    for cell in cells(ground_truth, load_results(scene.results, ground_truth)):
        kept = cell.scores >= threshold
        data = as_trackeval(
            cell.frame_iou()[:, kept].transpose(0, 2, 1), cell.instance_areas > 0, cell.areas[:, kept] > 0
        )
        by_class.setdefault(cell.category, {})[cell.video] = data
    metrics = trackeval_metrics()
    combined = [
        {
            k: metric.combine_sequences({v: metric.eval_sequence(d) for v, d in videos.items()})
            for k, videos in by_class.items()
        }
        for metric in metrics
    ]
    for k, name in enumerate(ground_truth.categories.values()):
        own = tracking.pooled(k)
        assert_equal(own, tracking_metrics(own), *(metric[k] for metric in combined))
        for metric, value in (tracking_metrics(own) | {m: own[m] for m in COUNTS}).items():
            np.testing.assert_equal(
                report.numbers[Key(metric, name, score_threshold=threshold)], float(value)
            )
    pooled = tracking.pooled()
    expected = [metric.combine_classes_det_averaged(c) for metric, c in zip(metrics, combined, strict=True)]
    assert_equal(pooled, tracking_metrics(pooled), *expected)


def test_metrics_are_those_of_the_first_threshold(swept):
    scene, report = swept
    alone = score(scene.ground_truth, scene.results, score_threshold=0.4)
    assert report.metrics == alone.metrics
    assert report.per_category == alone.per_category
    assert report.counts == alone.counts
    assert 0.1 < report.metrics["AssA"] < 0.95
    assert report.counts["IDSW"] > 0


def test_a_swap_by_hand():
    """Two instances over four frames; the two tracks swap them half way."""
    similarity = np.zeros((4, 2, 2))
    similarity[:2] = np.eye(2)
    similarity[2:] = np.eye(2)[::-1]
    counts = count_sequence(similarity, np.ones((4, 2)), np.ones((4, 2))).counts
    metrics = tracking_metrics(counts)
    assert metrics["DetA"] == metrics["LocA"] == 1
    assert metrics["AssA"] == pytest.approx(2 / 6)  # each pair: 2 frames together, 4 + 4 - 2 in all
    assert metrics["HOTA"] == pytest.approx((2 / 6) ** 0.5)
    assert metrics["IDF1"] == 0.5
    assert counts["IDSW"] == 2
    assert metrics["MOTA"] == pytest.approx((8 - 2) / 8)


def test_absent_masks_do_not_match():
    similarity = np.ones((2, 1, 1))
    counts = count_sequence(similarity, np.array([[True], [False]]), np.array([[True], [True]])).counts
    assert counts["HOTA_TP"].tolist() == [1.0] * 19
    assert counts["HOTA_FP"].tolist() == [1.0] * 19


def test_score_threshold_is_inclusive_and_leaves_ap_alone(scene):
    low, at, high = (
        score(scene.ground_truth, scene.results, score_threshold=value) for value in (0.1, 0.8, 0.81)
    )
    assert low.metrics["IDF1"] == pytest.approx(2 * 10 / (10 + 16))  # two false tracks of three frames
    assert at.metrics["IDF1"] == at.metrics["MOTA"] == 1
    assert high.metrics["IDR"] == pytest.approx(6 / 10)
    assert low.metrics["AP"] == at.metrics["AP"] == high.metrics["AP"] == pytest.approx(1.0)
    for value, found in (
        (float("nan"), "nan"),
        ((0.3, float("inf")), "0.3, inf"),
        ((), "empty"),
        ("35", "'35'"),  # not 3 and 5
    ):
        with pytest.raises(ValueError, match=f"score_threshold is {found}, expected a finite number"):
            score(scene.ground_truth, scene.results, score_threshold=value)


def test_several_labels_of_one_track_count_per_class(scene):
    """The same masks predicted as cat and as dog: right as a cat, a false track as a dog."""
    scene.predict(0, 1, 0.9, scene.box(0, 0, 3, 2))
    report = score(scene.ground_truth, scene.results)
    assert report.per_category["cat"]["IDF1"] == 1
    assert report.per_category["dog"]["IDF1"] == pytest.approx(4 / (4 + 0.5 * 3))
    assert report.metrics["IDF1"] == pytest.approx(10 / (10 + 0.5 * 3))


def test_nothing_to_measure_is_nan():
    counts = count_sequence(np.zeros((3, 0, 0)), np.zeros((3, 0)), np.zeros((3, 0))).counts
    assert counts.keys() == {*HOTA_COUNTS, *PLAIN_COUNTS}
    assert all(np.isnan(value) for value in tracking_metrics(counts).values())
