"""The timing of streams: its rows."""

from __future__ import annotations

import csv
import sys
import tempfile
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

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


def test_streams_together_see_as_many_frames_as_were_asked_for():
    options = Namespace(case="streams-4", frames=30, rles=False)
    segmenter, tracker = streaming.build("minvis", torch.device("cpu"))
    streams = [streaming.Stream(segmenter, tracker, short_side=32, record=False) for _ in range(4)]
    looked = []
    streaming._run(options, streams, [np.zeros((36, 64, 3), np.uint8)] * 5, looked.append)
    assert [stream.number for stream in streams] == [8, 8, 7, 7]
    assert looked[-2:] == [28, 30]


def test_temporary_folders_are_where_they_were_after_an_error(monkeypatch):
    def broken(*_):
        raise KeyError

    monkeypatch.setattr(streaming, "_run", broken)
    monkeypatch.setattr(streaming, "frames_forth_and_back", list)
    before = tempfile.tempdir
    options = Namespace(
        case="push", frames=1, short_side=32, tracker="minvis", threads=1, device="cpu", rles=False
    )
    with pytest.raises(KeyError):
        streaming.measure(options)
    assert tempfile.tempdir == before


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
