"""What can be seen of a results file at once is seen before any is scored."""

import json

import pytest

from vistk.evaluation import first_look
from vistk.evaluation.files import EvaluationFileError, load_ground_truth
from vistk.evaluation.first_look import look_at
from vistk.evaluation.report import evaluate


@pytest.fixture
def truth(scene):
    return load_ground_truth(scene.ground_truth)


def changed(entries, **more):
    return [entries[0] | more, *entries[1:]]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (lambda results: json.dumps({"videos": []}), r"is this the ground truth\?"),
        (lambda results: json.dumps(results)[:-9], "is not json"),
        (lambda results: "", "is not json"),
        (lambda results: "null", "expected a list of predictions"),
        (lambda results: json.dumps(changed(results, video_id=83)), "1 of 3 video ids are unknown"),
        (lambda results: json.dumps([1, *results]), "entry 0: found a int, expected a dict"),
        (lambda results: "[}]", "is not json"),
    ],
)
def test_what_is_wrong_at_once(scene, truth, tmp_path, content, expected):
    path = tmp_path / "bad.json"
    path.write_text(content(scene.results))
    with pytest.raises(EvaluationFileError, match=expected):
        look_at(path, truth)


@pytest.mark.parametrize("content", ["[]", " [ \n]\n", "\ufeff[]"])
def test_a_file_without_predictions_is_right(truth, tmp_path, content):
    (tmp_path / "none.json").write_text(content, encoding="utf-8")
    look_at(tmp_path / "none.json", truth)


def test_only_the_first_entry_is_read(scene, truth, tmp_path, monkeypatch):
    (tmp_path / "long.json").write_text(json.dumps(changed(scene.results, more="x" * 200_000)))
    monkeypatch.setattr(
        first_look, "load_results", lambda results, *_, **__: len(results) == 1 or pytest.fail("read")
    )
    look_at(tmp_path / "long.json", truth)
    monkeypatch.setattr(first_look, "_LONGEST_ENTRY", 1000)
    look_at(tmp_path / "long.json", truth)


def test_lenient_reading_skips_entries(scene, truth, tmp_path):
    (tmp_path / "odd.json").write_text(json.dumps([1, *scene.results]))
    look_at(tmp_path / "odd.json", truth, lenient=True)
    (tmp_path / "odd.json").write_text("{}")
    with pytest.raises(EvaluationFileError, match="expected a list of predictions"):
        look_at(tmp_path / "odd.json", truth, lenient=True)


def test_all_are_looked_at_before_any_is_scored(scene, tmp_path, monkeypatch):
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(json.dumps(scene.results))
    bad.write_text(json.dumps(scene.ground_truth))
    monkeypatch.setattr("vistk.evaluation.report.score", lambda *_, **__: pytest.fail("scored"))
    with pytest.raises(EvaluationFileError, match=r"bad\.json: .*is this the ground truth\?"):
        evaluate(scene.ground_truth, [good, bad])
    with pytest.raises(FileNotFoundError, match=r"none\.json: no such results file"):
        evaluate(scene.ground_truth, [good, tmp_path / "none.json"])
