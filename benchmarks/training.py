"""Time and peak memory of a training step: auxiliary masks where losses look, beside whole ones.

Deep supervision asks every decoder layer for masks. In the published form of Mask2Former a layer makes
those of all queries at stride 4, and their gradients; here it keeps its mask embeddings, the matching
multiplies them by features sampled at its points, and whole masks are made of matched queries alone. A step
is forward, losses, backward, clipping and AdamW, of segmenter and VISAGE together.

Each form has a process of its own, so that peaks of memory do not mix; they take turns, so that a busy moment
of the machine meets both. Nothing is timed before both give the same losses from the same seeds.

    python benchmarks/training.py [--cases tiny r50] [--turns N] [--threads N] [--out FILE.csv]

On a machine with an NVIDIA GPU: float32 and bfloat16 (autocast), CUDA events, peak of allocated memory.
Elsewhere: float32, wall time, peak resident memory.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from rows import CARD, card, write_rows
from torch import Tensor

from vistk.engine.train import JointTrainConfig, TrainConfig, TrainingModel, parameter_groups
from vistk.losses import segmentation
from vistk.losses.matching import FramePredictions, Pairs
from vistk.models.segmenter import Segmenter, SegmenterConfig, TinySegmenterConfig
from vistk.ops.points import full_precision, sample_points
from vistk.structures import ClipBatch, ClipTargets, FrameOutput
from vistk.trackers.visage import VISAGE, VISAGEConfig

NUM_CLASSES = 40
FORMS = ("whole masks", "ours")
# Losses are sums over points. In bfloat16 whole masks are rounded before they are sampled, ours are not.
ALLOWED = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
COLUMNS = [
    *CARD,
    "threads",
    "case",
    "clips",
    "frames",
    "size",
    "instances",
    "points",
    "dtype",
    "form",
    "seconds",
    "fastest_seconds",
    "peak_mib",
    "turns",
]


@dataclass(frozen=True)
class Case:
    """A model and a batch."""

    segmenter: SegmenterConfig
    train: TrainConfig
    clips: int
    frames: int  # of a clip
    height: int
    width: int
    instances: int  # of a clip


CASES = {
    "tiny": Case(TinySegmenterConfig(), TrainConfig(freeze_segmenter=False), 6, 3, 64, 96, 3),
    "r50": Case(SegmenterConfig(), JointTrainConfig(), 1, 2, 360, 640, 5),
}


@dataclass(frozen=True)
class WholeMasks(FramePredictions):
    """The published form: ``(F, Q, h, w)`` masks of every layer, sampled and indexed afterwards."""

    whole: tuple[Tensor, ...] = ()  # L x (F, Q, h, w)

    @classmethod
    def of(cls, out: FrameOutput) -> WholeMasks:
        plain = FramePredictions.of(out)
        made = (out.mask_logits, *(layer.mask_logits(out.mask_features) for layer in out.aux))
        return cls(**vars(plain), whole=tuple(masks.flatten(0, 1) for masks in made))

    def masks_at(self, frame: int, points: Sequence[Tensor]) -> Iterator[Tensor]:
        for masks, there in zip(self.whole, points, strict=False):
            yield sample_points(masks[frame, None], there[None])[0]

    def masks_of(self, pairs: Sequence[Pairs]) -> list[Tensor]:
        return [
            full_precision(masks[pair.frame, pair.query])
            for masks, pair in zip(self.whole, pairs, strict=True)
        ]


class Step:
    """A model, its optimiser and a batch; a call trains one step."""

    def __init__(self, case: Case, device: str, dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        segmenter = Segmenter(case.segmenter, NUM_CLASSES)
        tracker = VISAGE(
            VISAGEConfig(),
            embed_dim=segmenter.embed_dim,
            feature_channels=segmenter.feature_channels,
            num_classes=NUM_CLASSES,
        )
        self.model = TrainingModel(segmenter, tracker, case.train).to(device).train()
        self.optimizer = torch.optim.AdamW(parameter_groups(self.model, case.train))
        self.batch = _batch(case).to(device)
        self.config, self.device, self.dtype = case.train, device, dtype

    def __call__(self) -> dict[str, float]:
        """Losses of a step; the random points are the same in every one."""
        with torch.autocast(self.device, self.dtype, enabled=self.dtype != torch.float32):
            losses = self.model(self.batch, list(range(len(self.batch.targets))), dense_only=False)
        torch.stack([loss.float() for loss in losses.values()]).sum().backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return {name: loss.item() for name, loss in losses.items()}

    def seconds(self) -> float:
        if self.device != "cuda":
            start = time.perf_counter()
            self()
            return time.perf_counter() - start
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        self()
        last.record()
        torch.cuda.synchronize()
        return first.elapsed_time(last) / 1e3

    def peak_mib(self) -> float:
        """Of the process so far; on a GPU of what PyTorch had allocated there."""
        if self.device == "cuda":
            return torch.cuda.max_memory_allocated() / 2**20
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
            2**20 if sys.platform == "darwin" else 2**10
        )


def _batch(case: Case) -> ClipBatch:
    """Noise, and ellipses that drift over it."""
    generator = torch.Generator().manual_seed(0)
    t, n = case.frames, case.instances
    size = (case.height, case.width)
    y, x = torch.meshgrid(*(torch.linspace(0, 1, s) for s in size), indexing="ij")
    targets = []
    for _ in range(case.clips):
        centre, radius, way = torch.rand(3, n, 1, 2, 1, 1, generator=generator)
        centre = 0.2 + 0.6 * centre + 0.1 * (way - 0.5) * torch.arange(t).view(1, t, 1, 1, 1)
        masks = (((torch.stack([y, x]) - centre) / (0.1 + 0.15 * radius)).square().sum(2)) < 1
        labels = torch.randint(NUM_CLASSES, (n,), generator=generator)
        targets.append(ClipTargets(labels, masks.flatten(2).any(-1), masks))
    images = torch.randint(256, (case.clips, t, 3, *size), dtype=torch.uint8, generator=generator)
    return ClipBatch(images, torch.tensor([size] * case.clips), tuple(targets))


def _work(form: str, case: Case, device: str, dtype: torch.dtype, threads: int, pipe: Connection) -> None:
    """A process: losses of the first step, then seconds of one at every request, at last the peak."""
    torch.set_num_threads(threads)
    if form == "whole masks":
        segmentation.FramePredictions = WholeMasks  # type: ignore[misc]
    step = Step(case, device, dtype)
    pipe.send(step())
    while pipe.recv():
        pipe.send(step.seconds())
    pipe.send(step.peak_mib())


def wrong_losses(losses: Sequence[dict[str, float]], dtype: torch.dtype) -> list[str]:
    """Losses in which the forms differ."""
    theirs, ours = losses
    if theirs.keys() != ours.keys():
        return [f"the forms have different losses: {sorted(theirs.keys() ^ ours.keys())}"]
    return [
        f"{name}: {theirs[name]:.7g} with whole masks, {ours[name]:.7g} without"
        for name in theirs
        if not abs(theirs[name] - ours[name]) <= ALLOWED[dtype] * max(abs(theirs[name]), 1e-3)
    ]


def rows(name: str, device: str, dtype: torch.dtype, threads: int, turns: int) -> list[dict[str, Any]]:
    """The two rows of a case.

    Raises:
        ArithmeticError: the forms' losses differ; names them.
    """
    case = CASES[name]
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for form in FORMS:
        here, there = context.Pipe()
        process = context.Process(target=_work, args=(form, case, device, dtype, threads, there), daemon=True)
        process.start()
        there.close()  # a worker that dies ends the wait for it
        pipes.append(here)
        processes.append(process)
    wrong = wrong_losses([pipe.recv() for pipe in pipes], dtype)
    if wrong:
        raise ArithmeticError("\n  ".join([f"{name}, {dtype}: not timed, losses differ:", *wrong]))
    seconds: list[list[float]] = [[], []]
    for turn in range(turns + 1):
        order = list(zip(pipes, seconds, strict=True))
        for pipe, times in order if turn % 2 else reversed(order):  # going second favours neither
            pipe.send(True)
            took = pipe.recv()
            if turn:  # the first turn warms up
                times.append(took)
    table = []
    for form, pipe, process, times in zip(FORMS, pipes, processes, seconds, strict=True):
        pipe.send(False)
        table.append(
            {
                **card(device),
                "threads": threads,
                "case": name,
                "clips": case.clips,
                "frames": case.frames,
                "size": f"{case.height}x{case.width}",
                "instances": case.instances,
                "points": case.train.loss.num_points,
                "dtype": str(dtype).removeprefix("torch."),
                "form": form,
                "seconds": round(statistics.median(times), 4),
                "fastest_seconds": round(min(times), 4),
                "peak_mib": round(pipe.recv()),
                "turns": turns,
            }
        )
        process.join()
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--turns", type=int, default=7, help="timed steps of each form")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of each process")
    parser.add_argument("--out", type=Path, help="write the rows as CSV")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtypes = [torch.float32, torch.bfloat16] if device == "cuda" else [torch.float32]
    table = []
    for name in options.cases:
        for dtype in dtypes:
            try:
                found = rows(name, device, dtype, options.threads, options.turns)
            except ArithmeticError as error:
                print(error)
                return 1
            table += found
            for row in found:
                print("  ".join(f"{row[c]!s:>11}" for c in COLUMNS[len(CARD) + 1 :]), flush=True)
    if options.out:
        write_rows(options.out, COLUMNS, table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
