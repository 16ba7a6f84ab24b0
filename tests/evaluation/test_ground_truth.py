"""A data set that was read for inference scores as its file does."""

from __future__ import annotations

import dataclasses
import json

import pytest

from vistk.data.ytvis import YTVIS
from vistk.evaluation.files import load_ground_truth, load_results
from vistk.evaluation.ground_truth import ground_truth_of
from vistk.evaluation.overlaps import video_overlaps


@pytest.mark.parametrize("case", ["case1", "case2", "case3"])
def test_equals_the_file(golden, case, tmp_path):
    path = golden / "ytvis_eval" / case / "gt.json"
    source = YTVIS.load(path, tmp_path)
    assert ground_truth_of(source) == load_ground_truth(path)


def test_a_selection_of_videos(golden, tmp_path):
    path = golden / "ytvis_eval" / "case3" / "gt.json"
    source = YTVIS.load(path, tmp_path)
    kept = {video["id"] for video in json.loads(path.read_text())["videos"][:2]}
    part = dataclasses.replace(source, videos=tuple(v for v in source.videos if v.video_id in kept))
    truth = ground_truth_of(part)
    assert {video.id for video in truth.videos} == kept
    assert truth.videos == tuple(v for v in load_ground_truth(path).videos if v.id in kept)


def test_empty_runs_of_a_data_set_change_nothing(new_scene, tmp_path):
    """pycocotools compares two masks only up to an empty run that they share; the reader of data sets
    takes masks as they are.
    """
    scene = new_scene(1, 1, 12)
    scene.video(0)
    scene.category(0, "cat")
    scene.annotate(0, 0, 0, scene.box(0, 2, 1, 6))
    scene.ground_truth["annotations"][0]["segmentations"] = [{"size": [1, 12], "counts": "22006"}]
    scene.ground_truth["videos"][0]["file_names"] = ["0.png"]
    scene.predict(0, 0, 0.5, scene.box(0, 2, 1, 10))
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(scene.ground_truth))
    truth = ground_truth_of(YTVIS.load(path, tmp_path))
    assert truth == load_ground_truth(path)
    (video,) = video_overlaps(truth, load_results(scene.results, truth))
    assert (video.areas.item(), video.instance_areas.item()) == (8, 4)
    assert video.tube_iou().item() == 0.5
