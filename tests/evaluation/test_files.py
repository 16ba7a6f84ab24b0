"""Every fault of a file is one sentence that names file, entry, field, what was found and expected."""

import copy
import json
import math
import re
import zipfile

import numpy as np
import pytest

from vistk.cli import main
from vistk.evaluation.files import EvaluationFileError, load_ground_truth, load_results, mean_area
from vistk.evaluation.report import evaluate

OTHER_SIZE = {"size": [5, 7], "counts": "Q1"}


def message(call):
    with pytest.raises(EvaluationFileError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    return text


def put(content, path, value):
    """A deep copy with the value at a path of keys replaced, or removed where the value is ``...``."""
    content = copy.deepcopy(content)
    place = content
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return content


GROUND_TRUTH_FAULTS = {
    "no annotations": (("annotations",), ..., r"'annotations' is missing.*published validation"),
    "null annotations": (("annotations",), None, r"'annotations' is null, expected a list of dicts; found"),
    "text as annotations": (("annotations",), "none", r"'annotations' is a str, expected a list of dicts"),
    "empty annotations": (("annotations",), [], r"'annotations' is empty for 2 videos"),
    "no videos": (("videos",), ..., r"'videos' is missing, expected a list.*'annotations', 'categories'"),
    "video is a number": (("videos", 1), 7, r"videos\[1\]: found a int, expected a dict"),
    "video is null": (("videos", 1), None, r"videos\[1\]: found null, expected a dict"),
    "no video id": (("videos", 1, "id"), ..., r"videos\[1\]: 'id' is missing, found the keys"),
    "text as video id": (("videos", 1, "id"), "1", r"videos\[1\]: 'id' is '1', expected an integer"),
    "bool as video id": (("videos", 1, "id"), True, r"videos\[1\]: 'id' is True, expected an integer"),
    "same video id": (("videos", 1, "id"), 0, r"videos\[1\]: 'id' 0 occurs twice"),
    "no length": (("videos", 0, "length"), ..., r"videos\[0\]: neither 'length' nor 'file_names'"),
    "file names": (("videos", 0, "file_names"), ["a.jpg"], r"'file_names' has 1 entries, .*'length' 3"),
    "text as file names": (
        ("videos", 0),
        {"id": 0, "height": 7, "width": 5, "file_names": "abc"},
        r"videos\[0\]: 'file_names' is a str, expected a list of names",
    ),
    "number of files": (
        ("videos", 0, "file_names"),
        3,
        r"videos\[0\]: 'file_names' is a int, expected a list",
    ),
    "zero height": (("videos", 0, "height"), 0, r"videos\[0\]: height 0.*expected a positive size"),
    "same category id": (("categories", 1, "id"), 0, r"categories\[1\]: 'id' 0 occurs twice"),
    "no category name": (("categories", 1, "name"), ..., r"categories\[1\]: 'name' is missing"),
    "null category name": (
        ("categories", 1, "name"),
        None,
        r"categories\[1\]: 'name' is None, expected a text",
    ),
    "unknown video": (("annotations", 2, "video_id"), 9, r"annotations\[2\]: 'video_id' 9 .* the 2 videos"),
    "unknown category": (("annotations", 2, "category_id"), 9, r"'category_id' 9 .* the 2 categories"),
    "same annotation id": (("annotations", 2, "id"), 0, r"annotations\[2\]: 'id' 0 occurs twice"),
    "frames": (("annotations", 2, "segmentations"), [None], r"'segmentations' has 1 entries, expected 3"),
    "no list": (("annotations", 2, "segmentations"), 3, r"'segmentations' is a int, expected a list"),
    "no masks": (("annotations", 2, "segmentations"), None, r"'segmentations' is null, expected a list"),
    "areas": (("annotations", 2, "areas"), [1], r"'areas' has 1 entries, expected 3"),
    "NaN area": (("annotations", 2, "areas", 1), math.nan, r"'areas' of frame 1 is nan, expected a number"),
    "negative area": (
        ("annotations", 2, "areas", 1),
        -4,
        r"annotations\[2\]: 'areas' of frame 1 is -4, expected a number of pixels or null",
    ),
    "crowd": (("annotations", 2, "iscrowd"), 2, r"'iscrowd' is 2, expected 0 or 1"),
    "size": (("annotations", 2, "segmentations", 1), OTHER_SIZE, r"frame 1: RLE size is \[5, 7\].*\[7, 5\]"),
    "other counts": (
        ("annotations", 2, "segmentations", 1),
        {"size": [7, 5], "counts": "3"},
        r"annotations\[2\]: 'segmentations' of frame 1: the counts cover 3 pixels, expected 35 pixels",
    ),
    "broken counts": (
        ("annotations", 2, "segmentations", 1),
        {"size": [7, 5], "counts": "ZZ"},
        r"annotations\[2\]: 'segmentations' of frame 1: the counts are not a compressed RLE, expected 35 pix",
    ),
    "encoding": (("annotations", 2, "segmentations", 1), "abc", r"frame 1: a segmentation is str"),
    "occlusion": (
        ("annotations", 2, "occlusion"),
        ["no_occlusion", "some", None],
        r"'occlusion' of frame 1 is 'some', expected null or one of \['no_occlusion'",
    ),
}

RESULTS_FAULTS = {
    "entry": ((1,), [], r"entry 1: found a list, expected a dict"),
    "no score": ((1, "score"), ..., r"entry 1: 'score' is missing, found the keys \['category_id'"),
    "NaN score": ((1, "score"), math.nan, r"entry 1: 'score' is nan, expected a finite number"),
    "infinite score": ((1, "score"), math.inf, r"entry 1: 'score' is inf, expected a finite number"),
    "null": ((1,), None, r"entry 1: found null, expected a dict"),
    "scores of classes": (
        (1, "score"),
        [0.5] * 40,
        r"entry 1: 'score' is \[0\.5, .{,40}\.\.\.\], expected a",
    ),
    "text as score": ((1, "score"), "0.5", r"entry 1: 'score' is '0.5', expected a finite number"),
    "video": (
        (4, "video_id"),
        9,
        r"1 of 3 video ids are unknown \(first in entry 4, 'video_id' 9; ground truth has 2\)",
    ),
    "float id": ((4, "video_id"), 1.0, r"entry 4: 'video_id' is 1.0, expected an integer"),
    "category": ((4, "category_id"), 9, r"1 of 3 category ids are unknown \(first in entry 4"),
    "frames": ((4, "segmentations"), [None] * 4, r"entry 4: 'segmentations' has 4 entries, expected 3"),
    "size": (
        (4, "segmentations", 2),
        OTHER_SIZE,
        r"entry 4: 'segmentations' of frame 2: RLE size is \[5, 7\]",
    ),
    "other counts": (
        (4, "segmentations", 2),
        {"size": [7, 5], "counts": "3"},
        r"frame 2: the counts cover 3 pixels, expected 35 pixels",
    ),
    "broken counts": (
        (4, "segmentations", 2),
        {"size": [7, 5], "counts": "ZZ"},
        r"frame 2: the counts are not a compressed RLE, expected 35 pixels",
    ),
    "keys": ((4, "segmentations", 2), {"counts": "Q1"}, r"frame 2: an RLE needs 'counts' and 'size'"),
}


@pytest.mark.parametrize("fault", GROUND_TRUTH_FAULTS)
def test_ground_truth_faults(scene, fault):
    path, value, expected = GROUND_TRUTH_FAULTS[fault]
    text = message(lambda: load_ground_truth(put(scene.ground_truth, path, value)))
    assert re.search(expected, text), text
    assert text.startswith("ground truth: ")


@pytest.mark.parametrize("counts", ["3", "ZZ"])
@pytest.mark.parametrize("kept", [slice(None), slice(0)])  # results, which may have nothing for the video
@pytest.mark.parametrize("annotation", [0, 1, 2])
def test_broken_runs_of_the_ground_truth_are_found_when_it_is_scored(scene, annotation, kept, counts):
    masks = scene.ground_truth["annotations"][annotation]["segmentations"]
    frame = next(t for t, mask in enumerate(masks) if mask is not None)
    path = ("annotations", annotation, "segmentations", frame)
    faulty = put(scene.ground_truth, path, {"size": [7, 5], "counts": counts})
    text = message(lambda: evaluate(faulty, scene.results[kept]))
    assert text == message(lambda: load_ground_truth(faulty))
    assert f"annotations[{annotation}]: 'segmentations' of frame {frame}: the counts" in text


@pytest.mark.parametrize("predictions", [0, 1])
def test_empty_runs_of_the_ground_truth_are_mended_when_it_is_scored(new_scene, predictions):
    scene = new_scene(1, 1, 12)
    scene.video(0)
    scene.category(0, "cat")
    scene.annotate(0, 0, 0, scene.box(0, 2, 1, 6))
    scene.predict(0, 0, 0.5, scene.box(0, 2, 1, 10))
    # 2, 2, 0, 2, 6: from the fourth on, differences to the run two before
    written = put(
        scene.ground_truth, ("annotations", 0, "segmentations"), [{"size": [1, 12], "counts": "22006"}]
    )
    report = evaluate(written, scene.results[:predictions])
    assert report.frame.equals(evaluate(scene.ground_truth, scene.results[:predictions]).frame)
    truth = load_ground_truth(written, runs_later=True)
    load_results(scene.results[:predictions], truth)
    assert truth == load_ground_truth(scene.ground_truth)  # its masks, too


@pytest.mark.parametrize("fault", RESULTS_FAULTS)
def test_results_faults(scene, fault):
    path, value, expected = RESULTS_FAULTS[fault]
    ground_truth = load_ground_truth(scene.ground_truth)
    text = message(lambda: load_results(put(scene.results, path, value), ground_truth))
    assert re.search(expected, text), text
    assert text.startswith("results: ")


@pytest.mark.parametrize("lenient", [[], ["--lenient"]])
@pytest.mark.parametrize("fault", [*GROUND_TRUTH_FAULTS, *(f"results: {name}" for name in RESULTS_FAULTS)])
def test_every_fault_on_the_command_line(scene, tmp_path, capsys, fault, lenient):
    of_results = fault.startswith("results: ")
    faults = RESULTS_FAULTS if of_results else GROUND_TRUTH_FAULTS
    path, value, expected = faults[fault.removeprefix("results: ")]
    content = {"gt": scene.ground_truth, "mine": scene.results}
    faulty = "mine" if of_results else "gt"
    content[faulty] = put(content[faulty], path, value)
    files = []
    for name, entries in content.items():
        files.append(tmp_path / f"{name}.json")
        files[-1].write_text(json.dumps(entries))
    code = main(["evaluate", *map(str, files), *lenient])
    out, err = capsys.readouterr()
    if of_results and lenient:
        assert code == 0
        assert re.search(r"predictions: 5 \(mine\)\. Left out of mine: [a-z ]+: 1\.", out)
        return
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith(f"vistk evaluate: {tmp_path / faulty}.json: ")
    assert re.search(expected.replace("ground truth has", ".*gt.json has"), err), err


def test_swapped_files_are_recognised(scene):
    assert "is this the results file?" in message(lambda: load_ground_truth(scene.results))
    ground_truth = load_ground_truth(scene.ground_truth)
    assert "is this the ground truth?" in message(lambda: load_results(scene.ground_truth, ground_truth))
    assert "found a dict, expected a list" in message(lambda: load_results({}, ground_truth))
    assert "found null, expected a list" in message(lambda: load_results(None, ground_truth))


def test_results_of_another_data_set(new_scene):
    scene = new_scene()
    scene.category(1, "cat")
    for video_id in range(3):
        scene.video(video_id)
    scene.annotate(1, 0, 1, scene.box(0, 0, 2, 2))
    for video_id in range(20):
        scene.predict(video_id, 1, 0.5, scene.box(0, 0, 2, 2))
    text = message(lambda: load_results(scene.results, load_ground_truth(scene.ground_truth)))
    assert "17 of 20 video ids are unknown" in text
    assert text.endswith("is this another data set or split?")


def test_files_are_named(scene, tmp_path):
    path = tmp_path / "gt.json"
    with pytest.raises(FileNotFoundError, match=r"gt\.json: no such ground truth file"):
        load_ground_truth(path)
    path.write_text("{'videos':")
    assert message(lambda: load_ground_truth(path)).startswith(f"{path}: the ground truth file is not json")
    path.write_text(json.dumps(scene.ground_truth))
    ground_truth = load_ground_truth(str(path))
    with zipfile.ZipFile(tmp_path / "results.zip", "w") as submitted:
        submitted.writestr("results.json", json.dumps(scene.results))
    assert message(lambda: load_results(tmp_path / "results.zip", ground_truth)) == (
        f"{tmp_path / 'results.zip'}: the results file is a zip archive, expected the json file that is in it"
    )
    results = tmp_path / "results.json"
    results.write_text(json.dumps(scene.results).replace("0.9", "NaN", 1))
    assert message(lambda: load_results(results, ground_truth)).startswith(
        f"{results}: entry 0: 'score' is nan"
    )


def test_content_is_not_changed(scene):
    before = copy.deepcopy((scene.ground_truth, scene.results))
    load_results(scene.results, load_ground_truth(scene.ground_truth))
    assert (scene.ground_truth, scene.results) == before


def test_classes_may_be_called_by_numbers(scene):
    content = put(scene.ground_truth, ("categories", 1, "name"), 7)
    assert "7" in load_ground_truth(content).categories.values()


def test_mean_area_is_on_the_border_of_a_range_where_it_is_officially():
    areas = [16384.1] * 10
    assert mean_area([*areas, None, 0]) == np.array(areas).mean()
    assert mean_area([None, 0]) == mean_area([]) == 0


def test_areas_and_occlusion(new_scene):
    scene = new_scene()
    scene.video(4)
    scene.category(0, "cat")
    scene.category(1, "cat")
    levels = ["slight_occlusion", "severe_occlusion", "no_occlusion"]
    scene.annotate(0, 4, 0, scene.box(0, 0, 2, 3, slice(0, 2)), areas=[100, None, 0], occlusion=levels)
    scene.annotate(1, 4, 1, scene.box(0, 0, 2, 3, slice(0, 2)), areas=None, occlusion=[None] * 3)
    ground_truth = load_ground_truth(scene.ground_truth)
    stored, counted = ground_truth.videos[0].instances
    assert stored.area == 100  # of the file, over non-empty frames
    assert counted.area == 6  # from the masks where the file has none
    assert stored.occlusion == 0.5  # two of three frames are the occluded half: (0.75 + 0.25) / 2
    assert counted.occlusion is None
    assert list(ground_truth.categories.values()) == ["cat (0)", "cat (1)"]
