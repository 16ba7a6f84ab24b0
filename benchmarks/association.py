"""How fast trackers are on stored queries: frames a second and core, from the cache and from memory.

    python benchmarks/association.py --out benchmarks/results/association.csv

Writes a cache of generated videos into a temporary folder: 100 queries of 256 channels, 40 classes, masks at
720p. A query is an object with its own look, class and place; in every frame it moves, takes noise and stands
at another place in the list. Then every tracker follows every video, through the functions that a run uses.
"from_cache" opens the files, compares checksums, associates, scores, keeps ``--keep`` predictions and reads
their masks; "in_memory" is the same from windows that were read before. "kib_per_frame" is what the tracker
reads. One thread; the least of ``--turns``.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rows import CARD, card, write_rows
from torch import Tensor

from vistk.engine.cache import CacheConfig, QueryCache
from vistk.engine.describers import DEFAULT_PART, Describers, describer_part
from vistk.engine.finishing import FrameMasks, FrameSize
from vistk.engine.infer import track_video
from vistk.engine.recording import DTYPES
from vistk.engine.video_tracker import EvalConfig
from vistk.engine.windows import Window
from vistk.structures import FrameQueries, VideoRecord
from vistk.trackers.base import Tracker
from vistk.trackers.registry import get_tracker

QUERIES, CHANNELS, CLASSES = 100, 256, 40
SIZE = FrameSize((384, 640), (360, 640), (720, 1280))
FEATURE_CHANNELS = {"res2": 8, "res3": 8, "res4": 8, "res5": 8}  # heads are built, never run
TRACKERS = ("identity", "minvis", "visage", "visage-no-memory", "visage-no-appearance", "mask-iou")
LENGTHS = (36, 200)
WINDOW = 30
COLUMNS = ("tracker", "frames", "dtype", "keep", "kib_per_frame", "from_cache_fps", "in_memory_fps")


def build(name: str) -> Tracker[Any]:
    cls, config = get_tracker(name)
    return cls(config, embed_dim=CHANNELS, feature_channels=FEATURE_CHANNELS, num_classes=CLASSES).eval()


class Scene:
    """Objects of a generated video: ellipses with rough edges that drift, each with vectors of its own."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.logits = 2 * self.noise(QUERIES, CLASSES + 1)
        self.looks = {name: self.noise(QUERIES, CHANNELS) for name in ("query", "appearance")}
        height, width = (side // 4 for side in SIZE.network)
        extent = torch.tensor([height, width]).view(2, 1, 1, 1)
        self.place = extent * torch.rand(2, QUERIES, 1, 1, generator=self.generator)
        self.radius = 4 + 20 * torch.rand(2, QUERIES, 1, 1, generator=self.generator)
        self.speed = self.noise(2, QUERIES, 1, 1) / 4
        self.grid = torch.stack(
            torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
        )[:, None]

    def noise(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def frame(self, t: int) -> tuple[Tensor, dict[str, Tensor], FrameMasks]:
        """Logits, vectors and masks of one frame."""
        order = torch.randperm(QUERIES, generator=self.generator)
        inside = 1 - ((self.grid - self.place - t * self.speed) / self.radius).square().sum(0)
        rough = F.interpolate(self.noise(1, QUERIES, 24, 40), size=inside.shape[-2:], mode="bilinear")[0]
        vectors = {
            name: (look + 0.7 * self.noise(QUERIES, CHANNELS))[order] for name, look in self.looks.items()
        }
        logits = (self.logits + 0.3 * self.noise(QUERIES, CLASSES + 1))[order]
        return logits, vectors, FrameMasks((4 * inside + rough)[order], SIZE)

    def windows(self, length: int, describers: Describers) -> Iterator[Window]:
        """The video as if it had been segmented."""
        wanted = {name: _vectors_of(tracker) for name, tracker in describers.items()}
        for start in range(0, length, WINDOW):
            frames, masks = [], []
            for t in range(start, min(start + WINDOW, length)):
                logits, vectors, frame_masks = self.frame(t)
                frames.append(
                    {
                        name: FrameQueries(logits, {key: vectors[key] for key in keys}, masks=frame_masks)
                        for name, keys in wanted.items()
                    }
                )
                masks.append(frame_masks)
            yield Window(start, tuple(frames), tuple(masks), 0)


def _vectors_of(tracker: Tracker[Any]) -> tuple[str, ...]:
    return ("query",) if describer_part(tracker) == DEFAULT_PART else ("query", "appearance")


def least(turns: int, work: Callable[[], object]) -> float:
    """Seconds of the fastest of several calls, after one that does not count; no more after two seconds."""
    work()
    seconds: list[float] = []
    while len(seconds) < turns and sum(seconds) < 2:
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def measure(names: Sequence[str], lengths: Sequence[int], dtype: str, keep: int, turns: int) -> list[dict]:
    """A row for each tracker and length."""
    trackers = {name: build(name) for name in names}
    videos = [
        VideoRecord(i + 1, tuple(f"{i}/{t:05d}.jpg" for t in range(length)), *SIZE.output)
        for i, length in enumerate(lengths)
    ]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        segmenter: Any = torch.nn.Identity()  # never run: the scenes say what it would say
        config = CacheConfig(dir=folder, dtype=dtype, max_gb=100)
        cache = QueryCache(config, "write", segmenter, trackers, videos, {"data": "generated"})
        for video in videos:
            scene = Scene(video.video_id)
            cache.windows(video, trackers, partial(scene.windows, len(video)))
            print(f"wrote {len(video)} frames to a temporary cache", flush=True)
        alone = {
            name: QueryCache(config, "read", segmenter, {name: tracker}, videos, {"data": "generated"})
            for name, tracker in trackers.items()
        }
        for (name, tracker), video in itertools.product(trackers.items(), videos):
            follow = partial(
                track_video,
                segmenter,
                {name: tracker},
                [unread] * len(video),
                SIZE.output,
                EvalConfig(keep_top=keep),
                torch.device("cpu"),
            )
            stored = partial(cache.windows, video)
            held = list(stored({name: tracker}, unread))
            from_cache = least(turns, partial(follow, source=stored))
            in_memory = least(turns, partial(follow, source=lambda *_, held=held: iter(held)))
            rows.append(
                {
                    **{"tracker": name, "frames": len(video), "dtype": dtype, "keep": keep},
                    "kib_per_frame": f"{alone[name].num_bytes() / 1024 / sum(lengths):.0f}",
                    "from_cache_fps": f"{len(video) / from_cache:.0f}",
                    "in_memory_fps": f"{len(video) / in_memory:.0f}",
                }
            )
            print(", ".join(f"{key} {rows[-1][key]}" for key in COLUMNS), flush=True)
    return rows


def unread(*_: Any) -> Any:
    raise AssertionError("a cache that is read needs no frame and no segmenter")


def main() -> None:
    parser = argparse.ArgumentParser(description="Frames a second and core of association.")
    parser.add_argument("--trackers", nargs="+", default=TRACKERS)
    parser.add_argument("--frames", nargs="+", type=int, default=LENGTHS)
    parser.add_argument("--dtype", default="float32", choices=list(DTYPES))
    parser.add_argument("--keep", type=int, default=50, help="predictions kept a video")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--out", type=Path, help="CSV; written in the end")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure(options.trackers, options.frames, options.dtype, options.keep, options.turns)
    if options.out:
        write_rows(options.out, (*COLUMNS, *CARD), [row | card("cpu") for row in rows])


if __name__ == "__main__":
    main()
