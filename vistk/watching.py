"""What is looked at while a run trains: its logger, and the pictures of what it predicts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image

from vistk.comparison import frame_readers, frame_targets
from vistk.config import Composed, RunConfig
from vistk.data.ytvis import YTVIS
from vistk.engine.infer import Video
from vistk.engine.loggers import RunLogger, ServiceLoggerConfig
from vistk.engine.samples import Sampler
from vistk.ops.masks import decode, encode
from vistk.schema import ConfigError, leaves
from vistk.splits import RunData
from vistk.structures import RLE, VideoPrediction, VideoRecord
from vistk.viz.overlay import Shown, draw
from vistk.viz.strips import film_strip

COLUMNS, SIDE = 8, 320
"""Frames of a sample's picture, and pixels of their longer side."""


def make_logger(name: str | None, composed: Composed, data: RunData, accelerator: Accelerator) -> RunLogger:
    """The logger of a run, which has yet to begin."""
    config: RunConfig = composed.config
    tracker = config.choices["tracker"]
    service = config.logger if isinstance(config.logger, ServiceLoggerConfig) else ServiceLoggerConfig()
    return RunLogger(
        name,
        accelerator,
        composed.run_dir,
        title=f"{config.data.name} {tracker} {composed.run_dir.name}",
        settings=dict(leaves(config)),
        results=["loss/total", *(f"evaluation/{split}/{tracker}/AP" for split in data.evaluation)],
        project=service.project,
    )


def results_of(metrics: Path) -> dict[str, float | None]:
    """The numbers of ``metrics.json`` by split, row and metric."""
    rows = json.loads(metrics.read_text(encoding="utf-8"))["rows"]
    return {
        f"evaluation/{split}/{row}/{metric}": value
        for row, splits in rows.items()
        for split, numbers in splits.items()
        for metric, value in numbers.items()
        if value is None or isinstance(value, (int, float))
    }


def make_sampler(config: RunConfig, data: RunData, run_dir: Path) -> Sampler | None:
    """Samples of predictions on a video of the first evaluation split, else of the training split.

    Raises:
        ConfigError: there is no such video.
    """
    wanted = config.logger
    source = next((split.source for split in data.evaluation.values()), data.training)
    if not wanted.sample_every or source is None or not source.videos:
        return None
    videos = {video.video_id: video for video in source.videos}
    if wanted.sample_video is not None and wanted.sample_video not in videos:
        raise ConfigError(
            f"logger.sample_video is {wanted.sample_video}, but {source.json_path} has no such video; its "
            f"first is {next(iter(videos))}",
            "logger.sample_video",
        )
    video = source.videos[0] if wanted.sample_video is None else videos[wanted.sample_video]
    frames = frame_readers(source, video, config.data)[: wanted.sample_frames]
    targets = frame_targets(source, video)[: len(frames)] if source.has_annotations else None
    return Sampler(
        Video(frames, (video.height, video.width), video.video_id, source.category_ids, targets),
        wanted.sample_every,
        partial(_picture, source, video, len(frames), config.evaluation.track_score),
        run_dir / "samples",
        config.evaluation,
    )


def _picture(
    source: YTVIS, video: VideoRecord, num_frames: int, least_score: float, prediction: VideoPrediction
) -> Image.Image:
    """A film strip: the truth, where it is known, above what was predicted."""
    names = [source.categories[category] for category in source.category_ids]
    tracks: dict[int, tuple[Sequence[RLE | None], str]] = {}
    for tracklet in prediction.tracklets:  # the best first: a track may come under several classes
        if tracklet.score >= least_score:
            text = f"{names[tracklet.label]} {tracklet.score:.2f}"
            tracks.setdefault(tracklet.track_id, (tracklet.segmentations, text))
    rows = {"prediction": tracks}
    if source.has_annotations:
        truth: dict[int, tuple[Sequence[RLE | None], str]] = {
            i: (annotation.segmentations, source.categories[annotation.category_id])
            for i, annotation in enumerate(video.annotations)
            if not annotation.iscrowd
        }
        rows = {"truth": truth} | rows
    numbers = sorted({round(x) for x in np.linspace(0, num_frames - 1, COLUMNS)})
    times = max(1, SIDE // max(video.height, video.width))  # small ones are enlarged: text keeps its size
    images = [_enlarged(source.read_frame(video, t).permute(1, 2, 0).numpy(), times) for t in numbers]

    def frames(of: Mapping[int, tuple[Sequence[RLE | None], str]]) -> Iterator[np.ndarray]:
        for t, image in zip(numbers, images, strict=True):
            shown = [Shown(i, _enlarged_rle(rles[t], times), text) for i, (rles, text) in of.items()]
            drawn = Image.fromarray(draw(image, shown))
            drawn.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
            yield np.asarray(drawn)

    return film_strip({name: list(frames(of)) for name, of in rows.items()}, numbers)


def _enlarged(image: np.ndarray, times: int) -> np.ndarray:
    return image.repeat(times, 0).repeat(times, 1)


def _enlarged_rle(rle: RLE | None, times: int) -> RLE | None:
    if rle is None or times == 1:
        return rle
    return encode(torch.from_numpy(_enlarged(decode(rle), times))[None].bool())[0]
