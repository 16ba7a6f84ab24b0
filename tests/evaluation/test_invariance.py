"""What must not change a number: ids, the order of entries and, but for identity switches, that of frames."""

import copy

import numpy as np
import pytest

from vistk.evaluation.report import evaluate

ANY_IDS = [0, -1, 10**12, -(10**12), 2**63, 7, 83, 1]
OF_FRAME_ORDER = {"MOTA", "MOTP"}


def renumbered(content, name, key, new):
    """In place: entry ``i`` of a list gets the id ``new[i]``, wherever it is mentioned."""
    ground_truth, results = content
    table = {entry["id"]: int(value) for entry, value in zip(ground_truth[name], new, strict=True)}
    for entry in ground_truth[name]:
        entry["id"] = table[entry["id"]]
    for entry in (*ground_truth["annotations"], *results):
        if key in entry:
            entry[key] = table[entry[key]]


def some_ids(rng, count):
    ids = [*ANY_IDS, *range(1000, 1000 + count)]
    return [ids[i] for i in rng.permutation(max(count, len(ANY_IDS)))[:count]]


def shuffled(scene, seed, frames):
    """The same files with other ids, in another order, with the frames of each video permuted or not."""
    rng = np.random.default_rng(seed)
    content = copy.deepcopy((scene.ground_truth, scene.results))
    ground_truth, results = content
    order = {
        video["id"]: rng.permutation(scene.shape[0]) if frames else np.arange(scene.shape[0])
        for video in ground_truth["videos"]
    }
    for entry in (*ground_truth["annotations"], *results):
        for key in {"segmentations", "areas"} & entry.keys():
            entry[key] = [entry[key][t] for t in order[entry["video_id"]]]
    for name, key in (("videos", "video_id"), ("categories", "category_id"), ("annotations", "")):
        renumbered(content, name, key, some_ids(rng, len(ground_truth[name])))
        rng.shuffle(ground_truth[name])
    rng.shuffle(results)
    return content


def metrics(ground_truth, results, without=frozenset()):
    found = evaluate(ground_truth, results).metrics
    return {name: value for name, value in found.items() if name not in without}


@pytest.mark.parametrize("seed", range(4))
def test_ids_and_the_order_of_entries_do_not_matter(make_random_scene, seed):
    scene = make_random_scene(seed)
    expected = metrics(scene.ground_truth, scene.results)
    assert 0 < expected["AP"] < 1
    assert metrics(*shuffled(scene, seed, frames=False)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_frames_does_not_matter(make_random_scene, seed):
    scene = make_random_scene(seed)
    expected = metrics(scene.ground_truth, scene.results, OF_FRAME_ORDER)
    found = metrics(*shuffled(scene, seed, frames=True), OF_FRAME_ORDER)
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_perfect_results_score_one_whatever_the_ids(make_random_scene, seed):
    scene = make_random_scene(seed)
    for a in scene.ground_truth["annotations"]:
        a["iscrowd"] = 0
    keys = ("video_id", "category_id", "segmentations")
    scene.results = [
        {key: a[key] for key in keys} | {"score": 0.5 + i / 1000}
        for i, a in enumerate(scene.ground_truth["annotations"])
        if any(a["segmentations"])
    ]
    found = metrics(*shuffled(scene, seed, frames=True), {"AR1"})  # some videos have two of a category
    assert {
        "AP",
        "AP50",
        "AP75",
        "APs",
        "AR10",
        "HOTA",
        "DetA",
        "AssA",
        "LocA",
        "IDF1",
        "MOTA",
        "MOTP",
    } <= found.keys()
    defined = {name: value for name, value in found.items() if value is not None}
    assert defined == pytest.approx(dict.fromkeys(defined, 1.0), abs=1e-12)
