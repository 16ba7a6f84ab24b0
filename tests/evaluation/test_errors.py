"""Planted errors are found where they were planted, and mending them in the file gives the AP promised."""

import copy
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vistk.evaluation.error_labels import ERRORS, find_errors
from vistk.evaluation.errors import WEIGHTS, diagnose
from vistk.evaluation.files import load_ground_truth, load_results
from vistk.evaluation.overlaps import cells, video_overlaps
from vistk.evaluation.ytvis_ap import (
    IOU_THRESHOLDS,
    MatchedCells,
    accumulate,
    average_precision,
    match_cell,
    recall_curve,
)

ATOL = 1e-9


def diagnosis_of(ground_truth, results, thresholds=(0.5,)):
    ground_truth = load_ground_truth(ground_truth)
    results = load_results(results, ground_truth)
    return diagnose(ground_truth, video_overlaps(ground_truth, results, all_pairs=True), thresholds)


def official_ap(ground_truth, results, threshold=0.5):
    """``{category: AP}``, NaN without instances."""
    if not ground_truth["annotations"]:  # such a file is refused
        return {category["name"]: float("nan") for category in ground_truth["categories"]}
    ground_truth = load_ground_truth(ground_truth)
    matched = [
        match_cell(cell, ("all",)) for cell in cells(ground_truth, load_results(results, ground_truth))
    ]
    names = list(ground_truth.categories.values())
    accumulated = accumulate(MatchedCells(("all",), len(ground_truth.videos), len(names), tuple(matched)))
    return dict(zip(names, average_precision(accumulated, threshold=threshold).tolist(), strict=True))


def mend(scene, diagnosis, kind):
    """The files with all errors of a kind mended by hand, as the definitions say."""
    ground_truth, results = copy.deepcopy((scene.ground_truth, scene.results))
    annotations, entries, matched = {}, {}, set()
    for video in diagnosis.videos:
        video_id = diagnosis.ground_truth.videos[video.video].id
        annotations[video_id] = [a for a in ground_truth["annotations"] if a["video_id"] == video_id]
        own = [entry for entry in results if entry["video_id"] == video_id]
        entries[video_id] = sorted(own, key=lambda entry: -entry["score"])
        wrong = {r.prediction for r in diagnosis.records if r.video == video_id}
        for d, entry in enumerate(entries[video_id]):
            if d not in wrong:
                entry["right"] = True
        matched |= {(video_id, int(g)) for g in np.flatnonzero(video.labels[0].found)}
    removed = []
    for r in diagnosis.records:
        if kind == "false_positives" and r.prediction is not None:
            removed.append(entries[r.video][r.prediction])
        elif r.kind == kind == "missed":
            removed.append(annotations[r.video][r.instance])
        elif r.kind == kind and (
            kind in ("duplicate", "both", "background") or (r.video, r.instance) in matched
        ):
            removed.append(entries[r.video][r.prediction])
        elif r.kind == kind:
            matched.add((r.video, r.instance))
            key = "category_id" if kind == "classification" else "segmentations"
            entries[r.video][r.prediction][key] = annotations[r.video][r.instance][key]
    if kind == "false_negatives":
        for video_id, group in annotations.items():
            removed += [a for g, a in enumerate(group) if (video_id, g) not in matched and not a["iscrowd"]]
    ground_truth["annotations"] = [a for a in ground_truth["annotations"] if all(a is not x for x in removed)]
    return ground_truth, [entry for entry in results if all(entry is not x for x in removed)]


def assert_costs_as_promised(scene, threshold=0.5):
    diagnosis = diagnosis_of(scene.ground_truth, scene.results, (threshold,))
    before = official_ap(scene.ground_truth, scene.results, threshold)
    present = [name for name, ap in before.items() if not np.isnan(ap)]
    assert diagnosis.ap == pytest.approx(np.mean([before[name] for name in present]), abs=ATOL)
    for kind in (*ERRORS, *WEIGHTS):
        after = official_ap(*mend(scene, diagnosis, kind), threshold)
        after = {name: 1.0 if np.isnan(after[name]) else after[name] for name in present}
        promised = {name: costs.ap + costs.cost[kind] for name, costs in diagnosis.per_category.items()}
        assert {name: promised[name] for name in present} == pytest.approx(after, abs=ATOL), kind
        assert diagnosis.ap + diagnosis.cost[kind] == pytest.approx(np.mean(list(after.values())), abs=ATOL)
        assert diagnosis.cost[kind] >= -1e-12
    return diagnosis


