"""Average precision against its definition, spelled out on pixels, for every option."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vistk.evaluation.ap_options import OFFICIAL, APOptions
from vistk.evaluation.files import load_ground_truth, load_results
from vistk.evaluation.ytvis_ap import accumulate, average_precision, average_recall, match, summarize

SMALL = APOptions(
    iou_thresholds=(0.25, 0.5, 1.0),
    recall_points=(0.0, 0.3, 0.5, 1.0),
    area_ranges={"all": (0, 1e10), "small": (0, 2.5), "medium": (2, 4), "none": (100, 200)},
    max_detections=(1, 2, 4),
)


def mean_area(tube):
    areas = [int(frame.sum()) for frame in tube if frame.any()]
    return sum(areas) / len(areas) if areas else 0.0


def match_by_hand(instances, predictions, threshold, low, high):
    """(right, ignored) of every prediction: the greedy assignment, one after the other."""
    ignored_instances = [a["crowd"] or not low <= mean_area(a["tube"]) <= high for a in instances]
    taken, out = set(), []
    for p in predictions:
        best = None
        for counts in (True, False):  # instances that do not count are a last resort
            best_iou = min(threshold, 1 - 1e-10)
            for index, a in enumerate(instances):
                if ignored_instances[index] == counts or (index in taken and not a["crowd"]):
                    continue
                union = (a["tube"] | p["tube"]).sum()
                iou = (a["tube"] & p["tube"]).sum() / union if union else 0.0
                if iou >= best_iou:
                    best, best_iou = index, iou
            if best is not None:
                break
        if best is None:
            out.append((False, not low <= mean_area(p["tube"]) <= high))
        else:
            taken.add(best)
            out.append((True, ignored_instances[best]))
    return out, ignored_instances.count(False)


def by_definition(videos, categories, annotations, predictions, options):
    """precision (T, P, K, R, M), recall (T, K, R, M) and scores, with as many loops as there are letters."""
    videos = [v for v in sorted(videos) if options.video_ids is None or v in options.video_ids]
    categories = [c for c in sorted(categories) if options.category_ids is None or c in options.category_ids]
    classes = [[c] for c in categories] if options.use_categories else [categories]
    shape = (len(classes), len(options.area_ranges), len(options.max_detections))
    precision = -np.ones((len(options.iou_thresholds), len(options.recall_points), *shape))
    recall, scores = -np.ones((len(options.iou_thresholds), *shape)), precision.copy()
    for (t, threshold), (k, group), (r, (low, high)), (m, limit) in itertools.product(
        enumerate(options.iou_thresholds),
        enumerate(classes),
        enumerate(options.area_ranges.values()),
        enumerate(options.max_detections),
    ):
        ranked, total = [], 0
        for video in videos:
            inside = [
                [x for c in group for x in entries if x["video"] == video and x["category"] == c]
                for entries in (annotations, predictions)
            ]
            kept = sorted(inside[1], key=lambda p: -p["score"])[:limit]
            outcome, counted = match_by_hand(inside[0], kept, threshold, low, high)
            total += counted
            ranked += [(p["score"], *o) for p, o in zip(kept, outcome, strict=True)]
        if not total:
            continue
        ranked.sort(key=lambda entry: -entry[0])
        curve, right, wrong = [], 0, 0
        for score, hit, ignored in ranked:
            right += hit and not ignored
            wrong += not hit and not ignored
            curve.append((right / total, right / (right + wrong) if right + wrong else 0.0, score))
        recall[t, k, r, m] = max((point[0] for point in curve), default=0.0)
        for p, wanted in enumerate(options.recall_points):
            reached = [i for i, point in enumerate(curve) if point[0] >= wanted]
            precision[t, p, k, r, m] = max((curve[i][1] for i in reached), default=0.0)
            scores[t, p, k, r, m] = curve[reached[0]][2] if reached else 0.0
    return precision, recall, scores


def draw_case(new_scene, seed, num_videos, num_instances, num_predictions):
    rng = np.random.default_rng(seed)
    scene = new_scene(int(rng.integers(1, 4)), 3, 2)
    videos = rng.choice(np.arange(-3, 4), num_videos, replace=False).tolist()
    categories = rng.choice(np.arange(-1, 4), 3, replace=False).tolist()
    for video in videos:
        scene.video(video)
    for category in categories:
        scene.category(category, f"category {category}")

    def one(**more):
        tube = rng.random(scene.shape) < rng.choice([0.0, 0.4, 0.8], p=[0.1, 0.5, 0.4])
        where = {"video": int(rng.choice(videos)), "category": int(rng.choice(categories[:2]))}
        return {**where, "tube": tube & (rng.random((scene.shape[0], 1, 1)) < 0.8), **more}

    annotations = [one(crowd=bool(rng.random() < 0.25)) for _ in range(num_instances)]
    predictions = [one(score=float(rng.integers(3)) / 2) for _ in range(num_predictions)]  # with ties
    for p in predictions[: num_predictions * 2 // 3]:  # near an instance, some of them exact
        a = annotations[rng.integers(num_instances)]
        noise = rng.random(scene.shape) < rng.choice([0.0, 0.1])
        p.update(video=a["video"], tube=a["tube"] ^ noise)
        if rng.random() < 0.8:
            p["category"] = a["category"]
    for index, a in enumerate(annotations):
        areas = [int(frame.sum()) or None for frame in a["tube"]]
        scene.annotate(index, a["video"], a["category"], a["tube"], iscrowd=int(a["crowd"]), areas=areas)
    for p in predictions:
        scene.predict(p["video"], p["category"], p["score"], p["tube"])
    return scene, videos, categories, annotations, predictions


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 4),
    st.integers(1, 6),
    st.integers(0, 12),
    st.booleans(),
    st.booleans(),
)
def test_every_option_against_the_definition(
    new_scene, seed, num_videos, num_instances, num_predictions, use_categories, subset
):
    scene, videos, categories, *drawn = draw_case(new_scene, seed, num_videos, num_instances, num_predictions)
    options = APOptions(
        SMALL.iou_thresholds,
        SMALL.recall_points,
        SMALL.area_ranges,
        SMALL.max_detections,
        use_categories,
        tuple(videos[:-1]) or None if subset else None,
        tuple(categories[1:]) if subset else None,
    )
    ground_truth = load_ground_truth(scene.ground_truth)
    found = accumulate(match(ground_truth, load_results(scene.results, ground_truth), options))
    precision, recall, scores = by_definition(videos, categories, *drawn, options)
    np.testing.assert_allclose(found.precision, precision, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.recall, recall, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.scores, scores, rtol=0, atol=1e-12)


def test_the_defaults_are_the_official_ones():
    assert APOptions() == OFFICIAL
    np.testing.assert_allclose(OFFICIAL.iou_thresholds, np.arange(50, 100, 5) / 100, rtol=0, atol=1e-15)
    assert len(OFFICIAL.recall_points) == 101
    assert OFFICIAL.max_detections == (1, 10, 100)
    assert OFFICIAL.area_ranges["medium"] == (128**2, 256**2)
    assert (OFFICIAL.use_categories, OFFICIAL.video_ids, OFFICIAL.category_ids) == (True, None, None)


def test_summary_names_what_was_asked_for(scene):
    ground_truth = load_ground_truth(scene.ground_truth)
    results = load_results(scene.results, ground_truth)
    accumulated = accumulate(match(ground_truth, results, SMALL))
    summary = summarize(accumulated)
    assert list(summary) == [
        *("AP", "AP50", "APs", "APm", "APnone"),
        *("AR1", "AR2", "AR4", "ARs", "ARm", "ARnone"),
    ]
    assert np.isnan(summary["APnone"])
    assert average_recall(accumulated, max_detections=2).tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match=r"IoU threshold 0\.75 is not one of \[0\.25, 0\.5, 1\.0\]"):
        average_precision(accumulated, threshold=0.75)


def test_without_categories_a_wrong_class_is_right(new_scene):
    scene = new_scene()
    scene.video(0)
    scene.category(1, "cat")
    scene.category(2, "dog")
    scene.annotate(0, 0, 1, scene.box(0, 0, 3, 2))
    scene.predict(0, 2, 0.5, scene.box(0, 0, 3, 2))
    ground_truth = load_ground_truth(scene.ground_truth)
    results = load_results(scene.results, ground_truth)
    pooled = accumulate(match(ground_truth, results, APOptions(use_categories=False)))
    assert average_precision(pooled).tolist() == pytest.approx([1.0], abs=1e-12)
    apart = average_precision(accumulate(match(ground_truth, results)))
    np.testing.assert_array_equal(apart, [0.0, np.nan])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"iou_thresholds": ()}, r"iou_thresholds is \(\), expected rising numbers from 0 to 1"),
        ({"iou_thresholds": (0.5, 0.5)}, "iou_thresholds is"),
        ({"recall_points": (0.0, 1.1)}, "recall_points is"),
        ({"recall_points": (0.0, float("nan"))}, "recall_points is"),
        ({"max_detections": (0, 1)}, "max_detections is .* rising numbers from 1"),
        ({"max_detections": (10, 1)}, "max_detections is"),
        ({"max_detections": (1, 1.5)}, r"max_detections is \(1, 1\.5\), expected whole numbers"),
        ({"video_ids": ()}, "video_ids is empty, expected at least one id, or None for all"),
        ({"category_ids": ()}, "category_ids is empty"),
        ({"area_ranges": {}}, "area_ranges is empty"),
        ({"area_ranges": {"all": (2, 1)}}, "area_ranges has 'all' from 2 to 1"),
        ({"area_ranges": {"so": (1, 2)}}, "area_ranges has 'so'"),
        ({"area_ranges": {"all": (0, 9), "50": (0, 1)}}, "area_ranges has '50', expected a name that begins"),
        ({"area_ranges": {"all": (0, 9), "": (0, 1)}}, "area_ranges has '', expected a name that begins"),
        (
            {"area_ranges": {"all": (0, 9), "s": (0, 1), "small": (0, 2)}},
            "area_ranges has 's' and 'small', expected names of different metrics, APs is of both",
        ),
    ],
)
def test_bad_options(options, expected):
    with pytest.raises(ValueError, match=expected):
        APOptions(**options)


@pytest.mark.parametrize("name", ["video_ids", "category_ids"])
def test_unknown_ids(scene, name):
    ground_truth = load_ground_truth(scene.ground_truth)
    with pytest.raises(ValueError, match=rf"{name} has 9, which the ground truth has not \(it has 2\)"):
        match(ground_truth, load_results([], ground_truth), APOptions(**{name: (0, 9)}))
