"""Reading a video: its frames one by one, and the empty scene behind them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from foreground import Background, median_background
from tqdm import tqdm

BACKGROUND_SAMPLES = 64  # at least, if the video has as many; 1.3 MB each at 768 x 576, twice as many held


def read_frames(video: Path) -> Iterator[np.ndarray]:
    """Frames of a video as ``(H, W, 3)`` uint8 RGB, one in memory at a time.

    Raises:
        FileNotFoundError: there is no such file.
        ModuleNotFoundError: PyAV is not installed.
        ValueError: PyAV finds no video in the file.
    """
    with _opened(video) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def frame_rate(video: Path) -> Fraction:
    """Frames a second as the container says, 10 where it does not.

    Raises:
        FileNotFoundError, ModuleNotFoundError, ValueError: as :func:`read_frames`.
    """
    with _opened(video) as container:
        return container.streams.video[0].average_rate or Fraction(10)


@contextmanager
def _opened(video: Path) -> Iterator[Any]:
    """An ``av`` container with a video stream."""
    if not video.is_file():
        raise FileNotFoundError(f"video not found: {video}")
    try:
        import av
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("reading a video needs PyAV: pip install 'vis-toolkit[viz]'") from error
    try:
        with av.open(str(video)) as container:
            if not container.streams.video:
                raise ValueError(f"{video}: no video stream in this file")
            yield container
    except av.error.FFmpegError as error:
        raise ValueError(f"{video}: not readable as a video ({error})") from error


def sample_background(video: Path) -> tuple[Background, int]:
    """Background from frames spread evenly over the video, and the number of its frames.

    Containers do not always know their length, so every ``stride``-th frame is kept and, whenever
    twice ``BACKGROUND_SAMPLES`` have come together, every second one is dropped and the stride doubled.
    """
    kept: list[np.ndarray] = []
    stride, count = 1, 0
    for frame in tqdm(read_frames(video), desc="background", unit="frame"):
        if count % stride == 0:
            kept.append(frame)
            if len(kept) == 2 * BACKGROUND_SAMPLES:
                kept, stride = kept[::2], stride * 2
        count += 1
    if not kept:
        raise ValueError(f"{video}: the video has no frame")
    return median_background(kept[:: max(len(kept) // BACKGROUND_SAMPLES, 1)]), count
