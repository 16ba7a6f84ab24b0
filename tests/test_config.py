"""Words to configurations: composition, types, messages, run directories, replay."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra

from vistk import config as vc
from vistk.composer import Group, Schema, options
from vistk.config import DEFAULT_SCHEMA, RunConfig, command_line, compose, config_hash, load, save, to_dict
from vistk.schema import ConfigError
from vistk.trackers.registry import get_tracker, tracker_names


@dataclass
class Memory:
    frames: int = 3
    weighting: Literal["recent", "uniform"] = "recent"


@dataclass
class Plain:
    similarity: str = "cosine"


@dataclass
class Rich:
    appearance_weight: float = 0.75
    memory: Memory = field(default_factory=Memory)
    scales: tuple[int, ...] = (1, 2)
    limits: tuple[float, float] = (0.1, 0.9)

    def __post_init__(self) -> None:
        if self.appearance_weight < 0:
            raise ValueError(f"appearance_weight is {self.appearance_weight}; expected 0 or more")


@dataclass(frozen=True)
class Frozen:
    root: str
    sides: list[int] = field(default_factory=lambda: [360, 480])
    num_workers: int = 2


@dataclass
class Loop:
    lr: float = 1e-4
    precision: Literal["no", "bf16"] = "no"
    steps: int = 100
    ema: float | None = None
    loss_weights: dict[str, float] = field(default_factory=lambda: {"mask": 5.0})
    note: str = ""


@dataclass
class Root:
    tracker: Any
    data: Any
    train: Loop = field(default_factory=Loop)
    choices: dict[str, str] = field(default_factory=dict)
    seed: int = 0
    weights: str | None = None
    resume: bool = True
    run_dir: str | None = None
    preset: str | None = None


def _tracker(name: str) -> Any:
    known = {"plain": Plain, "rich": Rich, "pkg.mod:Third": Memory}
    if name == "rich-no-memory":
        return Rich(memory=Memory(frames=1))
    if name not in known:
        raise ValueError("known are plain, rich")
    return known[name]()


def _preset(name: str) -> tuple[str, ...]:
    if name != "old":
        raise ValueError("known is old")
    return ("tracker=rich", "tracker.memory.frames=9", "train.steps=77")


SCHEMA = Schema(
    Root,
    {
        "tracker": Group("plain", lambda: ("plain", "rich", "rich-no-memory"), _tracker),
        "data": options("toy", {"toy": lambda: Frozen(root="here"), "real": lambda: Frozen}),
    },
    shorthands={"preset": _preset},
)


def run(*words: str) -> vc.Composed:
    return compose(words, SCHEMA)


def refusal(*words: str) -> str:
    with pytest.raises(ConfigError) as caught:
        run(*words)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_defaults() -> None:
    config = run().config
    assert config == Root(Plain(), Frozen("here"), choices={"tracker": "plain", "data": "toy"})


@pytest.mark.parametrize(
    "words", [("tracker=rich", "tracker.memory.frames=7"), ("tracker.memory.frames=7", "tracker=rich")]
)
def test_choice_and_value_in_any_order(words: tuple[str, ...]) -> None:
    # with _self_ last in Hydra's defaults the second word would be dropped without an error
    config = run(*words).config
    assert config.tracker == Rich(memory=Memory(frames=7))


def test_choice_wins_over_a_default_of_the_root() -> None:
    root = dataclasses.make_dataclass(
        "WithDefault",
        [
            ("tracker", Any, field(default_factory=Plain)),
            ("choices", dict[str, str], field(default_factory=dict)),
        ],
    )
    schema = Schema(root, {"tracker": SCHEMA.groups["tracker"]}, path=("tracker",))
    composed = compose(["tracker=rich", "tracker.memory.frames=7"], schema)
    assert composed.config.tracker == Rich(memory=Memory(frames=7))


def test_section_that_is_no_group() -> None:
    config = run("train.steps=7", "seed=3").config
    assert (config.train, config.seed) == (Loop(steps=7), 3)


def test_ablation_changes_one_field() -> None:
    config = run("tracker=rich-no-memory", "tracker.appearance_weight=1").config
    assert config.tracker == Rich(1.0, Memory(frames=1))
    assert config.choices["tracker"] == "rich-no-memory"


def test_name_outside_the_list_is_accepted_when_the_group_can_make_it() -> None:
    composed = run("tracker=pkg.mod:Third", "tracker.frames=9")
    assert composed.config.tracker == Memory(frames=9)
    assert composed.run_dir.parent.parent == Path("runs/toy")
    assert composed.run_dir.parent.name.startswith("pkg.mod-Third-")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("train.lr=1e-4", 1e-4),
        ("train.lr='1e-4'", 1e-4),
        ("train.lr=3", 3.0),
        ("train.steps=1e4", 10000),
        ("train.precision=no", "no"),
        ("train.precision=bf16", "bf16"),
        ("train.precision=false", "no"),
        ("train.ema=null", None),
        ("train.ema=0.5", 0.5),
        ("train.note=12", "12"),
        ("train.note='a b, c=d'", "a b, c=d"),
        ("data.sides=[1,7,23]", [1, 7, 23]),
        ("tracker.scales=[4]", (4,)),
        ("tracker.scales=[]", ()),
        ("tracker.limits=[0,1e-3]", (0.0, 1e-3)),
        ("tracker.memory={frames: 5}", Memory(frames=5)),
        ("train.loss_weights.mask=2", {"mask": 2.0}),
        ("+train.loss_weights.dice=1e-1", {"mask": 5.0, "dice": 0.1}),
        ("weights=/a/b c.pth", "/a/b c.pth"),
    ],
)
def test_values(word: str, expected: Any) -> None:
    value: Any = run("tracker=rich", word).config
    for part in word.lstrip("+").partition("=")[0].split("."):
        if isinstance(value, dict):
            break
        value = getattr(value, part)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("tracker=rich", "tracker.app_wieght=2"),
            "'tracker.app_wieght'; did you mean 'tracker.appearance_weight'?",
        ),
        (("trackr=rich",), "unknown key 'trackr'; did you mean 'tracker'?"),
        (("lr=1",), "unknown key 'lr'; did you mean 'train.lr'?"),
        (("+train.momentum=1",), "unknown key 'train.momentum'; known are train.ema, "),
        (("tracker.appearance_weight=2",), "tracker=rich has it, tracker=plain has not"),
        (("choices.tracker=rich",), "unknown key 'choices.tracker'"),
        (("hydra.verbose=true",), "unknown key 'hydra.verbose'"),
        (("train.lr.x=1",), "unknown key 'train.lr.x'"),
        (("train.loss_weights.dice=1",), "dice"),
        (("tracker=rihc",), "unknown tracker 'rihc'; did you mean 'rich'?"),
        (("data=zzz",), "unknown data 'zzz'; known are toy, real"),
        (("tracker=[plain,rich]",), "expected the name of one option"),
        (("train.lr=abc",), "train.lr: expected a number, found 'abc'"),
        (("train.lr=true",), "train.lr: expected a number, found True"),
        (("train.lr=null",), "train.lr: expected a number, found null"),
        (("train.steps=1.5",), "train.steps: expected a whole number, found 1.5"),
        (("train.precision=fp8",), "train.precision: expected one of no, bf16, found 'fp8'"),
        (("train.precision=true",), "train.precision: expected one of no, bf16, found True"),
        (("train.note=1.10",), "train.note: expected text, found 1.1; write it in quotes"),
        (("train.note=yes and ${seed}",), "interpolation"),
        (("resume=1",), "resume: expected true or false, found 1"),
        (("train=5",), "train: expected the keys lr, precision, "),
        (("data.sides=3",), "data.sides: expected a list, found 3"),
        (("data.sides=[3,x]",), "data.sides[1]: expected a whole number, found 'x'"),
        (("tracker=rich", "tracker.limits=[1]"), "tracker.limits: expected 2 values, found 1: [1]"),
        (
            ("tracker=rich", "tracker.memory={frame: 5}"),
            "'tracker.memory.frame'; did you mean 'tracker.memory.frames'?",
        ),
        (
            ("tracker=rich", "tracker.appearance_weight=-1"),
            "tracker: appearance_weight is -1.0; expected 0 or more",
        ),
        (("data=real",), "data.root has no default; say data.root=..."),
        (("visage",), "cannot read 'visage': expected key=value"),
        (("train.lr=1,2",), "cannot use 'train.lr=1,2': one run takes one value"),
        (("~train.lr",), "cannot use '~train.lr'"),
        (("--nonsense",), "--nonsense"),
    ],
)
def test_refusals(words: tuple[str, ...], message: str) -> None:
    assert message in refusal(*words)


def test_same_words_same_directory_whatever_their_order() -> None:
    one = run("tracker=rich", "train.lr=1e-3", "seed=1")
    two = run("seed=1", "train.lr=0.001", "tracker=rich")
    assert one.run_dir == two.run_dir == Path("runs/toy/rich/seed=1,train.lr=0.001")
    assert run().run_dir == Path("runs/toy/plain/default")
    assert run("run_dir=some where/x y").run_dir == Path("some where/x y")


def test_words_that_change_no_result_are_not_in_the_name() -> None:
    assert run("resume=false", "data.num_workers=0").run_dir == run().run_dir
    assert config_hash(run("resume=false", "data.num_workers=0").config) == config_hash(run().config)
    assert config_hash(run("seed=1").config) != config_hash(run().config)


def test_names_are_file_names_and_differ() -> None:
    words = ["weights=/a/b", "weights=/a-b", "weights='a,seed=1'", "train.note='../..'", "data.sides=[1,2]"]
    words += ["data.sides=[1,3]", f"train.note={'x' * 300}", f"train.note={'x' * 301}", "train.note='..'"]
    names = [run(word).run_dir for word in words] + [run("weights=a", "seed=1").run_dir]
    assert len(set(names)) == len(names)
    for name in names:
        assert name.parent == Path("runs/toy/plain")
        assert len(name.name) <= 100
        assert not set(name.name) - set(
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._=,+-"
        )


WORDS = (
    "tracker=rich",
    "train.lr=1e-5",
    "train.note='no'",
    "tracker.scales=[7]",
    "weights=null",
    "train.ema=.inf",
)


@pytest.mark.parametrize(
    "path",
    [
        "runs/toy/rich/preset=old,train.steps=5/weights.safetensors",
        "my runs/model (1).pth",
        "~/größe/w.pth",
        "it's/a=b.pth",
        r"C:\runs\a=b\w.pth",
    ],
)
def test_a_path_needs_no_quotes(path: str, tmp_path: Path) -> None:
    """What a shell hands over as one word is one value, the run directories of this project included."""
    composed = run(f"weights={path}", "tracker=rich")
    assert composed.config.weights == path
    (tmp_path / "config.yaml").write_text(vc.to_yaml(composed))
    replayed = compose(["--config", str(tmp_path / "config.yaml"), "seed=1"], SCHEMA)
    assert replayed.config.weights == path
    quoted = path.replace("'", "\\'")
    assert run(f"weights='{quoted}'", "tracker=rich").config == composed.config


def test_a_shorthand_comes_before_the_words_beside_it() -> None:
    plain = run("preset=old").config
    assert (plain.choices["tracker"], plain.tracker.memory.frames, plain.train.steps) == ("rich", 9, 77)
    assert plain.preset == "old"
    changed = run("train.steps=5", "preset=old").config
    assert (changed.tracker.memory.frames, changed.train.steps) == (9, 5)
    other = run("preset=old", "tracker=plain").config  # its words about the other tracker are dropped
    assert (other.choices["tracker"], other.train.steps) == ("plain", 77)
    assert run("preset=null").config.train.steps == Loop().steps
    assert run("preset=old", "preset=null").config.train.steps == Loop().steps  # the last one counts
    twice = run("preset=none-yet", "preset=old").config
    assert (twice.preset, twice.train.steps) == ("old", 77)


def test_a_shorthand_names_the_run_and_replays(tmp_path: Path) -> None:
    composed = run("preset=old", "train.steps=5")
    assert composed.overrides == ("preset=old", "train.steps=5")
    assert composed.run_dir == Path("runs/toy/rich/preset=old,train.steps=5")
    path = tmp_path / "config.yaml"
    path.write_text(vc.to_yaml(composed))
    assert load(path, SCHEMA).config == composed.config


def test_an_unknown_shorthand_is_refused() -> None:
    assert refusal("preset=new") == "preset=new: known is old"


def test_replay(tmp_path: Path) -> None:
    composed = run(*WORDS[:-1], f"run_dir={tmp_path / 'a'}")
    path = save(composed)
    assert path == tmp_path / "a" / "config.yaml"
    assert [p.name for p in path.parent.iterdir()] == ["config.yaml"]  # nothing temporary is left
    again = load(path, SCHEMA)
    assert again == composed
    assert load(path.parent, SCHEMA) == composed
    assert config_hash(again.config) == config_hash(composed.config)
    assert to_dict(again.config)["train"]["note"] == "no"


def test_words_on_top_of_a_replay(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(vc.to_yaml(run("tracker=rich", "tracker.scales=[7]", "seed=4")))
    more = run("--config", str(path), "tracker.appearance_weight=2", "seed=5")
    assert more.config.tracker == Rich(2.0, scales=(7,))
    assert more == run("tracker=rich", "tracker.scales=[7]", "tracker.appearance_weight=2", "seed=5")
    other = run("tracker=plain", "--config", str(path))
    assert other.config.tracker == Plain()
    assert other.run_dir == Path("runs/toy/plain/seed=4")
    same = run("--config", str(path), "tracker=rich")  # saying what the file says drops nothing
    assert same.config.tracker == Rich(scales=(7,))
    assert same.run_dir == Path("runs/toy/rich/seed=4,tracker.scales=-7-" + same.run_dir.name[-8:])


def test_hand_written_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("choices: {tracker: rich}\ntrain: {lr: 1e-4, precision: no}\n")
    config = run("--config", str(path)).config
    assert config.tracker == Rich()
    assert config.train == Loop(lr=1e-4, precision="no")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {lrr: 1}", "unknown key 'train.lrr'; did you mean 'train.lr'?"),
        ("train: {lr: x}", "train.lr: expected a number, found 'x'"),
        ("train: 3", "train: expected the keys lr"),
        ("choices: {trackr: rich}", "choices: expected options of tracker, data"),
        ("choices: {tracker: rihc}", "unknown tracker 'rihc'; did you mean 'rich'?"),
        ("words: 3", "words: expected a list"),
        ("- 1", "expected keys and values"),
        ("a: [", "cannot be read as yaml"),
    ],
)
def test_bad_files_name_the_file_and_the_field(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    said = refusal("--config", str(path))
    assert message in said
    assert str(path) in said


def test_missing_file() -> None:
    with pytest.raises(FileNotFoundError, match=r"no configuration file nowhere\.yaml"):
        run("--config", "nowhere.yaml")


def test_a_run_directory_holds_one_configuration(tmp_path: Path) -> None:
    words = (f"run_dir={tmp_path}", "train.lr=1e-3")
    save(run(f"run_dir={tmp_path}", "train.lr=5e-3"))
    save(run(*words))  # that one stopped before it did anything
    (tmp_path / "log.jsonl").touch()
    save(run(*words, "data.num_workers=0"))  # no result changes
    with pytest.raises(ConfigError, match=r"train\.lr is 0\.001 there and 0\.002 here"):
        save(run(f"run_dir={tmp_path}", "train.lr=2e-3"))
    save(run(f"run_dir={tmp_path}", "train.lr=2e-3", "resume=false"))
    assert load(tmp_path, SCHEMA).config.train.lr == 2e-3


def test_command_line_prints_the_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        command_line(["tracker=rich", "--cfg", "job", "train.lr=1e-3"], SCHEMA)
    assert left.value.code == 0
    path = tmp_path / "printed.yaml"
    path.write_text(capsys.readouterr().out)
    assert load(path, SCHEMA) == run("tracker=rich", "train.lr=1e-3")


def test_command_line_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        command_line(["--help", "tracker=rich"], SCHEMA)
    assert left.value.code == 0
    text = capsys.readouterr().out
    assert "tracker=plain | [rich] | rich-no-memory" in text
    assert "train.precision=no  (one of no, bf16)" in text
    assert "weights=null  (text or null)" in text


@pytest.mark.parametrize(
    "words", [["trackr=rich"], ["--config", "nowhere.yaml"], ["--what"], ["--cfg", "all"]]
)
def test_command_line_errors(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        command_line(words, SCHEMA)
    assert left.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1


def test_hydra_is_left_as_it_was() -> None:
    store = ConfigStore.instance()
    before, groups = store.repo, set(store.repo)
    run("tracker=rich")
    refusal("train.loss_weights.dice=1")  # refused by Hydra itself
    assert store.repo is before
    assert set(store.repo) == groups
    assert not GlobalHydra.instance().is_initialized()


def test_composing_does_not_share_defaults() -> None:
    one, two = run().config, run().config
    assert one.train.loss_weights is not two.train.loss_weights
    assert dataclasses.replace(one) == two


# -- the groups of a real run -----------------------------------------------------------------------

CHOICES = [(group, name) for group, table in DEFAULT_SCHEMA.groups.items() for name in table.names()]


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_choice_composes_and_replays(group: str, name: str, tmp_path: Path) -> None:
    composed = compose([f"{group}={name}", f"run_dir={tmp_path}"])
    expected = DEFAULT_SCHEMA.groups[group].make(name)
    assert getattr(composed.config, group) == expected
    assert type(getattr(composed.config, group)) is type(expected)
    assert load(save(composed)) == composed


def test_default_run() -> None:
    composed = compose([])
    config = composed.config
    assert isinstance(config, RunConfig)
    assert config.choices == {
        **{"tracker": "visage", "data": "synthetic", "segmenter": "tiny", "train": "video"},
        **{"cache": "off", "logger": "auto"},
    }
    assert composed.run_dir == Path("runs/synthetic/visage/default")
    assert set(config.evaluation.rows) <= set(tracker_names())


def test_words_of_a_real_run() -> None:
    words = ["tracker=visage", "tracker.memory_frames=2", "train.lr=1e-4", "train.loss.num_points=7"]
    composed = compose([*words, "evaluation.rows=[minvis,visage]", "data.frame_range=3"])
    config = composed.config
    assert config.tracker == dataclasses.replace(get_tracker("visage")[1], memory_frames=2)
    assert (config.train.lr, config.train.loss.num_points) == (1e-4, 7)
    assert (config.evaluation.rows, config.data.frame_range) == (["minvis", "visage"], 3)
    assert composed.run_dir.parent == Path("runs/synthetic/visage")


def test_ablation_by_name_is_the_field_value() -> None:
    by_name = compose(["tracker=visage-no-memory"]).config.tracker
    assert by_name == compose(["tracker=visage", "tracker.memory_frames=1"]).config.tracker
    assert compose(["tracker=visage-no-memory"]).run_dir == Path("runs/synthetic/visage-no-memory/default")


def test_tracker_of_another_module() -> None:
    config = compose(["tracker=vistk.trackers.visage:VISAGE", "tracker.memory_frames=9"]).config
    assert config.tracker == dataclasses.replace(get_tracker("visage")[1], memory_frames=9)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tracker=visag"], "unknown tracker 'visag'; did you mean 'visage'?"),
        (["tracker=nowhere.at_all:Tracker"], "there is no module 'nowhere'"),
        (
            ["tracker.app_wieght=1"],
            "unknown key 'tracker.app_wieght'; did you mean 'tracker.appearance_weight'?",
        ),
        (["tracker=minvis", "tracker.memory_frames=2"], "tracker=visage has it, tracker=minvis has not"),
        (["data=synthetic", "data.seed=x"], "data.seed: expected a whole number, found 'x'"),
    ],
)
def test_refusals_of_a_real_run(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(words)
    assert message in str(caught.value)