WHERE = {0: (0, 0, 6, 6), 1: (8, 8, 16, 15)}  # box of the cat and of the dog of each video


@pytest.fixture
def right(new_scene):
    """Two videos, a cat and a dog in each, all found, over ten frames; category and video ids from 0."""
    scene = new_scene(10, 23, 17)
    scene.category(0, "cat")
    scene.category(1, "dog")
    for video in (0, 1):
        scene.video(video)
        for k in WHERE:
            scene.annotate(2 * video + k, video, k, scene.box(*WHERE[k]))
            scene.predict(video, k, 0.7 + 0.1 * k - 0.2 * video, scene.box(*WHERE[k]))
    return scene


def reclass(scene):
    scene.results[0]["category_id"] = 1
    return "classification", 0


def add_duplicate(scene):
    scene.predict(0, 0, 0.6, scene.box(0, 0, 6, 5))
    return "duplicate", 0


def shift_in_space(scene):
    scene.results.pop(0)
    scene.predict(0, 0, 0.45, scene.box(0, 3, 6, 9))
    return "spatial", 0


def shift_in_time(scene):
    scene.results.pop(0)
    scene.predict(0, 0, 0.45, scene.box(*WHERE[0], slice(4)))
    return "temporal", 0


def wrong_in_both(scene):
    scene.predict(0, 0, 0.95, scene.box(8, 8, 16, 10))
    return "both", 1


def add_background(scene):
    scene.predict(0, 1, 0.95, scene.box(18, 0, 23, 6))
    return "background", None


def miss(scene):
    scene.results.pop(0)
    return "missed", 0


PLANTS = [reclass, add_duplicate, shift_in_space, shift_in_time, wrong_in_both, add_background, miss]


def test_nothing_wrong(right):
    diagnosis = assert_costs_as_promised(right)
    assert diagnosis.ap == pytest.approx(1)
    assert diagnosis.records == ()
    assert set(diagnosis.counts.values()) == {0}
    assert all(abs(cost) < ATOL for cost in diagnosis.cost.values())


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_one_planted_error(right, plant):
    kind, instance = plant(right)
    diagnosis = assert_costs_as_promised(right)
    (record,) = diagnosis.records
    assert (record.video, record.kind, record.instance) == (0, kind, instance)
    assert {name: n for name, n in diagnosis.counts.items() if name in ERRORS and n} == {kind: 1}
    others = [abs(diagnosis.cost[name]) for name in ERRORS if name != kind]
    assert max(others) < ATOL
    assert diagnosis.cost[kind] > 0.05
    assert diagnosis.ap + diagnosis.cost[kind] == pytest.approx(1, abs=ATOL)


def test_all_planted_at_once(right):
    """Each in a video of its own; none hides another."""
    planted = {}
    for video, plant in enumerate(PLANTS, start=2):
        own = copy.deepcopy(right)
        own.results = [entry for entry in own.results if entry["video_id"] == 0]
        kind, instance = plant(own)
        planted[video] = (kind, instance)
        right.video(video)
        for entry in own.results:
            right.results.append(entry | {"video_id": video, "score": entry["score"] + video / 1000})
        for annotation in [a for a in right.ground_truth["annotations"] if a["video_id"] == 0]:
            right.ground_truth["annotations"].append(
                annotation | {"video_id": video, "id": annotation["id"] + 10 * video}
            )
    diagnosis = assert_costs_as_promised(right)
    assert {r.video: (r.kind, r.instance) for r in diagnosis.records} == planted
    assert len(diagnosis.records) == len(planted)
    assert all(diagnosis.cost[kind] > 0 for kind in ERRORS)
    assert all(diagnosis.counts[kind] == 1 for kind in ERRORS)
    assert (diagnosis.counts["false_positives"], diagnosis.counts["false_negatives"]) == (6, 4)


def test_cost_by_hand(right):
    """One false prediction ranked first of two right ones: precision 1/2 up to recall 1/2, then 2/3."""
    add_background(right)
    diagnosis = diagnosis_of(right.ground_truth, right.results)
    assert diagnosis.per_category["dog"].ap == pytest.approx(2 / 3)  # the best precision from there on
    assert diagnosis.per_category["dog"].cost["background"] == pytest.approx(1 / 3)
    assert diagnosis.per_category["cat"].cost["background"] == 0
    assert diagnosis.cost["background"] == pytest.approx(1 / 6)


