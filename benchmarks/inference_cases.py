"""Models with weights and frames for timing inference: the same on every machine, without a download.

Weights are those of the recipe in ``tests/golden/weights_recipe.py``: every value follows from the name and
the shape of its parameter. PyTorch's own initial weights would leave almost all masks empty, which flatters
whatever resizes and encodes them; with the recipe the queries differ, and each marks between a tenth and nine
tenths of a frame, in blobs of all sizes. For that the mask features are centred: their bias takes away their
mean over one generated frame. Frames are slow waves with four discs that cross them.
"""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from vistk.models.segmenter import Segmenter, SegmenterConfig, TinySegmenterConfig
from vistk.presets import SEGMENTERS
from vistk.trackers.registry import get_tracker
from vistk.trackers.visage import VISAGE

RECIPE = Path(__file__).resolve().parent.parent / "tests" / "golden" / "weights_recipe.py"
NUM_CLASSES = 40
# What memory needs on top of the weights does not depend on depth, so few layers give the same curve sooner.
SMALL = {"backbone": "resnet18", "encoder_layers": 1, "decoder_layers": 3}
NAMES = (*SEGMENTERS, "small", "tiny")
"""Segmenters by name; ``small``: ResNet-18, 100 queries of width 256, 1 encoder and 3 decoder layers."""


def build(name: str, device: torch.device) -> tuple[Segmenter, VISAGE]:
    """A segmenter and VISAGE as released, in evaluation mode, with the recipe's weights."""
    if name == "small":
        config = SegmenterConfig(**SMALL)  # type: ignore[arg-type]
    else:
        config = TinySegmenterConfig() if name == "tiny" else SEGMENTERS[name]()
    segmenter = Segmenter(config, NUM_CLASSES)
    kind, tracker_config = get_tracker("visage-released")
    tracker = kind(
        tracker_config,
        embed_dim=segmenter.embed_dim,
        feature_channels=segmenter.feature_channels,
        num_classes=NUM_CLASSES,
    )
    for module in (segmenter, tracker):
        fill(module)
        module.eval().requires_grad_(False)
    centre_masks(segmenter)
    segmenter.to(device)
    tracker.to(device)
    return segmenter, cast(VISAGE, tracker)


def fill(module: nn.Module) -> None:
    """Give every floating parameter and buffer of the state dict its value of the recipe."""
    spec = importlib.util.spec_from_file_location("weights_recipe", RECIPE)
    assert spec is not None
    assert spec.loader is not None
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    state = module.state_dict()
    for name, values in state.items():
        if values.is_floating_point():  # in place: peaks of memory are measured later in the process
            values.copy_(torch.from_numpy(recipe.golden_array(name, tuple(values.shape))))
    module.load_state_dict(state)  # a module that prepares something from its weights is told


@torch.inference_mode()
def centre_masks(segmenter: Segmenter) -> None:
    """Take the mean of the mask features over a generated frame out of them, by their bias."""
    mean = segmenter(Frames(96, 160)(0)[None]).mask_features.mean((0, 2, 3))
    state = segmenter.state_dict()
    state["pixel_decoder.mask_features.bias"].sub_(mean)
    segmenter.load_state_dict(state)


class Frames:
    """A generated video; frames are made when asked for.

    Args:
        height, width: pixels.
    """

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        random = np.random.default_rng(0)
        longest = max(height, width)
        # For every channel five waves: cycles a pixel down and right, pixels a frame, phase, amplitude.
        self.waves = [
            [
                (*random.uniform(-3, 3, 2) / longest, random.uniform(-6, 6), random.uniform(0, 2 * math.pi))
                for _ in range(5)
            ]
            for _ in range(3)
        ]
        # Discs: centre and path as shares of the frame, radius as a share of its height, colour.
        self.discs = [
            (*random.uniform(0, 1, 2), *random.uniform(-0.01, 0.01, 2), random.uniform(0.08, 0.2),
             random.uniform(0, 255, 3))
            for _ in range(4)
        ]  # fmt: skip

    def __call__(self, t: int) -> Tensor:
        """Frame ``t``, ``(3, H, W)`` uint8."""
        y = np.arange(self.height, dtype=np.float32)
        x = np.arange(self.width, dtype=np.float32)
        frame = np.empty((3, self.height, self.width), np.float32)
        for channel, waves in zip(frame, self.waves, strict=True):
            channel[:] = 127
            for down, right, speed, phase in waves:
                a = 2 * math.pi * down * (y - speed * t) + phase
                b = 2 * math.pi * right * (x - speed * t)
                channel += 25 * (np.outer(np.sin(a), np.cos(b)) + np.outer(np.cos(a), np.sin(b)))
        for cy, cx, vy, vx, radius, colour in self.discs:
            dy = y - (cy + vy * t) % 1 * self.height
            dx = x - (cx + vx * t) % 1 * self.width
            inside = dy[:, None] ** 2 + dx[None] ** 2 < (radius * self.height) ** 2
            frame[:, inside] = colour[:, None]
        return torch.from_numpy(frame.clip(0, 255).astype(np.uint8))

    def video(self, count: int) -> Tensor:
        """The first frames, ``(T, 3, H, W)`` uint8."""
        return torch.stack([self(t) for t in range(count)])
