"""AP and AR against the official evaluators' stored numbers, and against the plain definition."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vistk.evaluation.files import load_ground_truth, load_results
from vistk.evaluation.overlaps import cells
from vistk.evaluation.scores import score
from vistk.evaluation.ytvis_ap import accumulate, average_precision, average_recall, summarize

GOLDEN = Path(__file__).parents[1] / "golden" / "ytvis_eval"
ATOL = 1e-10
OVIS_NAMES = {"light": "so", "medium": "mo", "heavy": "ho"}


@pytest.fixture(params=["case1", "case2", "case3"], scope="module")
def golden(request):
    folder = GOLDEN / request.param
    report = score(folder / "gt.json", folder / "results.json")
    return report, json.loads((folder / "expected.json").read_text()), np.load(folder / "expected_arrays.npz")


def test_official_summary(golden):
    report, expected, _ = golden
    summary = summarize(accumulate(report.matches))
    for name, value in zip(expected["stat_names"], expected["stats"], strict=True):
        assert summary[name] == pytest.approx(value, abs=ATOL), name
    ovis = zip(expected.get("ovis_stat_names", ()), expected.get("ovis_stats", ()), strict=True)
    for name, value in ovis:
        kind, _, group = name.partition("_")
        assert summary[kind + OVIS_NAMES.get(group, "")] == pytest.approx(value, abs=ATOL), name
    assert len(summary) == len(expected.get("ovis_stats", expected["stats"]))


def test_official_categories(golden):
    report, expected, _ = golden
    assert list(report.ground_truth.categories) == expected["cat_ids"]
    accumulated = accumulate(report.matches)
    for key, values in {
        "cat_AP": average_precision(accumulated),
        "cat_AP50": average_precision(accumulated, threshold=0.5),
        "cat_AR10": average_recall(accumulated, max_detections=10),
    }.items():
        np.testing.assert_allclose(np.nan_to_num(values, nan=-1), expected[key], rtol=0, atol=ATOL)


def test_official_arrays(golden):
    report, _, arrays = golden
    accumulated = accumulate(report.matches)
    for name in ("precision", "recall", "scores"):
        found = getattr(accumulated, name)[..., :4, :]  # areas; the occlusion groups come after them
        np.testing.assert_allclose(found, arrays[name], rtol=0, atol=ATOL)


@pytest.mark.parametrize("case", ["case1", "case2", "case3"])
def test_official_ious(case):
    ground_truth = load_ground_truth(GOLDEN / case / "gt.json")
    results = load_results(GOLDEN / case / "results.json", ground_truth)
    expected = json.loads((GOLDEN / case / "expected.json").read_text())["ious"]
    ids = list(ground_truth.categories)
    compared = set()
    for cell in cells(ground_truth, results):
        key = f"{ground_truth.videos[cell.video].id},{ids[cell.category]}"
        if key in expected:
            np.testing.assert_allclose(cell.tube_iou()[:100], expected[key], rtol=0, atol=ATOL)
            compared.add(key)
    assert compared == expected.keys()


def perfect(ground_truth):
    keys = ("video_id", "category_id", "segmentations")
    annotations = ground_truth["annotations"]
    return [{key: a[key] for key in keys} | {"score": 0.5 + i / 1000} for i, a in enumerate(annotations)]


@pytest.mark.parametrize("first", [0, -3, 10**12])
def test_perfect_results_score_one_with_any_ids(make_random_scene, first):
    ground_truth = make_random_scene(3).ground_truth
    for name in ("videos", "categories", "annotations"):
        for entry in ground_truth[name]:
            for key in ("id", "video_id", "category_id"):
                if key in entry:
                    entry[key] += first
    report = score(ground_truth, perfect(ground_truth))
    scored = {name: value for name, value in report.metrics.items() if value is not None}
    one_per_video = scored.pop("AR1")
    assert scored == pytest.approx(dict.fromkeys(scored, 1.0), abs=1e-12)
    assert {"AP", "APs", "AR10", "HOTA", "AssA", "LocA", "IDF1", "MOTA"} <= scored.keys()
    assert 0.5 < one_per_video <= 1  # some videos have two instances of a category


def test_annotation_id_zero_is_an_id(scene):
    # The official code stores the id as its match flag: instance 0 would be a miss and a false positive.
    assert {a["id"] for a in scene.ground_truth["annotations"]} == {0, 1, 2, 3}
    assert score(scene.ground_truth, scene.results).metrics["AP"] == pytest.approx(1.0, abs=1e-12)


def test_order_of_entries_ids_and_frames_does_not_matter(make_random_scene):
    scene = make_random_scene(5)
    expected = score(scene.ground_truth, scene.results)
    rng = np.random.default_rng(0)
    ground_truth, results = copy.deepcopy((scene.ground_truth, scene.results))
    new_id = {name: rng.permutation(len(ground_truth[name])) for name in ("videos", "annotations")}
    frames = rng.permutation(scene.shape[0])
    for entry in (*ground_truth["annotations"], *results):
        entry["video_id"] = int(new_id["videos"][entry["video_id"]])
        for key in {"segmentations", "areas"} & entry.keys():
            entry[key] = [entry[key][t] for t in frames]
    for name in new_id:
        for entry in ground_truth[name]:
            entry["id"] = int(new_id[name][entry["id"]])
        rng.shuffle(ground_truth[name])
    rng.shuffle(ground_truth["categories"])
    rng.shuffle(results)
    found = score(ground_truth, results)
    # The matches of CLEAR depend on the order of frames, nothing else does.
    ordered = ("MOTA", "MOTP", "IDSW", "Frag")
    for key, value in expected.numbers.items():
        assert key.metric in ordered or found.numbers[key] == pytest.approx(value, abs=1e-12, nan_ok=True)
    assert found.numbers.keys() == expected.numbers.keys()


def test_equal_scores_keep_the_order_of_the_file(new_scene):
    scene = new_scene()
    scene.video(0)
    scene.category(0, "cat")
    scene.annotate(0, 0, 0, scene.box(0, 0, 3, 2))
    scene.predict(0, 0, 0.5, scene.box(0, 0, 3, 2))
    scene.predict(0, 0, 0.5, scene.box(4, 2, 7, 5))
    assert score(scene.ground_truth, scene.results).metrics["AP"] == pytest.approx(1.0)
    assert score(scene.ground_truth, scene.results[::-1]).metrics["AP"] == pytest.approx(0.5)


def test_hand_computed_curve(new_scene):
    """Right, wrong, right of two instances: precision 1 up to recall 0.5, then 2/3."""
    scene = new_scene()
    scene.video(0)
    scene.category(0, "cat")
    scene.annotate(0, 0, 0, scene.box(0, 0, 3, 2))
    scene.annotate(1, 0, 0, scene.box(4, 2, 7, 5))
    scene.predict(0, 0, 0.9, scene.box(0, 0, 3, 2))
    scene.predict(0, 0, 0.8, scene.box(0, 3, 3, 5))
    scene.predict(0, 0, 0.7, scene.box(4, 2, 7, 5))
    metrics = score(scene.ground_truth, scene.results).metrics
    assert metrics["AP"] == pytest.approx((51 * 1 + 50 * 2 / 3) / 101, abs=1e-12)
    assert (metrics["AR1"], metrics["AR10"]) == (0.5, 1.0)


def test_crowds_take_any_number_and_count_for_nothing(new_scene):
    scene = new_scene()
    scene.video(0)
    scene.category(0, "cat")
    scene.annotate(0, 0, 0, scene.box(0, 0, 3, 2))
    scene.annotate(1, 0, 0, scene.box(4, 2, 7, 5), iscrowd=1)
    for confidence in (0.9, 0.8, 0.7):
        scene.predict(0, 0, confidence, scene.box(4, 2, 7, 5))
    scene.predict(0, 0, 0.6, scene.box(0, 0, 3, 2))
    assert score(scene.ground_truth, scene.results).metrics["AP"] == pytest.approx(1.0)


def test_occlusion_groups_overlap(new_scene):
    """An instance on the border of two groups is in both; what finds nothing is wrong in all."""
    scene = new_scene()
    scene.video(0)
    scene.category(0, "cat")
    words = {
        0.5: ["slight_occlusion", "severe_occlusion", "no_occlusion"],  # the upper two of three
        0.25: ["slight_occlusion", None, None],
        None: [None] * 3,
    }
    for index, levels in enumerate(words.values()):
        box = scene.box(2 * index, 0, 2 * index + 2, 3)
        scene.annotate(index, 0, 0, box, occlusion=levels)
        scene.predict(0, 0, 0.5, box)
    scene.predict(0, 0, 0.9, scene.box(0, 4, 7, 5))
    report = score(scene.ground_truth, scene.results)
    assert [i.occlusion for i in report.ground_truth.videos[0].instances] == list(words)
    assert report.matches.cells[0].num_instances[-3:].tolist() == [1, 2, 1]
    found = [report.metrics[name] for name in ("APso", "APmo", "APho", "ARmo")]
    assert found == pytest.approx([1 / 2, 2 / 3, 1 / 2, 1.0], abs=1e-12)


def test_empty_results_and_empty_videos(scene):
    scene.video(7)  # without annotations or predictions
    report = score(scene.ground_truth, [])
    assert [report.metrics[name] for name in ("AP", "AR10", "HOTA", "IDF1", "IDR", "MOTA")] == [0.0] * 6
    assert [report.metrics[name] for name in ("APm", "APl", "LocA", "IDP")] == [None] * 4
    before = score(scene.ground_truth, scene.results).metrics
    scene.predict(7, 0, 0.95, scene.box(0, 0, 3, 2))  # wrong, and first in its category
    after = score(scene.ground_truth, scene.results).metrics
    assert before["AP"] == pytest.approx(1.0)
    assert after["AP"] == pytest.approx((1 + 2 / 3) / 2)


def test_video_without_frames(scene):
    scene.ground_truth["videos"].append({"id": 5, "height": 7, "width": 5, "length": 0})
    scene.results.append({"video_id": 5, "category_id": 0, "score": 0.01, "segmentations": []})
    assert score(scene.ground_truth, scene.results).metrics["AP"] == pytest.approx(1.0)


def plain_ap(annotations, predictions, category, threshold):
    """AP of one category from the definition, on pixels; None without instances."""
    used = set()
    right, wrong, curve = 0, 0, []
    total = sum(a["category"] == category and not a["crowd"] for a in annotations)
    if not total:
        return None
    for p in sorted((p for p in predictions if p["category"] == category), key=lambda p: -p["score"]):
        best = {False: (threshold, None), True: (threshold, None)}
        for index, a in enumerate(annotations):
            if a["video"] != p["video"] or a["category"] != category or index in used:
                continue
            union = (a["tube"] | p["tube"]).sum()
            iou = (a["tube"] & p["tube"]).sum() / union if union else 0.0
            if iou >= best[a["crowd"]][0]:
                best[a["crowd"]] = (iou, index)
        if best[False][1] is not None:
            used.add(best[False][1])
            right += 1
        elif best[True][1] is None:
            wrong += 1
        curve.append((right / total, right / max(right + wrong, 1)))
    return (
        sum(
            max((precision for recall, precision in curve if recall >= point), default=0.0)
            for point in np.linspace(0, 1, 101)
        )
        / 101
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(1, 4), st.integers(0, 5), st.integers(0, 7))
def test_against_the_definition(new_scene, seed, num_videos, num_frames, num_instances, num_predictions):
    rng = np.random.default_rng(seed)
    scene = new_scene(num_frames, 3, 2)
    videos = rng.choice(np.arange(-3, 4), num_videos, replace=False).tolist()
    categories = rng.choice(np.arange(-1, 4), 2, replace=False).tolist()
    for video in videos:
        scene.video(video)
    for category in categories:
        scene.category(category, f"category {category}")

    def draw():
        tube = rng.random(scene.shape) < 0.6
        return {"video": int(rng.choice(videos)), "category": int(rng.choice(categories)), "tube": tube}

    annotations = [draw() | {"crowd": bool(rng.random() < 0.2)} for _ in range(num_instances + 1)]
    predictions = [draw() | {"score": float(value)} for value in rng.random(num_predictions)]
    for p in predictions[::2]:  # close to an instance, or nothing would ever match
        a = annotations[rng.integers(len(annotations))]
        p.update(video=a["video"], category=a["category"], tube=a["tube"] ^ (rng.random(scene.shape) < 0.1))
    for index, a in enumerate(annotations):
        scene.annotate(index, a["video"], a["category"], a["tube"], iscrowd=int(a["crowd"]))
    for p in predictions:
        scene.predict(p["video"], p["category"], p["score"], p["tube"])

    report = score(scene.ground_truth, scene.results)
    accumulated = accumulate(report.matches)
    for threshold in (0.5, 0.75, 0.95):
        found = average_precision(accumulated, threshold=threshold)
        for value, category in zip(found, sorted(categories), strict=True):
            expected = plain_ap(annotations, predictions, category, threshold)
            assert np.isnan(value) if expected is None else value == pytest.approx(expected, abs=1e-9)


def test_unknown_threshold_is_an_error(scene):
    accumulated = accumulate(score(scene.ground_truth, scene.results).matches)
    with pytest.raises(ValueError, match=r"IoU threshold 0\.51 is not one of \[0\.5, 0\.55"):
        average_precision(accumulated, threshold=0.51)
