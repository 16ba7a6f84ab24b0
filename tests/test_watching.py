"""Loggers and samples of whole runs: what they leave, and that training does not notice them."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from vistk.config import compose, config_hash
from vistk.data.ytvis import YTVIS
from vistk.engine.samples import Sampler
from vistk.structures import Tracklet, VideoPrediction
from vistk.sweeps.cells import training_key
from vistk.watching import COLUMNS, SIDE, _picture

ROOT = Path(__file__).resolve().parent.parent
SMALL = (
    "data.num_train=4",
    "data.num_val=2",
    "data.frames=8",
    "data.eval_splits=[static]",
    "data.num_workers=0",
    "weights=null",
    "train.freeze_segmenter=false",
    "train.steps=5",
    "train.batch_size=1",
    "train.num_frames=2",
    "train.accumulate=2",
    "train.log_every=1",
    "train.checkpoint_every=3",
    "train.loss.num_points=16",
    "evaluation.rows=[minvis]",
)
WATCHED = ("logger=tensorboard", "logger.sample_every=1")
UNWATCHED = ("logger=none", "logger.sample_every=0")

needs_tensorboard = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="TensorBoard is not installed"
)


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    return tmp_path_factory.mktemp("data") / "synthetic"


@pytest.fixture
def run(run_experiment, data_root):
    def call(run_dir, *words):
        return run_experiment(f"run_dir={run_dir}", f"data.root={data_root}", *SMALL, *words)

    return call


def losses(run_dir):
    rows = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    about = {"step", "lr", "grad_norm", "clips_per_second", "memory_mib", "time"}
    return {row["step"]: {k: v for k, v in row.items() if k not in about} for row in rows}


def steps_of(run_dir):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(
        str(run_dir / "tensorboard"), size_guidance={"scalars": 0, "images": 0}
    ).Reload()
    tags = events.Tags()
    scalars = {name: [(e.step, e.value) for e in events.Scalars(name)] for name in tags["scalars"]}
    return scalars, {name: [e.step for e in events.Images(name)] for name in tags["images"]}


@needs_tensorboard
def test_training_does_not_notice_who_watches(run, tmp_path, monkeypatch):
    """One run without, and one with logger and samples that fails after a checkpoint and is resumed."""
    code, _, err = run(tmp_path / "alone", *UNWATCHED)
    assert code == 0, err
    assert not {"samples", "tensorboard"} & {path.name for path in (tmp_path / "alone").iterdir()}

    take = Sampler.take

    def fail(sampler, segmenter, tracker, done):
        if done == 5:
            raise OSError("no space left")
        return take(sampler, segmenter, tracker, done)

    with monkeypatch.context() as patch:
        patch.setattr(Sampler, "take", fail)
        code, _, err = run(tmp_path / "seen", *WATCHED)
    assert (code, err.splitlines()[-1]) == (2, "error: no space left")
    assert list(losses(tmp_path / "seen")) == [1, 2, 3, 4, 5]
    code, out, err = run(tmp_path / "seen", *WATCHED)
    assert code == 0, err
    assert "resumed from" in out
    assert losses(tmp_path / "seen") == losses(tmp_path / "alone")  # to the last bit
    seen, alone = (load_file(tmp_path / name / "weights.safetensors") for name in ("seen", "alone"))
    assert seen.keys() == alone.keys()
    assert all(torch.equal(seen[name], alone[name]) for name in seen)

    scalars, images = steps_of(tmp_path / "seen")
    logged = losses(tmp_path / "seen")
    assert [step for step, _ in scalars["loss/total"]] == [1, 2, 3, 4, 5]
    for step, value in scalars["loss/total"]:
        assert value == pytest.approx(logged[step]["loss"])
    for name in ("loss/mask", "train/lr", "train/grad_norm", "train/clips_per_second", "train/memory_mib"):
        assert [step for step, _ in scalars[name]] == [1, 2, 3, 4, 5]
        assert all(value > 0 for _, value in scalars[name])
    assert images == {"sample": [1, 2, 3, 4, 5]}
    assert sorted(path.name for path in (tmp_path / "seen" / "samples").iterdir()) == [
        f"{step:07d}.png" for step in range(1, 6)
    ]
    rows = json.loads((tmp_path / "seen" / "metrics.json").read_text())["rows"]
    for row in ("minvis", "visage"):
        assert scalars[f"evaluation/static/{row}/AP"] == [(5, pytest.approx(rows[row]["static"]["AP"]))]

    code, _, err = run(tmp_path / "seen", *UNWATCHED, "resume=false", "train.steps=2")
    assert code == 0, err
    assert not {"samples", "tensorboard"} & {path.name for path in (tmp_path / "seen").iterdir()}
    assert list(losses(tmp_path / "seen")) == [1, 2]


@needs_tensorboard
def test_a_run_that_trains_nothing_writes_events_only_where_a_logger_is_named(
    run_experiment, data_root, tmp_path
):
    small = [word for word in SMALL if not word.startswith(("weights=", "train.freeze"))]
    for logger in ("auto", "tensorboard"):
        where = (f"run_dir={tmp_path / logger}", f"data.root={data_root}", "tracker=minvis")
        code, _, err = run_experiment(*where, *small, "eval_only=true", f"logger={logger}")
        assert code == 0, err
    assert not (tmp_path / "auto" / "tensorboard").exists()
    scalars, images = steps_of(tmp_path / "tensorboard")
    assert [step for step, _ in scalars["evaluation/static/minvis/AP"]] == [0]
    assert not images


@needs_tensorboard
def test_a_named_logger_gets_results_where_the_tracker_has_nothing_to_train(
    run_experiment, data_root, tmp_path
):
    small = [word for word in SMALL if not word.startswith(("weights=", "train.freeze"))]
    where = (f"run_dir={tmp_path / 'run'}", f"data.root={data_root}", "tracker=minvis")
    code, out, err = run_experiment(*where, *small, "logger=tensorboard")
    assert code == 0, err
    assert "nothing to train" in out
    scalars, _ = steps_of(tmp_path / "run")
    assert [step for step, _ in scalars["evaluation/static/minvis/AP"]] == [0]
    with safe_open(tmp_path / "run" / "weights.safetensors", "np") as file:
        words = json.loads(file.metadata()["words"])
    assert "train.steps=5" in words
    assert not [word for word in words if word.startswith(("logger", "run_dir", "data.num_workers"))]


def test_without_tensorboard_a_run_says_so_and_goes_on(run, tmp_path, monkeypatch):
    monkeypatch.setattr("vistk.engine.loggers._installed", lambda package: False)
    code, out, err = run(tmp_path / "run", "train.steps=1", "logger.sample_every=0")
    assert code == 0, err
    assert 'no curves but log.jsonl: TensorBoard is not installed (pip install -e ".[log]")' in out
    assert list(losses(tmp_path / "run")) == [1]


def test_a_logger_that_is_not_there_is_said_before_anything_is_done(run, tmp_path, monkeypatch):
    monkeypatch.setattr("vistk.engine.loggers._installed", lambda package: False)
    code, _, err = run(tmp_path / "run", "logger=wandb")
    assert (code, err) == (2, "error: logger=wandb needs the package wandb: pip install wandb\n")
    assert not (tmp_path / "run").exists()


def test_a_video_that_is_not_there(run, tmp_path):
    code, _, err = run(tmp_path / "run", "logger.sample_video=99", "logger=none")
    assert code == 2
    assert "error: logger.sample_video is 99, but " in err
    assert err.endswith("has no such video; its first is 1\n")


@pytest.mark.xdist_group("runs")
def test_two_processes_train_the_same_with_and_without(tmp_path, data_root):
    """Both runs in one launch, so that what closes the first logger must leave the processes connected."""
    lines = []
    for name, words in (("seen", WATCHED), ("alone", UNWATCHED)):
        words = (f"run_dir={tmp_path / name}", f"data.root={data_root}", *SMALL, *words, "train.steps=3")
        lines.append(shlex.join(words))
    (tmp_path / "runs").write_text("\n".join(lines) + "\n")
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    done = subprocess.run(
        [*launcher, str(ROOT / "experiments" / "run.py"), "--runs", str(tmp_path / "runs")],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "seen") == losses(tmp_path / "alone")
    assert len(losses(tmp_path / "seen")) == 3
    assert len(list((tmp_path / "seen" / "samples").iterdir())) == 3
    assert len(list((tmp_path / "seen").glob("tensorboard/events*"))) == 1  # of the main process alone


@pytest.mark.parametrize(
    "words", [("logger=none",), ("logger=wandb", "logger.project=p"), ("logger.sample_every=3",)]
)
def test_words_of_the_logger_name_no_other_run(words):
    plain, other = compose(["train.lr=1e-3"]), compose(["train.lr=1e-3", *words])
    assert other.run_dir == plain.run_dir
    assert config_hash(other.config) == config_hash(plain.config)
    assert training_key(other.config) == training_key(plain.config)


VIDEO = {"id": 1, "width": 60, "height": 40, "length": 2, "file_names": ["v/0.png", "v/1.png"]}
SQUARE = {"size": [40, 60], "counts": [0, 20, 2380]}


def a_video(folder, known=True):
    (folder / "v").mkdir()
    for name in VIDEO["file_names"]:
        Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(folder / name)
    content = {"videos": [VIDEO], "categories": [{"id": 3, "name": "person"}]}
    if known:
        annotation = {"id": 7, "video_id": 1, "category_id": 3, "iscrowd": 0}
        masks = {"segmentations": [SQUARE, None], "areas": [20, None], "bboxes": [[0, 0, 1, 20], None]}
        content["annotations"] = [annotation | masks]
    (folder / "instances.json").write_text(json.dumps(content))
    return YTVIS.load(folder / "instances.json", folder)


@pytest.mark.parametrize("known", [True, False])
def test_a_picture_has_truth_where_it_is_known_above_the_prediction(tmp_path, known, monkeypatch):
    source = a_video(tmp_path, known)
    seen = {}

    def strip(rows, numbers):
        seen.update(rows=rows, numbers=list(numbers))
        return Image.new("RGB", (1, 1))

    monkeypatch.setattr("vistk.watching.film_strip", strip)
    square = YTVIS.load(a_video_twice(tmp_path) / "instances.json", tmp_path).videos[0].annotations[0]
    segmentations = (None, square.segmentations[0])
    tracklets = (
        Tracklet(0, 0, 0.9, segmentations),
        Tracklet(0, 0, 0.5, segmentations),  # the same track under another class
        Tracklet(1, 0, 0.05, segmentations),  # not shown
    )
    _picture(source, source.videos[0], 2, 0.1, VideoPrediction(1, tracklets, (3,)))
    assert list(seen["rows"]) == (["truth", "prediction"] if known else ["prediction"])
    assert seen["numbers"] == [0, 1]
    times = SIDE // 60
    for row, (empty, filled) in {"truth": (1, 0), "prediction": (0, 1)}.items():
        if row in seen["rows"]:
            frames = seen["rows"][row]
            assert {frame.shape for frame in frames} == {(40 * times, 60 * times, 3)}
            assert (frames[empty] == 90).all()
            assert (frames[filled][: 20 * times, :times] != 90).any()


def a_video_twice(folder):
    """The same video with its truth, for masks to predict."""
    again = folder / "again"
    again.mkdir()
    a_video(again)
    return again


def test_large_frames_are_made_smaller_and_few_are_shown(tmp_path):
    source = a_video(tmp_path)
    video = source.videos[0]
    large = np.zeros((200, 2 * SIDE, 3), np.uint8)
    for name in video.file_names:
        Image.fromarray(large).save(tmp_path / name)
    content = json.loads((tmp_path / "instances.json").read_text())
    content["videos"][0] |= {"width": 2 * SIDE, "height": 200, "length": 20}
    content["videos"][0]["file_names"] = ["v/0.png"] * 20
    content["annotations"] = []
    (tmp_path / "instances.json").write_text(json.dumps(content))
    source = YTVIS.load(tmp_path / "instances.json", tmp_path)
    picture = _picture(source, source.videos[0], 20, 0.1, VideoPrediction(1, ()))
    assert COLUMNS * SIDE < picture.width < COLUMNS * SIDE * 1.3
    assert 100 < picture.height < 160  # of the prediction alone
