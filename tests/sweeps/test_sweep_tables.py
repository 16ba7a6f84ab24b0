"""The table of a sweep, and the commands that end in it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from vistk.sweeps.cells import make_cells
from vistk.sweeps.children import Launcher
from vistk.sweeps.commands import multirun_main, sweep_main
from vistk.sweeps.definition import Row, Sweep
from vistk.sweeps.tables import NothingScoredError, make_table, summary

STUB = Path(__file__).with_name("stub_run.py")


def launcher_of(folder: Path) -> Launcher:
    return Launcher(STUB, folder / "logs", [{}], [sys.executable])


def cells_of(text: str, name: str) -> list[str]:
    """The first line of a table that begins with a name."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    return next(line for line in lines if line[0] == name)


def test_a_sweep_from_file_to_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(
        "title: a small table\nseeds: [0, 1]\nrows:\n  W=1: tracker.memory_frames=1\n"
        "  W=3: tracker.memory_frames=3\n  bad: tracker.hidden_dim=13\n"
        "published:\n  - {row: W=9, data: ytvis2019, AP: 55.1, source: a paper}\n"
        "  - {row: W=1, data: synthetic, split: swap, AP: 44.0, source: another}\n"
    )
    out = tmp_path / "out"
    words = [str(file), "--out", str(out), "--bootstrap", "0"]
    assert sweep_main([*words, "--plan"], STUB) == 0
    planned = capsys.readouterr().out.splitlines()
    assert planned[0].startswith("W=1, synthetic, seed 0: to do, trains, ")
    assert planned[1].startswith("W=3, synthetic, seed 0: to do, evaluated on the weights of W=1, ")
    assert not out.exists()

    assert sweep_main(words, STUB, launcher_of(out)) == 1
    printed = capsys.readouterr()
    assert "bad, synthetic, seed 1: failed, loss is not finite at step 7 (exit code 2, log " in printed.err
    text = (out / "table.md").read_text()
    assert text in printed.out
    assert "**a small table**" in text
    assert cells_of(text, "W=1")[1:3] == ["0, 1", "56.0 ± 7.1"]  # 0.51 and 0.61
    assert cells_of(text, "W=3")[1:3] == ["0, 1", "58.0 ± 7.1"]
    assert cells_of(text, "*W=1, published*")[2] == "*44.0*"
    assert "**published, ytvis2019 valid**" in text
    assert cells_of(text, "*W=9, published*")[1:] == ["*55.1*", "*a paper*"]
    assert "Failed: bad, synthetic, seed 0: loss is not finite at step 7" in text
    assert "- seeds: 0, 1" in text
    assert f"- command: python experiments/sweep.py {file} --out {out} --bootstrap 0" in text
    assert "- frames/s: 10 (all) | 11 (all)" in text
    content = json.loads((out / "table.json").read_text())
    assert len(content["cards"]) == 4
    measured = [n for n in content["numbers"] if n["metric"] == "AP" and n["results"] == "W=3"]
    assert [(n["seed"], n["value"], n["data_set"], n["split"]) for n in measured] == [
        (0, pytest.approx(0.53), "synthetic", "swap"),
        (1, pytest.approx(0.63), "synthetic", "swap"),
    ]
    assert (out / "table.csv").read_text().count("W=1,AP,") == 2
    assert r"56.0 $\pm$ 7.1" in (out / "table.tex").read_text()

    assert sweep_main([*words, "--plan"], STUB) == 0
    states = [line.split(": ")[1].split(",")[0] for line in capsys.readouterr().out.splitlines()]
    assert states.count("finished") == 4
    assert states.count("to do") == 2


