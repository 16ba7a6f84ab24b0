"""``vistk report``: every number is the evaluator's, and every case behind it is named."""

from __future__ import annotations

import argparse
import base64
import io
import json
import math
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from official_data import write_official
from PIL import Image

from vistk.config import compose, save
from vistk.evaluation.ap_options import APOptions
from vistk.evaluation.breakdowns import ATTRIBUTES
from vistk.evaluation.printing import percent
from vistk.evaluation.report import evaluate
from vistk.inspection.run_view import SplitView
from vistk.ops.masks import decode
from vistk.pages import commands
from vistk.pages.collect import Collected, collect
from vistk.pages.page import as_json, html
from vistk.pages.pictures import Budget, add_pictures
from vistk.run_comparison import compare_runs
from vistk.runs import RunError

SWITCH = 5


def case(content: dict[str, Any], row: str, split: str, seed: int = 0) -> dict[str, Any]:
    (found,) = [
        one
        for one in content["cases"]
        if content["rows"][one["row"]]["name"] == row
        and content["places"][one["place"]]["split"] == split
        and one["seed"] == seed
    ]
    return found


def numbers(content: dict[str, Any], row: str, split: str) -> dict[str, Any]:
    names = [one["name"] for one in content["rows"]]
    splits = [place["split"] for place in content["places"]]
    return content["numbers"][splits.index(split)][names.index(row)]


@pytest.mark.parametrize(("row", "split"), [("minvis", "swap"), ("oracle", "track")])
def test_every_number_is_the_evaluators(
    collected: Collected, runs: Path, data_root: Path, row: str, split: str
) -> None:
    truth = data_root / split / "instances.json"
    results = runs / "a" / "rows" / row / split / "results.json"
    by = [name for name in ATTRIBUTES if name != "occlusion" or has_occlusion(truth)]
    report = evaluate(truth, results, metrics=("ap", "hota", "errors", "gaps"), by=by, score_threshold=0.1)
    frame = report.frame[report.frame["class"] == "all"]
    found = numbers(collected.content, row, split)
    checked = 0
    for one in frame.itertuples():
        if one.by == "all" and one.metric not in report.metrics:  # counts that metrics.json does not have
            continue
        name = one.metric if one.by == "all" else f"{one.by}/{one.group}/{one.metric}"
        mean, spread = found[name]
        assert mean == (None if math.isnan(one.value) else one.value), name
        assert spread is None
        checked += 1
    assert checked == len(found)
    parts = [found["AP"][0], *(found[f"oracle/{gap}/AP gap"][0] for gap in collected.content["gaps"])]
    assert sum(parts) == pytest.approx(1.0, abs=1e-12)


def has_occlusion(truth: Path) -> bool:
    annotations = json.loads(truth.read_text())["annotations"]
    return any(annotation.get("occlusion") for annotation in annotations)


def test_means_over_seeds_are_those_of_the_comparison(collected: Collected, runs: Path) -> None:
    table = compare_runs([runs], rows="all", bootstrap=0, metrics=["AP", "IDF1"]).tables[0]
    printed = {row[0]: dict(zip(table.header, row, strict=True)) for row in table.rows}
    for split in ("track", "swap"):
        for metric in ("AP", "IDF1"):
            mean, spread = numbers(collected.content, "visage", split)[metric]
            assert spread > 0
            assert printed["visage"][f"synthetic {split} {metric}"] == f"{percent(mean)} ± {percent(spread)}"
    (visage,) = [row for row in collected.content["rows"] if row["name"] == "visage"]
    assert visage["seeds"] == [0, 1]
    assert {row["name"]: row["given truth"] for row in collected.content["rows"]} == {
        "minvis": False,
        "oracle": True,
        "visage": False,
    }
    assert "frames_per_second" not in collected.content["metrics"]


