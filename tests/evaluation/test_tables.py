import json
import math
import os
import sys
from pathlib import Path

import pandas as pd
import pytest

from vistk.evaluation.tables import (
    METRICS,
    comparison_table,
    ordered_card,
    printed_cells,
    to_markdown,
    write_table,
)

MEASURED = {
    "visage_r50": {
        "ovis": [{"AP": 0.36, "AR1": None}, {"AP": 0.37, "AR1": 0.2}],
        "yt19": {"AP": 0.5512, "APs": 1},
    },
    "minvis": {"ovis": {"AP": 0.25}},
}
QUOTED = {"VISAGE": {"ovis": {"AP": 0.362}}}


def test_means_over_seeds_and_quoted_rows():
    mean, spread = comparison_table(MEASURED, QUOTED)
    assert list(mean.index) == ["visage_r50", "minvis", "VISAGE (quoted)"]
    assert list(mean.columns) == [(split, metric) for split in ("ovis", "yt19") for metric in METRICS]
    assert mean.loc["visage_r50", ("ovis", "AP")] == pytest.approx(0.365)
    assert spread.loc["visage_r50", ("ovis", "AP")] == pytest.approx(0.01 / 2**0.5)
    assert math.isnan(mean.loc["visage_r50", ("ovis", "AR1")])  # undefined in one of the runs
    assert math.isnan(spread.loc["minvis", ("ovis", "AP")])  # one run has no spread
    assert printed_cells(mean, spread)["ovis", "AP"].tolist() == ["36.5 ± 0.7", "25.0", "36.2"]
    assert printed_cells(mean)["yt19", "AP"].tolist() == ["55.1", "-", "-"]


def test_percent_is_refused():
    with pytest.raises(
        ValueError, match=r"VISAGE \(quoted\), ovis, AP: found 36\.2, expected a fraction \(0\.\.1\)"
    ):
        comparison_table({}, {"VISAGE": {"ovis": {"AP": 36.2}}})


def test_card_has_a_fixed_order():
    card = ordered_card({"window": 30, "commit": "abc", "seeds": [0, 1]})
    assert list(card)[:2] == ["seeds", "kept predictions"]
    assert list(card)[-1] == "window"
    assert card["peak memory"] is None


def test_written_files(tmp_path):
    mean, spread = comparison_table(MEASURED, QUOTED, metrics=("AP", "AR1"))
    paths = write_table(
        mean, {"commit": "abc", "frames/s": 31.5}, tmp_path / "new", name="ovis", spread=spread
    )
    assert sorted(p.name for p in paths) == ["ovis.csv", "ovis.json", "ovis.md", "ovis.tex"]
    assert sorted(os.listdir(tmp_path / "new")) == sorted(p.name for p in paths)  # nothing temporary is left
    text = {p.suffix: p.read_text(encoding="utf-8") for p in paths}

    lines = text[".md"].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    ovis, yt19 = cells.index(["ovis", "AP", "AR1"]), cells.index(["yt19", "AP", "AR1"])
    assert cells[ovis + 2] == ["visage_r50", "36.5 ± 0.7", "-"]
    assert cells[ovis + 4] == ["VISAGE (quoted)", "36.2", "-"]
    assert cells[yt19 + 2] == ["visage_r50", "55.1", "-"]
    assert "- commit: abc" in lines
    assert "- frames/s: 31.5" in lines
    assert "- seeds: -" in lines

    assert r"visage\_r50 & 36.5 $\pm$ 0.7 & - & 55.1 & - \\" in text[".tex"]
    assert "% commit: abc" in text[".tex"]

    csv = pd.read_csv(tmp_path / "new" / "ovis.csv", index_col=0)
    assert csv.loc["visage_r50", "yt19 AP"] == 0.5512
    content = json.loads(text[".json"])
    assert content["rows"]["visage_r50"] == {
        "ovis": {"AP": 0.365, "AR1": None},
        "yt19": {"AP": 0.5512, "AR1": None},
    }
    assert content["card"]["frames/s"] == 31.5


def test_latex_needs_no_further_package_and_is_escaped(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "jinja2", None)  # which pandas would import
    rows = {r"50% of A_B & C\D": {"yt_19": {"AP": 0.5}, "ovis": {"AP": 0.25}}}
    mean, _ = comparison_table(rows, metrics=("AP", "AP50"))
    write_table(mean, {"weights hash": "a_b"}, tmp_path)
    assert (tmp_path / "table.tex").read_text().splitlines()[:8] == [
        r"\begin{tabular}{lrrrr}",
        r"\toprule",
        r"& \multicolumn{2}{c}{yt\_19} & \multicolumn{2}{c}{ovis} \\",
        r" & AP & AP50 & AP & AP50 \\",
        r"\midrule",
        r"50\% of A\_B \& C\textbackslash{}D & 50.0 & - & 25.0 & - \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    mean, _ = comparison_table(MEASURED)
    write_table(mean, {}, tmp_path)
    before = (tmp_path / "table.md").read_text()

    def refuse(*_):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        write_table(mean * 0, {}, tmp_path)
    assert (tmp_path / "table.md").read_text() == before
    assert len(os.listdir(tmp_path)) == 4


def test_empty_table_prints():
    mean, spread = comparison_table({})
    assert to_markdown(mean, {"commit": "abc"}, spread) == "- commit: abc\n"
