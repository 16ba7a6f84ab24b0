"""Sweeps from files and from words: what they come to, and one sentence for what cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from vistk.schema import ConfigError
from vistk.sweeps.definition import Row, Sweep, load_sweep, sweep_of_words, with_words

FILE = """
title: a table
words: train.steps=3 data.hflip=0
seeds: [0, 4]
data:
  synthetic:
  ovis: [data.root=here]
rows:
  both:
  W=1: tracker.memory_frames=1
  0.75: [tracker.appearance_weight=0.75]
  again: {words: tracker.memory_frames=2, retrain: true}
published:
  - {row: both, data: ovis, AP: 36.2, source: a paper}
"""


def write(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_file(tmp_path: Path) -> None:
    sweep = load_sweep(write(tmp_path, FILE))
    assert (sweep.name, sweep.title, sweep.seeds) == ("mine", "a table", [0, 4])
    assert sweep.words == ["train.steps=3", "data.hflip=0"]
    assert sweep.data == {"synthetic": [], "ovis": ["data.root=here"]}
    assert sweep.rows == {
        "both": Row(),
        "W=1": Row(["tracker.memory_frames=1"]),
        "0.75": Row(["tracker.appearance_weight=0.75"]),
        "again": Row(["tracker.memory_frames=2"], retrain=True),
    }
    assert sweep.published[0].AP == 36.2
    assert sweep.published[0].split == "valid"


def test_data_sets_of_another_file(tmp_path: Path) -> None:
    write(tmp_path, "ovis: data.root=here\nsynthetic:\n", "sets.yaml")
    sweep = load_sweep(write(tmp_path, "data: sets.yaml\nrows: {a: }\n"))
    assert sweep.data == {"ovis": ["data.root=here"], "synthetic": []}
    with pytest.raises(FileNotFoundError, match=r"no sweep file .*gone\.yaml"):
        load_sweep(write(tmp_path, "data: gone.yaml\nrows: {a: }\n"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("rows: {a: }\ncolour: red", "unknown key 'colour'; known there: rows, title"),
        ("rows: {a: {word: x=1}}", "unknown key 'rows.a.word'; known there: words, retrain, weights_of"),
        ("rows: {a: , b: {weights_of: c}}", "rows.b.weights_of: expected a row that trains (a), found c"),
        (
            "rows: {a: , b: {weights_of: a}, c: {weights_of: b}}",
            "rows.c.weights_of: expected a row that trains (a), found b",
        ),
        ("rows:\n  a:\n  a:", "line 3: found duplicate key a"),
        ("title: x", "rows has no default"),
        ("rows: {}", "rows is empty, expected at least one"),
        ("rows: {a: }\nseeds: [1, 1]", "seeds: 1 is named twice"),
        ("rows: {a: }\nmetrics: [AP, Ap75]", "metrics: found Ap75, expected some of AP, AP50, AP75, "),
        ("rows: {a: }\nseeds: x", "seeds: expected a list, found 'x'"),
        ("rows: {a: 3}", "rows.a: expected words, as a list or a line of text, found 3"),
        ("rows: {a: tracker}", "rows.a: cannot read 'tracker': expected key=value"),
        ("rows: {a: 'x=1,2'}", "rows.a: cannot use 'x=1,2': one run takes one value"),
        ("rows: {a: seed=1}", "rows.a: cannot use 'seed=1': the sweep says seed itself"),
        ("rows: {a: data=ovis}", "rows.a: cannot use 'data=ovis': the sweep says data itself"),
        ("rows: {a: }\nwords: run_dir=x", "words: cannot use 'run_dir=x': the sweep says run_dir itself"),
        ("rows: {no: }", "found the key False, expected text; write it in quotes"),
        ('rows: {a: "x=\'"}', "rows.a: cannot be read as words (No closing quotation)"),
        ("rows: {a: }\nname: x", "unknown key 'name'; a sweep is called as its file"),
        ("rows: {a: }\npublished: [{row: a, AP: 3}]", "published[0].data has no default"),
        ("- a", "expected keys and values, found list"),
    ],
)
def test_what_cannot_be_used(tmp_path: Path, text: str, sentence: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as raised:
        load_sweep(path)
    assert sentence in str(raised.value)
    assert "mine.yaml" in str(raised.value) or "rows" in sentence or "key False" in sentence
    assert "\n" not in str(raised.value)


def test_words_of_the_command_line() -> None:
    sweep = Sweep({"a": Row()}, words=["train.steps=3"], data={"synthetic": [], "ovis": [], "mine": ["x=1"]})
    said = with_words(sweep, ["seed=3,5", "data=mine,ovis", "data.hflip=0"])
    assert said.seeds == [3, 5]
    assert list(said.data) == ["mine", "ovis"]
    assert said.words == ["train.steps=3", "data.hflip=0"]
    assert with_words(sweep, ["data=ovis", "data.root=x"]).words[-1] == "data.root=x"
    for words, sentence in {
        ("data=coco",): "data=coco: the sweep has synthetic, ovis, mine",
        ("data.root=x",): "data.root is of one data set: say which, data=synthetic|ovis|mine",
        ("tracker=a,b",): "cannot use 'tracker=a,b': the rows of a sweep are in its file",
        ("seed=x",): "seed=x: expected a whole number",
        ("resume=false",): "cannot use 'resume=false': the sweep says resume itself",
        ("tracker",): "cannot read 'tracker': expected key=value",
        ("x=interval(0,1)",): "cannot use 'x=interval(0,1)': expected values that can be counted",
    }.items():
        with pytest.raises(ConfigError) as raised:
            with_words(sweep, words)
        assert sentence in str(raised.value)


def test_words_with_commas() -> None:
    sweep = sweep_of_words(
        ["tracker=minvis,visage", "seed=range(0,3)", "train.steps=3", "tracker.levels=[res3],[res4,res5]"]
    )
    assert list(sweep.rows) == [
        "tracker=minvis tracker.levels=[res3]",
        "tracker=minvis tracker.levels=[res4,res5]",
        "tracker=visage tracker.levels=[res3]",
        "tracker=visage tracker.levels=[res4,res5]",
    ]
    assert sweep.rows["tracker=visage tracker.levels=[res3]"].words == [
        *("tracker=visage", "tracker.levels=[res3]")
    ]
    assert (sweep.seeds, sweep.words, sweep.data) == ([0, 1, 2], ["train.steps=3"], {"synthetic": []})
    assert "/" not in sweep.name
    assert sweep.name != sweep_of_words(["tracker=minvis,visage"]).name
    assert list(sweep_of_words(["data=synthetic,ovis"]).data) == ["synthetic", "ovis"]
    assert list(sweep_of_words(["seed=1,2", "tracker=minvis"]).rows) == ["all"]
    assert sweep_of_words(["preset=visage-r50-ovis", "seed=1,2"]).data == {"preset": []}
    with pytest.raises(ConfigError, match="nothing to sweep: expected a word with several values"):
        sweep_of_words(["tracker=minvis"])
    for word in ("tracker=a,b,a", "seed=1,1", "data=ovis,ovis"):
        with pytest.raises(ConfigError, match=f"cannot use '{word}': .* is named twice"):
            sweep_of_words([word, "tracker=x,y"])
