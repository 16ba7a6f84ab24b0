"""How fast training clips are made, beside decoding the same JPEG files with Pillow and nothing else.

    python benchmarks/data_throughput.py

Writes videos of 854x480 pixels with three instances each into a temporary folder and makes clips of four
frames with the published settings for YouTube-VIS (sizes 320 to 640, at most 768, a drifting crop for every
other clip). Plain decoding is ``numpy.array(Image.open(path).convert("RGB"))`` of exactly the frames that the
clips are made of, in the same process, taking turns with the clips. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import PIL
import torch
from PIL import Image
from torch import Tensor

from vistk.data.clips import ClipDataset, make_loader
from vistk.data.config import YTVIS2019Config
from vistk.data.sampling import Stream
from vistk.data.ytvis import YTVIS
from vistk.ops.masks import encode
from vistk.structures import VideoRecord

HEIGHT, WIDTH, INSTANCES, NUM_FRAMES, BATCH = 480, 854, 3, 4, 4


def write_videos(root: Path, videos: int, frames: int) -> list[int]:
    """Videos in the YouTube-VIS layout; returns the sizes of their files in bytes."""
    entries: list[dict] = []
    annotations: list[dict] = []
    sizes = []
    for video in range(videos):
        stream = Stream("throughput", video)
        background = _noise(stream, HEIGHT + frames, WIDTH + frames)
        surfaces = [_noise(stream, HEIGHT, WIDTH) for _ in range(INSTANCES)]
        ways = [[stream.uniform(0.2, 0.8) for _ in range(4)] for _ in range(INSTANCES)]
        radii = [(stream.uniform(0.1, 0.25), stream.uniform(0.1, 0.25)) for _ in range(INSTANCES)]
        names = [f"{video:03d}/{t:05d}.jpg" for t in range(frames)]
        (root / f"{video:03d}").mkdir(parents=True)
        segmentations: list[list] = [[] for _ in range(INSTANCES)]
        for t, name in enumerate(names):
            image = background[t : t + HEIGHT, t : t + WIDTH].copy()
            shapes: list[np.ndarray] = []
            for surface, (y0, x0, y1, x1), (height, width) in zip(surfaces, ways, radii, strict=True):
                part = t / max(1, frames - 1)
                y, x = y0 + (y1 - y0) * part, x0 + (x1 - x0) * part
                rows = ((np.arange(HEIGHT) / HEIGHT - y) / height) ** 2
                columns = ((np.arange(WIDTH) / WIDTH - x) / width) ** 2
                shape = np.add.outer(rows, columns) < 1
                image[shape] = surface[shape]
                shapes = [*(before & ~shape for before in shapes), shape]  # the last one is in front
            for track, rle in zip(segmentations, encode(torch.from_numpy(np.stack(shapes))), strict=True):
                track.append(rle)
            Image.fromarray(image).save(root / name, quality=90)
            sizes.append((root / name).stat().st_size)
        entries.append({"id": video + 1, "file_names": names, "height": HEIGHT, "width": WIDTH})
        annotations += [
            {"id": len(annotations) + 1 + i, "video_id": video + 1, "category_id": 1 + i, "segmentations": s}
            for i, s in enumerate(segmentations)
        ]
    categories = [{"id": 1 + i, "name": f"class {i}"} for i in range(INSTANCES)]
    content = {"videos": entries, "annotations": annotations, "categories": categories}
    (root / "train.json").write_text(json.dumps(content))
    return sizes


def _noise(stream: Stream, height: int, width: int) -> np.ndarray:
    """``(height, width, 3)`` uint8 with detail at all scales, as photographs have."""
    total = np.full((height, width, 3), 128.0)
    for cells, strength in ((4, 60), (16, 40), (64, 22), (200, 8)):
        for channel in range(3):
            coarse = stream.integers(-100, 101, (cells, cells * 2)).astype(np.float32) / 100
            fine = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
            total[..., channel] += strength * np.asarray(fine)
    return total.clip(0, 255).astype(np.uint8)


class Recorder:
    """The frames that a data set reads."""

    def __init__(self, source: YTVIS) -> None:
        self.paths: list[Path] = []
        self._source = source

    def __getattr__(self, name: str) -> object:
        return getattr(self._source, name)

    def read_frame(self, video: VideoRecord, t: int) -> Tensor:
        self.paths.append(self._source.image_root / video.file_names[t])
        return self._source.read_frame(video, t)


def decode_plainly(paths: Sequence[Path]) -> None:
    for path in paths:
        np.array(Image.open(path).convert("RGB"))


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(source: YTVIS, clips: int, repeats: int) -> tuple[list[float], list[float]]:
    """Clips a second of one process: made for training, and their frames decoded plainly.

    Clip by clip in turns, so that a machine that gets slower or faster does so for both.
    """
    dataset = ClipDataset(source, YTVIS2019Config())
    made, plain = [], []
    for repeat in range(repeats):
        making = decoding = 0.0
        for n in range(repeat * clips, (repeat + 1) * clips):
            recorder = Recorder(source)
            dataset.source = cast(YTVIS, recorder)
            dataset.sample(0, n, NUM_FRAMES)  # which frames they are, and a warm file cache
            dataset.source = source
            decoding += seconds(partial(decode_plainly, recorder.paths))
            making += seconds(partial(dataset.sample, 0, n, NUM_FRAMES))
        made.append(clips / making)
        plain.append(clips / decoding)
    return made, plain


def measure_loader(source: YTVIS, workers: int, clips: int) -> float:
    """Clips a second that come out of the loader of training, from its first batch on."""
    loader = make_loader(
        ClipDataset(source, YTVIS2019Config()),
        batch_size=BATCH,
        num_frames=NUM_FRAMES,
        seed=0,
        total_steps=clips // BATCH + workers,
        num_workers=workers,
    )
    batches = iter(loader)
    for _ in range(workers):  # started, and torch imported
        next(batches)
    return clips // BATCH * BATCH / seconds(partial(deque, batches, maxlen=0))


def row(name: str, rates: Sequence[float], digits: int = 1) -> str:
    values = (min(rates), statistics.median(rates), max(rates))
    return f"| {name} | {' | '.join(f'{value:.{digits}f}' for value in values)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description="Clips a second beside plain decoding.")
    parser.add_argument("--videos", type=int, default=8)
    parser.add_argument("--frames", type=int, default=24, help="of a video")
    parser.add_argument("--clips", type=int, default=40, help="of each repeat")
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        sizes = write_videos(Path(folder), arguments.videos, arguments.frames)
        source = YTVIS.load(Path(folder) / "train.json", folder)
        made, plain = measure(source, arguments.clips, arguments.repeats)
        loaders = {
            workers: [measure_loader(source, workers, 4 * arguments.clips) for _ in range(3)]
            for workers in (1, 2)
        }
    print(
        f"{WIDTH}x{HEIGHT} JPEG of {statistics.mean(sizes) / 1024:.0f} KB, {INSTANCES} instances, "
        f"{NUM_FRAMES} frames a clip, {arguments.repeats} turns of {arguments.clips} clips. "
        f"{processor()}, Python {platform.python_version()}, torch {torch.__version__}, "
        f"Pillow {PIL.__version__}, numpy {np.__version__}.\n"
    )
    print("| clips a second | least | median | most |\n|---|---|---|---|")
    print(row("training clips, one process", made))
    print(row("plain decoding of the same frames", plain))
    for workers, rates in loaders.items():
        print(row(f"batches from {workers} loader worker{'s' * (workers > 1)}", rates))
    print(
        row("training clips / plain decoding, by turn", [a / b for a, b in zip(made, plain, strict=True)], 2)
    )


def processor() -> str:
    """The processor's name and how many of it there are."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
