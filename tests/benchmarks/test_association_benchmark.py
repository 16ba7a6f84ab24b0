"""The timing of association from the cache: its rows."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))  # a folder of scripts, not a package

import association  # noqa: E402
from rows import CARD  # noqa: E402


def test_a_row_for_every_tracker_and_length(tmp_path, monkeypatch, capsys):
    out = tmp_path / "rows.csv"
    words = ["--trackers", "minvis", "visage", "--frames", "3", "1", "--turns", "1", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["association.py", *words])
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    association.main()
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert list(rows[0]) == [*association.COLUMNS, *CARD]
    assert [(row["tracker"], row["frames"]) for row in rows] == [
        *(("minvis", "3"), ("minvis", "1")),
        *(("visage", "3"), ("visage", "1")),
    ]
    assert all(float(row["from_cache_fps"]) > 0 for row in rows)
    # a vector of 256 floats more for each of 100 queries
    kib = {row["tracker"]: float(row["kib_per_frame"]) for row in rows}
    assert abs(kib["visage"] - kib["minvis"] - 100) <= 1
    assert "minvis, frames 3" in capsys.readouterr().out
