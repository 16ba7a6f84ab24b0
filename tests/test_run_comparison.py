"""``vistk compare``: run directories read back, side by side, with paired differences."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from official_data import write_official

from vistk.cli import main
from vistk.config import compose, save
from vistk.data.config import SyntheticConfig
from vistk.data.synthetic import ensure
from vistk.evaluation.parts import evaluate_parts, find_parts
from vistk.evaluation.report import evaluate
from vistk.evaluation.scores import score
from vistk.run_comparison import compare_runs
from vistk.runs import RunError, find_runs, read_run

SPLITS = ("track", "swap")


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("compare") / "data"
    return ensure(SyntheticConfig(root=str(root), num_val=4, frames=8), SPLITS, progress=False)


def make_run(
    folder: Path, words: Sequence[str], results: Mapping[str, Mapping[str, Any]], **card: Any
) -> Path:
    """A finished run with ``results``: ``{row: {split: results entries, or metrics}}``."""
    composed = compose([*words, f"run_dir={json.dumps(str(folder))}"])
    save(composed)
    rows: dict[str, dict[str, Any]] = {}
    for row, splits in results.items():
        for split, content in splits.items():
            if isinstance(content, list):
                path = folder / "rows" / row / split / "results.json"
                path.parent.mkdir(parents=True)
                path.write_text(json.dumps(content))
                truth = Path(composed.config.data.root) / split / "instances.json"
                content = score(truth, path, score_threshold=composed.config.evaluation.track_score).metrics
            rows.setdefault(row, {})[split] = content
    (folder / "metrics.json").write_text(json.dumps({"rows": rows, "card": {"seed": 0, **card}}))
    return folder


def truth_as_results(root: Path, split: str, keep: int = 99) -> list[dict[str, Any]]:
    """The annotations as predictions, at most ``keep`` of each video."""
    content = json.loads((root / split / "instances.json").read_text())
    out: list[dict[str, Any]] = []
    for video in content["videos"]:
        own = [a for a in content["annotations"] if a["video_id"] == video["id"]]
        out += [
            {key: a[key] for key in ("video_id", "category_id", "segmentations")} | {"score": 1.0}
            for a in own[:keep]
        ]
    return out


@pytest.fixture
def runs(data_root: Path, tmp_path: Path) -> Path:
    """MinVIS misses objects; VISAGE finds all of them with seed 0, but not with seed 1."""
    words = [f"data.root={json.dumps(str(data_root))}", "data.num_val=4", "data.frames=8"]
    words.append("data.eval_splits=[track,swap]")
    every = {split: truth_as_results(data_root, split) for split in SPLITS}
    some = {split: truth_as_results(data_root, split, 2) for split in SPLITS}
    make_run(tmp_path / "runs" / "a", [*words, "tracker=minvis"], {"minvis": some, "oracle": every})
    make_run(
        tmp_path / "runs" / "b0", [*words, "tracker=visage"], {"visage": every}, commit="abc", device=None
    )
    make_run(
        tmp_path / "runs" / "b1",
        [*words, "tracker=visage", "seed=1"],
        {"visage": some},
        commit="def",
        device="cpu",
    )
    return tmp_path / "runs"


def cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]


def test_means_over_seeds_and_paired_differences(runs: Path) -> None:
    found = compare_runs([runs], bootstrap=50)
    frame = found.frame
    assert list(frame["results"].unique()) == ["minvis", "visage"]
    assert set(frame["split"]) == set(SPLITS)
    assert (frame["data_set"] == "synthetic").all()
    ap = frame.query("metric == 'AP' and split == 'swap'").set_index(["results", "seed"])["value"]
    assert ap["visage", 0] == pytest.approx(1.0)
    assert ap["visage", 1] == ap["minvis", 0] < 0.9
    mean, spread = 100 * ap["visage"].mean(), 100 * ap["visage"].std()
    rows = cells(found.to_markdown())
    row = next(row for row in rows if row[:2] == ["visage", "0, 1"])
    assert f"{mean:.1f} ± {spread:.1f}" in row
    (difference,) = found.differences.query("metric == 'AP' and split == 'swap'").to_dict("records")
    assert (difference["results"], difference["baseline"]) == ("visage", "minvis")
    assert difference["value"] == pytest.approx(ap["visage"].mean() - ap["minvis", 0], abs=1e-12)
    assert 0 < difference["low"] <= difference["value"] <= difference["high"]
    assert f"visage beats minvis by {100 * difference['value']:.1f} ± " in found.to_markdown()
    # Two tables, two meanings of ±.
    assert found.to_markdown().count("mean ± standard deviation over seeds.") == 1
    assert found.to_markdown().count("± is half of an interval over resampled videos (95 %).") == len(SPLITS)
    assert {card.get("commit") for card in found.card.values()} == {None, "abc", "def"}
    assert [row[1:] for row in rows if row[0].startswith(str(runs))] == [
        ["-", "-"],
        ["abc", "-"],
        ["def", "cpu"],
    ]
    assert list(found.differences.query("split == 'swap'")["metric"]) == [
        *("AP", "AP50", "HOTA", "AssA", "IDF1")
    ]
    again = compare_runs([runs, runs / "a" / ".." / "a"], bootstrap=50)
    pd.testing.assert_frame_equal(again.differences, found.differences, check_exact=True)


def test_rows(runs: Path) -> None:
    assert set(compare_runs([runs], rows="all", bootstrap=0).frame["results"]) == {
        "minvis",
        "oracle",
        "visage",
    }
    named = compare_runs([runs], rows=["oracle"], bootstrap=0)
    assert set(named.frame["results"]) == {"oracle"}
    assert named.differences.empty
    mixed = compare_runs([runs / "a", runs / "b0"], rows=["own", "oracle"], bootstrap=0)
    assert set(mixed.frame["results"]) == {"minvis", "oracle", "visage"}
    for rows in (["idol"], "vis", ["own", "idol"]):
        with pytest.raises(
            RunError, match=r"3 runs have no scored row (idol|vis); expected --rows own, all, or"
        ):
            compare_runs([runs], rows=rows)


def test_the_command(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = [tmp_path / f"out.{suffix}" for suffix in ("md", "tex", "csv")]
    words = [word for path in outputs for word in ("--table", str(path))]
    arguments = [str(runs / "a"), str(runs / "b0"), *words, "--json", str(tmp_path / "out.json")]
    assert main(["compare", *arguments, "--bootstrap", "20", "--metrics", "AP,AssA"]) == 0
    printed = capsys.readouterr().out
    assert outputs[0].read_text() == printed
    assert ["run", "seeds", "synthetic track AP", "synthetic track AssA", "synthetic swap AP"] in [
        row[:5] for row in cells(printed)
    ]
    assert r"\bottomrule" in outputs[1].read_text()
    assert pd.read_csv(outputs[2])["seed"].eq(0).all()
    content = json.loads((tmp_path / "out.json").read_text())
    assert {row["run"] for row in content["numbers"]} == {str(runs / "a"), str(runs / "b0")}
    assert content["differences"][0]["baseline"] == "minvis"


def test_data_sets_side_by_side_with_quoted_rows(tmp_path: Path) -> None:
    metrics = {"AP": 0.3, "AP50": 0.5, "AssA": None, "identity_permutations": 0.1}
    for data in ("ovis", "ytvis2019"):
        words = [f"data={data}", "data.root=/nowhere", "tracker=minvis", f"preset=minvis-r50-{data}"]
        make_run(tmp_path / data, words, {"minvis": {"valid": metrics}})
        words = [f"data={data}", "data.root=/nowhere", "tracker=visage", f"preset=minvis-r50-{data}"]
        make_run(tmp_path / f"{data}-v", words, {"visage": {"valid": metrics | {"AP": 0.4}}})
    found = compare_runs([tmp_path], quote=True, metrics=["AP", "AssA"], bootstrap=10)
    rows = cells(found.to_markdown())
    assert rows[2] == ["run", "seeds", "ovis valid AP", "ytvis2019 valid AP", "source"]
    assert ["minvis", "0", "30.0", "30.0", "measured here"] in rows
    visage = next(row for row in rows if row[0] == "*VISAGE, R50, online*")
    assert visage[2:4] == ["*36.2*", "*55.1*"]
    assert "arXiv 2312.04885" in visage[4]
    assert found.differences.empty
    assert found.notes[0] == "All with preset=minvis-r50."
    assert [note.startswith("No paired differences on ") for note in found.notes] == [False, True, True]
    assert "/nowhere" in found.notes[1]
    with pytest.raises(RunError, match="no run has the metric MOTP, found AP, AP50"):
        compare_runs([tmp_path], metrics=["MOTP"], bootstrap=0)


def _move_one_video(source: Path, target: Path) -> None:
    """Resamples of a part with one video alone say nothing, and so do those of the mean."""
    here, there = (json.loads(path.read_text()) for path in (source, target))
    video = here["videos"].pop(0)
    there["videos"].append(video)
    there["annotations"] += [a for a in here["annotations"] if a["video_id"] == video["id"]]
    here["annotations"] = [a for a in here["annotations"] if a["video_id"] != video["id"]]
    for path, content in ((source, here), (target, there)):
        path.write_text(json.dumps(content))


def test_parts_have_a_paired_difference_of_their_mean(tmp_path: Path) -> None:
    """YouTube-VIS 2022: the mean of the short and of the long videos, as in a report on the results alone."""
    root = write_official(tmp_path / "data", "ytvis2022", long=8)
    truth = root / "valid" / "instances.json"
    _move_one_video(root / "valid" / "gt_short.json", root / "valid" / "gt_long.json")
    annotations = json.loads((root / "valid" / "gt.json").read_text())["annotations"]
    keys = ("video_id", "category_id", "segmentations")
    every = [{key: a[key] for key in keys} | {"score": 0.9 - 0.01 * a["id"]} for a in annotations]
    runs, files = [], {}
    for name, entries in (("visage", every), ("minvis", every[:4] + every[5:])):
        run = tmp_path / name
        files[name] = run / "rows" / name / "valid" / "results.json"
        files[name].parent.mkdir(parents=True)
        files[name].write_text(json.dumps(entries))
        found = evaluate_parts(None, find_parts(truth), files[name])
        words = ["data=ytvis2022", f"data.root={json.dumps(str(root))}", f"tracker={name}"]
        runs.append(make_run(run, words, {name: {"valid (mean)": found}}))
    comparison = compare_runs(runs, bootstrap=30, quote=True)
    report = evaluate(truth, files, bootstrap=30)
    whole = "split == 'valid (mean)' and by == 'all' and `class` == 'all' and metric == 'AP'"
    columns = ["value", "low", "high"]
    (ours,) = comparison.differences.query(whole)[columns].to_numpy()
    (expected,) = report.differences.query(whole)[columns].to_numpy()
    assert ours.tolist() == pytest.approx(expected.tolist(), abs=1e-12)
    assert ours[0] < 0
    assert ours[1] < ours[2]
    quoted = comparison.frame.query("source != 'measured'")
    assert set(quoted["split"]) == {"valid (mean)"}
    assert "CTVIS, R50, online" in set(quoted["results"])


def test_words_name_rows(runs: Path, data_root: Path) -> None:
    words = [f"data.root={json.dumps(str(data_root))}", "data.num_val=4", "data.frames=8"]
    swap = {"swap": truth_as_results(data_root, "swap")}
    words.append("data.eval_splits=[swap]")
    make_run(runs / "c", [*words, "tracker=visage", "tracker.memory_frames=2"], {"visage": swap})
    make_run(runs / "d", [*words, "tracker=visage", "tracker.memory_frames=2"], {"visage": swap})
    labels = list(compare_runs([runs / "c", runs / "b0"], bootstrap=0).frame["results"].unique())
    assert labels == [
        "visage data.eval_splits=[swap] tracker.memory_frames=2",
        "visage data.eval_splits=[track,swap]",
    ]
    twice = compare_runs([runs / "c", runs / "d"], bootstrap=20)  # the same words and seed
    assert list(twice.frame["results"].unique()) == [f"visage [{runs / name}]" for name in "cd"]
    assert (twice.differences["value"] == 0).all()
    assert "cannot be told apart" in twice.to_markdown()


def test_other_annotations_are_not_paired(runs: Path, tmp_path: Path) -> None:
    root = ensure(
        SyntheticConfig(root=str(tmp_path / "other"), num_val=4, frames=8, seed=3), ["track"], progress=False
    )
    words = [f"data.root={json.dumps(str(root))}", "data.num_val=4", "data.frames=8", "data.seed=3"]
    results = {"visage": {"track": truth_as_results(root, "track")}}
    other = make_run(tmp_path / "o", [*words, "data.eval_splits=[track]", "tracker=visage"], results)
    found = compare_runs([runs / "a", other], bootstrap=20)
    assert found.differences.empty
    assert any("annotations are of different files" in note for note in found.notes)


def test_a_split_that_the_first_run_lacks_is_said(runs: Path, data_root: Path) -> None:
    words = [f"data.root={json.dumps(str(data_root))}", "data.num_val=4", "data.frames=8", "tracker=minvis"]
    words.append("data.eval_splits=[track,swap]")
    first = make_run(runs / "0", words, {"minvis": {"track": truth_as_results(data_root, "track", 2)}})
    found = compare_runs([first, runs / "b0"], bootstrap=5)
    assert set(found.differences["split"]) == {"track"}
    assert "No paired differences on synthetic swap: minvis is not there." in found.notes


def test_unfinished_runs_are_left_out_and_said(runs: Path) -> None:
    (runs / "b1" / "metrics.json").unlink()
    found = compare_runs(sorted(runs.iterdir()), bootstrap=0)
    assert set(found.frame["run"]) == {str(runs / "a"), str(runs / "b0")}
    assert found.notes[1:] == [f"{runs / 'b1'}: no finished run there or below."]


def test_quoted_rows_need_a_published_data_set(runs: Path) -> None:
    with pytest.raises(RunError, match="no published numbers of synthetic track, synthetic swap,"):
        compare_runs([runs], quote=True)


def test_errors_are_one_line(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    for path in ("metrics.json", "config.yaml", "rows/minvis/track/results.json"):
        assert main(["compare", str(runs), "--json", str(runs / "a" / path)]) == 2
        assert "is read, expected another file to write" in capsys.readouterr().err
    assert find_runs([runs]) == [runs / name for name in ("a", "b0", "b1")]
    (runs / "b1" / "metrics.json").write_text("[]")
    for path, expected in {
        tmp_path / "empty": "no finished run there or below, expected metrics.json beside config.yaml",
        tmp_path / "none": "none: no such directory, expected a run or a folder of runs",
        runs / "b1": "not what experiments/run.py leaves",
    }.items():
        assert main(["compare", str(path)]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert expected in captured.err
        assert captured.err.count("\n") == 1
    with pytest.raises(RunError):
        read_run(runs / "b1")
