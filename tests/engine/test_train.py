"""Training: schedules, parameter groups, and runs that resume or spread over processes without a trace."""

from __future__ import annotations

import json
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
    with pytest.raises(ConfigError, match=r"train\.schedule is 'linear', expected one of cosine, multistep"):
        TrainConfig(schedule="linear")


def test_values_out_of_range_are_refused():
    with pytest.raises(ConfigError, match=r"train\.batch_size is 0, expected 1 or more"):
        TrainConfig(batch_size=0)
    with pytest.raises(ConfigError, match=r"train\.log_every is 0"):
        TrainConfig(log_every=0)
    with pytest.raises(ConfigError, match=r"train\.loss\.num_points is 0"):
        SegmentationLossConfig(num_points=0)
    with pytest.raises(ConfigError, match=r"segmenter\.hidden_dim is 64, expected an even multiple"):
        TinySegmenterConfig(heads=3)


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
        [*command, "data.num_workers=1"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        log = run_dir / "log.jsonl"
        while process.poll() is None and not (log.exists() and len(log.read_text().splitlines()) >= 2):
            pass
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the loader's workers too
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


RANK_SCRIPT = """
import sys, torch, torch.distributed as dist
from vistk.losses.segmentation import SegmentationLoss, SegmentationLossConfig
from vistk.ops.points import ClipPointSampler
from vistk.structures import ClipTargets, FrameOutput
rank, world, out = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
if world > 1:
    dist.init_process_group("gloo", init_method=f"file://{out}.store", rank=rank, world_size=world)
torch.manual_seed(0)
logits, masks = torch.randn(2, 1, 5, 3), torch.randn(2, 1, 5, 16, 16)
square = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
square[..., 3:9, 4:12] = True
one = ClipTargets(torch.tensor([1]), torch.ones(1, 1, dtype=torch.bool), square)
none = ClipTargets(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 1, dtype=torch.bool), square[:0])
mine = [0, 1] if world == 1 else [rank]
nothing = torch.empty(0)
frames = FrameOutput(logits[mine], masks[mine], nothing, nothing, {})
sampler = ClipPointSampler([7 + i for i in mine], torch.device("cpu"))
criterion = SegmentationLoss(SegmentationLossConfig(num_points=83), 2)
losses, _ = criterion(frames, [[one, none][i] for i in mine], sampler)
total = torch.stack([losses[k] for k in ("class", "mask", "dice")])
if world > 1:
    dist.all_reduce(total)
    total /= world
if rank == 0:
    torch.save(total, out)
"""


@pytest.mark.xdist_group("runs")
def test_a_rank_without_instances_keeps_in_step(tmp_path):
    """Losses of two ranks, one of which matches nothing, are those of one process with both clips."""
    results = []
    for world in (1, 2):
        out = tmp_path / f"{world}.pt"
        ranks = [
            subprocess.Popen(
                [sys.executable, "-c", RANK_SCRIPT, str(rank), str(world), str(out)], env=environment()
            )
            for rank in range(world)
        ]
        assert [process.wait(timeout=120) for process in ranks] == [0] * world
        results.append(torch.load(out))
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-6)


@pytest.mark.xdist_group("runs")
def test_accumulated_micro_steps_are_averaged(tmp_path, data_root):
    run_dir, fixed = tmp_path / "run", tmp_path / "fixed"
    still = ("train.lr=0", "train.weight_decay=0")
    launch(run_dir, data_root, "train.steps=3", "train.accumulate=2", *still)
    launch(fixed, data_root, "train.steps=6", *still)
    # with weights that stand still, a step of two micro-steps logs the mean of the two steps
    single = losses(fixed)
    pairs = [(a + b) / 2 for a, b in zip(single[::2], single[1::2], strict=True)]
    assert losses(run_dir) == pytest.approx(pairs, rel=1e-6)


@pytest.mark.xdist_group("runs")
def test_bfloat16_trains_as_float32_does(tmp_path, data_root, uninterrupted):
    run_dir = tmp_path / "run"
    accelerate = (
        *(sys.executable, "-m", "accelerate.commands.launch"),
        *("--mixed_precision", "bf16", "--num_processes", "1"),
    )
    launch(run_dir, data_root, "train.steps=6", launcher=accelerate)
    assert losses(run_dir) != losses(uninterrupted)  # it is another precision
    assert losses(run_dir)[:2] == pytest.approx(losses(uninterrupted)[:2], rel=0.03)


@pytest.mark.xdist_group("runs")
def test_another_launch_does_not_resume(tmp_path, data_root):
    run_dir = tmp_path / "run"
    launch(run_dir, data_root, "train.steps=3")
    (run_dir / "metrics.json").unlink()
    words = [f"run_dir={run_dir}", f"data.root={data_root}", *SMALL, "train.steps=3"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "experiments" / "run.py"), "tracker=visage", *words],
        capture_output=True,
        text=True,
        env=environment(ACCELERATE_MIXED_PRECISION="bf16"),
    )
    assert done.returncode == 2
    assert "was written with mixed_precision=no, this launch has bf16" in done.stderr


@pytest.mark.xdist_group("runs")
def test_a_full_disk_is_one_sentence(tmp_path, data_root, uninterrupted):
    words = [
        "tracker=visage",
        f"run_dir={tmp_path / 'run'}",
        f"data.root={data_root}",
        *SMALL,
        "train.steps=3",
    ]
    code = (
        "import resource, runpy, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        f"sys.argv = ['run.py', *{words!r}]\n"
        f"runpy.run_path({str(ROOT / 'experiments' / 'run.py')!r}, run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
    assert done.returncode == 2, done.stderr
    assert "cannot be written" in done.stderr.strip().splitlines()[-1]
    assert not list((tmp_path / "run" / "checkpoints").glob("step-*"))
    assert not (tmp_path / "run" / "metrics.json").exists()
