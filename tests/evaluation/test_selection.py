"""Options of the official code through the whole report: numbers, intervals, tables, command line."""

import json

import numpy as np
import pytest

from vistk.cli import main
from vistk.evaluation.ap_options import APOptions
from vistk.evaluation.bootstrap import resampled, video_draws
from vistk.evaluation.files import load_ground_truth, load_results
from vistk.evaluation.keys import Key
from vistk.evaluation.report import evaluate
from vistk.evaluation.scores import score
from vistk.evaluation.selection import describe
from vistk.evaluation.ytvis_ap import accumulate, match, summarize

AREAS = {"all": (0.0, 1e10), "tiny": (0.0, 40.0), "rest": (40.0, 1e10)}
CASES = {
    "no categories": APOptions(use_categories=False),
    "few": APOptions(max_detections=(1, 2)),
    "one limit": APOptions(max_detections=(3,), iou_thresholds=(0.3, 0.5)),
    "no half": APOptions(iou_thresholds=(0.6, 0.75), recall_points=(0.0, 0.5, 1.0)),
    "areas": APOptions(area_ranges=AREAS),
    "selected": APOptions(video_ids=(0, 2, 4), category_ids=(0, 2)),
    "all of it": APOptions(
        use_categories=False, video_ids=(1, 2, 3), max_detections=(1, 5), area_ranges=AREAS
    ),
}


@pytest.fixture(scope="module")
def scene(make_random_scene):
    scene = make_random_scene(3)
    for n, entry in enumerate(scene.results):  # ties over classes
        entry["score"] = round(entry["score"] * 4) / 4 + 0.1 * (n % 2)
    return scene


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_numbers_are_those_of_the_official_code(scene, options):
    truth = load_ground_truth(scene.ground_truth)
    expected = summarize(accumulate(match(truth, load_results(scene.results, truth), options)))
    found = score(truth, scene.results, options=options, by=["length"], errors=True, gaps=True)
    assert {name: found.numbers[Key(name)] for name in expected} == pytest.approx(
        expected, abs=0, nan_ok=True
    )
    # Without resampling, the numbers are the same; with it, all are there.
    draws = video_draws(len(found.ground_truth.videos), 3, 0)
    again = resampled(found, draws)
    assert again.keys() == found.numbers.keys()
    for key, values in again.items():
        assert values[0] == pytest.approx(found.numbers[key], abs=1e-12, nan_ok=True), key


def test_all_metrics_without_classes(make_random_scene):
    """As if there were one class, whatever the metric: then a wrong one is no error."""
    scene = make_random_scene(3)
    one = {key: value for key, value in scene.ground_truth.items() if key != "categories"}
    one["categories"] = [{"id": 0, "name": "thing"}]
    # Of equals, the order is that of the categories: links and matches between them depend on it.
    by_class = [
        sorted(entries, key=lambda entry: entry["category_id"])
        for entries in (scene.ground_truth["annotations"], scene.results)
    ]
    one["annotations"], results = ([e | {"category_id": 0} for e in entries] for entries in by_class)
    options = {"errors": True, "gaps": True, "by": ["crowding", "size"], "score_threshold": (0.3, 0.6)}
    expected = score(one, results, **options).numbers
    found = score(
        scene.ground_truth, scene.results, options=APOptions(use_categories=False), **options
    ).numbers
    assert [key._replace(category="") for key in found] == [key._replace(category="") for key in expected]
    np.testing.assert_array_equal(list(found.values()), list(expected.values()))


def test_options_are_said(scene):
    official = evaluate(scene.ground_truth, scene.results)
    assert official.card["options"] is None
    assert "Not as officially" not in official.to_markdown()
    for options, expected in (
        (CASES["no categories"], "all classes taken for one"),
        (CASES["selected"], "2 of the classes; 3 of the videos"),
        (CASES["few"], "AP with at most 1, 2 predictions, errors and gaps as officially"),
        (CASES["one limit"], "AP with at most 3 predictions, IoU 0.3, 0.5, errors and"),
        (CASES["no half"], "3 recall points"),
        (CASES["areas"], "areas all 0 to 1e+10, tiny 0 to 40, rest 40 to 1e+10 pixels"),
    ):
        report = evaluate(scene.ground_truth, scene.results, options=options)
        assert expected in describe(options)
        assert f"Not as officially: {describe(options)}." in report.to_markdown()
        assert report.as_dict()["card"]["options"] == describe(options)


def test_options_of_the_command(scene, tmp_path, capsys):
    files = [tmp_path / "gt.json", tmp_path / "mine.json"]
    for path, content in zip(files, (scene.ground_truth, scene.results), strict=True):
        path.write_text(json.dumps(content))
    words = ["--no-categories", "--max-detections", "1,5", "--iou-thresholds", "0.3,0.5", "--by", "length"]
    out = tmp_path / "out.json"
    areas = ["--area-ranges", "tiny:0:40, rest:40:1e10"]
    assert main(["evaluate", str(files[0]), *words, *areas, "--json", str(out), str(files[1])]) == 0
    options = APOptions(
        use_categories=False, max_detections=(1, 5), iou_thresholds=(0.3, 0.5), area_ranges=AREAS
    )
    (metrics,) = json.loads(out.read_text())["metrics"].values()
    assert metrics == score(scene.ground_truth, scene.results, options=options).metrics
    assert {"AP", "AP50", "APtiny", "APrest", "AR1", "AR5", "ARtiny"} <= metrics.keys()
    printed = capsys.readouterr().out
    header = next(line for line in printed.splitlines() if "APtiny" in line)
    assert [cell.strip() for cell in header.strip("|").split("|")] == [
        *("results", "AP", "AP50", "APtiny", "APrest", "AR1", "AR5", "ARtiny", "ARrest")
    ]
    assert "AR5 |" in printed.split("by length")[1]
    assert "classes**" not in printed
    for wrong, expected in (
        (["--max-detections", "10,1"], "max_detections is (10, 1), expected rising numbers"),
        (["--iou-thresholds", "0.5,2"], "expected rising numbers from 0 to 1"),
        (["--area-ranges", "so:0:1"], "expected another name than"),
    ):
        assert main(["evaluate", *map(str, files), *wrong]) == 2
        captured = capsys.readouterr()
        assert expected in captured.err
        assert captured.err.count("\n") == 1
    for wrong, expected in (
        (["--max-detections", "a"], "found 'a', expected numbers with commas"),
        (["--area-ranges", "tiny:1"], "found 'tiny:1', expected NAME:LOW:HIGH in pixels"),
        (["--area-ranges", "a:0:1,a:2:3"], "found 'a' twice, expected different names"),
    ):
        with pytest.raises(SystemExit):
            main(["evaluate", *map(str, files), *wrong])
        assert expected in capsys.readouterr().err
