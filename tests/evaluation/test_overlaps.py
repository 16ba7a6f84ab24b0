"""Overlaps of whole videos against pixels, in one process and in several."""

import dataclasses
import math
import pickle

import numpy as np
import pytest

from vistk.evaluation.files import load_ground_truth, load_results
from vistk.evaluation.overlaps import cells, map_videos, video_overlaps
from vistk.evaluation.processes import in_order
from vistk.ops.masks import Tube, areas, decode


@pytest.fixture(scope="module")
def loaded(make_random_scene):
    scene = make_random_scene(11)
    scene.video(50)  # with nothing in it
    scene.video(51)
    scene.annotate(700, 51, 1, scene.box(0, 0, 5, 5, slice(2, 3)))
    scene.video(52)
    scene.predict(52, 2, 0.25, scene.box(0, 0, 5, 5, slice(2, 3)))
    scene.predict(52, 0, 0.25, scene.box(0, 0, 2, 5, slice(1, 3)))
    ground_truth = load_ground_truth(scene.ground_truth)
    return ground_truth, load_results(scene.results, ground_truth, all_pairs=True)


def pixels(entries, video):
    """``(T, N, H, W)`` bool."""
    out = np.zeros((video.num_frames, len(entries), video.height, video.width), dtype=bool)
    for n, entry in enumerate(entries):
        for t, rle in enumerate(entry.masks):
            if rle is not None:
                out[t, n] = decode(rle)
    return out


@pytest.mark.parametrize("all_pairs", [False, True])
def test_against_pixels(loaded, all_pairs):
    ground_truth, results = loaded
    ids = list(ground_truth.categories)
    found = list(video_overlaps(ground_truth, results, all_pairs=all_pairs))
    assert [o.video for o in found] == list(range(len(ground_truth.videos)))
    for overlaps, video in zip(found, ground_truth.videos, strict=True):
        assert overlaps.instances == video.instances
        assert sorted(overlaps.predictions, key=lambda p: p.score) == sorted(
            results.videos.get(video.id, ()), key=lambda p: p.score
        )
        assert overlaps.scores.tolist() == [p.score for p in overlaps.predictions]
        assert (np.diff(overlaps.scores) <= 0).all()
        assert [ids[k] for k in overlaps.categories] == [p.category_id for p in overlaps.predictions]
        assert [ids[k] for k in overlaps.instance_categories] == [i.category_id for i in video.instances]
        d, g = pixels(overlaps.predictions, video), pixels(video.instances, video)
        shared = (d[:, :, None] & g[:, None]).sum((3, 4))
        same = overlaps.categories[:, None] == overlaps.instance_categories
        np.testing.assert_array_equal(overlaps.intersections, shared if all_pairs else shared * same)
        np.testing.assert_array_equal(overlaps.areas, d.sum((2, 3)))
        np.testing.assert_array_equal(overlaps.instance_areas, g.sum((2, 3)))
        if all_pairs:
            union = (d[:, :, None] | g[:, None]).sum((0, 3, 4))
            expected = shared.sum(0) / np.maximum(union, 1)
            np.testing.assert_allclose(overlaps.tube_iou(), expected, rtol=0, atol=1e-15)
    assert found[-3].intersections.shape == (6, 0, 0)
    assert found[-2].intersections.shape == (6, 0, 1)
    assert found[-1].intersections.shape == (6, 2, 0)


def test_cells_are_the_parts_of_one_category(loaded):
    ground_truth, results = loaded
    found = list(cells(ground_truth, results))
    assert [(c.category, c.video) for c in found] == sorted((c.category, c.video) for c in found)
    whole = list(video_overlaps(ground_truth, results))
    assert sum(len(c.scores) for c in found) == len(results)
    assert sum(len(c.instances) for c in found) == sum(len(v.instances) for v in ground_truth.videos)
    for cell in found:
        video = whole[cell.video]
        rows = [d for d, k in enumerate(video.categories) if k == cell.category]
        columns = [g for g, k in enumerate(video.instance_categories) if k == cell.category]
        assert cell.instances == tuple(video.instances[g] for g in columns)
        np.testing.assert_array_equal(cell.frame_iou(), video.frame_iou()[:, rows][:, :, columns])
        for d, area in zip(rows, cell.mean_areas(), strict=True):
            present = video.areas[:, d][video.areas[:, d] > 0]
            assert area == (present.mean() if len(present) else 0)


def test_pooled_cell_has_equal_scores_by_category(loaded):
    *_, last = video_overlaps(*loaded, all_pairs=True)
    assert last.categories.tolist() == [2, 0]  # the order of the file
    pooled = last.pooled_cell()
    assert pooled.areas[:, 0].tolist() == [0, 10, 10, 0, 0, 0]  # that of category 0
    assert pooled.scores.tolist() == [0.25, 0.25]


def test_any_number_of_processes_gives_the_same(loaded):
    calls = []
    one = list(video_overlaps(*loaded, all_pairs=True))
    two = list(video_overlaps(*loaded, all_pairs=True, jobs=2, progress=lambda: calls.append(0)))
    assert len(calls) == len(one) == len(loaded[0].videos)
    for a, b in zip(one, two, strict=True):
        for field in dataclasses.fields(a):
            np.testing.assert_equal(getattr(a, field.name), getattr(b, field.name))


def total_area(overlaps):
    return overlaps.areas.sum()