def test_numbers_of_a_video_are_those_of_it_alone(collected: Collected, runs: Path, data_root: Path) -> None:
    one = case(collected.content, "minvis", "swap")
    videos = collected.content["truths"][one["truth"]]["videos"]
    assert [video["id"] for video in videos] == [1, 2, 3, 4]
    assert {video["frames"] for video in videos} == {8}
    results = runs / "a" / "rows" / "minvis" / "swap" / "results.json"
    for position, video in enumerate(videos):
        alone = evaluate(
            data_root / "swap" / "instances.json",
            results,
            score_threshold=0.1,
            options=APOptions(video_ids=(video["id"],)),
        ).metrics
        for metric in ("AP", "AP50", "AR10", "HOTA", "AssA", "IDF1"):
            expected = alone[metric]
            assert expected is not None
            assert one["values"][metric][position] == pytest.approx(expected, abs=1e-6)
    assert len(set(one["values"]["AP"])) > 1
    ap = one["values"]["AP"]
    assert [ap[v] for v in one["worst"]] == sorted(ap)
    groups = collected.content["truths"][one["truth"]]["groups"]
    for name, members in groups.items():
        total, _ = numbers(collected.content, "minvis", "swap")[f"{name}/instances"]
        assert total == sum(count for _, count in members)
        assert len(one["groups"].get(f"{name}/AP", [])) == len(members)


def test_failures_are_named_one_by_one(collected: Collected) -> None:
    content = collected.content
    one = case(content, "minvis", "swap")
    found = numbers(content, "minvis", "swap")
    for place, kind in enumerate(content["events"]):
        assert found[f"identity event/{kind}/events"][0] == sum(event[1] == place for event in one["events"])
    swaps = [event for event in one["events"] if content["events"][event[1]] == "switch: swap"]
    assert len(swaps) >= 2
    assert {event[2] for event in swaps} == {SWITCH}  # the frame
    for event in swaps:
        assert event[4] != event[7]  # instance, other instance
        assert event[5] != event[6]  # tracks
    for kind, errors in one["errors"].items():
        assert len(errors) == found[f"error/{kind}/errors"][0]
    assert one["errors"]["temporal"]
    assert {error[1] for error in one["errors"]["temporal"]} == {SWITCH}  # where track and instance part
    assert not case(content, "oracle", "swap")["events"]
    missing = case(content, "visage", "swap", seed=1)["errors"]["missed"]
    assert missing
    assert all(error[3] is None and error[4] is None for error in missing)


