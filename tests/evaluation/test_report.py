"""Reports of one results file and of several: frame, tables, files, one set of numbers everywhere."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import vistk.evaluation
from vistk.evaluation.ap_options import APOptions
from vistk.evaluation.files import EvaluationFileError
from vistk.evaluation.number_table import COLUMNS
from vistk.evaluation.printing import Table, latex_escape, percent
from vistk.evaluation.report import Report, evaluate
from vistk.evaluation.report_tables import cells, verdict
from vistk.evaluation.scores import score
from vistk.evaluation.subjects import named_place, named_results

GOLDEN = Path(__file__).parents[1] / "golden" / "ytvis_eval"
OVERALL = "by == 'all' and `class` == 'all'"


@pytest.fixture(scope="module")
def pair(make_random_scene):
    scene = make_random_scene(7, videos=6)
    better = [r for r in scene.results if r["score"] > 0.2]
    return scene.ground_truth, {"A": scene.results, "B": better}


@pytest.fixture(scope="module")
def report(pair):
    return evaluate(
        *pair,
        metrics=("ap", "hota", "errors", "gaps"),
        by=("length", "crowding"),
        score_threshold=(0.3, 0.6),
        bootstrap=50,
    )


def number(frame, metric, results="A", **where):
    found = frame.query(OVERALL) if not where else frame
    found = found[(found["metric"] == metric) & (found["results"] == results)]
    for column, value in where.items():
        found = found[found[column] == value]
    assert len(found) == 1
    return found["value"].item()


def test_the_package_has_it_and_stays_light():
    assert vistk.evaluation.evaluate is evaluate
    assert all(getattr(vistk.evaluation, name).__name__ == name for name in vistk.evaluation.__all__)
    probe = (
        "import sys, vistk.evaluation as e\nassert 'evaluate' in e.__all__\nprint('pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    with pytest.raises(AttributeError, match="no attribute 'evaluat'"):
        _ = vistk.evaluation.evaluat


@pytest.mark.parametrize("case", ["case1", "case2", "case3"])
def test_golden_numbers_through_the_frame(case):
    expected = json.loads((GOLDEN / case / "expected.json").read_text())
    frame = evaluate(GOLDEN / case / "gt.json", GOLDEN / case / "results.json").frame
    for name, value in zip(expected["stat_names"], expected["stats"], strict=True):
        found = number(frame, name, results=case)
        assert np.isnan(found) if value == -1 else found == pytest.approx(value, abs=1e-10), name
    assert (frame["data_set"] == case).all()
    assert (frame["split"] == "").all()


def test_occlusion_groups_are_said_to_overlap():
    said = "The occlusion groups so, mo, ho overlap, as officially: 6 instances on a border in two of them"
    found = [
        evaluate(GOLDEN / case / "gt.json", GOLDEN / case / "results.json", metrics=["ap"]).to_markdown()
        for case in ("case1", "case3")
    ]
    assert [said in text for text in found] == [False, True]
    files = GOLDEN / "case3" / "gt.json", GOLDEN / "case3" / "results.json"
    assert "overlap, as officially" not in evaluate(*files, metrics=["hota"]).to_markdown()
    alone = APOptions(video_ids=(json.loads(files[0].read_text())["videos"][0]["id"],))
    assert "overlap, as officially" not in evaluate(*files, metrics=["ap"], options=alone).to_markdown()


def test_frame_pivots_to_the_usual_table(report, pair):
    frame = report.frame
    assert list(frame.columns) == list(COLUMNS)
    assert frame.dtypes.astype(str).to_dict() == dict(COLUMNS)
    key = ["results", "metric", "class", "by", "group", "score_threshold"]
    assert not frame.duplicated(key).any()
    wide = frame.query(OVERALL + " and score_threshold.isna()").pivot_table(
        index="results", columns=["data_set", "metric"], values="value", sort=False
    )
    alone = evaluate(pair[0], pair[1]["B"]).metrics
    assert wide.loc["B", ("ground truth", "AP50")] == alone["AP50"]
    assert list(wide.index) == ["A", "B"]
    assert set(frame["by"]) == {"all", "length", "crowding", "error", "identity event", "oracle"}
    assert (frame["source"] == "measured").all()


def test_gaps_and_ap_add_up(report):
    gaps = report.frame.query("by == 'oracle' and `class` == 'all' and results == 'A'")["value"].sum()
    assert number(report.frame, "AP") + gaps == pytest.approx(1.0)


def test_switches_are_those_of_clear(report):
    events = report.frame.query("by == 'identity event' and results == 'A'")
    switches = events[events["group"].str.startswith("switch")]["value"].sum()
    assert switches == number(report.frame, "IDSW", by="all", **{"class": "all"}, score_threshold=0.3) > 0


def test_a_sweep_has_the_numbers_of_each_threshold_alone(report, pair):
    for threshold in (0.3, 0.6):
        alone = evaluate(pair[0], pair[1]["A"], metrics=["hota"], score_threshold=threshold).frame
        swept = report.frame.query("results == 'A' and by == 'all'")
        swept = swept[swept["score_threshold"] == threshold]
        for row in alone.itertuples():
            same = swept[(swept["metric"] == row.metric) & (swept["class"] == row._5)]["value"].item()
            np.testing.assert_equal(same, row.value)
    with pytest.raises(ValueError, match="score_threshold is empty"):
        evaluate(*pair, score_threshold=())


def test_intervals_and_differences(report, pair):
    frame = report.frame[report.frame["value"].notna() & report.frame["low"].notna()]
    assert (frame["low"] <= frame["high"]).all()
    assert len(frame) > 0.9 * report.frame["value"].notna().sum()  # every number that is defined often enough
    both = report.differences.query(OVERALL + " and metric == 'AP'")
    assert both["baseline"].item() == "A"
    assert both["results"].item() == "B"
    assert both["value"].item() == pytest.approx(
        number(report.frame, "AP", "B") - number(report.frame, "AP", "A"), abs=1e-12
    )
    again = evaluate(*pair, bootstrap=50).differences
    other = evaluate(*pair, bootstrap=50, seed=1).differences
    ap = "metric == 'AP' and " + OVERALL
    assert again.query(ap)["low"].item() == both["low"].item()
    assert other.query(ap)["low"].item() != both["low"].item()
    assert evaluate(*pair).differences.empty


def test_same_digits_for_any_number_of_jobs(pair):
    options = {"metrics": ("ap", "hota", "errors", "gaps"), "by": ("speed", "gap", "size", "objects")}
    one, two = (evaluate(pair[0], pair[1]["A"], **options, jobs=jobs).frame for jobs in (1, 2))
    pd.testing.assert_frame_equal(one, two, check_exact=True)


def test_lenient_reading_is_counted(pair):
    truth, results = pair
    broken = [*results["A"], {"video_id": 0}]
    with pytest.raises(EvaluationFileError):
        evaluate(truth, broken)
    report = evaluate(truth, broken, lenient=True)
    assert sum(report.card["data sets"][0]["skipped"]["results"].values()) == 1
    assert report.metrics == evaluate(truth, results["A"]).metrics
    assert "Left out of results: " in report.to_markdown()


def test_markdown(report):
    text = report.to_markdown()
    for title in (
        "**ground truth: AP and AR**",
        "**ground truth: tracking**",
        "**ground truth: errors**",
        "**ground truth: identity events**",
        "**ground truth: gaps to an oracle, in AP**",
        "**ground truth: by crowding (instances of its class in the video)**",
        "**ground truth: classes**",
        "**ground truth: difference to A**",
    ):
        assert title in text
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    assert ["A", "0.6"] in [row[:2] for row in rows]
    assert "95 %, 50 resamples of 6 videos, seed 0" in text
    (ap,) = (row[1] for row in rows if row[0] == "B" and row[1][0] in "+-")
    value, half = (float(part) for part in ap.split(" ± "))
    found = report.differences.query("metric == 'AP' and " + OVERALL).iloc[0]
    assert value == pytest.approx(100 * found["value"], abs=0.05)
    assert half == pytest.approx(50 * (found["high"] - found["low"]), abs=0.05)


def test_latex(pair):
    name = r"50% of A_B & C\D #1 {x} ~^$"
    text = evaluate(pair[0], {name: pair[1]["A"]}, by=["length"], bootstrap=5).to_latex()
    assert r"50\% of A\_B \& C\textbackslash{}D \#1 \{x\} \textasciitilde{}\textasciicircum{}\$ & " in text
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 4
    assert r"score $\ge$" in text
    assert r" $\pm$ " in text
    for block in text.split(r"\begin{tabular}{")[1:]:
        columns = len(block[: block.index("}")])
        body = block[block.index(r"\midrule") : block.index(r"\bottomrule")].replace(r"\&", "")
        assert {line.count("&") for line in body.splitlines() if line.endswith(r"\\")} == {columns - 1}
    assert not [line for line in text.splitlines() if "±" in line and not line.startswith("%")]


def test_bars_in_names_do_not_split_cells(pair):
    table = Table("t", ["a|b", "x"], [["c|d", "1"]])
    assert table.to_markdown().count(r"\|") == 2
    assert "| c\\|d " in evaluate(pair[0], {"c|d": pair[1]["A"]}).to_markdown()
    assert r"a\textbar{}b & x" in table.to_latex()


def test_counts_are_printed_in_full(report):
    frame = report.frame.copy()
    frame.loc[frame["metric"] == "errors", "value"] = 1234567.0
    assert "1234567 ± " in Report(frame, report.differences, report.scores, report.card).to_markdown()


def test_what_rounds_to_zero_has_no_sign(report):
    assert [percent(value) for value in (-1e-17, -0.0004, 0.0004, -0.0006)] == ["0.0", "0.0", "0.0", "-0.1"]
    for tiny in (1e-17, -1e-17):
        row = report.differences.iloc[:1].assign(value=tiny, low=tiny, high=tiny)
        assert cells(row, [row["metric"].iloc[0]], signed=True) == ["0.0 ± 0.0"]


def test_latex_escape_is_complete():
    assert latex_escape("a_b%") == r"a\_b\%"
    assert latex_escape("\\") == r"\textbackslash{}"
    assert latex_escape("a<b>c") == r"a\textless{}b\textgreater{}c"


def test_rows_that_latex_would_take_for_arguments():
    r"""After ``\\`` may come a ``*`` and a ``[length]``, whatever the white space between."""
    table = Table("", ["[name]", "*x"], [["a", "1"], ["[b]", "2"], ["*c", "[3]"], ["", "4"]], italic=[0])
    lines = table.to_latex().splitlines()
    assert lines[2:-2] == [
        r"{}[name] & *x \\",
        r"\midrule",
        r"\emph{a} & \emph{1} \\",
        r"{}[b] & 2 \\",
        r"{}*c & [3] \\",
        r" & 4 \\",
    ]


def test_italic_rows_and_empty_tables():
    table = Table("t", ["name", "x"], [["a_1", "1"], ["b", "-"]], italic=[0], note="n\nm")
    assert "| *a_1*  | *1* |" in table.to_markdown()
    assert r"\emph{a\_1} & \emph{1} \\" in table.to_latex()
    assert table.to_latex().splitlines()[-2:] == ["% n", "% m"]
    assert Table("", (), (), note="only words").to_markdown() == "only words"
    assert Table("", (), (), note="only words").to_latex() == "% only words\n"


def test_written_files(report, tmp_path):
    for suffix, write in {
        "md": report.to_markdown,
        "tex": report.to_latex,
        "csv": report.to_csv,
        "json": report.to_json,
    }.items():
        path = tmp_path / "deep" / f"out.{suffix}"
        assert write(path) == path.read_text(encoding="utf-8")
    with pytest.raises(IsADirectoryError, match=r"deep: found a folder, expected the name of a file"):
        report.to_json(tmp_path / "deep")
    with pytest.raises(OSError, match=r"out\.md/x\.md: cannot be written \("):
        report.to_markdown(tmp_path / "deep" / "out.md" / "x.md")
    back = pd.read_csv(tmp_path / "deep" / "out.csv", keep_default_na=False, na_values=[""])
    np.testing.assert_array_equal(back["value"], report.frame["value"])
    content = json.loads((tmp_path / "deep" / "out.json").read_text())
    assert content["metrics"]["A"]["AP"] == number(report.frame, "AP")
    assert content["metrics"]["A"]["APm"] is None
    assert len(content["numbers"]) == len(report.frame)
    assert content["differences"][0]["baseline"] == "A"
    assert content["per_category"]["A"]["category 1"]["IDF1"] > 0
    assert content["counts"]["B"]["predictions"] < content["counts"]["A"]["predictions"]


@pytest.mark.parametrize(
    ("low", "high", "sentence"),
    [
        (0.008, 0.016, "B beats A by 1.2 ± 0.4 AP (95 %)."),
        (-0.016, -0.008, "B loses to A by 1.2 ± 0.4 AP (95 %)."),
        (
            -0.001,
            0.015,
            "B and A cannot be told apart: the difference is +1.2 AP, between -0.1 and +1.5 (95 %).",
        ),
        (float("nan"), 0.1, "B and A differ by +1.2 AP; too few videos to tell how sure that is."),
    ],
)
def test_one_sentence(low, high, sentence):
    value = -0.012 if high < 0 else 0.012
    row = {"results": "B", "baseline": "A", "metric": "AP", "value": value, "low": low, "high": high}
    assert verdict(row, 0.95) == sentence


def test_what_is_undefined_is_not_compared():
    row = {"results": "B", "baseline": "A", "metric": "AP"} | dict.fromkeys(
        ("value", "low", "high"), math.nan
    )
    assert verdict(row, 0.95) == "B and A cannot be compared in AP: it is undefined."


def test_one_video_is_no_evidence(pair):
    """All its resamples are itself, so that their spread of 0 would look like certainty."""
    truth, one = pair[0], APOptions(video_ids=(pair[0]["videos"][0]["id"],))
    report = evaluate(truth, pair[1], options=one, metrics=["ap", "errors", "gaps"], by=["size"], bootstrap=9)
    for frame in (report.frame, report.differences):
        assert frame["value"].notna().any()
        assert frame[["low", "high"]].isna().all(axis=None)
    assert "too few videos to tell how sure that is" in report.to_markdown()
    assert " ± " not in report.to_markdown()


@pytest.mark.parametrize("tiny", [1e-16, -1e-16])
def test_rounding_errors_are_no_win(tiny):
    row = {"results": "B", "baseline": "A", "metric": "AP", "value": tiny, "low": tiny, "high": tiny}
    assert verdict(row, 0.95) == (
        "B and A cannot be told apart: the difference is +0.0 AP, between +0.0 and +0.0 (95 %)."
    )


def test_only_what_is_asked_for(pair):
    ap, hota = (evaluate(pair[0], pair[1]["A"], metrics=[name], by=["size"]) for name in ("ap", "hota"))
    assert set(ap.frame["metric"]).isdisjoint({"HOTA", "AssA", "IDSW", "dAP"})
    assert set(hota.frame["metric"]).isdisjoint({"AP", "AR100", "dAP"})
    for report in (ap, hota):
        assert "by size" in report.to_markdown()
    assert ap.metrics["AP"] == score(pair[0], pair[1]["A"]).metrics["AP"]


def test_nothing_at_all():
    report = evaluate({"videos": [], "categories": [], "annotations": []}, [], bootstrap=10)
    assert set(report.metrics.values()) == {None}
    assert report.frame["low"].isna().all()
    assert "0 videos, 0 instances; predictions: 0 (results)" in report.to_markdown()


def test_quoted_rows_are_marked_and_untested(pair):
    report = evaluate({"ovis": pair}, bootstrap=20, quote=True)
    published = report.frame[report.frame["source"] != "measured"]
    assert number(published, "AP", "VISAGE, R50, online") == pytest.approx(0.362)
    assert published["source"].str.contains("arXiv 2312.04885").any()
    assert published["low"].isna().all()
    assert set(report.differences["results"]) == {"B"}
    text = report.to_markdown()
    assert "| *VISAGE, R50, online* " in text
    assert "Italic rows are quoted" in text
    assert r"\emph{VISAGE, R50, online} & \emph{36.2}" in report.to_latex()
    with pytest.raises(EvaluationFileError, match="its categories are those of no data set with published"):
        evaluate(*pair, quote=True)
    with pytest.raises(EvaluationFileError, match="expected its name: one of ytvis2019, ytvis2021"):
        evaluate({"davis": pair}, quote=True)


def test_unknown_words(pair, scene):
    with pytest.raises(EvaluationFileError, match="metrics: found 'mota', expected some of ap, hota, errors"):
        evaluate(*pair, metrics=["mota"])
    with pytest.raises(EvaluationFileError, match="metrics: found none, expected some of ap, hota, errors"):
        evaluate(*pair, metrics=[])
    with pytest.raises(ValueError, match="confidence is 95, expected a number between 0 and 1"):
        evaluate(*pair, confidence=95)
    with pytest.raises(EvaluationFileError, match="by: found 'colour', expected some of occlusion, length"):
        evaluate(*pair, by="colour")
    with pytest.raises(EvaluationFileError, match="no annotation has 'occlusion'"):
        evaluate(*pair, by=["occlusion"])
    with pytest.raises(ValueError, match="a report of 2 results files"):
        _ = evaluate(*pair).metrics


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("x/ovis/valid.json", ("ovis", "valid")),
        ("x/ytvis/valid/instances.json", ("ytvis", "valid")),
        ("x/ovis/annotations_train.json", ("ovis", "train")),
        ("x/ovis/annotations/instances_valid.json", ("ovis", "valid")),
        ("ground truth", ("ground truth", "")),
    ],
)
def test_place_of_a_file(path, expected):
    assert named_place(path) == expected


def test_names_of_files(tmp_path):
    rows = [tmp_path / "rows" / row / "valid" / "results.json" for row in ("visage", "minvis")]
    assert list(named_results(rows)) == ["visage", "minvis"]
    assert list(named_results([str(rows[0]), "b.json"])) != ["results", "b"]
    assert list(named_results(str(rows[0]))) == ["valid"]
    assert list(named_results("deep/mine.json")) == ["mine"]
    assert list(named_results([])) == ["results"]  # a parsed file without predictions
    assert list(named_results({"x": []})) == ["x"]
    assert list(named_results(["v.1", "v.2"])) == ["v.1", "v.2"]
    assert list(named_results(["a.json", "a"])) == ["a.json", "a"]
    with pytest.raises(EvaluationFileError, match=r"/a\.json: given twice, expected different results files"):
        named_results(["a.json", "./a.json"])
    with pytest.raises(EvaluationFileError, match="no results file"):
        named_results({})
