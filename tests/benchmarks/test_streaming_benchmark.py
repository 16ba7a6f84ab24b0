"""The timing of streams: its rows."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))  # a folder of scripts, not a package

import streaming  # noqa: E402

from vistk.data.config import SyntheticConfig  # noqa: E402
from vistk.data.synthetic import frames_of  # noqa: E402


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["streaming.py", *map(str, words)])
    streaming.main()


def test_a_row_for_every_case(tmp_path, monkeypatch, capsys):
    out = tmp_path / "rows.csv"
    # In this process: what a fresh one costs is not what is tested.
    measured = []

    def here(options):
        measured.append(options.case)
        return streaming.measure(options)

    monkeypatch.setattr(streaming, "in_a_process", here)
    small = frames_of(SyntheticConfig(frames=8), "static", 0)[0]
    monkeypatch.setattr(streaming, "frames_forth_and_back", lambda: small)
    words = ["--short-side", 32, "--frames", 28, "--rles", "--out", out]
    run(monkeypatch, *words, "--cases", "push", "unrecorded", "resumed")
    run(monkeypatch, *words)
    assert measured == ["push", "unrecorded", "resumed", "folder", "window-8", "streams-4"]
    assert capsys.readouterr().out.count("there already") == 3
    rows = {row["case"]: row for row in csv.DictReader(out.read_text().splitlines())}
    assert set(rows) == set(streaming.CASES)
    assert all(tuple(row) == streaming.COLUMNS and float(row["fps"]) > 0 for row in rows.values())
    assert all(float(row["mib_last"]) > 0 and row["mib_100"] == "" for row in rows.values())
    assert float(rows["unrecorded"]["disk_mib"]) == 0 < float(rows["push"]["disk_mib"])
    assert rows["unrecorded"]["close_s"] == ""
    assert float(rows["resumed"]["segment_ms"]) < float(rows["push"]["segment_ms"])


def test_the_video_repeats_without_a_jump():
    frames = streaming.frames_forth_and_back(8)
    assert len(frames) == 14
    assert frames[0].shape == (360, 640, 3)
    steps = [abs(a.astype(int) - b).mean() for a, b in zip(frames, frames[1:] + frames[:1], strict=True)]
    assert max(steps) < 4 * min(steps)


def test_other_columns_are_refused(tmp_path, monkeypatch):
    out = tmp_path / "rows.csv"
    out.write_text("a,b\n")
    with pytest.raises(ValueError, match="has the columns"):
        run(monkeypatch, "--out", out)