@pytest.mark.parametrize(
    ("frames", "kind"), [(slice(0, 4), "temporal"), (slice(0, 6), "temporal"), (slice(0, 7), "spatial")]
)
def test_seven_frames_of_ten_are_the_right_time(right, frames, kind):
    right.results.pop(0)
    right.predict(0, 0, 0.45, right.box(0, 3, 6, 9, frames))  # a third of the pixels where it is
    (record,) = diagnosis_of(right.ground_truth, right.results).records
    assert record.kind == kind
    length = frames.stop
    assert record.iou == pytest.approx(length * 18 / (10 * 36 + length * 18))


def test_swapped_tracks_are_wrong_in_time(right):
    """Two tracks of one class that exchange their objects half way."""
    for entry in (*right.ground_truth["annotations"], *right.results):
        entry["category_id"] = 0
    first, second = right.results[:2]
    first["segmentations"], second["segmentations"] = (
        first["segmentations"][:5] + second["segmentations"][5:],
        second["segmentations"][:5] + first["segmentations"][5:],
    )
    diagnosis = assert_costs_as_promised(right)
    # Both are about the dog, which is larger: 5 * 56 of 10 * 56 + 5 * 36 pixels.
    assert [(r.video, r.kind, r.instance) for r in diagnosis.records] == [
        (0, "temporal", 1),
        (0, "temporal", 1),
        (0, "missed", 0),
    ]
    assert diagnosis.records[0].iou == diagnosis.records[1].iou == pytest.approx(280 / 740)


def test_one_instance_is_won_once(right):
    """Of two errors about one instance the first is made right and the second removed."""
    right.results[0]["category_id"] = 1
    right.predict(0, 1, 0.99, right.box(0, 0, 6, 5))
    diagnosis = assert_costs_as_promised(right)
    assert [(r.kind, r.instance) for r in diagnosis.records] == [("classification", 0)] * 2
    gains = diagnosis.videos[0].labels[0].gains
    assert gains.tolist() == [True, False, False]


def test_an_error_about_a_found_instance_is_removed(right):
    right.predict(0, 1, 0.99, right.box(*WHERE[0]))  # the cat again, as a dog
    diagnosis = assert_costs_as_promised(right)
    (record,) = diagnosis.records
    assert (record.kind, record.instance, record.iou) == ("classification", 0, 1.0)
    assert diagnosis.ap + diagnosis.cost["classification"] == pytest.approx(1)
    assert not diagnosis.videos[0].labels[0].gains.any()


def test_crowds_are_nobody(right):
    """Nothing is about a crowd, and what is matched to one is neither right nor wrong."""
    right.annotate(9, 0, 0, right.box(18, 0, 23, 6), iscrowd=1)
    right.predict(0, 0, 0.99, right.box(18, 0, 23, 6))
    right.predict(0, 0, 0.98, right.box(18, 0, 23, 5))
    assert diagnosis_of(right.ground_truth, right.results).records == ()
    right.predict(0, 1, 0.97, right.box(18, 0, 23, 6))
    diagnosis = assert_costs_as_promised(right)
    assert [(r.kind, r.instance, r.iou) for r in diagnosis.records] == [("background", None, 0.0)]


def test_beyond_the_limit_of_predictions(right):
    for i in range(120):
        right.predict(0, 0, 0.4 - i / 1000, right.box(18, 0, 23, 6))
    diagnosis = diagnosis_of(right.ground_truth, right.results)
    assert diagnosis.counts["background"] == 99
    assert (diagnosis.videos[0].labels[0].kind == -2).sum() == 21


def test_empty_files(new_scene, right):
    diagnosis = diagnosis_of(right.ground_truth, [])
    assert (diagnosis.ap, diagnosis.cost["missed"], diagnosis.cost["background"]) == (0, 1, 0)
    assert diagnosis.counts["missed"] == diagnosis.counts["false_negatives"] == 4
    scene = new_scene()
    scene.category(0, "cat")
    scene.video(3)
    scene.video(5)
    scene.predict(5, 0, 0.5, scene.box(0, 0, 3, 2))
    scene.annotate(0, 3, 0, scene.box(0, 0, 3, 2), iscrowd=1)
    diagnosis = diagnosis_of(scene.ground_truth, scene.results)
    assert np.isnan(diagnosis.ap)
    assert [(r.video, r.kind) for r in diagnosis.records] == [(5, "background")]
    assert json.loads(json.dumps(diagnosis.as_dict(), allow_nan=False))["cost"]["background"] is None


