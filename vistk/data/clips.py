"""Training clips: random access by sample number, and batches by step."""

from __future__ import annotations

import math
import signal
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from vistk.data.config import CocoConfig, DataConfig
from vistk.data.mixing import Clip, ClipSource, JointClips, visible_targets
from vistk.data.pseudo import PseudoClips
from vistk.data.sampling import JointStepSampler, StepSampler, Stream, sample_frames, video_of
from vistk.data.stills import with_targets
from vistk.data.transforms import ClipTransform, write_planes
from vistk.data.ytvis import YTVIS, DataError
from vistk.structures import ClipBatch, ClipTargets, VideoRecord


def training_clips(source: YTVIS, config: DataConfig, stills: YTVIS | None = None) -> ClipSource:
    """What a run is trained on: videos; stills as pseudo clips; or both, each in batches of its own.

    Args:
        source: the training split; of stills with :class:`~vistk.data.config.CocoConfig`.
        stills: with the categories of ``source``, mixed in by ``config.stills.ratio``.

    Raises:
        DataError: a source has nothing to learn from, or stills have other categories than the videos.
    """
    if isinstance(config, CocoConfig):
        return PseudoClips(source, config)
    videos = ClipDataset(source, config)
    if stills is None:
        return videos
    if stills.category_ids != source.category_ids:
        raise DataError(
            f"{stills.json_path} has the category ids {stills.category_ids}, expected those of "
            f"{source.json_path}, {source.category_ids}"
        )
    return JointClips(PseudoClips(stills, config), videos, config.stills.ratio)


class ClipDataset:
    """Augmented clips from the videos of a split that have something to learn from.

    Videos without frames or without any instance that is not a crowd are left out. Within a clip,
    crowds and instances that none of its frames shows are left out, so a clip may have no instance.
    """

    def __init__(self, source: YTVIS, config: DataConfig) -> None:
        self.source, self.config = source, config
        self.videos = with_targets(source)
        self._labels = {category: label for label, category in enumerate(source.category_ids)}

    def __len__(self) -> int:
        """Number of videos; an epoch takes one clip of each."""
        return len(self.videos)

    def sample(self, seed: int, index: int, num_frames: int) -> Clip:
        """Training sample number ``index``, fully determined by the arguments."""
        video = self.videos[video_of(seed, index, len(self.videos))]
        stream = Stream("clip", seed, index)
        frames = sample_frames(
            stream, len(video), num_frames, self.config.frame_range, self.config.repeat_frames
        )
        transform = ClipTransform.draw(stream, self.config, video.height, video.width)
        images = np.empty((num_frames, 3, *transform.size), dtype=np.uint8)
        for i, t in enumerate(frames):
            if i == 0 or t != frames[i - 1]:  # frames are sorted: a repeated one comes right after itself
                image = self.source.read_frame(video, t)
            write_planes(images[i], transform.frame(image, i, num_frames))
        return transform.colours(torch.from_numpy(images)), self._targets(video, frames, transform)

    def _targets(self, video: VideoRecord, frames: list[int], transform: ClipTransform) -> ClipTargets:
        labels, tracks = [], []
        for annotation in video.annotations:
            rles = [annotation.segmentations[t] for t in frames]
            if not annotation.iscrowd and any(rles):
                labels.append(self._labels[annotation.category_id])
                tracks.append(rles)
        return visible_targets(labels, *transform.masks(tracks, len(frames)))


def collate(clips: Sequence[Clip], size_divisor: int = 32) -> ClipBatch:
    """Pad clips at the bottom and right to one size, whose sides are multiples of ``size_divisor``."""
    sizes = torch.tensor([images.shape[-2:] for images, _ in clips])
    height, width = (-(-int(side) // size_divisor) * size_divisor for side in sizes.amax(0))
    padded = _zeros((len(clips), *clips[0][0].shape[:2], height, width), torch.uint8)
    targets = []
    for place, (images, target), (h, w) in zip(padded, clips, sizes.tolist(), strict=True):
        place[..., :h, :w] = images
        masks = _zeros((*target.masks.shape[:2], height, width), torch.bool)
        masks[..., :h, :w] = target.masks
        targets.append(ClipTargets(target.labels, target.visible, masks))
    return ClipBatch(padded, sizes, tuple(targets))


def _zeros(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Zeros of a dtype of one byte; in a loader's worker in memory that it shares with the training process.

    A batch would be copied there otherwise, which takes longer than to fill it.
    """
    if get_worker_info() is None or 0 in shape:
        return torch.zeros(shape, dtype=dtype)
    storage = torch.UntypedStorage._new_shared(math.prod(shape))  # fresh from the system, so it is zero
    return torch.empty(0, dtype=dtype).set_(storage).view(shape)


class _Numbered(Dataset[Clip]):
    """The map-style view of a run's samples that a DataLoader wants."""

    def __init__(self, clips: ClipSource, seed: int, num_frames: int) -> None:
        self.clips, self.seed, self.num_frames = clips, seed, num_frames

    def __getitem__(self, index: int) -> Clip:
        return self.clips.sample(self.seed, index, self.num_frames)


def _ignore_interrupts(worker: int) -> None:
    """Ctrl-C goes to all processes at once, and the training loop wants to finish its step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def make_loader(
    dataset: ClipSource,
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
    rank. With gradient accumulation count micro-steps. With :class:`JointClips` the stream of a step is the
    same on all ranks. Torch's global generator is left undisturbed.
    Worker processes ignore SIGINT: what an interrupt does is up to the process that reads the batches.
    """
    steps = (batch_size, start_step, total_steps, rank, world)
    sampler = (
        JointStepSampler(*steps, share=dataset.share)
        if isinstance(dataset, JointClips)
        else StepSampler(*steps)
    )
    # Typed by what comes out: to a DataLoader's type, collation does not change what a data set holds.
    return DataLoader[Any](
        _Numbered(dataset, seed, num_frames),
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=num_workers,
        worker_init_fn=_ignore_interrupts,
        pin_memory=pin_memory,
        # The loader draws a base seed from this; without it, from the generator that the model uses.
        generator=torch.Generator().manual_seed(seed),
    )
