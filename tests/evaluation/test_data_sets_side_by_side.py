"""Several ground truths in one report: data sets side by side, and the two parts of YouTube-VIS 2022."""

import json

import numpy as np
import pandas as pd
import pytest

from vistk.cli import main
from vistk.data.categories import YTVIS2021
from vistk.evaluation.bootstrap import resampled, video_draws
from vistk.evaluation.files import EvaluationFileError
from vistk.evaluation.keys import Key
from vistk.evaluation.parts import PartScores
from vistk.evaluation.report import evaluate
from vistk.evaluation.scores import score
from vistk.evaluation.subjects import DataSet, open_data_sets

OVERALL = "by == 'all' and `class` == 'all'"


@pytest.fixture(scope="module")
def scenes(make_random_scene):
    return {"ovis": make_random_scene(7), "one's own": make_random_scene(11, videos=3)}


@pytest.fixture(scope="module")
def given(scenes):
    """Two results files on one data set, one of them on the other, too."""
    better = [r for r in scenes["ovis"].results if r["score"] > 0.2]
    return {
        "ovis": (scenes["ovis"].ground_truth, {"A": scenes["ovis"].results, "B": better}),
        "one's own": (scenes["one's own"].ground_truth, {"A": scenes["one's own"].results}),
    }


@pytest.fixture(scope="module")
def report(given):
    return evaluate(given, bootstrap=30, quote=True)


def part_of(content, video_ids):
    return content | {
        "videos": [v for v in content["videos"] if v["id"] in video_ids],
        "annotations": [a for a in content["annotations"] if a["video_id"] in video_ids],
    }


def test_numbers_are_those_of_each_alone(report, given):
    for name, (truth, results) in given.items():
        alone = evaluate({name: (truth, results)}, bootstrap=30)
        own = report.frame.query("data_set == @name and source == 'measured'").reset_index(drop=True)
        pd.testing.assert_frame_equal(own, alone.frame, check_exact=True)
        own = report.differences.query("data_set == @name").reset_index(drop=True)
        pd.testing.assert_frame_equal(own, alone.differences, check_exact=True)
    assert list(report.scores) == ["ovis: A", "ovis: B", "one's own: A"]
    assert report.as_dict()["metrics"]["one's own: A"]["AP"] > 0
    wide = report.frame.query(OVERALL).pivot_table(
        index="results", columns=["data_set", "metric"], values="value", sort=False
    )
    assert np.isnan(wide.loc["B", ("one's own", "AP")])
    assert wide.loc["VISAGE, R50, online", ("ovis", "AP")] == pytest.approx(0.362)


def test_one_table_has_them_side_by_side(report):
    text = report.to_markdown()
    first = text.split("\n\n")[1].splitlines()
    header, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in first]
    assert header[:3] == ["results", "ovis AP", "ovis AP50"]
    assert header[9] == "one's own AP"
    assert header[-1] == "source"
    by_name = {row[0]: row for row in rows}
    assert by_name["B"][9] == "-"
    assert by_name["A"][-1] == "measured here"
    assert by_name["*VISAGE, R50, online*"][1] == "*36.2*"
    assert by_name["*VISAGE, R50, online*"][9] == "-"
    assert "side by side: difference to A" in text
    assert "ovis: 5 videos, 20 instances; predictions: 45 (A), " in text
    assert "one's own: 3 videos, " in text


def test_few_columns_of_many_data_sets(given):
    many = given | {"third": given["ovis"]}
    header = evaluate(many).to_markdown().split("\n\n")[1].splitlines()[0]
    columns = [cell.strip() for cell in header.strip("|").split("|")]
    assert columns[1:4] == ["ovis AP", "ovis AssA", "ovis IDF1"]
    assert len(columns) == 1 + 3 * 3


