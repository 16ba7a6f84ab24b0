"""Training clips: random access by sample number, and batches by step."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vistk.data.config import DataConfig
from vistk.data.sampling import StepSampler, Stream, sample_frames, video_of
from vistk.data.transforms import ClipTransform
from vistk.data.ytvis import YTVIS, DataError
from vistk.structures import ClipBatch, ClipTargets, VideoRecord

Clip = tuple[Tensor, ClipTargets]
"""Images ``(T, 3, H, W)`` uint8 and their targets."""


class ClipDataset:
    """Augmented clips from the videos of a split that have something to learn from.

    Videos without frames or without any instance that is not a crowd are left out. Within a clip,
    crowds and instances that none of its frames shows are left out, so a clip may have no instance.
    """

    def __init__(self, source: YTVIS, config: DataConfig) -> None:
        self.source, self.config = source, config
        self.videos = [v for v in source.videos if len(v) and not all(a.iscrowd for a in v.annotations)]
        self._labels = {category: label for label, category in enumerate(source.category_ids)}
        if not self.videos:
            raise DataError(
                f"{source.json_path} has no video with an annotated instance, expected at least one"
            )

    def __len__(self) -> int:
        """Number of videos; an epoch takes one clip of each."""
        return len(self.videos)

    def sample(self, seed: int, index: int, num_frames: int) -> Clip:
        """Training sample number ``index``, fully determined by the arguments."""
        video = self.videos[video_of(seed, index, len(self.videos))]
        stream = Stream("clip", seed, index)
        frames = sample_frames(stream, len(video), num_frames, self.config.frame_range)
        transform = ClipTransform.draw(stream, self.config, video.height, video.width)
        decoded = {t: self.source.read_frame(video, t) for t in dict.fromkeys(frames)}
        images = transform.images(torch.stack([decoded[t] for t in frames]))
        return images, self._targets(video, frames, transform)

    def _targets(self, video: VideoRecord, frames: list[int], transform: ClipTransform) -> ClipTargets:
        labels, masks = [], []
        for annotation in video.annotations:
            if annotation.iscrowd or all(annotation.segmentations[t] is None for t in frames):
                continue
            full = torch.stack([self.source.instance_mask(video, annotation, t) for t in frames])
            mask = transform.masks(full)
            if mask.any():  # a crop or the resizing may have lost it
                labels.append(self._labels[annotation.category_id])
                masks.append(mask)
        stacked = (
            torch.stack(masks) if masks else torch.zeros(0, len(frames), *transform.size, dtype=torch.bool)
        )
        return ClipTargets(torch.tensor(labels, dtype=torch.int64), stacked.flatten(2).any(-1), stacked)


def collate(clips: Sequence[Clip], size_divisor: int = 32) -> ClipBatch:
    """Pad clips at the bottom and right to one size, whose sides are multiples of ``size_divisor``."""
    sizes = torch.tensor([images.shape[-2:] for images, _ in clips])
    height, width = (-(-int(side) // size_divisor) * size_divisor for side in sizes.amax(0))
    images, targets = [], []
    for (clip, target), (h, w) in zip(clips, sizes.tolist(), strict=True):
        margin = (0, width - w, 0, height - h)
        images.append(F.pad(clip, margin))
        targets.append(ClipTargets(target.labels, target.visible, F.pad(target.masks, margin)))
    return ClipBatch(torch.stack(images), sizes, tuple(targets))


class _Numbered(Dataset[Clip]):
    """The map-style view of a run's samples that a DataLoader wants."""

    def __init__(self, clips: ClipDataset, seed: int, num_frames: int) -> None:
        self.clips, self.seed, self.num_frames = clips, seed, num_frames

    def __getitem__(self, index: int) -> Clip:
        return self.clips.sample(self.seed, index, self.num_frames)


def _ignore_interrupts(worker: int) -> None:
    """Ctrl-C goes to all processes at once, and the training loop wants to finish its step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def make_loader(
    dataset: ClipDataset,
    *,
    batch_size: int,
    num_frames: int,
    seed: int,
    total_steps: int,
    start_step: int = 0,
    rank: int = 0,
    world: int = 1,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader[ClipBatch]:
    """Batches of steps ``start_step .. total_steps - 1`` on one rank, :class:`ClipBatch` each.

    The batch of a step depends on ``seed``, ``step``, ``rank`` and ``world`` alone. ``batch_size`` is per
    rank. With gradient accumulation count micro-steps. Torch's global generator is left undisturbed.
    Worker processes ignore SIGINT: what an interrupt does is up to the process that reads the batches.
    """
    # Typed by what comes out: to a DataLoader's type, collation does not change what a data set holds.
    return DataLoader[Any](
        _Numbered(dataset, seed, num_frames),
        batch_sampler=StepSampler(batch_size, start_step, total_steps, rank, world),
        collate_fn=collate,
        num_workers=num_workers,
        worker_init_fn=_ignore_interrupts,
        pin_memory=pin_memory,
        # The loader draws a base seed from this; without it, from the generator that the model uses.
        generator=torch.Generator().manual_seed(seed),
    )
