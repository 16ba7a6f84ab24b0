"""The timing of the evaluation: its rows, and that nothing is timed that disagrees with the official AP."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))  # a folder of scripts, not a package

import evaluation as benchmark  # noqa: E402
from rows import CARD  # noqa: E402

SMALL = ["--videos", "7", "--frames", "23", "--large", "8", "--turns", "1"]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_rows_of_both_cases(tmp_path, monkeypatch, capsys):
    out = tmp_path / "rows.csv"
    monkeypatch.setattr(sys, "argv", ["evaluation.py", *SMALL, "--out", str(out)])
    benchmark.main()
    official, ap, everything, large = rows = list(csv.DictReader(out.read_text().splitlines()))
    assert list(official) == [*benchmark.COLUMNS, "python", "numpy", *CARD]
    assert [row["videos"] for row in rows] == ["7", "7", "7", "8"]
    assert official["times_official"] == "1.00"
    times = float(official["seconds"]) / float(ap["seconds"])
    assert float(ap["times_official"]) == pytest.approx(times, rel=0.1)
    assert everything["what"] == large["what"] == "ours, all metrics (ap, hota, errors, gaps)"
    assert all(float(row["peak_mb"]) > 0 for row in (ap, everything))
    assert all(float(row["seconds"]) > 0 for row in rows)
    assert "7 videos of 23 frames" in capsys.readouterr().out


def test_another_ap_than_the_official_is_not_timed(tmp_path, monkeypatch):
    out = tmp_path / "rows.csv"
    monkeypatch.setattr(sys, "argv", ["evaluation.py", *SMALL, "--out", str(out)])
    right = benchmark.our_ap
    monkeypatch.setattr(benchmark, "our_ap", lambda folder: right(folder) + 1e-9)
    with pytest.raises(SystemExit, match=r"AP is 0\.\d+, officially 0\.\d+"):
        benchmark.main()
    assert not out.exists()
