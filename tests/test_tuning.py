"""``vistk tune``: what is searched, how, on which videos, and what is said of it."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest

from vistk.cli import main
from vistk.config import compose
from vistk.data.config import OVISConfig, SyntheticConfig
from vistk.data.synthetic import ensure
from vistk.evaluation.report import evaluate
from vistk.schema import ConfigError
from vistk.trackers.base import Range
from vistk.trackers.registry import BUILT_IN, get_tracker
from vistk.tuning import objective, run
from vistk.tuning.data import choose_splits
from vistk.tuning.knobs import Knob, TuningError, find_knobs, read_choices, read_range, words
from vistk.tuning.search import Journal, Sampler, Trial, search, simplified

BLEND = "tuned_tracker:Blend"
KNOBS = [
    Knob("weight", Range(0, 1), False, 0.75),
    Knob("frames", Range(1, 10), True, 5),
    Knob("kind", ("recent", "uniform"), False, "recent"),
]


def planted(values):
    """Best at weight 0.3, 8 frames, uniform."""
    bonus = 0.2 if values["kind"] == "uniform" else 0.0
    return {"a": bonus - (values["weight"] - 0.3) ** 2, "b": bonus - 0.01 * abs(values["frames"] - 8)}


def searched(folder, trials, seed=0, tried=planted, knobs=KNOBS):
    return search(knobs, tried, trials, Sampler(knobs, trials, seed), Journal(folder, {"seed": seed}))


def best_of(history):
    return max(history, key=lambda trial: trial.rank)


# What is searched.


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_trackers_say_what_is_worth_trying(name):
    cls, config = get_tracker(name)
    assert set(cls.search_space) <= set(cls.association_fields)
    if not cls.search_space:
        with pytest.raises(TuningError, match=f"tracker={name} (has no|is given the ground truth)"):
            find_knobs(name, config)
        return
    knobs, unknown = find_knobs(name, config)
    assert [knob.name for knob in knobs] == [f for f in vars(config) if f in cls.association_fields]
    assert not unknown
    for knob in knobs:
        assert knob.holds(knob.default), knob
        assert not isinstance(knob.default, bool) or knob.values == (False, True)
        ends = (knob.values.low, knob.values.high) if isinstance(knob.values, Range) else knob.values
        for value in ends:
            sizes = {"feature_channels": {f"res{i}": 8 for i in range(2, 6)}, "num_classes": 2}
            cls(replace(config, **{knob.name: value}), embed_dim=8, **sizes)  # raises where it does not fit


def test_what_is_said_is_held_and_what_is_given_is_not():
    config = compose(["tracker=visage", "tracker.memory_frames=3"]).config.tracker
    knobs, _ = find_knobs("visage", config, {"memory_frames"})
    assert [knob.name for knob in knobs] == ["appearance_weight", "memory_weighting", "score_weighting"]
    knobs, _ = find_knobs("visage", config, {"memory_frames"}, {"memory_frames": (1, 3, 30)})
    assert knobs[1].values == (1, 3, 30)
    assert knobs[1].default == 3
    assert knobs[-1].values == (False, True)


def test_what_makes_an_ablation_is_not_searched():
    _, config = get_tracker("visage-no-memory")
    knobs, _ = find_knobs("visage-no-memory", config)
    assert "memory_frames" not in [knob.name for knob in knobs]


def test_values_are_said_as_words_have_them():
    values = {"appearance_weight": 1e-05, "memory_frames": 7, "memory_weighting": "uniform"}
    said = words(values | {"score_weighting": False})
    assert said[1:] == [
        "tracker.memory_frames=7",
        "tracker.memory_weighting=uniform",
        "tracker.score_weighting=false",
    ]
    config = compose(["tracker=visage", *said]).config.tracker
    assert vars(config).items() >= (values | {"score_weighting": False}).items()
    assert words({"max_gap": None}) == ["tracker.max_gap=null"]


def test_ranges_are_read():
    assert read_range("tracker.decay=0.1..1") == ("decay", Range(0.1, 1))
    assert read_range("tracker.decay=1e-3..1,log") == ("decay", Range(1e-3, 1, log=True))
    assert read_choices("tracker.gap=null,2,[a,b],true") == ("gap", (None, 2, ["a", "b"], True))
    for text, said in {
        "tracker.decay=0.1": "expected LOW..HIGH",
        "tracker.decay=1..0": "expected low < high",
        "tracker.decay=0..1,log": "expected 0 < low < high",
        "decay=0..1": r"expected tracker\.NAME=LOW\.\.HIGH",
    }.items():
        with pytest.raises(TuningError, match=said):
            read_range(text)


def test_ranges_have_to_fit():
    _, config = get_tracker("visage")
    for given, said in {
        ("levels", ("a", "b")): "levels is no association field of tracker=visage",
        ("memory_weighting", Range(0, 1)): "tracker.memory_weighting is no number",
        ("memory_frames", Range(1.2, 2.8)): "expected two whole numbers at least",
        ("memory_frames", (1, "x")): "tracker.memory_frames: expected a whole number",
        ("memory_frames", (1, 1)): "expected two different values",
    }.items():
        with pytest.raises(TuningError, match=said):
            find_knobs("visage", config, (), dict([given]))


# How it is searched.


def test_a_planted_optimum_is_found(tmp_path):
    history = searched(tmp_path, 60)
    assert len(history) == 60
    assert history[0].values == {"weight": 0.75, "frames": 5, "kind": "recent"}
    assert history[0].score == pytest.approx((-(0.45**2) - 0.03) / 2)
    best = best_of(history)
    assert best.values["kind"] == "uniform"
    assert best.values["frames"] == 8
    assert best.values["weight"] == pytest.approx(0.3, abs=0.05)
    at_random = searched(tmp_path / "random", 20)  # as many as are drawn before anything is learned
    assert best.score > best_of(at_random).score


def test_a_search_goes_on_as_if_it_had_not_been_stopped(tmp_path):
    whole = searched(tmp_path / "whole", 40)
    calls = []

    def stopped(values):
        calls.append(values)
        if len(calls) == 29:
            raise KeyboardInterrupt
        return planted(values)

    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path / "parts", 40, tried=stopped)
    lines = tmp_path / "parts" / "trials.jsonl"
    lines.write_text(lines.read_text() + '{"step": 28, "val')  # as a crash may leave it
    assert searched(tmp_path / "parts", 35) == whole[:35]
    assert searched(tmp_path / "parts", 40) == whole
    assert searched(tmp_path / "parts", 10) == whole[:10]
    assert len(lines.read_text().splitlines()) == 40
    assert searched(tmp_path / "other", 40, seed=1) != whole


def test_a_folder_holds_one_search(tmp_path):
    Journal(tmp_path, {"seed": 7})  # stopped before its first trial: nothing that could be mixed up
    searched(tmp_path, 2)
    with pytest.raises(TuningError, match="holds another search: seed is 0 there and 1 here"):
        searched(tmp_path, 2, seed=1)


def test_few_values_are_all_tried_once(tmp_path):
    knobs = KNOBS[1:]
    history = searched(tmp_path, 50, tried=lambda v: {"a": planted(v | {"weight": 0})["b"]}, knobs=knobs)
    assert len(history) == 20
    assert len({json.dumps(trial.values) for trial in history}) == 20
    assert best_of(history).values == {"frames": 8, "kind": "uniform"}


def test_values_that_do_not_go_together_are_no_result(tmp_path):
    def tried(values):
        if values["kind"] == "uniform":
            raise ConfigError("no")
        return planted(values)

    history = searched(tmp_path, 30, tried=tried)
    assert {trial.values["kind"] for trial in history if trial.score is None} == {"uniform"}
    assert best_of(history).values["kind"] == "recent"
    with pytest.raises(ConfigError):  # what the words say has to
        searched(
            tmp_path / "first", 3, tried=tried, knobs=[*KNOBS[:2], Knob("kind", ("a", "b"), False, "uniform")]
        )


def test_what_gains_nothing_goes_back():
    knobs = [*KNOBS, Knob("idle", (False, True), False, True)]
    first = {"weight": 0.75, "frames": 5, "kind": "recent", "idle": True}
    chosen = {"weight": 0.75, "frames": 8, "kind": "uniform", "idle": False}
    history = [
        Trial(i, values, sum(planted(values).values()) / 2, planted(values))
        for i, values in enumerate((first, chosen))
    ]
    best, losses = simplified(knobs, history, planted)
    assert best.values == chosen | {"idle": True}
    assert losses == {"frames": pytest.approx(0.015), "kind": pytest.approx(0.2)}


def test_the_first_trial_may_lie_outside(tmp_path):
    knobs = [Knob("weight", Range(0, 0.5), False, None)]
    history = searched(
        tmp_path, 5, knobs=knobs, tried=lambda v: {"a": -1 if v["weight"] is None else v["weight"]}
    )
    assert history[0].values == {"weight": None}
    assert all(0 <= trial.values["weight"] <= 0.5 for trial in history[1:])


# On which videos.


def test_splits_that_are_not_said():
    assert choose_splits(SyntheticConfig(eval_splits=["track"])) == (("fresh",), ("track",))
    assert choose_splits(OVISConfig(local_split=0.1)) == (("local",), ("valid",))
    assert choose_splits(SyntheticConfig(eval_splits=["track", "swap"]), ["swap"]) == (("swap",), ("track",))


@pytest.mark.parametrize(
    ("data", "on", "report", "said"),
    [
        (OVISConfig(), (), (), "say which split to tune on, --on SPLIT"),
        (OVISConfig(), ("valid",), (), "nothing is left to report on beside valid"),
        (OVISConfig(), ("valid",), ("valid",), "valid to tune on and to report on, expected other videos"),
        (OVISConfig(), ("local",), (), r"--on local: say data\.local_split=0\.15"),
        (OVISConfig(), ("fresh",), (), "fresh is for tuning on data=synthetic alone"),
    ],
)
def test_splits_that_do_not_do(data, on, report, said):
    with pytest.raises(TuningError, match=said):
        choose_splits(data, on, report)


# The command.


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("tune") / "data"


@pytest.fixture
def given(root):
    small = ("data.num_train=4", "data.num_val=2", "data.frames=8", "data.eval_splits=[track]")
    return [f"tracker={BLEND}", f"data.root={root}", *small]


def tune(words, out, *options):
    return main(["tune", *words, "--out", str(out), "--bootstrap", "20", *map(str, options)])


def test_from_words_to_table(given, root, tmp_path, capsys, run_experiment):
    out, options = tmp_path / "out", ("--range", "tracker.looks=0..1", "--trials", 12)
    assert tune(given, out, *options) == 0
    printed = capsys.readouterr()
    table = json.loads((out / "table.json").read_text())
    assert table["words"] == [f"tracker.looks={table['knobs']['looks']['best']}"]
    assert table["knobs"]["looks"]["best"] > 0.5
    assert f"Best: `{table['words'][0]}`" in printed.out
    assert "nobody says what to try for tracker.guess" in printed.err
    assert "Optimistic: the best of 12 trials was chosen by these numbers" in printed.out
    assert "track: best beats default by" in printed.out or "track: best and default" in printed.out
    numbers = {(n["split"], n["results"], n["metric"]): n["value"] for n in table["numbers"]}
    assert numbers["track", "best", "AP"] > numbers["track", "default", "AP"]
    assert numbers["fresh track", "best", "AP"] > numbers["fresh track", "default", "AP"]
    assert not (out / "queries").exists()

    # What a trial measures is the official number, of results that are those of a run.
    trials = [json.loads(line) for line in (out / "trials.jsonl").read_text().splitlines()]
    assert trials[0]["score"] == numbers["fresh track", "default", "AP"]
    for row, words_ in {"default": [], "best": table["words"]}.items():
        found = json.loads((out / "rows" / row / "track" / "results.json").read_text())
        said = [*given, *words_, "eval_only=true", "evaluation.rows=[]", f"run_dir={tmp_path / row}"]
        code, _, err = run_experiment(*said)
        assert code == 0, err
        path = tmp_path / row / "rows" / BLEND / "track" / "results.json"
        assert found == json.loads(path.read_text())
        truth = root / "track" / "instances.json"
        report = evaluate(truth, path, score_threshold=0.1)
        assert report.metrics["AssA"] == pytest.approx(numbers["track", row, "AssA"])

    assert tune(given, out, *options) == 0
    again = capsys.readouterr()
    assert again.out == printed.out
    assert "is there already" in again.err


def test_interrupted_and_taken_up_again(given, tmp_path, monkeypatch, capsys):
    options = ("--range", "tracker.looks=0..1", "--choices", "tracker.guess=next,other", "--trials", 8)
    options += ("--metric", "AssA")
    assert tune(given, tmp_path / "whole", *options) == 0
    whole = (tmp_path / "whole" / "trials.jsonl").read_text()
    capsys.readouterr()
    measured, left = objective.TrackedSplit.metric, iter(range(3))

    def interrupted(*args):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return measured(*args)

    monkeypatch.setattr(objective.TrackedSplit, "metric", interrupted)
    assert tune(given, tmp_path / "parts", *options) == 130
    err = capsys.readouterr().err
    assert "best so far, AssA " in err
    assert "the same command goes on" in err
    assert (tmp_path / "parts" / "trials.jsonl").read_text().splitlines() == whole.splitlines()[:3]
    monkeypatch.undo()
    assert tune(given, tmp_path / "parts", *options) == 0
    assert "3 trials were finished before" in capsys.readouterr().err
    assert (tmp_path / "parts" / "trials.jsonl").read_text() == whole
    assert tune(given, tmp_path / "parts", *options, "--seed", 1) == 2
    assert "holds another search: seed is 0 there and 1 here" in capsys.readouterr().err


def test_queries_are_read_again_where_they_do_not_fit(given, tmp_path, monkeypatch):
    options = ("--range", "tracker.looks=0..1", "--trials", 2)
    cache = [f"cache.dir={tmp_path / 'cache'}"]
    assert tune([*given, *cache, "cache=auto"], tmp_path / "held", *options) == 0
    monkeypatch.setattr(objective, "HELD_BYTES", 0)
    assert tune([*given, *cache, "cache=read"], tmp_path / "read", *options) == 0
    assert len({(tmp_path / name / "trials.jsonl").read_text() for name in ("held", "read")}) == 1


@pytest.mark.parametrize(
    ("words_", "options", "said"),
    [
        (
            [],
            [],
            f"tracker={BLEND} has no ranges for looks, guess; say some, e.g. --range tracker.looks=0..1",
        ),
        (["tracker=minvis"], [], "tracker=minvis has no association_fields"),
        (["tracker=oracle"], [], "tracker=oracle is given the ground truth"),
        ([], ["--range", "tracker.width=1..2"], "tracker.width is no association field"),
        (["tracker=kalman"], ["--on", "track"], "nothing is left to report on beside track"),
        (["tracker=kalman"], ["--on", "track", "--report", "track"], "expected other videos"),
        (
            ["tracker=kalman", "data.local_split=0.5"],
            ["--on", "local", "--report", "train"],
            "local and train have 2 videos in common",
        ),
        (["tracker=kalman", "tracker.presenc=1"], [], "tracker.presence"),
        (["tracker=visage"], [], "expected those of tracker=visage"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(given, tmp_path, capsys, words_, options, said):
    assert tune([*given, *words_], tmp_path, *options) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("vistk tune: ")
    assert said in last


def test_without_the_library(given, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert tune(given, tmp_path) == 2
    err = capsys.readouterr().err
    assert err.startswith("vistk tune: vistk tune needs optuna")
    assert 'pip install -e ".[tune]"' in err
    assert err.count("\n") == 1


def test_hidden_annotations(given, root, tmp_path, capsys):
    """They can be reported on, by a server, and cannot be tuned on."""
    config = compose(given).config.data
    folder = tmp_path / "own"
    for name, split in {"train": "swap", "valid": "track"}.items():
        ensure(config, [split], progress=False)
        content = json.loads((root / split / "instances.json").read_text())
        (folder / name).mkdir(parents=True)
        (folder / name / "JPEGImages").symlink_to(root / split / "JPEGImages")
        content["annotations"] = content["annotations"] if name == "train" else []
        (folder / name / "instances.json").write_text(json.dumps(content))
    own = [f"tracker={BLEND}", "data=ytvis", f"data.root={folder}"]
    options = ("--range", "tracker.looks=0..1", "--trials", 2)
    capsys.readouterr()
    assert tune(own, tmp_path / "out", *options, "--on", "train") == 0
    assert "nothing is scored on valid: submission.zip of both is in" in capsys.readouterr().out
    assert (tmp_path / "out" / "rows" / "best" / "valid" / "submission.zip").is_file()
    assert tune(own, tmp_path / "no", *options, "--on", "valid", "--report", "train") == 2
    assert "has no annotations, expected some to tune on valid" in capsys.readouterr().err


def test_folders_are_named_by_words_and_options():
    composed = compose(["tracker=visage", "tracker.memory_frames=3"])
    folder = run.default_folder(composed, run.Asked(metric="AssA", on=("track", "swap"), seed=2))
    assert folder.parts[:4] == ("runs", "tune", "synthetic", "visage")
    assert folder.parts[-1] == "AssA-on-track-swap-seed2"
