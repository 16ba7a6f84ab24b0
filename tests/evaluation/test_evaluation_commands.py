"""``vistk evaluate``: files in, tables and files out, errors in one line."""

import json

import pytest

from vistk.cli import main


@pytest.fixture
def files(scene, tmp_path):
    scene.category(5, "bird")  # never annotated
    paths = [tmp_path / "gt.json", tmp_path / "mine.json"]
    for path, content in zip(paths, (scene.ground_truth, scene.results), strict=True):
        path.write_text(json.dumps(content))
    return [str(path) for path in paths]


@pytest.fixture
def worse(scene, tmp_path):
    path = tmp_path / "worse.json"
    path.write_text(json.dumps(scene.results[1:]))
    return str(path)


def test_one_file(files, tmp_path, capsys):
    out = tmp_path / "deep" / "out.json"
    assert main(["evaluate", *files, "--json", str(out)]) == 0
    content = json.loads(out.read_text())
    (metrics,) = content["metrics"].values()
    for name in ("AP", "AP50", "AP75", "APs", "AR1", "AR10", "AR100", "AssA", "IDF1", "HOTA"):
        assert metrics[name] == pytest.approx(1.0, abs=1e-12), name
    assert metrics["APm"] is None
    assert "APso" not in metrics  # only where the file has occlusion
    (per_category,) = content["per_category"].values()
    assert list(per_category) == ["cat", "dog", "bird"]
    assert per_category["bird"]["AP"] is None
    (counts,) = content["counts"].values()
    assert counts == {
        "videos": 2, "instances": 4, "predictions": 6, "IDSW": 0, "Frag": 0, "MT": 4, "PT": 0, "ML": 0
    }  # fmt: skip
    printed = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in printed.splitlines()]
    assert ["bird", *["-"] * 6] in rows
    header = next(i for i, row in enumerate(rows) if "AP50" in row)
    assert rows[header][1:7] == ["AP", "AP50", "AP75", "APs", "APm", "APl"]
    assert rows[header + 2][1:7] == ["100.0", "100.0", "100.0", "100.0", "-", "-"]


def test_several_files_are_compared(files, worse, tmp_path, capsys):
    out, table = tmp_path / "out.json", tmp_path / "out.md"
    words = ["--metrics", "ap,hota,errors,gaps", "--by", "length,crowding", "--bootstrap", "50"]
    arguments = [*files, worse, *words, "--score-threshold", "0.3,0.5"]
    assert main(["evaluate", *arguments, "--json", str(out), "--table", str(table)]) == 0
    printed = capsys.readouterr().out
    assert table.read_text() == printed
    (ap,) = (
        d
        for d in json.loads(out.read_text())["differences"]
        if (d["metric"], d["class"], d["by"]) == ("AP", "all", "all")
    )
    assert (ap["results"], ap["baseline"]) == ("worse", "mine")
    assert ap["value"] == pytest.approx(-0.25, abs=0.01)  # a cat less: recall 0.5 in one of two categories
    assert ap["low"] < ap["value"] < ap["high"]
    assert "difference to mine" in printed
    assert "by length" in printed
    assert "50 resamples of 2 videos, seed 0" in printed


def test_several_files_have_differences_without_being_asked(files, worse, capsys):
    assert main(["evaluate", *files, worse, "--metrics", "ap"]) == 0
    assert "1000 resamples of 2 videos" in capsys.readouterr().out
    assert main(["evaluate", *files, worse, "--metrics", "ap", "--bootstrap", "0"]) == 0
    assert "resamples" not in capsys.readouterr().out


def test_a_sweep(files, capsys):
    assert main(["evaluate", *files, "--score-threshold", "sweep"]) == 0
    lines = [line.split("|") for line in capsys.readouterr().out.splitlines()]
    thresholds = [line[2].strip() for line in lines if len(line) > 13 and line[1].strip() == "mine"]
    assert [t for t in thresholds if t.startswith("0")] == ["0", *(f"0.{n}" for n in range(1, 10))]


def test_tables_say_their_score_threshold(files, worse, capsys):
    words = ["--score-threshold", "0.4,0.2", "--bootstrap", "5"]
    assert main(["evaluate", *files, worse, *words]) == 0
    printed = capsys.readouterr().out
    assert printed.count("\n\nAssA at score ≥ 0.4.\n\n") == 1  # classes
    assert printed.count("\n\nHOTA, DetA, AssA, IDF1 at score ≥ 0.4.\n\n- worse ") == 1  # differences
    assert main(["evaluate", *files, worse, "--metrics", "ap", "--bootstrap", "5"]) == 0
    assert "at score ≥" not in capsys.readouterr().out


def test_crowds_alone_have_no_empty_tables(scene, tmp_path, capsys):
    for annotation in scene.ground_truth["annotations"]:
        annotation["iscrowd"] = 1
    (tmp_path / "gt.json").write_text(json.dumps(scene.ground_truth))
    (tmp_path / "mine.json").write_text(json.dumps(scene.results))
    assert (
        main(["evaluate", *map(str, tmp_path.glob("gt.json")), str(tmp_path / "mine.json"), "--by", "gap"])
        == 0
    )
    assert "by gap" not in capsys.readouterr().out


def test_tables_are_printed_although_a_file_cannot_be_written(files, tmp_path, capsys):
    table = tmp_path / "out.md"
    assert main(["evaluate", *files, "--json", str(tmp_path), "--table", str(table)]) == 2
    captured = capsys.readouterr()
    assert "AP and AR**" in captured.out
    assert str(tmp_path) in captured.err
    assert not [path for path in tmp_path.parent.iterdir() if path.name.endswith(".tmp")]


@pytest.mark.parametrize("suffix", [".tex", ".csv"])
def test_other_tables(files, tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    assert main(["evaluate", *files, "--table", str(path), "--quoted", "ovis"]) == 0
    text = path.read_text()
    assert ("\\toprule" if suffix == ".tex" else "data,split,results,metric,class") in text
    assert "VISAGE" in text


def test_errors_are_one_line(files, tmp_path, capsys):
    out = tmp_path / "out.json"
    cases = {
        (files[0], str(tmp_path / "none.json")): "none.json: no such results file",
        (files[1], files[0]): "is this the results file?",
        (*files, "--by", "colour"): "by: found 'colour', expected some of occlusion, length",
        (*files, "--metrics", "ap,mota"): "metrics: found 'mota'",
        (*files, "--metrics", ","): "metrics: found none, expected some of ap, hota, errors, gaps",
        (*files, "--by", "occlusion"): "no annotation has 'occlusion'",
        (*files, "--quoted"): "its categories are those of no data set with published numbers",
        (*files, files[1]): "given twice",
    }
    for arguments, expected in cases.items():
        assert main(["evaluate", *arguments, "--json", str(out)]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert expected in captured.err
        assert captured.err.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--jobs", "0"], "found '0', expected a whole number, at least 1"),
        (["--bootstrap", "-1"], "found '-1', expected a whole number, at least 0"),
        (["--score-threshold", "nan"], "found 'nan', expected finite numbers with commas, or 'sweep'"),
        (["--score-threshold", "a,b"], "found 'a,b'"),
        (["--score-threshold", "inf"], "found 'inf', expected finite numbers with commas"),
        (["--seed", "-1"], "found '-1', expected a whole number, at least 0"),
        (["--table", "out.pdf"], "expected a name that ends in .md, .tex, .csv"),
    ],
)
def test_wrong_words(files, words, expected, capsys):
    with pytest.raises(SystemExit) as left:
        main(["evaluate", *files, *words])
    assert left.value.code == 2
    assert expected in capsys.readouterr().err
