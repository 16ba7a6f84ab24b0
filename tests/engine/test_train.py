"""Training: schedules, parameter groups, and runs that resume or spread over processes without a trace."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from vistk.engine.journal import JsonLines
from vistk.engine.train import (
    StillsTrainConfig,
    TrainConfig,
    TrainingModel,
    lr_factor,
    parameter_groups,
)
from vistk.losses.segmentation import SegmentationLossConfig
from vistk.models.segmenter import Segmenter, TinySegmenterConfig
from vistk.schema import ConfigError
from vistk.structures import ClipBatch, ClipTargets
from vistk.trackers.minvis import MinVIS
from vistk.trackers.visage import VISAGE

ROOT = Path(__file__).parents[2]


def test_schedules():
    cosine = TrainConfig(steps=100, warmup=0)
    assert lr_factor(cosine, 0) == 1
    assert lr_factor(cosine, 50) == pytest.approx(0.5)
    assert lr_factor(cosine, 100) == pytest.approx(0)
    steps = TrainConfig(steps=100, warmup=0, schedule="multistep", milestones=[0.5, 0.75])
    assert [lr_factor(steps, s) for s in (49, 50, 74, 75)] == pytest.approx([1, 0.1, 0.1, 0.01])
    warm = TrainConfig(steps=100, warmup=3, schedule="multistep")
    assert [lr_factor(warm, s) for s in range(4)] == pytest.approx([0.25, 0.5, 0.75, 1])
    with pytest.raises(ConfigError, match=r"train\.schedule='linear'; expected one of cosine, multistep"):
        lr_factor(TrainConfig(schedule="linear"), 0)


def test_parameter_groups_are_the_published_ones():
    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4))
            self.query_feat = nn.Embedding(7, 4)
            self.head = nn.Linear(4, 2)
            self.frozen = nn.Linear(1, 1).requires_grad_(False)

    model = Small()
    groups = parameter_groups(model, TrainConfig(lr=1e-4, backbone_lr_scale=0.1, weight_decay=0.05))
    found = {(round(g["lr"], 9), g["weight_decay"]): sum(p.numel() for p in g["params"]) for g in groups}
    assert found == {
        (1e-5, 0.05): 16,  # convolution of the backbone
        (1e-5, 0.0): 8,  # its norm
        (1e-4, 0.0): 28,  # query embeddings
        (1e-4, 0.05): 10,  # head
    }


def batch(clips=1):
    images = torch.randint(0, 256, (clips, 2, 3, 64, 96), dtype=torch.uint8)
    masks = torch.zeros(2, 2, 64, 96, dtype=torch.bool)
    masks[0, :, :20, :20] = True
    masks[1, :, 30:50, 40:80] = True
    target = ClipTargets(torch.tensor([0, 1]), masks.flatten(2).any(-1), masks)
    return ClipBatch(images, torch.tensor([[64, 96]] * clips), (target,) * clips)


def model(cls, config):
    segmenter = Segmenter(TinySegmenterConfig(), 2)
    tracker = cls(
        cls.Config(),
        embed_dim=segmenter.embed_dim,
        feature_channels=segmenter.feature_channels,
        num_classes=2,
    )
    return TrainingModel(segmenter, tracker, config).train()


def test_a_frozen_segmenter_is_left_alone():
    training = model(VISAGE, TrainConfig(freeze_segmenter=True))
    before = {k: v.clone() for k, v in training.segmenter.state_dict().items()}
    losses = training(batch(), [1], dense_only=False)
    assert set(losses) == {"reid_query", "aux_reid_query", "reid_appearance", "aux_reid_appearance"}
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in training.tracker.parameters())
    assert all(p.grad is None for p in training.segmenter.parameters())
    # batch norm in training mode would have moved its running means
    assert all(torch.equal(v, before[k]) for k, v in training.segmenter.state_dict().items())


def test_dense_only_steps_leave_every_parameter_in_the_graph():
    training = model(MinVIS, StillsTrainConfig(loss=SegmentationLossConfig(num_points=7, dense_weight=1.0)))
    losses = training(batch(), [1], dense_only=True)
    assert losses["dense"].item() > 0
    assert all(loss.item() == 0 for name, loss in losses.items() if name != "dense")
    sum(losses.values()).backward()
    assert [name for name, p in training.named_parameters() if p.grad is None] == []


def test_the_log_forgets_steps_after_the_checkpoint(tmp_path):
    path = tmp_path / "log.jsonl"
    log = JsonLines(path, keep_below=0)
    for step in (10, 20, 30):
        log.write({"step": step, "loss": 1.0})
    with path.open("a") as file:
        file.write('{"step": 40, "lo')  # a killed run
    JsonLines(path, keep_below=20)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [10, 20]


SMALL = (
    "data.num_train=8",
    "data.num_val=1",
    "data.eval_splits=[static]",
    "data.frames=8",
    "train.batch_size=2",
    "train.num_frames=2",
    "train.log_every=1",
    "train.checkpoint_every=3",
    "train.loss.num_points=32",
    "evaluation.rows=[identity,minvis]",
    "weights=null",
    "train.freeze_segmenter=false",
    "train.warmup=0",
    # fixed norms: batch statistics of two halves differ from those of the whole
    "segmenter.freeze_norm=true",
)


def environment(**extra):
    return os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | extra


def launch(run_dir, data_root, *words, launcher=(sys.executable,), check=True):
    command = [
        *launcher,
        str(ROOT / "experiments" / "run.py"),
        "tracker=visage",
        f"run_dir={run_dir}",
        f"data.root={data_root}",
        *SMALL,
        *words,
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), cwd=run_dir.parent)
    assert not check or done.returncode == 0, done.stderr
    return done


def losses(run_dir):
    return [json.loads(line)["loss"] for line in (run_dir / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    return tmp_path_factory.mktemp("data") / "synthetic"


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, data_root):
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    launch(run_dir, data_root, "train.steps=6")
    return run_dir


@pytest.mark.xdist_group("runs")
def test_an_interrupted_run_resumes_to_the_same_losses(tmp_path, data_root, uninterrupted):
    run_dir = tmp_path / "run"
    words = [f"run_dir={run_dir}", f"data.root={data_root}", *SMALL, "train.steps=6"]
    command = [sys.executable, str(ROOT / "experiments" / "run.py"), "tracker=visage", *words]
    with subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        log = run_dir / "log.jsonl"
        while process.poll() is None and not (log.exists() and len(log.read_text().splitlines()) >= 2):
            pass
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=120)[0]
    assert process.returncode == 130, output
    assert "the same command resumes there" in output
    assert 2 <= len(losses(run_dir)) < 6
    launch(run_dir, data_root, "train.steps=6")
    assert losses(run_dir) == losses(uninterrupted)  # to the last bit


@pytest.mark.xdist_group("runs")
def test_two_processes_have_the_losses_of_one(tmp_path, data_root, uninterrupted):
    run_dir = tmp_path / "run"
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    launch(run_dir, data_root, "train.steps=6", "train.batch_size=1", launcher=torchrun)
    assert losses(run_dir) == pytest.approx(losses(uninterrupted), rel=1e-5)
    whole, halves = (json.loads((d / "metrics.json").read_text())["rows"] for d in (uninterrupted, run_dir))
    for row in whole:
        results = json.loads((run_dir / "rows" / row / "static" / "results.json").read_text())
        assert len(results) <= 10  # of the one video: no process has it twice
        assert halves[row]["static"]["AP"] == pytest.approx(whole[row]["static"]["AP"], abs=1e-6)


@pytest.mark.xdist_group("runs")
def test_accumulated_micro_steps_are_steps(tmp_path, data_root):
    run_dir = tmp_path / "run"
    launch(run_dir, data_root, "train.steps=2", "train.accumulate=2")
    assert [json.loads(line)["step"] for line in (run_dir / "log.jsonl").read_text().splitlines()] == [1, 2]
    assert all(math.isfinite(loss) for loss in losses(run_dir))


@pytest.mark.xdist_group("runs")
def test_bfloat16_trains(tmp_path, data_root):
    run_dir = tmp_path / "run"
    accelerate = (
        *(sys.executable, "-m", "accelerate.commands.launch"),
        *("--mixed_precision", "bf16", "--num_processes", "1"),
    )
    launch(run_dir, data_root, "train.steps=3", launcher=accelerate)
    assert all(math.isfinite(loss) for loss in losses(run_dir))
