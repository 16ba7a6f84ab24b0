"""The training loop: one step after another, every one determined by (configuration, seed, step)."""

from __future__ import annotations

import difflib
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from vistk.data.clips import make_loader
from vistk.data.mixing import ClipSource
from vistk.engine.checkpoint import Checkpoints
from vistk.engine.journal import TrainingLog
from vistk.engine.loggers import RunLogger
from vistk.engine.progress import progress_bar
from vistk.engine.samples import Sampler
from vistk.losses.segmentation import SegmentationLoss, SegmentationLossConfig
from vistk.models.segmenter import Segmenter
from vistk.ops.points import ClipPointSampler
from vistk.schema import ConfigError, require_at_least
from vistk.structures import ClipBatch
from vistk.trackers.base import Tracker

SCHEDULES = ("cosine", "multistep")


def small_model_loss() -> SegmentationLossConfig:
    """Losses for a segmenter with about ten queries.

    "No object" weighs 0.8 and classes cost 4: at the published 0.1 and 2 every query fires on every
    object, and duplicates stay.
    """
    return SegmentationLossConfig(
        class_weight=4.0, no_object_weight=0.8, num_points=512, match_every_layer=False, dense_weight=3.0
    )


@dataclass
class TrainConfig:
    """The video stage of a small model: tracker heads on a frozen segmenter, far-apart frames of a clip."""

    steps: int = 1000  # optimiser steps
    split: str | None = None  # null = data.train_split
    batch_size: int = 6  # clips a process and micro-step
    num_frames: int = 3  # of a clip
    freeze_segmenter: bool | None = None  # null = frozen where the start weights fit in every part
    lr: float = 2e-3
    backbone_lr_scale: float = 0.1
    weight_decay: float = 0.05  # not on norms and embeddings
    clip_norm: float = 1.0  # L2 norm of all gradients together
    schedule: str = "cosine"  # cosine | multistep
    milestones: list[float] = field(default_factory=lambda: [0.75])  # multistep: shares of steps, x 0.1 each
    warmup: int = 20  # steps of linear warm-up
    accumulate: int = 1  # micro-steps an optimiser step
    dense_only: int = 0  # first steps with the dense loss alone, where there is one
    log_every: int = 10  # steps
    checkpoint_every: int = 250  # steps
    loss: SegmentationLossConfig = field(default_factory=small_model_loss)

    def __post_init__(self) -> None:
        ones = ("batch_size", "num_frames", "accumulate", "log_every", "checkpoint_every")
        require_at_least("train", self, steps=0, warmup=0, dense_only=0, **dict.fromkeys(ones, 1))
        if self.schedule not in SCHEDULES:
            near = difflib.get_close_matches(self.schedule, SCHEDULES, 1, 0.0)[0]
            raise ConfigError(
                f"train.schedule is {self.schedule!r}, expected one of {', '.join(SCHEDULES)}; "
                f"nearest is {near!r}"
            )


@dataclass
class StillsTrainConfig(TrainConfig):
    """A small segmenter from random weights on single frames: the counterpart of COCO training."""

    steps: int = 8000
    split: str | None = "stills"
    batch_size: int = 8
    num_frames: int = 1
    freeze_segmenter: bool | None = False
    lr: float = 1e-3
    backbone_lr_scale: float = 1.0
    warmup: int = 100
    dense_only: int = 300
    checkpoint_every: int = 500


@dataclass
class JointTrainConfig(TrainConfig):
    """Segmenter and tracker together, as VISAGE is published for YouTube-VIS 2019 (arXiv 2312.04885)."""

    steps: int = 20000
    batch_size: int = 16
    num_frames: int = 4
    freeze_segmenter: bool | None = False
    lr: float = 1e-4
    clip_norm: float = 0.01
    schedule: str = "multistep"
    warmup: int = 0
    loss: SegmentationLossConfig = field(default_factory=SegmentationLossConfig)


def lr_factor(config: TrainConfig, step: int) -> float:
    """Factor on every learning rate at an optimiser step; a pure function, so nothing need be saved."""
    warm = min(1.0, (step + 1) / (config.warmup + 1))
    if config.schedule == "cosine":
        return warm * 0.5 * (1 + math.cos(math.pi * step / max(config.steps, 1)))
    return warm * 0.1 ** sum(step >= share * config.steps for share in config.milestones)


