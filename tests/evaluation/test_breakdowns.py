"""Attributes of instances by hand, and the AP, recall and AssA of their groups."""

import copy

import numpy as np
import pytest

from vistk.evaluation.breakdowns import ATTRIBUTES, groups_of, longest_gaps, members, speed
from vistk.evaluation.files import EvaluationFileError, load_ground_truth, load_results
from vistk.evaluation.keys import Key
from vistk.evaluation.overlaps import video_overlaps
from vistk.evaluation.scores import score


def overlaps_of(scene):
    truth = load_ground_truth(scene.ground_truth)
    return truth, list(video_overlaps(truth, load_results(scene.results, truth)))


def names(by, truth):
    return [group.name for group in groups_of([by], truth)]


def group(scores, by, name, metric, threshold=None):
    return scores.numbers[Key(metric, by=by, group=name, score_threshold=threshold)]


def part_of(scene, keep):
    """The scene with other videos' annotations and predictions left out."""
    content = scene.ground_truth
    truth = content | {
        "videos": [v for v in content["videos"] if keep(v["id"])],
        "annotations": [a for a in content["annotations"] if keep(a["video_id"])],
    }
    return truth, [r for r in scene.results if keep(r["video_id"])]


def test_groups_by_name(scene):
    truth = load_ground_truth(scene.ground_truth)
    assert names("length", truth) == ["1-16", "17-32", "33+"]
    assert names("objects", truth) == names("crowding", truth) == ["1", "2-3", "4-7", "8+"]
    assert names("gap", truth) == ["0", "1-10", "11-30", "31+"]
    assert names("size", truth) == ["small", "medium", "large"]
    scene.ground_truth["annotations"][0]["occlusion"] = ["no_occlusion"] * 3
    occluded = load_ground_truth(scene.ground_truth)
    assert names("length", occluded) == ["1-16", "17-32", "33-96", "97+"]
    assert names("occlusion", occluded) == ["so", "mo", "ho"]
    with pytest.raises(EvaluationFileError, match="no annotation has 'occlusion'"):
        groups_of(["occlusion"], truth)
    with pytest.raises(EvaluationFileError, match="no breakdown by 'colour', expected some of occlusion"):
        groups_of(["colour"], truth)


def test_longest_gap():
    present = np.array([[1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0]], dtype=bool)
    np.testing.assert_array_equal(longest_gaps(present), [2, 2, np.nan, 0])


def test_speed_by_hand(new_scene):
    scene = new_scene(num_frames=4, height=23, width=17)
    scene.video(0)
    scene.category(0, "cat")
    tube = np.zeros(scene.shape, dtype=bool)
    for t, left in ((0, 0), (1, 2), (3, 8)):  # 2 in a frame, then 6 in two; the side is 4
        tube[t, 3:7, left : left + 4] = True
    scene.annotate(0, 0, 0, tube)
    still = tube.copy()
    still[:] = tube[0]
    scene.annotate(1, 0, 0, still)
    short = np.zeros_like(tube)
    short[2] = tube[0]
    scene.annotate(2, 0, 0, short)
    truth, (video,) = overlaps_of(scene)
    assert speed(video.instances[0].masks) == pytest.approx((2 / 4 + 3 / 4) / 2)
    assert speed(video.instances[1].masks) == 0
    assert np.isnan(speed(video.instances[2].masks))
    found = members(groups_of(["speed"], truth), video)
    assert found.instances.tolist() == [[False, True, False], [False] * 3, [True, False, False]]


def test_every_instance_is_in_one_group_of_each(make_random_scene):
    truth, videos = overlaps_of(make_random_scene(3))
    for by in ("length", "objects", "gap", "crowding"):
        groups = groups_of([by], truth)
        for video in videos:
            shown = (video.instance_areas > 0).any(0)
            expected = np.where(shown | np.isin(by, ("objects", "crowding")), 1, 0)
            assert members(groups, video).instances.sum(0).tolist() == expected.tolist(), by


def test_groups_of_videos_are_evaluations_of_these_videos(make_random_scene):
    scene = make_random_scene(5, videos=6)
    scene.ground_truth["annotations"] = [
        a for a in scene.ground_truth["annotations"] if not (a["video_id"] % 2 and a["id"] % 4 > 1)
    ]  # two objects in odd videos, four in even ones
    scores = score(scene.ground_truth, scene.results, by=["objects"])
    for name, remainder in (("2-3", 1), ("4-7", 0)):
        alone = score(*part_of(scene, lambda v, r=remainder: v % 2 == r))
        assert group(scores, "objects", name, "AP") == pytest.approx(alone.metrics["AP"], abs=1e-12)
        assert group(scores, "objects", name, "AR100") == pytest.approx(alone.metrics["AR100"], abs=1e-12)
        assert group(scores, "objects", name, "AssA", 0.3) == pytest.approx(alone.metrics["AssA"], abs=1e-12)
    assert np.isnan(group(scores, "objects", "8+", "AP"))
    assert group(scores, "objects", "8+", "instances") == 0


