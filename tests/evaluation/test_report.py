import argparse
import json

import pytest

from vistk.evaluation.report import add_arguments, evaluate, run


@pytest.fixture
def files(scene, tmp_path):
    scene.category(5, "bird")  # never annotated
    paths = [tmp_path / "gt.json", tmp_path / "results.json"]
    for path, content in zip(paths, (scene.ground_truth, scene.results), strict=True):
        path.write_text(json.dumps(content))
    return [str(path) for path in paths]


def call(*arguments):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args(list(arguments)))


def test_json_has_fractions_and_null(files, tmp_path, capsys):
    out = tmp_path / "deep" / "out.json"
    assert call(*files, "--json", str(out)) == 0
    content = json.loads(out.read_text())
    for name in ("AP", "AP50", "AP75", "APs", "AR1", "AR10", "AR100", "AssA", "IDF1", "HOTA"):
        assert content[name] == pytest.approx(1.0, abs=1e-12), name
    assert content["APm"] is None
    assert content["APl"] is None
    assert "APso" not in content  # only where the file has occlusion
    assert list(content["per_category"]) == ["cat", "dog", "bird"]
    assert content["per_category"]["dog"]["AP"] == pytest.approx(1.0)
    assert content["per_category"]["bird"] == dict.fromkeys(("AP", "AP50", "AR10", "HOTA", "AssA", "IDF1"))
    assert content["score_threshold"] == 0.3
    assert content["counts"] == {
        "videos": 2, "instances": 4, "predictions": 6, "IDSW": 0, "Frag": 0, "MT": 4, "PT": 0, "ML": 0
    }  # fmt: skip
    printed = capsys.readouterr().out
    assert "score >= 0.3" in printed
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in printed.splitlines()]
    assert ["bird", *["-"] * 6] in rows
    assert rows[0][:6] == ["AP", "AP50", "AP75", "APs", "APm", "APl"]
    assert rows[2][:6] == ["100.0", "100.0", "100.0", "100.0", "-", "-"]


def test_report_reads_what_it_is_given(scene, files):
    from_files, from_content = evaluate(*files), evaluate(scene.ground_truth, scene.results)
    assert from_files.as_dict() == from_content.as_dict()
    again = evaluate(from_content.ground_truth, scene.results)
    assert again.as_dict() == from_content.as_dict()
    assert again.ground_truth is from_content.ground_truth


def test_intervals_and_difference(files, scene, tmp_path, capsys):
    out = tmp_path / "out.json"
    assert call(*files, "--bootstrap", "50", "--json", str(out)) == 0
    assert json.loads(out.read_text())["intervals"]["AP"] == pytest.approx([1.0, 1.0, 1.0])
    worse = tmp_path / "worse.json"
    worse.write_text(json.dumps(scene.results[1:]))
    assert call(*files, "--bootstrap", "50", "--baseline", str(worse), "--json", str(out)) == 0
    value, low, high = json.loads(out.read_text())["difference"]["AP"]
    assert value == pytest.approx(0.25, abs=0.01)  # a cat less: recall 0.5 in one of two categories
    assert low < value < high
    assert f"Difference to {worse} (95 %, 50 resamples of 2 videos, seed 0)" in capsys.readouterr().out


def test_errors_are_one_line(files, tmp_path, capsys):
    out = tmp_path / "out.json"
    cases = {
        (files[0], str(tmp_path / "none.json")): "none.json: no such results file",
        (files[1], files[0]): "is this the results file?",
        (*files, "--baseline", files[1]): "--baseline needs --bootstrap N",
    }
    for arguments, expected in cases.items():
        assert call(*arguments, "--json", str(out)) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert expected in captured.err
        assert captured.err.count("\n") == 1
    assert not out.exists()


def test_nothing_at_all():
    report = evaluate({"videos": [], "categories": [], "annotations": []}, [])
    assert set(report.metrics.values()) == {None}
    assert "0 videos, 0 instances, 0 predictions" in report.to_markdown()