def parameter_groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """AdamW groups as published: backbone at a fraction of the rate, no decay on norms and embeddings.

    Frozen parameters are left out. ``base_lr`` keeps each group's rate for the schedule.
    """
    undecayed = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm, nn.Embedding)
    positions = ("relative_position_bias_table", "absolute_pos_embed", "pos_embed", "cls_token", "reg_token")
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    seen: set[Tensor] = set()
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            in_backbone = "backbone" in module_name.split(".")
            lr = config.lr * (config.backbone_lr_scale if in_backbone else 1.0)
            exempt = isinstance(module, undecayed) or name in positions
            decay = 0.0 if exempt else config.weight_decay
            group = groups.setdefault(
                (lr, decay), {"params": [], "lr": lr, "base_lr": lr, "weight_decay": decay}
            )
            group["params"].append(parameter)
    return list(groups.values())


class TrainingModel(nn.Module):
    """Segmenter, tracker and losses in one module, so that a data-parallel wrapper sees one ``forward``.

    ``forward`` returns a plain dict of scalars: mixed precision casts those back to float32, which it
    does not do inside dataclasses.
    """

    def __init__(self, segmenter: Segmenter, tracker: Tracker, config: TrainConfig) -> None:
        super().__init__()
        self.segmenter = segmenter
        self.tracker = tracker
        self.frozen = bool(config.freeze_segmenter)
        self.criterion = SegmentationLoss(config.loss, segmenter.num_classes)
        segmenter.requires_grad_(not self.frozen)

    def train(self, mode: bool = True) -> TrainingModel:
        super().train(mode)
        if self.frozen:
            self.segmenter.eval()
        return self

    def forward(self, batch: ClipBatch, seeds: list[int], dense_only: bool) -> dict[str, Tensor]:
        """Weighted losses of a batch; ``seeds`` has one entry a clip, for its random points."""
        sampler = ClipPointSampler(seeds, batch.images.device)
        propagate = self.tracker.propagate if self.tracker.propagates else None
        if self.frozen:
            # Gradients of what is propagated pass through the segmenter's decoder.
            with torch.set_grad_enabled(propagate is not None and torch.is_grad_enabled()):
                out = self.segmenter(batch.images, batch.valid_size, propagate)
            with torch.no_grad():
                matches = self.criterion.match(out, batch.targets, sampler)
            losses: dict[str, Tensor] = {}
        else:
            out = self.segmenter(batch.images, batch.valid_size, propagate)
            losses, matches = self.criterion(out, batch.targets, sampler)
            if dense_only and "dense" in losses:
                # Zeros keep every parameter in the graph, which data-parallel training asks for.
                losses = {name: loss if name == "dense" else loss * 0.0 for name, loss in losses.items()}
        queries = self.tracker.describe(out)
        return losses | self.tracker.losses(queries, batch.targets, matches)


