from __future__ import annotations

import importlib.util
import json
import sqlite3
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from accelerate import Accelerator
from PIL import Image

from vistk.engine import loggers
from vistk.engine.loggers import LoggerConfig, LoggerError, RunLogger, choose, forget, tag
from vistk.schema import ConfigError

RED = Image.fromarray(np.full((4, 6, 3), (200, 0, 0), np.uint8))


def without(monkeypatch, *packages):
    find = importlib.util.find_spec
    monkeypatch.setattr(loggers.importlib.util, "find_spec", lambda n: None if n in packages else find(n))


def accelerator(name, run_dir):
    return Accelerator(cpu=True, log_with=name, project_dir=run_dir)


def events(run_dir):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulator.EventAccumulator(
        str(run_dir / "tensorboard"), size_guidance={"scalars": 0, "images": 0}
    )
    return found.Reload()


def scalars(found, name):
    return {event.step: event.value for event in found.Scalars(name)}


def test_the_default_is_tensorboard_where_it_is(monkeypatch):
    pytest.importorskip("tensorboard")
    assert choose("auto") == "tensorboard"
    without(monkeypatch, "tensorboard")
    assert choose("auto") is None


def test_none_is_none():
    assert choose("none") is None


@pytest.mark.parametrize(
    ("name", "install"),
    [("tensorboard", '-e ".[log]"'), ("wandb", "wandb"), ("trackio", "trackio")],
)
def test_a_logger_that_is_not_installed_is_refused_by_name(monkeypatch, name, install):
    without(monkeypatch, name)
    with pytest.raises(LoggerError) as raised:
        choose(name)
    assert str(raised.value) == f"logger={name} needs the package {name}: pip install {install}"


@pytest.mark.parametrize(("field", "value"), [("sample_every", -1), ("sample_frames", 0)])
def test_fields_have_least_values(field, value):
    with pytest.raises(ConfigError, match=rf"logger\.{field} is {value}"):
        LoggerConfig(**{field: value})


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("loss/total", "loss/total"),
        ("evaluation/valid (mean)/visage/AP", "evaluation/valid_mean_/visage/AP"),
        ("evaluation/a b/mask-iou/AP50", "evaluation/a_b/mask-iou/AP50"),
    ],
)
def test_tags(name, clean):
    assert tag(name) == clean


def test_a_resumed_run_continues_the_same_events(tmp_path):
    pytest.importorskip("tensorboard")
    for start, steps in ((0, range(1, 6)), (3, range(4, 8))):  # the checkpoint was of step 3
        with RunLogger("tensorboard", accelerator("tensorboard", tmp_path), tmp_path) as logger:
            logger.begin(start, told=max(start, 5) if start else 0)
            for step in steps:
                logger.log({"loss/total": 10 * start + step}, step)
                logger.image("sample", RED, step)
    found = events(tmp_path)
    assert scalars(found, "loss/total") == {1: 1, 2: 2, 3: 3, 4: 34, 5: 35, 6: 36, 7: 37}
    assert [event.step for event in found.Scalars("loss/total")] == list(range(1, 8))
    assert [event.step for event in found.Images("sample")] == list(range(1, 8))
    assert {path.parent.name for path in tmp_path.rglob("*") if path.is_file()} == {"tensorboard"}


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew(tmp_path):
    pytest.importorskip("tensorboard")
    for value in (1.0, 2.0):
        with RunLogger("tensorboard", accelerator("tensorboard", tmp_path), tmp_path) as logger:
            logger.begin(0)
            logger.log({"a": value}, 1)
    assert [(event.step, event.value) for event in events(tmp_path).Scalars("a")] == [(1, 2.0)]


def test_settings_and_what_is_no_number(tmp_path):
    pytest.importorskip("tensorboard")
    settings = {"train.lr": 1e-3, "weights": None, "rows": ["a", "b"], "tracker.on": True}
    logger = RunLogger(
        "tensorboard",
        accelerator("tensorboard", tmp_path),
        tmp_path,
        settings=settings,
        results=["evaluation/valid (mean)/visage/AP"],
    )
    with logger:
        logger.begin(0)
        logger.log({"good": 1, "none": None, "nan": float("nan"), "inf": float("inf")}, 1)
        logger.log({"none": None}, 2)
    found = events(tmp_path)
    assert found.Tags()["scalars"] == ["good"]
    plugin = pytest.importorskip("tensorboard.plugins.hparams.plugin_data_pb2")
    content = found.PluginTagToContent("hparams")
    started = plugin.HParamsPluginData.FromString(content["_hparams_/session_start_info"])
    said = {
        k: v.WhichOneof("kind") and getattr(v, v.WhichOneof("kind"))
        for k, v in started.session_start_info.hparams.items()
    }
    assert said == {"train.lr": 1e-3, "weights": "null", "rows": '["a", "b"]', "tracker.on": True}
    experiment = plugin.HParamsPluginData.FromString(content["_hparams_/experiment"]).experiment
    assert [info.name.tag for info in experiment.metric_infos] == ["evaluation/valid_mean_/visage/AP"]


@pytest.mark.parametrize(("name", "main"), [(None, True), ("tensorboard", False)])
def test_without_logger_and_in_other_processes_nothing_happens(tmp_path, name, main):
    logger = RunLogger(name, SimpleNamespace(is_main_process=main), tmp_path)
    with logger:
        logger.begin(0)
        logger.log({"a": 1.0}, 1)
        logger.image("sample", RED, 1)
        assert not logger.began
    assert list(tmp_path.iterdir()) == []


