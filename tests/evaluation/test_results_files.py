"""Results files with faults: what is skipped when asked for, and which data set they may be from."""

import math

import pytest

from vistk.data.categories import OVIS, YTVIS2019, YTVIS2021
from vistk.evaluation.data_sets import FROM_ZERO, VIDEOS, other_data_set
from vistk.evaluation.files import EvaluationFileError, load_ground_truth, load_results
from vistk.evaluation.records import distinct
from vistk.evaluation.report import evaluate

FAULTS = {
    "unknown video": {"video_id": 9},
    "unknown category": {"category_id": 9},
    "wrong number of frames": {"segmentations": [None]},
    "mask of another size": {"segmentations": [None, {"size": [5, 7], "counts": "Q1"}, None]},
    "broken mask": {"segmentations": [None, None, {"size": [7, 5], "counts": "3"}]},
    "id or score that is no number": {"score": math.nan},
    "entry that is no dict or lacks a key": {"score": ...},
}


def with_fault(entry, change):
    return {key: value for key, value in (entry | change).items() if value is not ...}


@pytest.mark.parametrize("reason", FAULTS)
@pytest.mark.parametrize("at", [0, 3, 6])
def test_a_fault_is_an_error_or_skipped(scene, reason, at):
    ground_truth = load_ground_truth(scene.ground_truth)
    expected = load_results(scene.results, ground_truth)
    content = list(scene.results)
    content.insert(at, with_fault(scene.results[0], FAULTS[reason]))
    with pytest.raises(EvaluationFileError, match=rf"^results: .*entry {at}\b"):
        load_results(content, ground_truth)
    found = load_results(content, ground_truth, lenient=True)
    assert found.skipped == {reason: 1}
    assert found.videos == expected.videos
    assert expected.skipped == {}


def test_what_is_skipped_is_counted_by_reason(scene):
    content = [with_fault(scene.results[0], change) for change in FAULTS.values() for _ in range(2)]
    content += [7, None, with_fault(scene.results[0], {"score": 10**400}), *scene.results]
    found = load_results(content, load_ground_truth(scene.ground_truth), lenient=True)
    assert found.skipped == dict.fromkeys(FAULTS, 2) | {
        "entry that is no dict or lacks a key": 4,
        "id or score that is no number": 3,
    }
    assert len(found) == len(scene.results)
    metrics = evaluate(scene.ground_truth, found).metrics
    assert metrics == evaluate(scene.ground_truth, scene.results).metrics


def test_nothing_left_is_an_error(scene):
    ground_truth = load_ground_truth(scene.ground_truth)
    content = [with_fault(entry, {"score": None}) for entry in scene.results]
    with pytest.raises(EvaluationFileError, match=r"no entry can be used \(6 x id or score .* number\)$"):
        load_results(content, ground_truth, lenient=True)
    content[0] = with_fault(scene.results[0], {"video_id": 9})
    with pytest.raises(EvaluationFileError, match=r"\(5 x id .*, 1 x unknown video\); is this another data"):
        load_results(content, ground_truth, lenient=True)
    assert len(load_results([], ground_truth, lenient=True)) == 0


def test_what_was_read_for_another_ground_truth(scene, new_scene):
    """As it is checked once, it could be scored there, with wrong numbers or a trace."""
    found = load_results(scene.results, load_ground_truth(scene.ground_truth))
    assert load_results(found, load_ground_truth(scene.ground_truth)) is found
    for shape, videos, categories, missing in (
        ((3, 7, 5), (0, 4), (0, 1), "video 1 of these frames"),
        ((2, 7, 5), (0, 1), (0, 1), "video 0 of these frames"),
        ((3, 5, 7), (0, 1), (0, 1), "video 0 of these frames"),
        ((3, 7, 5), (0, 1), (0, 2), "category 1"),
    ):
        other = new_scene(*shape)
        for video_id, category_id in zip(videos, categories, strict=True):
            other.video(video_id)
            other.category(category_id, f"class {category_id}")
        other.annotate(0, 0, 0, other.box(0, 0, 3, 2))
        with pytest.raises(
            EvaluationFileError, match=rf"^results: was .* ground truth has no {missing}; exp"
        ):
            evaluate(other.ground_truth, found)


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize("key", ["results", "annotations", "predictions"])
def test_results_in_a_dict(scene, key, lenient):
    ground_truth = load_ground_truth(scene.ground_truth)
    with pytest.raises(EvaluationFileError, match=rf"found a dict.*; its '{key}' has 6 entries, write"):
        load_results({key: scene.results}, ground_truth, lenient=lenient)


@pytest.mark.parametrize(
    ("categories", "videos", "classes", "expected"),
    [
        (YTVIS2019, range(1, 422), [1, 40], "YouTube-VIS 2021, whose valid split has 421 videos"),
        (YTVIS2021, range(1, 303), [1, 40], "YouTube-VIS 2019, whose valid split has 302 videos"),
        ({1: "cat"}, range(1, 141), [1, 25], "OVIS, whose valid split has 140 videos"),
        (OVIS, range(1, 141), range(25), FROM_ZERO),
        ({1: "cat", 2: "dog"}, [7], [0], FROM_ZERO),
        ({0: "cat", 2: "dog"}, [7], [0, 1], None),
        ({1: "cat"}, range(1, 142), [1, 25], None),
        ({1: "cat"}, [*range(1, 140), 141], [1, 25], None),  # not numbered through
        (YTVIS2019, range(422), [1, 40], None),  # from 0
        (OVIS, [5, 6, 7], [2, 26], "YouTube-VIS, which has 40 categories"),
        (OVIS, [5, 6, 7], [2, 25], None),  # may be its own
        (OVIS, [5, 6, 7], [0, 26], None),  # nobody's
        (YTVIS2021, [5], [1, 90], "COCO, whose category ids go to 90"),
        (YTVIS2021, [5], [1, 83], None),  # COCO has no 83
        ({1: "cat"}, [5], [1, 40], None),  # data of one's own
        (OVIS, [], [], None),
    ],
)
def test_another_data_set_is_named_only_where_the_ids_say_so(categories, videos, classes, expected):
    assert other_data_set(categories, list(videos), classes) == expected


def test_no_two_published_splits_have_the_same_number_of_videos():
    sizes = [size for splits in VIDEOS.values() for size in splits.values()]
    assert len(set(sizes)) == len(sizes)


def test_the_data_set_is_in_the_message(new_scene):
    scene = new_scene(num_frames=1)
    for category, name in YTVIS2019.items():
        scene.category(category, name)
    for video_id in range(1, 303):
        scene.video(video_id)
    scene.annotate(1, 1, 1, scene.box(0, 0, 2, 2))
    content = [
        {"video_id": video_id, "category_id": 1, "score": 0.5, "segmentations": [None]}
        for video_id in range(1, 422)
    ]
    with pytest.raises(EvaluationFileError, match=r"119 of 421 video ids are unknown .*YouTube-VIS 2021,"):
        load_results(content, load_ground_truth(scene.ground_truth))


def test_categories_have_names_of_their_own():
    assert distinct({0: "a", 1: "b"}) == {0: "a", 1: "b"}
    names = distinct({1: "cat", 2: "cat", 3: "cat (1)", 4: "all", 5: "dog"})
    assert len(set(names.values())) == 5
    assert names[2] == "cat (2)"
    assert names[4] == "all (4)"  # not the name of all classes together
    assert names[5] == "dog"
