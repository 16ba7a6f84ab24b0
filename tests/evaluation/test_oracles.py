"""Each planted error opens its gap and no other; putting it right in the file gives the AP promised."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vistk.evaluation.files import load_ground_truth, load_results
from vistk.evaluation.oracles import STEPS, oracle_gaps, oracle_steps
from vistk.evaluation.overlaps import cells, video_overlaps
from vistk.evaluation.ytvis_ap import MatchedCells, accumulate, average_precision, match_cell, nan_mean

ATOL = 1e-9
GAPS = ("association", "classification", "mask", "missing")
CAT, DOG = (0, 0, 6, 6), (8, 8, 16, 15)
EARLY, LATE = slice(0, 5), slice(5, 10)


def gaps_of(scene):
    ground_truth = load_ground_truth(scene.ground_truth)
    results = load_results(scene.results, ground_truth)
    return oracle_gaps(ground_truth, video_overlaps(ground_truth, results, all_pairs=True))


def official_ap(scene):
    ground_truth = load_ground_truth(scene.ground_truth)
    matched = [
        match_cell(cell, ("all",)) for cell in cells(ground_truth, load_results(scene.results, ground_truth))
    ]
    sizes = len(ground_truth.videos), len(ground_truth.categories)
    return nan_mean(average_precision(accumulate(MatchedCells(("all",), *sizes, tuple(matched)))))


@pytest.fixture
def right(new_scene):
    """Two videos of ten frames, two cats in the first and a cat and a dog in the second, all found."""
    scene = new_scene(10, 23, 17)
    scene.category(0, "cat")
    scene.category(1, "dog")
    for video, category in ((0, 0), (1, 1)):
        scene.video(video)
        scene.annotate(2 * video, video, 0, scene.box(*CAT))
        scene.annotate(2 * video + 1, video, category, scene.box(*DOG))
        scene.predict(video, 0, 0.8 - 0.1 * video, scene.box(*CAT))
        scene.predict(video, category, 0.8 - 0.1 * video, scene.box(*DOG))
    return scene


def segmentations(scene, i):
    return scene.results[i]["segmentations"]


def swap(scene, i, j, frame):
    a, b = segmentations(scene, i), segmentations(scene, j)
    scene.results[i]["segmentations"], scene.results[j]["segmentations"] = (
        a[:frame] + b[frame:],
        b[:frame] + a[frame:],
    )


def keep(scene, i, frames):
    scene.results[i]["segmentations"] = [
        mask if t in range(10)[frames] else None for t, mask in enumerate(segmentations(scene, i))
    ]


def swap_of_one_class(scene):
    swap(scene, 0, 1, 5)


def swap_of_two_classes(scene):
    swap(scene, 2, 3, 6)


def split(scene):
    scene.results.append(scene.results[0] | {"score": 0.6, "segmentations": segmentations(scene, 0)})
    keep(scene, 0, EARLY)
    keep(scene, 4, LATE)


def split_of_tails(scene):
    """The head keeps 3 frames of 10, and the tail is listed as a track of another class."""
    scene.results.append(scene.results[0] | {"score": 0.8, "segmentations": segmentations(scene, 0)})
    keep(scene, 0, slice(0, 3))
    keep(scene, 4, slice(3, 10))


def duplicate(scene):
    scene.predict(0, 0, 0.95, scene.box(0, 0, 6, 5))


def goes_on_for_too_long(scene):
    scene.ground_truth["annotations"][0].update(
        segmentations=[*segmentations(scene, 0)[:6], *[None] * 4], areas=[36] * 6 + [None] * 4
    )


def wrong_class(scene):
    scene.results[2]["category_id"] = 1


def background(scene):
    scene.predict(0, 1, 0.95, scene.box(18, 0, 23, 6))


def loose_mask(scene):
    scene.results[0]["segmentations"] = scene.results[1]["segmentations"]
    scene.results.pop(1)
    scene.predict(0, 0, 0.8, scene.box(0, 0, 6, 4))  # 2/3


def mask_over_two(scene):
    """One mask for two objects, the rest of it is not theirs."""
    scene.results = scene.results[2:]
    scene.predict(0, 0, 0.8, scene.box(0, 0, 16, 15) & ~scene.box(6, 0, 8, 15))


def missing_track(scene):
    scene.results.pop(0)


def missing_frames(scene):
    keep(scene, 0, slice(0, 6))


PLANTS = {
    swap_of_one_class: "association",
    swap_of_two_classes: "association",
    split: "association",
    split_of_tails: "association",
    duplicate: "association",
    goes_on_for_too_long: "association",
    wrong_class: "classification",
    background: "classification",
    loose_mask: "mask",
    missing_track: "missing",
    missing_frames: "missing",
}


def test_nothing_to_gain(right):
    gaps = gaps_of(right)
    assert gaps.overall.ap == pytest.approx(1)
    for values in (gaps.overall, *gaps.per_category.values()):
        assert [getattr(values, name) for name in GAPS] == pytest.approx([0] * 4, abs=ATOL)
    assert gaps.unproven == 0


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_one_planted_error(right, plant):
    plant(right)
    gaps, gap = gaps_of(right), PLANTS[plant]
    assert gaps.overall.ap == pytest.approx(official_ap(right), abs=ATOL)
    assert gaps.overall.ap < 0.99
    expected = dict.fromkeys(GAPS, 0.0) | {gap: 1 - gaps.overall.ap}
    assert {name: getattr(gaps.overall, name) for name in GAPS} == pytest.approx(expected, abs=ATOL)


def test_a_chain_of_errors_is_mended_link_by_link(right):
    """A swap, a wrong class, a loose mask and missing frames at once; each step against the file mended."""
    swap(right, 0, 1, 5)
    right.results[2]["category_id"] = 1
    keep(right, 3, slice(0, 7))  # of the dog in the second video
    loose = [right.results[i] for i in (0, 1)]
    right.predict(0, 0, 0.8, right.box(0, 0, 6, 4))
    right.predict(0, 0, 0.8, right.box(*DOG))
    a, b = (entry["segmentations"] for entry in right.results[-2:])
    del right.results[-2:]
    loose[0]["segmentations"], loose[1]["segmentations"] = a[:5] + b[5:], b[:5] + a[5:]
    gaps = gaps_of(right).overall
    promised = [gaps.ap, *(gaps.ap + np.cumsum([gaps.association, gaps.classification, gaps.mask]))]
    assert min(getattr(gaps, name) for name in GAPS) > 0.02
    found = [official_ap(right)]
    swap(right, 0, 1, 5)
    found.append(official_ap(right))
    right.results[2]["category_id"] = 0
    found.append(official_ap(right))
    right.results[0]["segmentations"] = right.ground_truth["annotations"][0]["segmentations"]
    found.append(official_ap(right))
    assert found == pytest.approx(promised, abs=ATOL)


def test_a_mask_over_two_objects_shows_one(right):
    """The larger one keeps it; the other one is missing, as nothing is left for it."""
    mask_over_two(right)
    gaps = gaps_of(right)
    assert gaps.overall.association == pytest.approx(0, abs=ATOL)
    assert gaps.overall.classification == pytest.approx(0, abs=ATOL)
    assert gaps.overall.mask > 0.1
    assert gaps.overall.missing > 0.1
    assert gaps.unproven == 0


def test_one_track_under_several_classes(right):
    """As a file lists it; the wrong entries count as they did until classes are corrected."""
    right.predict(1, 0, 0.75, right.box(*DOG))
    right.predict(1, 1, 0.75, right.box(*CAT))
    gaps = gaps_of(right).overall
    assert gaps.ap < 0.99
    assert gaps.association == pytest.approx(0, abs=ATOL)
    assert gaps.classification == pytest.approx(1 - gaps.ap, abs=ATOL)


def test_a_class_is_that_of_most_frames(right):
    """Two parts of one dog, seven frames as a dog and three as a cat, which were sure."""
    right.results[3]["score"] = 0.5
    right.results.append(right.results[3] | {"category_id": 0, "score": 0.9})
    keep(right, 3, slice(0, 7))
    keep(right, 4, slice(7, 10))
    ground_truth = load_ground_truth(right.ground_truth)
    videos = list(video_overlaps(ground_truth, load_results(right.results, ground_truth), all_pairs=True))
    scores = {cell.category: cell.scores.tolist() for cell in oracle_steps(videos[1]).cells[1]}
    assert scores[1] == pytest.approx([0.5 * 0.7])
    assert scores[0] == pytest.approx([0.7, 0.9 * 0.3])  # of the cat, and of the dog


def test_crowds_are_not_linked(right):
    right.annotate(9, 0, 0, right.box(18, 0, 23, 6), iscrowd=1)
    right.predict(0, 0, 0.99, right.box(18, 0, 23, 6))
    gaps = gaps_of(right).overall
    assert [gaps.ap, *(getattr(gaps, name) for name in GAPS)] == pytest.approx([1, 0, 0, 0, 0], abs=ATOL)


def test_empty_files(right, new_scene):
    right.results = []
    right.ground_truth["videos"].append({"id": -3, "height": 23, "width": 17, "length": 0})
    gaps = gaps_of(right).overall
    assert gaps.as_dict() == {"ap": 0, "association": 0, "classification": 0, "mask": 0, "missing": 1}
    scene = new_scene()
    scene.category(0, "cat")
    scene.video(0)
    scene.video(4)
    scene.annotate(0, 0, 0, scene.box(0, 0, 3, 2), iscrowd=1)
    scene.predict(4, 0, 0.5, scene.box(0, 0, 3, 2))
    scene.predict(4, 0, 0.4, scene.box(0, 0, 0, 0))
    content = json.loads(json.dumps(gaps_of(scene).as_dict(), allow_nan=False))
    assert content["ap"] is content["missing"] is content["per_category"]["cat"]["mask"] is None


def test_an_annotation_without_pixels_is_missing(right):
    right.annotate(9, 0, 0, right.box(0, 0, 0, 0))
    gaps = gaps_of(right).overall
    assert gaps.missing == pytest.approx(1 - gaps.ap, abs=ATOL)
    assert gaps.ap < 0.9


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_random_files(make_random_scene, seed):
    scene = make_random_scene(seed, videos=3, categories=2)
    ground_truth = load_ground_truth(scene.ground_truth)
    videos = list(video_overlaps(ground_truth, load_results(scene.results, ground_truth), all_pairs=True))
    gaps = oracle_gaps(ground_truth, videos)
    for values in (gaps.overall, *gaps.per_category.values()):
        total = values.ap + sum(getattr(values, name) for name in GAPS)
        assert np.isnan(total) or total == pytest.approx(1, abs=1e-12)
    assert gaps.overall.ap == pytest.approx(official_ap(scene), abs=ATOL)
    assert gaps.overall.missing >= -1e-12
    parts = oracle_gaps(ground_truth, map(oracle_steps, videos))
    assert parts.as_dict() == gaps.as_dict()
    assert len(gaps.matches) == len(STEPS)