def test_it_is_closed_after_an_error(tmp_path):
    pytest.importorskip("tensorboard")
    logger = RunLogger("tensorboard", accelerator("tensorboard", tmp_path), tmp_path)

    def fail():
        with logger:
            logger.begin(0)
            logger.log({"a": 1.0}, 1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not logger.began
    assert scalars(events(tmp_path), "a") == {1: 1.0}


class Wandb(ModuleType):
    """As much of a service as Accelerate calls, and what it was told."""

    def __init__(self):
        super().__init__("wandb")
        self.__spec__ = SimpleNamespace(name="wandb")
        self.opened, self.told, self.settings, self.finished = [], [], {}, 0
        self.config = SimpleNamespace(update=lambda values, **_: self.settings.update(values))
        self.Image = lambda picture: picture.size

    def init(self, **arguments):
        self.opened.append(arguments)
        return self

    def log(self, values, step):
        self.told.append((step, values))

    def finish(self):
        self.finished += 1


@pytest.fixture
def wandb(monkeypatch):
    module = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    tracking = sys.modules["accelerate.tracking"]
    monkeypatch.setattr(
        tracking, "_available_trackers", [*tracking._available_trackers, tracking.LoggerType.WANDB]
    )
    return module


def test_a_service_is_told_no_step_twice(tmp_path, wandb):
    for start, told, steps in ((0, 0, range(1, 6)), (3, 5, range(4, 8))):
        logger = RunLogger(
            "wandb",
            accelerator("wandb", tmp_path),
            tmp_path,
            title="one run",
            settings={"rows": ["a"]},
            project="mine",
        )
        with logger:
            logger.begin(start, told)
            for step in steps:
                logger.log({"loss": step}, step)
            logger.image("sample", RED, 5)
            logger.log({"AP": 0.5}, 5, again=True)
    first, second = wandb.opened
    assert first == second  # the id too, so that curves continue
    assert first == {
        "project": "mine",
        "dir": str(tmp_path),
        "name": "one run",
        "id": (tmp_path / "wandb-id.txt").read_text(),
        "resume": "allow",
    }
    assert wandb.settings == {"rows": '["a"]'}
    assert [step for step, values in wandb.told if "loss" in values] == list(range(1, 8))
    assert [values for _, values in wandb.told if "sample" in values] == [{"sample": [(6, 4)]}]
    assert [values for _, values in wandb.told if "AP" in values] == [{"AP": 0.5}] * 2
    assert wandb.finished == 2


def test_a_service_that_cannot_be_opened_is_one_sentence(tmp_path, wandb, monkeypatch):
    def refuse(**arguments):
        raise RuntimeError("no API key\nlong story")

    monkeypatch.setattr(wandb, "init", refuse)
    logger = RunLogger("wandb", accelerator("wandb", tmp_path), tmp_path)
    with pytest.raises(LoggerError) as raised:
        logger.begin(0)
    assert str(raised.value) == "logger=wandb cannot be opened: no API key; logger=none does without"


@pytest.mark.skipif(importlib.util.find_spec("trackio") is None, reason="trackio is not installed")
def test_trackio_writes_into_the_run_directory_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", "")  # so that it is unset again in the end
    monkeypatch.delenv("TRACKIO_DIR")
    title = f"run {tmp_path.name}"
    first = "trackio" not in sys.modules  # it looks at the variable once in a process
    for start, told, steps in ((0, 0, (1, 2, 3)), (2, 3, (3, 4))):
        logger = RunLogger(
            "trackio",
            accelerator("trackio", tmp_path),
            tmp_path,
            title=f"run {tmp_path.name}",
            project="tests",
        )
        with logger:
            logger.begin(start, told)
            for step in steps:
                logger.log({"loss": 10.0 * start + step}, step)
    folder = sys.modules["trackio"].TRACKIO_DIR
    assert folder == tmp_path / "trackio" or not first
    with sqlite3.connect(folder / "tests.db") as database:
        rows = database.execute(
            "SELECT step, metrics FROM metrics WHERE run_name = ? ORDER BY step", [title]
        ).fetchall()
    assert {step: json.loads(text)["loss"] for step, text in rows} == {1: 1.0, 2: 2.0, 3: 3.0, 4: 24.0}
    assert len(rows) == 4


OURS = (
    *("wandb-id.txt", "samples/0000500.png", "tensorboard/events.out.tfevents.17.host.1.0"),
    *("wandb/offline-run-1/files/config.yaml", "wandb/debug.log", "trackio/vistk.db", "trackio/media/a.png"),
)


def make(folder, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_what_was_logged_can_be_forgotten(tmp_path):
    make(tmp_path, [*OURS, "rows/file"])
    forget(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]


def test_what_no_logger_wrote_is_not_forgotten(tmp_path):
    own = [
        f"{folder}/{name}"
        for folder in ("samples", "wandb", "trackio", "tensorboard")
        for name in ("a", "1.png")
    ]
    own.append("samples/0000500.png.txt")
    make(tmp_path, [*OURS, *own])
    forget(tmp_path)
    left = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(left) == sorted(own)
