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


def test_all_else_of_a_sweep_is_at_the_usual_threshold(files, worse, capsys):
    words = ["--metrics", "ap,hota,errors", "--by", "length", "--bootstrap", "5"]
    assert main(["evaluate", *files, worse, *words, "--score-threshold", "sweep"]) == 0
    swept = capsys.readouterr().out
    assert "All else is at score ≥ 0.3." in swept
    assert main(["evaluate", *files, worse, *words]) == 0
    usual = capsys.readouterr().out
    assert "All else" not in usual
    for title in (
        "errors",
        "identity events",
        "by length (frames with a mask)",
        "classes",
        "difference to mine",
    ):
        one, other = (text.split(f": {title}**")[1].split("**")[0] for text in (usual, swept))
        assert one == other
        assert "score ≥ 0.3" in one or title == "errors"


def test_tables_say_their_score_threshold(files, worse, capsys):
    words = ["--score-threshold", "0.4,0.2", "--bootstrap", "5"]
    assert main(["evaluate", *files, worse, *words]) == 0
    printed = capsys.readouterr().out
    assert printed.count("\n\nAssA at score ≥ 0.4.\n\n") == 1  # classes
    assert printed.count("\n\nHOTA, DetA, AssA, IDF1 at score ≥ 0.4.\n\n- worse ") == 1  # differences
    assert main(["evaluate", *files, worse, "--metrics", "ap", "--bootstrap", "5"]) == 0
    assert "at score ≥" not in capsys.readouterr().out


def test_one_is_no_plural(scene, tmp_path, capsys):
    paths = [tmp_path / "gt.json", tmp_path / "none.json"]
    words = ["evaluate", *map(str, paths), "--bootstrap", "1"]
    paths[1].write_text("[]")
    paths[0].write_text(json.dumps(scene.ground_truth))
    assert main(words) == 0
    assert "(95 %, 1 resample of 2 videos, seed 0)" in capsys.readouterr().out
    for name in ("videos", "annotations"):
        scene.ground_truth[name] = scene.ground_truth[name][:1]
    paths[0].write_text(json.dumps(scene.ground_truth))
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "Percent. 1 video, 1 instance; predictions: 0 (none)." in printed
    assert "resample" not in printed


def test_long_resampling_has_a_bar(files, capsys, monkeypatch):
    monkeypatch.setattr("tqdm.std.tqdm.monitor_interval", 0)
    clock = iter(range(10**6))
    monkeypatch.setattr("tqdm.std.time", lambda: next(clock) * 40.0)
    assert main(["evaluate", *files, "--metrics", "ap", "--bootstrap", "300"]) == 0
    assert "resample:" in capsys.readouterr().err


def test_files_may_stand_among_options(files, worse, capsys):
    assert main(["evaluate", files[0], "--metrics", "ap", files[1], "--bootstrap", "0", worse]) == 0
    assert "| worse " in capsys.readouterr().out
    assert main(["evaluate", "--quoted", *files]) == 2  # takes no word of its own
    assert "no data set with published numbers" in capsys.readouterr().err


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
    table, out = tmp_path / "out.md", tmp_path / "gt.json" / "out.json"
    assert main(["evaluate", *files, "--json", str(out), "--table", str(table)]) == 2
    captured = capsys.readouterr()
    assert "AP and AR**" in captured.out
    assert captured.err.startswith(f"vistk evaluate: {out}: cannot be written (")
    assert captured.err.count("\n") == 1


def test_files_that_cannot_be_meant_to_be_written(files, worse, tmp_path, capsys):
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    cases = {
        ("--json", str(tmp_path)): f"{tmp_path}: found a folder, expected the name of a file to write",
        ("--json", files[0]): f"{files[0]}: is read, expected another file to write",
        ("--json", f"{tmp_path}/./worse.json"): "worse.json: is read, expected another file to write",
        ("--json", f"{tmp_path}/a.csv", "--table", f"{tmp_path}/a.csv"): "a.csv: is to be written already",
    }
    for words, expected in cases.items():
        assert main(["evaluate", *files, worse, *words]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert expected in captured.err
        assert captured.err.count("\n") == 1
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("suffix", [".tex", ".csv"])
def test_other_tables(files, tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    assert main(["evaluate", "--quoted", f"ovis={files[0]}", files[1], "--table", str(path)]) == 0
    text = path.read_text()
    assert ("\\toprule" if suffix == ".tex" else "data_set,split,results,metric,class") in text
    assert "VISAGE" in text


def test_errors_are_one_line(files, tmp_path, capsys):
    out = tmp_path / "out.json"
    cases = {
        (files[0], str(tmp_path / "none.json")): "none.json: no such results file",
        (files[1], files[0]): "is this the results file?",
        (files[0], str(tmp_path)): f"{tmp_path}: found a folder, expected a json file",
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