def written(folder, truth, **results):
    """A ground truth and results files; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gt.json").write_text(json.dumps(truth))
    for name, content in results.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return [str(folder / f"{name}.json") for name in ("gt", *results)]


def test_files_on_the_command_line(scenes, tmp_path, capsys):
    ovis = written(tmp_path / "ovis", scenes["ovis"].ground_truth, mine=scenes["ovis"].results, none=[])
    own = written(tmp_path / "own", scenes["one's own"].ground_truth, mine=scenes["one's own"].results)
    out = tmp_path / "out.json"
    words = ["--metrics", "ap", "--bootstrap", "5", "--json", str(out)]
    assert main(["evaluate", *ovis, "--data", *own, *words]) == 0
    assert "| results   |   ovis AP |" in capsys.readouterr().out.replace(" ± ", "").replace("      ", "   ")
    first = json.loads(out.read_text())
    assert {number["data_set"] for number in first["numbers"]} == {"ovis", "own"}
    assert {number["results"] for number in first["numbers"]} == {"mine", "none"}
    assert main(["evaluate", "--data", *ovis, "--data", *own, *words]) == 0  # the same, said evenly
    assert json.loads(out.read_text()) == first
    named = [f"first={ovis[0]}", f"x={ovis[1]}", ovis[2]]
    assert (
        main(["evaluate", *named, "--data", own[0], f"x={own[1]}", "--metrics", "ap", "--json", str(out)])
        == 0
    )
    numbers = json.loads(out.read_text())["numbers"]
    assert {(n["data_set"], n["results"]) for n in numbers} == {
        ("first", "x"),
        ("first", "none"),
        ("own", "x"),
    }
    for wrong, expected in {
        (*ovis, "--data", own[0]): f"{own[0]}: no results file after it, expected GT.json RESULTS.json",
        (*ovis, "--data", *ovis): "2 ground truths are called 'ovis', expected a name for each",
        (ovis[0], f"x={ovis[1]}", f"x={ovis[2]}"): "x: name of two results files",
        (*ovis, "--data", *own, "--parts", own[0], own[0]): "--parts: expected one data set",
        ("--metrics", "ap"): "no file, expected annotations and results",
    }.items():
        assert main(["evaluate", *wrong]) == 2
        assert expected in capsys.readouterr().err


def test_names_line_up(tmp_path, scenes):
    truth = scenes["ovis"].ground_truth

    def names(*results):
        """Of results files on ovis and on ytvis21, given as patterns of their paths."""
        given = []
        for name in ("ovis", "ytvis21"):
            path = tmp_path / name / "valid.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(truth))
            given.append(DataSet(path, [tmp_path / result.format(name) for result in results]))
        first, second = (list(subject.files) for subject in open_data_sets(given))
        assert first == second
        return first

    assert names("a/visage/{}/results.json") == ["visage"]
    assert names("{}/visage/rows/x/valid/results.json") == ["x"]
    assert names("{}/visage.json") == ["visage"]
    assert names("visage_{}.json") == ["visage"]
    assert names("preds/{}-visage.json") == ["visage"]
    assert names("{}.json") == ["results"]
    assert names("{}/visage/results.json", "{}/minvis/results.json") == ["visage", "minvis"]


def test_what_is_no_data_set(given):
    truth, results = given["ovis"]
    with pytest.raises(
        EvaluationFileError, match="results: found none, expected them after the ground truth"
    ):
        evaluate(truth)
    with pytest.raises(EvaluationFileError, match="no ground truth, expected at least one"):
        evaluate([])
    with pytest.raises(EvaluationFileError, match="parts: found those of one ground truth"):
        evaluate(given, parts={"S": truth})
    with pytest.raises(EvaluationFileError, match="expected its name: one of ytvis2019"):
        evaluate({"davis": (truth, results)}, quote=True)


# The two parts of YouTube-VIS 2022

SHORT, LONG = (0, 1, 3), (2, 4)


@pytest.fixture(scope="module")
def parts(scenes):
    truth = scenes["ovis"].ground_truth
    return {"S": part_of(truth, SHORT), "L": part_of(truth, LONG)}


def of_part(entries, video_ids):
    return [entry for entry in entries if entry["video_id"] in video_ids]


def test_parts_and_their_mean(given, parts):
    truth, results = given["ovis"]
    report = evaluate(
        truth, results, parts=parts, bootstrap=40, seed=3, by=["length"], metrics=["ap", "hota"]
    )
    frame = report.frame.query(OVERALL)
    wide = frame.pivot_table(index=["results", "metric"], columns="split", values="value", sort=False)
    assert list(wide.columns) == ["(short)", "(long)", "(mean)"]
    samples = {}
    for name, entries in results.items():
        for split, ids, seed in (("short", SHORT, 3), ("long", LONG, (3, 1))):
            alone = score(part_of(truth, ids), of_part(entries, ids))
            for metric, value in alone.metrics.items():
                if value is not None:
                    assert wide.loc[(name, metric), f"({split})"] == value
            samples[name, split] = resampled(alone, video_draws(len(ids), 40, seed))[Key("AP")]
        for metric in ("AP", "AP50", "AR10", "HOTA", "AssA", "MOTA"):
            row = wide.loc[(name, metric)]
            assert row["(mean)"] == pytest.approx((row["(short)"] + row["(long)"]) / 2, abs=1e-15)
    # The mean is resampled as a whole, each part on its own videos; and so is its difference.
    mean = {name: (samples[name, "short"] + samples[name, "long"]) / 2 for name in results}
    found = frame.query("split == '(mean)' and metric == 'AP' and results == 'A'").iloc[0]
    low, high = np.quantile(mean["A"][1:], [0.025, 0.975])
    assert (found["low"], found["high"]) == pytest.approx((low, high), abs=1e-12)
    difference = report.differences.query(OVERALL + " and split == '(mean)' and metric == 'AP'").iloc[0]
    paired = mean["B"] - mean["A"]
    assert difference["value"] == pytest.approx(paired[0], abs=1e-12)
    low, high = np.quantile(paired[1:], [0.025, 0.975])
    assert (difference["low"], difference["high"]) == pytest.approx((low, high), abs=1e-12)
    assert not np.allclose(samples["A", "short"][1:4], samples["A", "long"][1:4])
    # No mean of what is counted, or of groups and classes.
    means = report.frame.query("split == '(mean)'")
    assert set(means["class"]) == set(means["by"]) == {"all"}
    assert "IDSW" not in set(means["metric"])


def test_metrics_of_parts_are_those_of_the_server(given, parts):
    truth, results = given["ovis"]
    report = evaluate(truth, results["A"], parts=parts)
    assert report.metrics["AP"] == pytest.approx((report.metrics["AP_S"] + report.metrics["AP_L"]) / 2)
    scores = report.scores["results"]
    assert isinstance(scores, PartScores)
    assert scores.counts["videos"] == 5
    assert scores.counts["predictions"] == len(results["A"])
    assert scores.per_category["category 1"]["AP_S"] == scores.parts["S"].per_category["category 1"]["AP"]
    assert "5 videos, 20 instances; predictions: 45 (results)" in report.to_markdown()
    assert "|   ground truth (short) AP |   ground truth (short) AssA |" in report.to_markdown()


def test_parts_beside_the_ground_truth(given, parts, tmp_path, capsys):
    truth, results = given["ovis"]
    hidden = {key: value for key, value in truth.items() if key != "annotations"}
    path, mine = written(tmp_path / "ytvis2022" / "valid", hidden, mine=results["A"])
    for word, suffix in (("short", "S"), ("long", "L")):
        (tmp_path / "ytvis2022" / "valid" / f"gt_{word}.json").write_text(json.dumps(parts[suffix]))
    short, long = (str(tmp_path / "ytvis2022" / "valid" / f"gt_{word}.json") for word in ("short", "long"))
    report = evaluate(path, mine)
    assert list(report.frame["split"].unique()) == ["valid (short)", "valid (long)", "valid (mean)"]
    assert set(report.frame["data_set"]) == {"ytvis2022"}
    assert report.metrics == evaluate(truth, results["A"], parts=parts).metrics
    assert list(evaluate(short, {"x": []}).frame["split"].unique()) == ["short"]  # a part alone
    with pytest.raises(EvaluationFileError, match="'annotations' is missing"):
        evaluate(path, mine, parts=False)
    assert main(["evaluate", path, mine, "--no-parts"]) == 2
    capsys.readouterr()
    assert main(["evaluate", path, mine, "--json", short]) == 2
    assert "gt_short.json: is read, expected another file to write" in capsys.readouterr().err
    assert main(["evaluate", path, mine, "--parts", short, long, "--metrics", "ap"]) == 0
    assert "ytvis2022 valid (mean): AP and AR" in capsys.readouterr().out
    (tmp_path / "ytvis2022" / "valid" / "gt.json").write_text(json.dumps(part_of(truth, SHORT)))
    with pytest.raises(
        EvaluationFileError, match=r"not in .*, expected its videos alone; to score it as one, say"
    ):
        evaluate(path, mine)
    with pytest.raises(EvaluationFileError, match=r"not in .*, expected its videos alone$"):
        evaluate(path, mine, parts={"S": short, "L": long})


def test_published_numbers_of_parts(scenes):
    categories = [{"id": key, "name": name} for key, name in YTVIS2021.items()]
    truth = scenes["ovis"].ground_truth | {"categories": categories}
    moved = [a | {"category_id": a["category_id"] + 1} for a in truth["annotations"]]
    truth = truth | {"annotations": moved}
    parts = {"S": part_of(truth, SHORT), "L": part_of(truth, LONG)}
    frame = evaluate(truth, [], parts=parts, quote=True, metrics=["ap"]).frame.query("source != 'measured'")
    by_split = frame.pivot_table(index="results", columns="split", values="value")
    assert set(by_split.columns) == {"(short)", "(mean)"}
    assert by_split.loc["CTVIS, R50, online", "(mean)"] == pytest.approx(0.449)


def test_entries_left_out_are_counted_once(given, parts):
    truth, results = given["ovis"]
    report = evaluate(truth, [*results["A"], {"video_id": 0}], parts=parts, lenient=True)
    assert report.to_markdown().count("Left out of results: ") == 1
    assert report.metrics == evaluate(truth, results["A"], parts=parts).metrics


def test_whether_it_is_youtube_vis_2022_is_asked(new_scene):
    scene = new_scene(num_frames=1)
    for category, name in YTVIS2021.items():
        scene.category(category, name)
    for video in range(492):
        scene.video(video)
    scene.annotate(1, 0, 1, scene.box(0, 0, 2, 2))
    said = "These 492 videos may be those of YouTube-VIS 2022"
    assert said in evaluate(scene.ground_truth, [], metrics=["ap"]).to_markdown()
    assert said not in evaluate(scene.ground_truth, [], metrics=["ap"], parts=False).to_markdown()
    scene.ground_truth["videos"].pop()
    assert said not in evaluate(scene.ground_truth, [], metrics=["ap"]).to_markdown()
