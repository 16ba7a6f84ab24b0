"""Resampling by counts equals evaluating files in which the drawn videos are repeated."""

import copy

import numpy as np
import pytest

from vistk.evaluation.bootstrap import (
    bootstrap,
    num_steps,
    paired_bootstrap,
    resampled,
    resampled_metrics,
    video_draws,
)
from vistk.evaluation.breakdowns import ATTRIBUTES
from vistk.evaluation.keys import Key
from vistk.evaluation.scores import score

BY = [name for name in ATTRIBUTES if name != "occlusion"]
EVERYTHING = {"by": BY, "score_threshold": (0.3, 0.6), "errors": True, "gaps": True}
AP = Key("AP")


@pytest.fixture(scope="module")
def pair(make_random_scene):
    scene = make_random_scene(7, videos=6)
    better = [r for r in scene.results if r["score"] > 0.2]
    return scene, *(score(scene.ground_truth, results, **EVERYTHING) for results in (scene.results, better))


def repeat_videos(scene, draws):
    """Files that hold video v draws[v] times; repeated predictions stay next to each other."""
    ground_truth, results = copy.deepcopy(scene.ground_truth), []
    ground_truth["videos"], ground_truth["annotations"] = [], []
    for video in scene.ground_truth["videos"]:
        for n in range(int(draws[video["id"]])):
            new_id = 100 * video["id"] + n
            ground_truth["videos"].append(video | {"id": new_id})
            for kind, entries in (("annotations", scene.ground_truth["annotations"]), (None, scene.results)):
                copies = [e | {"video_id": new_id} for e in entries if e["video_id"] == video["id"]]
                if kind:
                    for entry in copies:
                        entry["id"] = len(ground_truth[kind])
                        ground_truth[kind].append(entry)
                else:
                    results += copies
    return ground_truth, results


def test_equals_evaluating_repeated_videos(pair):
    scene, report, _ = pair
    draws = video_draws(6, 8, seed=3)
    steps = []
    found = resampled(report, draws, lambda: steps.append(1))
    assert len(steps) == num_steps(report) > 0
    assert found.keys() == report.numbers.keys()
    assert {key.by for key in found} == {"all", "error", "identity event", "oracle", *BY}
    for b, row in enumerate(draws):
        expected = score(*repeat_videos(scene, row), **EVERYTHING).numbers
        for key, values in found.items():
            assert values[b] == pytest.approx(expected[key], abs=1e-12, nan_ok=True), (key, b)


def test_metrics_by_name(pair):
    _, report, _ = pair
    draws = video_draws(6, 3, seed=0)
    by_key, by_name = resampled(report, draws), resampled_metrics(report, draws)
    assert by_name.keys() == report.metrics.keys()
    np.testing.assert_array_equal(by_name["AP50"], by_key[Key("AP50")])
    np.testing.assert_array_equal(by_name["AssA"], by_key[Key("AssA", score_threshold=0.3)])


def test_interval_holds_the_value_and_is_seeded(pair):
    _, report, _ = pair
    intervals = bootstrap(report, resamples=200, seed=1)
    for key, interval in intervals.items():
        assert interval.value == pytest.approx(report.numbers[key], abs=1e-12, nan_ok=True)
        assert np.isnan(interval.value) or interval.low <= interval.high
    assert intervals[AP].low < intervals[AP].high
    assert repr(bootstrap(report, resamples=200, seed=1)) == repr(intervals)
    assert bootstrap(report, resamples=200, seed=2)[AP] != intervals[AP]
    narrow = bootstrap(report, resamples=200, seed=1, confidence=0.5)[AP]
    assert intervals[AP].low < narrow.low < narrow.high < intervals[AP].high


def test_paired_difference(pair):
    _, a, b = pair
    difference = paired_bootstrap(a, b, resamples=100)
    for key, interval in difference.items():
        assert interval.value == pytest.approx(b.numbers[key] - a.numbers[key], abs=1e-12, nan_ok=True)
    same = paired_bootstrap(a, a, resamples=100)[AP]
    assert (same.value, same.low, same.high) == (0, 0, 0)
    # Both are measured on the same draws, so the difference varies less than either.
    assert difference[AP].half < bootstrap(a, resamples=100)[AP].half


def test_intervals_are_as_wide_as_theory_says(new_scene):
    """One object a video, found or not: AR is a share, whose standard error is known. B finds those of A and
    some more, so that the difference is a share, too: were the videos not the same, it would vary as both do.
    """
    scene, count = new_scene(1), 60
    scene.category(1, "cat")
    for video in range(count):
        scene.video(video)
        scene.annotate(video, video, 1, scene.box(0, 0, 3, 2))
        scene.predict(video, 1, 0.5, scene.box(0, 0, 3, 2))
    a, b = (score(scene.ground_truth, scene.results[:found], tracking=False) for found in (30, 36))
    key = Key("AR10")
    found = bootstrap(a, resamples=4000)[key], paired_bootstrap(a, b, resamples=4000)[key]
    for interval, share in zip(found, (30 / count, 6 / count), strict=True):
        assert interval.value == pytest.approx(share)
        assert interval.half == pytest.approx(1.96 * np.sqrt(share * (1 - share) / count), rel=0.08)


def test_undefined_resamples_are_left_out(scene):
    """Category "dog" only in video 0: resamples without it are means over "cat" alone."""
    scene.ground_truth["annotations"] = scene.ground_truth["annotations"][:3]
    report = score(scene.ground_truth, scene.results[:4])
    draws = np.array([[1.0, 1.0], [0.0, 2.0], [2.0, 0.0]])
    found = resampled_metrics(report, draws)
    assert found["AP"] == pytest.approx([1.0, 1.0, 1.0])
    nothing = resampled_metrics(report, np.zeros((1, 2)))
    assert all(np.isnan(value[0]) for value in nothing.values())


def test_errors(pair, scene):
    _, report, _ = pair
    with pytest.raises(ValueError, match="a paired comparison needs one ground truth"):
        paired_bootstrap(report, score(scene.ground_truth, scene.results))
    with pytest.raises(ValueError, match="0 resamples of 6 videos, expected at least one"):
        bootstrap(report, resamples=0)
    with pytest.raises(ValueError, match="confidence is 95, expected a number between 0 and 1"):
        bootstrap(report, resamples=2, confidence=95)