def test_video_without_frames(right):
    right.ground_truth["videos"].append({"id": 7, "height": 23, "width": 17, "length": 0})
    right.results.append({"video_id": 7, "category_id": 0, "score": 0.01, "segmentations": []})
    assert [(r.video, r.kind) for r in diagnosis_of(right.ground_truth, right.results).records] == [
        (7, "background")
    ]


@pytest.mark.parametrize("threshold", [0.1, 1.01, float("nan")])
def test_thresholds_that_mean_nothing(right, threshold):
    with pytest.raises(ValueError, match=r"positive threshold .*, expected more than 0\.1 and at most 1"):
        diagnosis_of(right.ground_truth, right.results, (threshold,))


def test_several_thresholds_are_their_mean(make_random_scene):
    scene = make_random_scene(2)
    diagnosis = diagnosis_of(scene.ground_truth, scene.results, IOU_THRESHOLDS)
    expected = official_ap(scene.ground_truth, scene.results, None)
    assert {name: c.ap for name, c in diagnosis.per_category.items()} == pytest.approx(expected, abs=ATOL)
    single = [diagnosis_of(scene.ground_truth, scene.results, (t,)) for t in IOU_THRESHOLDS]
    for kind in (*ERRORS, *WEIGHTS):
        assert diagnosis.cost[kind] == pytest.approx(np.mean([d.cost[kind] for d in single]), abs=ATOL)
    assert diagnosis.counts == single[0].counts
    assert diagnosis.records == single[0].records


def test_rankings_are_what_ap_is_made_of(make_random_scene):
    """A resample that draws every video twice changes nothing."""
    scene = make_random_scene(6)
    diagnosis = diagnosis_of(scene.ground_truth, scene.results)
    for kind in (None, *ERRORS, *WEIGHTS):
        for (name, costs), ranking in zip(
            diagnosis.per_category.items(), diagnosis.rankings(kind), strict=True
        ):
            right = ranking.right.repeat(2)
            total = 2 * ranking.num_instances.sum()
            ap = recall_curve(np.cumsum(right), np.cumsum(~right), total)[2].mean() if total else 1.0
            assert ap == pytest.approx(costs.ap + (costs.cost[kind] if kind else 0), abs=ATOL), (name, kind)
            assert ranking.right.shape == ranking.video.shape


def test_content_is_json(make_random_scene):
    scene = make_random_scene(4)
    diagnosis = diagnosis_of(scene.ground_truth, scene.results)
    content = json.loads(json.dumps(diagnosis.as_dict(), allow_nan=False))
    assert content["cost"] == dict(diagnosis.cost)
    assert len(content["records"]) == len(diagnosis.records) > 0
    assert content["per_category"].keys() == diagnosis.per_category.keys()
    assert "records" not in diagnosis.as_dict(records=False)


def test_found_in_other_processes(make_random_scene):
    scene = make_random_scene(4)
    ground_truth = load_ground_truth(scene.ground_truth)
    videos = list(video_overlaps(ground_truth, load_results(scene.results, ground_truth), all_pairs=True))
    whole, parts = diagnose(ground_truth, videos), diagnose(ground_truth, map(find_errors, videos))
    assert whole.as_dict() == parts.as_dict()


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), threshold=st.sampled_from([0.5, 0.75]))
def test_random_files(make_random_scene, seed, threshold):
    scene = make_random_scene(seed, videos=3, categories=2)
    diagnosis = assert_costs_as_promised(scene, threshold)
    counts = diagnosis.counts
    false = [kind for kind in ERRORS if kind != "missed"]
    assert counts["false_positives"] == sum(counts[kind] for kind in false)
    assert counts["missed"] <= counts["false_negatives"]
    assert len(diagnosis.records) == sum(counts[kind] for kind in ERRORS)
    for video in diagnosis.videos:
        labels = video.labels[0]
        assert not (labels.found & labels.missed).any()
        assert ((labels.kind == -1).sum()) == labels.found.sum()
        assert not (labels.gains & (labels.kind < 0)).any()
    totals = np.sum([list(costs.counts.values()) for costs in diagnosis.per_category.values()], axis=0)
    assert totals.tolist() == list(counts.values())
