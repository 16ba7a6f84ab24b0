"""A data set that was read for inference scores as its file does."""

from __future__ import annotations

import dataclasses
import json

import pytest

from vistk.data.ytvis import YTVIS
from vistk.evaluation.files import load_ground_truth
from vistk.evaluation.ground_truth import ground_truth_of


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