def test_a_function_of_every_video(loaded):
    expected = [video.areas.sum() for video in video_overlaps(*loaded)]
    assert list(map_videos(total_area, *loaded)) == expected


def test_processes_keep_the_order_and_pass_errors_on():
    assert list(in_order(math.sqrt, range(40), 2)) == [math.sqrt(n) for n in range(40)]
    made = in_order(math.sqrt, [9, 4, -1, *range(40)], 2)
    assert [next(made), next(made)] == [3, 2]
    with pytest.raises(ValueError, match=r"math domain error|nonnegative"):
        next(made)
    with pytest.raises(ValueError, match="jobs is 0, expected at least 1"):
        in_order(math.sqrt, [], 0)


def test_one_may_stop_early():
    taken = []
    numbers = in_order(math.sqrt, (taken.append(n) or n for n in range(1000)), 2)
    assert next(numbers) == 0
    numbers.close()
    assert len(taken) < 20  # few are on their way at a time


def test_empty_runs_in_compressed_masks_change_nothing(new_scene):
    """pycocotools compares two masks only up to an empty run that they share."""
    scene = new_scene(1, 1, 12)
    scene.video(0)
    scene.category(0, "cat")
    scene.annotate(0, 0, 0, scene.box(0, 2, 1, 6))
    scene.predict(0, 0, 0.5, scene.box(0, 2, 1, 10))
    # 2, 2, 0, 2, 6 and 2, 2, 0, 6, 2: from the fourth on, differences to the run two before
    for entry, counts in ((scene.ground_truth["annotations"][0], "22006"), (scene.results[0], "22042")):
        entry["segmentations"] = [{"size": [1, 12], "counts": counts}]
    ground_truth = load_ground_truth(scene.ground_truth)
    (video,) = video_overlaps(ground_truth, load_results(scene.results, ground_truth))
    assert (video.areas.item(), video.instance_areas.item()) == (8, 4)
    assert video.tube_iou().item() == 0.5


def test_tubes_know_their_areas(loaded):
    _, results = loaded
    tubes = [p.masks for predictions in results.videos.values() for p in predictions]
    assert all(isinstance(tube, Tube) for tube in tubes)
    for tube in tubes:
        expected = areas(tube)
        np.testing.assert_array_equal(tube.areas, expected)
        np.testing.assert_array_equal(Tube(list(tube)).areas, expected)  # counted when asked for
        copy = pickle.loads(pickle.dumps(tube))
        assert copy == tube
        np.testing.assert_array_equal(copy.areas, expected)


@pytest.mark.parametrize("all_pairs", [False, True])
def test_what_was_counted_on_reading_is_not_counted_again(loaded, monkeypatch, all_pairs):
    ground_truth, results = loaded
    bare = dataclasses.replace(
        results,
        videos={
            key: tuple(dataclasses.replace(p, shared=None) for p in predictions)
            for key, predictions in results.videos.items()
        },
    )
    expected = [v.intersections for v in video_overlaps(ground_truth, bare, all_pairs=all_pairs)]
    monkeypatch.setattr("vistk.evaluation.overlaps.tube_overlaps", lambda *_: pytest.fail("counted again"))
    found = video_overlaps(ground_truth, results, all_pairs=all_pairs)
    for video, shared in zip(found, expected, strict=True):
        np.testing.assert_array_equal(video.intersections, shared)


def test_pairs_that_were_not_counted_on_reading_are_counted_when_asked_for(new_scene):
    scene = new_scene(1, 1, 12)
    scene.video(0)
    for category, name in enumerate(("cat", "dog")):
        scene.category(category, name)
    scene.annotate(0, 0, 0, scene.box(0, 2, 1, 6))
    scene.annotate(1, 0, 1, scene.box(0, 0, 1, 4))
    scene.predict(0, 0, 0.5, scene.box(0, 3, 1, 12))
    scene.predict(0, 1, 0.4, scene.box(0, 1, 1, 3))
    ground_truth = load_ground_truth(scene.ground_truth)
    results = load_results(scene.results, ground_truth)
    # Pixels 2 to 5 and 0 to 3 against 3 to 11 and 1 to 2; the first are cats.
    for all_pairs, expected in (
        (False, [[3, 0], [0, 2]]),
        (True, [[3, 1], [1, 2]]),
        (False, [[3, 0], [0, 2]]),
    ):
        (video,) = video_overlaps(ground_truth, results, all_pairs=all_pairs)
        assert video.intersections[0].tolist() == expected


def test_other_instances_than_those_of_the_file(loaded):
    """A selection of the same ones, in another order, and equal ones of another reading."""
    ground_truth, results = loaded
    turned = dataclasses.replace(
        ground_truth,
        videos=tuple(dataclasses.replace(v, instances=v.instances[:0:-1]) for v in ground_truth.videos),
    )
    copied = dataclasses.replace(
        ground_truth,
        videos=tuple(
            dataclasses.replace(v, instances=tuple(dataclasses.replace(i) for i in v.instances))
            for v in ground_truth.videos
        ),
    )
    for video, part, copy in zip(
        *(video_overlaps(truth, results, all_pairs=True) for truth in (ground_truth, turned, copied)),
        strict=True,
    ):
        np.testing.assert_array_equal(part.intersections, video.intersections[:, :, :0:-1])
        np.testing.assert_array_equal(copy.intersections, video.intersections)