class Interrupt:
    """Turns the first Ctrl-C into a wish to stop after the current step; the second stops at once."""

    def __init__(self) -> None:
        self.requested = False

    @contextmanager
    def watch(self) -> Iterator[Interrupt]:
        def handler(signum: int, frame: FrameType | None) -> None:
            if self.requested:
                raise KeyboardInterrupt
            self.requested = True

        previous = {s: signal.signal(s, handler) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for s, old in previous.items():
                signal.signal(s, old)

    def agreed(self, accelerator: Accelerator) -> bool:
        """Whether any process was asked to stop."""
        if accelerator.num_processes == 1:
            return self.requested
        flag = torch.tensor([float(self.requested)], device=accelerator.device)
        return bool(accelerator.reduce(flag).item())


class Interrupted(Exception):
    """Training stopped on request, after a checkpoint was written."""


def train(
    segmenter: Segmenter,
    tracker: Tracker,
    dataset: ClipSource,
    config: TrainConfig,
    accelerator: Accelerator,
    run_dir: Path,
    seed: int,
    num_workers: int = 0,
    logger: RunLogger | None = None,
    sampler: Sampler | None = None,
) -> None:
    """Train in place.

    Every step is a function of ``(seed, step)`` and the weights before it: clips by an index computed
    from the step, random points by a generator a clip. A run that was interrupted and resumed
    therefore has the losses of one that was not, and N processes have those of one with N times the
    batch.

    Args:
        segmenter, tracker: on any device; moved to the accelerator's.
        dataset: clips of ``config.num_frames`` frames.
        run_dir: gets ``log.jsonl`` and ``checkpoints/``; a checkpoint found there is resumed.
        seed: of the whole run.
        logger: shows the numbers of ``log.jsonl``, and the samples; whoever made it closes it.
        sampler: predicts a video now and then, on the main process. Neither changes a number.

    Raises:
        Interrupted: SIGINT or SIGTERM came; a checkpoint is written.
        FloatingPointError: a matching cost or the loss is not finite.
    """
    model = TrainingModel(segmenter, tracker, config)
    groups = parameter_groups(model, config)
    if not groups:
        segmenter.to(accelerator.device)
        tracker.to(accelerator.device)
        accelerator.print("nothing to train: the segmenter is frozen and the tracker has no parameters")
        return
    optimizer = torch.optim.AdamW(groups)
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    checkpoints = Checkpoints(accelerator, run_dir / "checkpoints")
    start = checkpoints.resume()
    wrapped.train()

    loader = make_loader(
        dataset,
        batch_size=config.batch_size,
        num_frames=config.num_frames,
        seed=seed,
        start_step=start * config.accumulate,
        total_steps=config.steps * config.accumulate,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        num_workers=num_workers,
        pin_memory=accelerator.device.type == "cuda",
    )
    batches = iter(loader)
    clips = config.batch_size * config.accumulate * accelerator.num_processes
    log = TrainingLog(run_dir / "log.jsonl", start, clips, accelerator, logger)
    bar = progress_bar(accelerator, total=config.steps, initial=start, desc="train", unit="step")
    with Interrupt().watch() as interrupt, bar:
        for step in range(start, config.steps):
            began = time.perf_counter()
            torch.manual_seed(_mix(seed, step, accelerator.process_index))
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * lr_factor(config, step)
            mean: dict[str, Tensor] = {}
            norm: Tensor | float | None = None
            for micro in range(config.accumulate):
                batch = next(batches).to(accelerator.device, non_blocking=True)
                seeds = _clip_seeds(seed, step * config.accumulate + micro, config.batch_size, accelerator)
                with accelerator.accumulate(wrapped):
                    losses = wrapped(batch, seeds, step < config.dense_only)
                    _refuse_not_finite(losses, step)
                    for name, loss in losses.items():
                        mean[name] = mean.get(name, 0.0) + loss.detach().float() / config.accumulate
                    accelerator.backward(torch.stack([loss.float() for loss in losses.values()]).sum())
                    if accelerator.sync_gradients:
                        norm = accelerator.clip_grad_norm_(wrapped.parameters(), config.clip_norm)
                    optimizer.step()
                    optimizer.zero_grad()
            done = step + 1
            log.count(time.perf_counter() - began)
            stop = interrupt.agreed(accelerator)
            if done % config.log_every == 0 or done == config.steps or stop:
                log.write(done, mean, optimizer.param_groups[0]["lr"], norm, bar)
            bar.update()
            if sampler is not None and accelerator.is_main_process and sampler.due(done, config.steps):
                picture = sampler.take(segmenter, tracker, done)
                if logger is not None:
                    logger.image("sample", picture, done)
            if done % config.checkpoint_every == 0 or done == config.steps or stop:
                checkpoints.save(done)
            if stop:
                raise Interrupted(
                    f"stopped after step {done} of {config.steps}; the same command resumes there"
                )


def _mix(*numbers: int) -> int:
    """A 63-bit seed from several integers."""
    value = 0
    for number in numbers:
        value = (value * 0x9E3779B97F4A7C15 + number + 0x632BE59BD9B4E019) & (2**63 - 1)
    return value


def _clip_seeds(seed: int, micro_step: int, batch_size: int, accelerator: Accelerator) -> list[int]:
    """One seed a clip, by its place in the batch of all processes together."""
    first = (micro_step * accelerator.num_processes + accelerator.process_index) * batch_size
    return [_mix(seed, first + j) for j in range(batch_size)]


def _refuse_not_finite(losses: dict[str, Tensor], step: int) -> None:
    """Before a step of the optimiser would spread NaN into weights and checkpoints."""
    finite = torch.stack([loss.detach().float() for loss in losses.values()]).isfinite().tolist()
    if not all(finite):
        bad = ", ".join(name for name, good in zip(losses, finite, strict=True) if not good)
        raise FloatingPointError(
            f"loss {bad} is not finite at step {step + 1}; lower train.lr or train.clip_norm"
        )