def test_size_and_occlusion_are_the_official_ranges(make_random_scene):
    scene = make_random_scene(9)
    words = ("no_occlusion", "slight_occlusion", "severe_occlusion")
    for n, annotation in enumerate(scene.ground_truth["annotations"]):
        annotation["occlusion"] = [words[n % 3]] * 6
        annotation["areas"] = [100.0 + 30000 * (n % 2)] * 6
    scores = score(scene.ground_truth, scene.results, by=["size", "occlusion"])
    official = scores.metrics
    for by, suffixes in (("size", {"small": "s", "medium": "m", "large": "l"}), ("occlusion", None)):
        for name in names(by, scores.ground_truth):
            suffix = suffixes[name] if suffixes else name
            for metric, column in (("AP", f"AP{suffix}"), ("AR100", f"AR{suffix}")):
                found = group(scores, by, name, metric)
                assert found == pytest.approx(official[column], abs=1e-12) or (
                    np.isnan(found) and official[column] is None
                )
    assert official["APm"] is not None
    assert official["APho"] is not None


def test_false_predictions_count_in_every_group_of_instances(scene):
    """The dogs (two frames) are found; a better scored false dog halves precision in their group alone."""
    scene.predict(0, 1, 0.95, scene.box(0, 0, 1, 1))
    scene.ground_truth["annotations"][0]["segmentations"][1] = None  # a cat with a gap
    scores = score(scene.ground_truth, scene.results, by=["gap", "crowding"])
    assert group(scores, "gap", "0", "instances") == 3
    assert group(scores, "gap", "1-10", "instances") == 1
    # category "cat": 1 of 1; category "dog": 2 of 3, so precision 2/3 at every recall
    assert group(scores, "gap", "0", "AP50") == pytest.approx((1 + 2 / 3) / 2)
    assert group(scores, "gap", "1-10", "AP50") == pytest.approx(1.0)  # of cats alone: dogs have no such
    assert group(scores, "crowding", "1", "AP50") == pytest.approx((1 + 2 / 3) / 2)


def test_crowding_ignores_other_groups_and_counts_absent_classes(new_scene):
    scene = new_scene()
    scene.category(0, "cat")
    for video_id in (0, 1, 2):
        scene.video(video_id)
    scene.annotate(0, 0, 0, scene.box(0, 0, 3, 2))
    scene.annotate(1, 1, 0, scene.box(0, 0, 3, 2))
    scene.annotate(2, 1, 0, scene.box(4, 2, 7, 5))
    scene.predict(0, 0, 0.5, scene.box(0, 0, 3, 2))
    scene.predict(1, 0, 0.6, scene.box(3, 3, 4, 4))  # false, where there are two cats
    numbers = score(scene.ground_truth, scene.results, by=["crowding"])
    assert group(numbers, "crowding", "1", "AP50") == pytest.approx(1.0)
    assert group(numbers, "crowding", "2-3", "AP50") == 0
    scene.predict(2, 0, 0.9, scene.box(3, 3, 4, 4))  # false, where there is none: wrong in every group
    numbers = score(scene.ground_truth, scene.results, by=["crowding"])
    assert group(numbers, "crowding", "1", "AP50") == pytest.approx(0.5)


def test_assa_of_groups_is_a_weighted_mean(make_random_scene):
    """At each alpha AssA is a mean over true positives, so groups that split them have it as their mean."""
    scene = make_random_scene(2)
    for by in ATTRIBUTES.keys() - {"occlusion", "speed"}:
        scores = score(scene.ground_truth, scene.results, by=[by])
        counts, whole = scores.group_counts, scores.tracking[0].pooled()
        np.testing.assert_allclose(counts.true.sum((0, 1)), whole["HOTA_TP"], rtol=0, atol=1e-9)
        np.testing.assert_allclose(counts.association.sum((0, 1)), whole["association"], rtol=0, atol=1e-9)
        frames = sum(np.count_nonzero(v.instance_areas) for v in overlaps_of(scene)[1])
        assert counts.frames.sum() == frames


def test_crowds_are_in_no_group(scene):
    before = score(scene.ground_truth, scene.results, by=["length"])
    truth = copy.deepcopy(scene.ground_truth)
    truth["annotations"][0]["iscrowd"] = 1
    after = score(truth, scene.results, by=["length"])
    counts = (group(scores, "length", "1-16", "instances") for scores in (before, after))
    assert list(counts) == [4, 3]
