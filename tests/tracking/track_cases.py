"""What the tests of ``vistk track`` share: its command, a clip of the benchmark, a camera."""

from __future__ import annotations

import argparse
import json
import os
import signal
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from PIL import Image

from vistk.config import compose
from vistk.data.config import SyntheticConfig
from vistk.data.synthetic import frames_of
from vistk.experiment import build_tracker
from vistk.models.checkpoints import save_weights
from vistk.models.segmenter import Segmenter, TinySegmenterConfig
from vistk.models.weight_files import read_state
from vistk.start_weights import START_WEIGHTS
from vistk.tracking import commands
from vistk.tracking.outputs import Outputs

FRAMES = 12


def track(*words: str | Path) -> int:
    """``vistk track WORDS``; the exit code."""
    parser = argparse.ArgumentParser()
    commands.add_arguments(parser)
    return commands.run(parser.parse_intermixed_args(list(map(str, words))))


def clip(split: str = "swap", index: int = 0) -> list[np.ndarray]:
    """Frames (64, 96, 3) of a video of the benchmark."""
    frames, _, _ = frames_of(SyntheticConfig(), split, index)
    return frames


def save_frames(folder: Path, frames: list[np.ndarray], digits: int = 1) -> Path:
    """``0.png, 1.png, ..``."""
    folder.mkdir(parents=True)
    for t, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{t:0{digits}d}.png")
    return folder


def write_run_weights(path: Path, tracker: str, *words: str, **facts: Any) -> Path:
    """As a run leaves them: the packaged segmenter, and heads that nobody trained."""
    file = read_state(START_WEIGHTS["tiny"])
    config = compose([f"tracker={tracker}", *words]).config
    torch.manual_seed(3)
    built = build_tracker(tracker, config.tracker, Segmenter(TinySegmenterConfig(), 4))
    state = file.state | {f"tracker.{name}": value for name, value in built.state_dict().items()}
    told = {**file.metadata, "tracker": tracker, "words": [f"tracker={tracker}", *words], **facts}
    save_weights(path, state, told)
    return path


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def overlay(path: Path) -> tuple[Fraction | None, list[np.ndarray]]:
    """Frames/s and pictures of a video."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return stream.average_rate, [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]


def stop_after(monkeypatch: Any, count: int) -> None:
    """Ctrl-C comes while frame ``count`` is tracked."""
    add = Outputs.add

    def added(self: Outputs, *args: Any) -> None:
        add(self, *args)
        if self.frames == count:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Outputs, "add", added)