def test_published_numbers_where_another_split_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of the official split, whose annotations are hidden, stand apart."""
    file, out = tmp_path / "quoting.yaml", tmp_path / "out"
    text = f"quote: true\nseeds: [0]\ndata: {{ovis: data.root={tmp_path}}}\nrows: {{a: tracker=minvis}}\n"
    file.write_text(text)
    assert sweep_main([str(file), "--out", str(out)], STUB, launcher_of(out)) == 0
    measured, published = (out / "table.md").read_text().split("**published, ovis valid**")
    assert cells_of(measured, "a")[2] == "50.0"
    assert "36.2" not in measured
    assert cells_of(published, "*VISAGE, R50, online*")[1:6] == [
        "*36.2*",
        "*60.3*",
        "*35.3*",
        "*17.0*",
        "*40.3*",
    ]
    content = json.loads((out / "table.json").read_text())
    assert {row["data_set"] for row in content["published"]} == {"ovis"}


def test_words_with_commas(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["-m", "tracker=minvis,visage", "seed=0,1", "train.steps=3", "--bootstrap", "0"]
    words += ["--out", str(tmp_path)]
    assert multirun_main(words, STUB, launcher_of(tmp_path)) == 0
    printed = capsys.readouterr()
    assert cells_of(printed.out, "tracker=minvis")[1:3] == ["0, 1", "55.0 ± 7.1"]
    assert cells_of(printed.out, "tracker=visage")[1:3] == ["0, 1", "55.0 ± 7.1"]
    cards = json.loads((tmp_path / "table.json").read_text())["cards"]
    hashes = {run.split("/")[-1] + run.split("/")[-3]: card["weights hash"] for run, card in cards.items()}
    assert hashes["seed0minvis"] == hashes["seed0visage"] != hashes["seed1minvis"]


def test_bad_input_starts_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert multirun_main(["-m", "tracker=minvis,vis"], STUB) == 2
    assert capsys.readouterr().err.startswith("error: row 'tracker=vis' on synthetic: unknown tracker 'vis'")
    assert sweep_main(["gone.yaml"], STUB) == 2
    assert capsys.readouterr().err == "error: no sweep file gone.yaml\n"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert multirun_main(["-m", "tracker=minvis,visage"], STUB) == 2
    assert "a sweep launches its runs itself: say python experiments/run.py -m" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_scored(tmp_path: Path) -> None:
    sweep = Sweep({"a": Row()}, seeds=[0])
    with pytest.raises(NothingScoredError, match=r"^nothing is scored: no run has finished$"):
        make_table(sweep, make_cells(sweep, tmp_path)[0], [], "x")


def test_hidden_annotations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No table then, but whose file for the server lies where."""
    file, out = tmp_path / "hidden.yaml", tmp_path / "out"
    file.write_text("seeds: [0]\nrows:\n  a: tracker.hidden_dim=5\n  b: tracker.hidden_dim=13\n")
    assert sweep_main([str(file), "--out", str(out)], STUB, launcher_of(out)) == 1
    failed, nothing, server = capsys.readouterr().err.splitlines()[-3:]
    assert failed.startswith("Failed: b, synthetic, seed 0: loss is not finite at step 7")
    assert nothing.startswith("nothing is scored: the annotations of the data are hidden; data.local_split=")
    (path,) = out.rglob("submission.zip")
    assert server == f"a, synthetic, seed 0: for the server, {path}"
    assert not (out / "table.md").exists()


def test_the_card_of_many_runs() -> None:
    cards = [
        {"seeds": n, "commit": "abc", "frames/s": f"{10 * n} (all)", "config hash": f"x{n}", "torch": None}
        for n in range(5)
    ]
    assert summary(cards) == {
        "commit": "abc",
        "config hash": "5 different, in table.json",
        "frames/s": "0 to 40 (all)",
    }
    assert summary([{"device": "A"}, {"device": "B"}, {"device": "A"}]) == {"device": "A | B"}


def test_options_of_the_script(run_experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run_experiment("-m", "tracker=minvis,visage", "seed=0,1", "--plan")
    assert (code, len(out.splitlines())) == (0, 4)
    assert all("runs/sweeps/tracker=minvis,visage,seed=0,1/synthetic/" in line for line in out.splitlines())
    code, _, err = run_experiment("--runs", "gone")
    assert code == 2
    assert err == "error: --runs: expected a file, the words of a run on each line, found gone\n"
    file = tmp_path / "two.runs"
    file.write_text("tracker=visage tracker.levels=[res9] run_dir=one\ntracker=visage run_dir=two\n")
    code, _, err = run_experiment("--runs", file)
    assert code == 2
    assert "error: tracker=visage: levels: the segmenter has no level 'res9'" in err
    assert not (tmp_path / "two").exists()
