"""What the model of the moment makes of one fixed video, while it is being trained."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from vistk.engine.infer import Video, track_video
from vistk.engine.predict import evaluating
from vistk.engine.video_tracker import EvalConfig
from vistk.files import replacing
from vistk.models.segmenter import Segmenter
from vistk.structures import VideoPrediction
from vistk.trackers.base import Tracker


@dataclass(frozen=True)
class Sampler:
    """Predicts a video every so many steps and draws what comes out.

    Training does not notice: random numbers, modes of modules and gradients are afterwards what they were.

    Attributes:
        every: steps from one sample to the next; there is one after the last step as well.
        draw: makes the picture of a prediction.
        folder: gets ``<step>.png``.
    """

    video: Video
    every: int
    draw: Callable[[VideoPrediction], Image.Image]
    folder: Path
    config: EvalConfig

    def due(self, done: int, steps: int) -> bool:
        """Whether there is a sample after ``done`` of ``steps`` steps."""
        return done % self.every == 0 or done == steps

    def take(self, segmenter: Segmenter, tracker: Tracker[Any], done: int) -> Image.Image:
        """Predict, draw and save; both modules are on one device.

        Raises:
            OSError: the picture cannot be written.
        """
        device = segmenter.pixel_mean.device
        video = self.video
        with undisturbed(segmenter, tracker):
            tracked = track_video(
                segmenter,
                {"tracker": tracker},
                video.frames,
                video.output_size,
                self.config,
                device,
                video.video_id,
                video.category_ids,
                video.targets,
            )
            picture = self.draw(tracked["tracker"].prediction)
        with replacing(self.folder / f"{done:07d}.png") as temporary:
            picture.save(temporary, format="PNG")
        return picture


@contextmanager
def undisturbed(*modules: nn.Module) -> Iterator[None]:
    """Modules in evaluation mode; afterwards they and all random numbers go on as if nothing had been."""
    devices = {parameter.device for module in modules for parameter in module.parameters()}
    gpus = [device for device in devices if device.type == "cuda"]
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with ExitStack() as stack:
            for module in modules:
                stack.enter_context(evaluating(module))
            stack.enter_context(torch.random.fork_rng(gpus))
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