def test_pictures_show_the_data(collected: Collected, data_root: Path) -> None:
    content = collected.content
    cases = content["cases"]
    assert {(p["truth"], p["video"]) for p in content["pictures"]} == {
        (t, v) for t in (0, 1) for v in range(4)
    }
    picture = content["pictures"][0]
    head, encoded = picture["frames"][3].split(",")
    assert head == "data:image/webp;base64"
    image = np.array(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB"), dtype=float)
    assert image.shape == (picture["height"], picture["width"], 3) == (64, 96, 3)
    split = content["places"][next(c["place"] for c in cases if c["truth"] == picture["truth"])]["split"]
    annotations = json.loads((data_root / split / "instances.json").read_text())
    video = annotations["videos"][picture["video"]]
    (folder,) = {path.parent for path in data_root.rglob(Path(video["file_names"][3]).name)} & {
        path.parent for path in (data_root / split).rglob("*") if str(path).endswith(video["file_names"][3])
    }
    original = np.array(Image.open(folder / Path(video["file_names"][3]).name).convert("RGB"), dtype=float)
    assert np.abs(image - original).mean() < 6
    own = [a for a in annotations["annotations"] if a["video_id"] == video["id"]]
    assert [track["id"] for track in picture["instances"]] == list(range(1, len(own) + 1))
    for annotation, track in zip(own, picture["instances"], strict=True):
        for rle, counts in zip(annotation["segmentations"], track["masks"], strict=True):
            assert (rle is None) == (counts == "")
            assert rle is None or rle["counts"] == counts
    # The first seed of every row; in the order of the scores.
    shown = {
        (content["rows"][cases[int(n)]["row"]]["name"], cases[int(n)]["seed"]) for n in picture["tracks"]
    }
    assert shown == {("minvis", 0), ("oracle", 0), ("visage", 0)}
    for tracks in picture["tracks"].values():
        scores = [track["score"] for track in tracks]
        assert scores == sorted(scores, reverse=True)
        assert min(scores) >= 0.1


def test_limits_of_pictures(collected: Collected) -> None:
    few = replace(collected, content=json.loads(json.dumps(collected.content)))
    add_pictures(few, Budget(worst=1, megabytes=0.0, frames=3, side=48))
    (picture,) = few.content["pictures"]
    assert (picture["height"], picture["width"]) == (32, 48)
    assert len(picture["frames"]) == 3
    assert picture["first"] <= SWITCH < picture["first"] + 3
    (large,) = [
        p
        for p in collected.content["pictures"]
        if (p["truth"], p["video"]) == (picture["truth"], picture["video"])
    ]
    for small, track in zip(picture["instances"], large["instances"], strict=True):
        counts = track["masks"][picture["first"]]
        area = decode({"size": [64, 96], "counts": counts}).sum()
        smaller = decode({"size": [32, 48], "counts": small["masks"][0]}).sum()
        assert smaller == pytest.approx(area / 4, rel=0.1)
    add_pictures(few, Budget(worst=0))
    assert few.content["pictures"] == []


def test_a_run_without_its_data_keeps_its_table(runs: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(runs / "a", tmp_path / "a")
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("num_val: 4", "num_val: 5"))  # other data than there are
    found = collect([folder])
    add_pictures(found, Budget())
    assert found.content["cases"] == found.content["pictures"] == []
    assert numbers(found.content, "minvis", "swap")["AP"][0] is not None
    assert "minvis, swap: no cases, as they cannot be read: " in " ".join(found.content["notes"])
    assert "no cases" in html(found.content)


def test_parts_are_splits_of_their_own(tmp_path: Path) -> None:
    """YouTube-VIS 2022: cases of the short and of the long videos; their mean has none, and quoted rows."""
    root = write_official(tmp_path / "data", "ytvis2022", long=8)
    annotations = json.loads((root / "valid" / "gt.json").read_text())["annotations"]
    keys = ("video_id", "category_id", "segmentations")
    entries = [{key: a[key] for key in keys} | {"score": 0.9 - 0.01 * a["id"]} for a in annotations[1:]]
    folder = tmp_path / "run"
    words = ["data=ytvis2022", f"data.root={json.dumps(str(root))}", "tracker=minvis"]
    save(compose([*words, f"run_dir={json.dumps(str(folder))}"]))
    path = folder / "rows" / "minvis" / "valid" / "results.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(entries))
    parts = evaluate(root / "valid" / "instances.json", path, score_threshold=0.1)
    whole = parts.frame[(parts.frame["by"] == "all") & (parts.frame["class"] == "all")]
    rows = {
        split: {
            one.metric: None if math.isnan(one.value) else one.value
            for one in whole[whole["split"] == split].itertuples()
        }
        for split in ("valid (short)", "valid (long)", "valid (mean)")
    }
    (folder / "metrics.json").write_text(json.dumps({"rows": {"minvis": rows}, "card": {}}))
    found = collect([folder], quote=True)
    content = found.content
    assert not [note for note in content["notes"] if "metrics.json" in note]
    assert [content["places"][one["place"]]["split"] for one in content["cases"]] == [
        "valid (short)",
        "valid (long)",
    ]
    assert [len(truth["videos"]) for truth in content["truths"]] == [5, 1]
    assert content["truths"][1]["videos"][0]["frames"] == 8
    quoted = [row for row in content["rows"] if row["quoted"]]
    assert "CTVIS, R50, online" in {row["name"] for row in quoted}
    assert not any(row["seeds"] or row["given truth"] for row in quoted)
    add_pictures(found, Budget(worst=1))
    assert {picture["truth"] for picture in content["pictures"]} == {0, 1}
    for image in (root / "valid" / "JPEGImages").rglob("*.jpg"):
        image.unlink()
    again = collect([folder])
    add_pictures(again, Budget(worst=1))
    assert again.content["pictures"] == []
    assert any(note.startswith("No pictures: ") for note in again.content["notes"])


def test_metrics_of_another_results_file_are_told(runs: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(runs / "a", tmp_path / "a")
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["rows"]["oracle"]["swap"]["AP"] = 0.5
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (note,) = [note for note in collect([folder]).content["notes"] if "metrics.json" in note]
    assert "says AP 50.0 of row oracle on swap, but its results file scores 100.0" in note


def test_hidden_ground_truth_is_the_reason(runs: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(runs / "a", tmp_path / "a")
    metrics = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps(metrics | {"rows": {"minvis": {}}}))
    with pytest.raises(RunError, match=r"^1 run has no split that was scored; expected one whose"):
        collect([folder])


def test_a_split_whose_truth_is_hidden_has_no_cases(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    init = SplitView.__init__

    def hide(view: SplitView, *arguments: Any, **named: Any) -> None:
        init(view, *arguments, **named)
        view.has_truth = view.name != "swap"

    monkeypatch.setattr(SplitView, "__init__", hide)
    content = collect([runs / "a"], rows="minvis").content
    why = "swap: ground truth is hidden, so it has no cases"
    assert {one["split"]: one["without"] for one in content["places"]} == {"track": None, "swap": why}
    assert content["notes"].count(f"{why}.") == 1
    assert report(runs / "a", "-o", tmp_path / "out", "--worst", "0") == 0
    assert f"{why}.\n" in capsys.readouterr().err


# The page


class Elements(HTMLParser):
    """Tags with their attributes, and the text of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1][0] == "script" and self.scripts[-1] == "":
            self.scripts[-1] = data


def test_one_file_that_asks_for_nothing(collected: Collected) -> None:
    text = html(collected.content, "A & B <runs>")
    page = Elements(text)
    assert [tag for tag, _ in page.found].count("script") == 2
    assert not [a for _, a in page.found if {"src", "action", "srcset"} & a.keys()]
    hrefs = {a["href"] for _, a in page.found if "href" in a}
    assert all(str(href).startswith("#") for href in hrefs)
    assert "<title>A &amp; B &lt;runs&gt;</title>" in text
    assert json.loads(page.scripts[0]) == collected.content
    (policy,) = [a["content"] for _, a in page.found if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_text_of_data_cannot_end_its_element() -> None:
    hostile = {
        "</script><script>alert(1)</script>": "<!-- <img src=x onerror=alert(1)>",
        "{{script}}": "\u2028",
    }
    text = as_json(hostile)
    assert "<" not in text
    assert json.loads(text) == hostile
    with pytest.raises(ValueError, match="Out of range"):
        as_json([math.nan])


# The command


def report(*words: object) -> int:
    parser = argparse.ArgumentParser()
    commands.add_arguments(parser)
    return commands.run(parser.parse_args([str(word) for word in words]))


def test_command(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "report"
    assert report(runs / "a", "-o", out, "--rows", "minvis", "--worst", "1", "--title", "Mine") == 0
    first = (out / "index.html").read_text(encoding="utf-8")
    assert "<title>Mine</title>" in first
    assert capsys.readouterr().out.startswith(f"{out / 'index.html'}: 0.")
    assert [path.name for path in out.iterdir()] == ["index.html"]
    assert report(runs / "b0", "-o", out, "--worst", "0") == 0  # a report may be replaced
    assert (out / "index.html").read_text(encoding="utf-8") != first


def test_command_replaces_nothing_else(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "site"
    other.mkdir()
    (other / "index.html").write_text("<p>mine</p>")
    for folder in (other, runs / "a"):
        with pytest.raises(commands.ReportError, match="something else than a report"):
            report(runs / "a", "-o", folder)
    with pytest.raises(commands.ReportError, match="found a file"):
        report(runs / "a", "-o", other / "index.html")
    assert (other / "index.html").read_text() == "<p>mine</p>"
    with pytest.raises(FileNotFoundError, match="no finished run"):
        report(tmp_path, "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()

    def fail(*_: object, **__: object) -> int:
        raise OSError("disk full")

    out = tmp_path / "out"
    report(runs / "b0", "-o", out, "--worst", "0")
    before = (out / "index.html").read_bytes()
    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(OSError, match="disk full"):
        report(runs / "a", "-o", out, "--worst", "0")
    assert (out / "index.html").read_bytes() == before
    assert len(list(out.iterdir())) == 1
