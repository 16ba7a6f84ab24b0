"""Streams: frames a second, where the time goes, and memory after 100 frames and in the end.

    python benchmarks/streaming.py [--short-side 360 96] [--frames 1000] [--cases push ...] [--out FILE.csv]

The packaged start weights of the tiny segmenter and MinVIS see generated frames of 640x360: objects of the
synthetic benchmark, larger, that move forth and back. The shorter side of what the segmenter sees is
``--short-side``: 360 is every pixel, at 96 objects have about the size that the weights were trained on.

Cases: ``push``, frame by frame, with the prediction in the end; ``unrecorded``, the same with
``record=False``; ``folder``, recorded in a folder for the next stream; ``resumed``, a second stream that
finds everything there; ``window-8``, eight frames at once; ``streams-4``, four streams together, a quarter of
the frames each. ``--rles`` reads the masks of the tracks that score 0.3 in every frame, as a demo would.

Every row is measured in a process of its own; rows that the CSV has are not measured again. Frames are made
before the clock starts and held, so memory counts from the first pushed frame. ``segment_ms``,
``associate_ms`` and ``record_ms`` are of a frame, ``close_s`` of the prediction in the end; ``disk_mib`` is
what lay in temporary folders and the recorded one then.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from inference_memory import peak_mib, resident_mib
from rows import CARD, card, device_name, write_rows

from vistk.data.config import SyntheticConfig
from vistk.data.synthetic import frames_of
from vistk.engine.stream import Stream, StreamedFrame, push_together
from vistk.models.checkpoints import load_published_into
from vistk.models.segmenter import Segmenter, TinySegmenterConfig
from vistk.models.weight_files import read_state
from vistk.start_weights import START_WEIGHTS
from vistk.trackers.base import Tracker
from vistk.trackers.registry import get_tracker

SIZE = (360, 640)
SHOWN = 0.3  # score of the tracks whose masks are read with --rles
CASES = ("push", "unrecorded", "folder", "resumed", "window-8", "streams-4")
KEY = ("device", "torch", "threads", "tracker", "short_side", "case", "rles", "frames")
COLUMNS = (
    *("threads", "tracker", "short_side", "case", "rles", "frames"),
    *("fps", "segment_ms", "associate_ms", "record_ms", "close_s"),
    *("mib_first", "mib_100", "mib_last", "peak_mib", "disk_mib"),
    *CARD,
)


def frames_forth_and_back(length: int = 40) -> list[np.ndarray]:
    """A video that can be repeated without a jump: ``(H, W, 3)`` uint8."""
    height, width = SIZE
    config = SyntheticConfig(height=height, width=width, frames=length, min_size=90, max_size=150, speed=8.0)
    frames, *_ = frames_of(config, "track", 0)
    return [*frames, *frames[-2:0:-1]]


def build(tracker: str, device: torch.device) -> tuple[Segmenter, Tracker[Any]]:
    """The tiny segmenter with its packaged weights, and a tracker."""
    file = read_state(START_WEIGHTS["tiny"])
    classes = len(file.metadata["categories"])
    segmenter = Segmenter(TinySegmenterConfig(), classes)
    cls, config = get_tracker(tracker)
    linked = cls(
        config,
        embed_dim=segmenter.embed_dim,
        feature_channels=segmenter.feature_channels,
        num_classes=classes,
    )
    load_published_into(segmenter, linked, file.state, fresh_tracker=True)
    return segmenter.eval().to(device), linked.eval().to(device)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """One case in this process: its row without what it is called by."""
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    segmenter, tracker = build(options.tracker, device)
    images = frames_forth_and_back()
    with _temporary_folder() as folder:
        record: Any = {"unrecorded": False, "folder": folder, "resumed": folder}.get(options.case, True)
        together = int(options.case.partition("streams-")[2] or 1)

        def streams() -> list[Stream]:
            return [
                Stream(segmenter, tracker, short_side=options.short_side, record=record)
                for _ in range(together)
            ]

        if options.case == "resumed":
            with ExitStack() as stack:
                _run(options, [stack.enter_context(s) for s in streams()], images, lambda done: None)
        memory: dict[int, float] = {}

        def look(done: int) -> None:
            for mark in (1, 100, options.frames):
                if done >= mark and mark not in memory:
                    memory[mark] = resident_mib(device)

        at_work = streams()
        started = time.perf_counter()
        _run(options, at_work, images, look)
        seconds = time.perf_counter() - started
        disk = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        started = time.perf_counter()
        if record is not False:
            for stream in at_work:
                stream.close()
        closing = time.perf_counter() - started
    a_frame = {
        f"{part}_ms": round(1e3 * sum(getattr(s.seconds, part) for s in at_work) / options.frames, 2)
        for part in ("segment", "associate", "record")
    }
    return {
        "fps": round(options.frames / seconds, 2),
        **a_frame,
        "close_s": "" if record is False else round(closing, 2),
        "mib_first": round(memory[1], 1),
        "mib_100": round(memory[100], 1) if 100 in memory else "",
        "mib_last": round(memory[options.frames], 1),
        "peak_mib": round(peak_mib(device), 1),
        "disk_mib": round(disk / 2**20, 2),
    }


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    """A folder where streams have their temporary folders as well, so that all can be counted."""
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder
        try:
            yield Path(folder)
        finally:
            tempfile.tempdir = before


def _run(
    options: argparse.Namespace,
    streams: Sequence[Stream],
    images: Sequence[np.ndarray],
    look: Callable[[int], None],
) -> None:
    """Push all frames; ``look`` is told how many there were."""
    window = int(options.case.partition("window-")[2] or 1)
    sources = [
        itertools.cycle(images[i * len(images) // len(streams) :] + images) for i in range(len(streams))
    ]
    done, said = 0, time.perf_counter()
    while done < options.frames:
        if len(streams) > 1:
            turn = min(len(streams), options.frames - done)  # the last one may be for some of them
            pushed: Sequence[StreamedFrame] = push_together(
                streams[:turn], [next(source) for source in sources[:turn]]
            )
        else:
            given = list(itertools.islice(sources[0], min(window, options.frames - done)))
            pushed = streams[0].push_many(given)
        if options.rles:
            for frame in pushed:
                frame.above(SHOWN).rles  # noqa: B018 - they are finished when they are read
        done += len(pushed)
        look(done)
        if time.perf_counter() - said > 10:
            said = time.perf_counter()
            print(f"{options.case}: {done} of {options.frames} frames", file=sys.stderr, flush=True)


def key_of(options: argparse.Namespace) -> dict[str, str]:
    """What tells one row from another, as text."""
    values = (
        *(device_name(options.device), torch.__version__, options.threads, options.tracker),
        *(options.short_side, options.case, options.rles, options.frames),
    )
    return dict(zip(KEY, map(str, values), strict=True))


def read_rows(path: Path | None) -> list[dict[str, Any]]:
    """Rows of earlier runs; none without a file.

    Raises:
        ValueError: the file has other columns.
    """
    if path is None or not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(f"{path}: has the columns {reader.fieldnames}, expected {list(COLUMNS)}")
        return list(reader)


def in_a_process(options: argparse.Namespace) -> dict[str, Any]:
    """:func:`measure` in a fresh process.

    Raises:
        RuntimeError: it failed; its own words are on the terminal.
    """
    command = [sys.executable, __file__, "--one", json.dumps(vars(options), default=str)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with status {done.returncode}")
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description="Frames a second and memory of streams.")
    parser.add_argument("--cases", nargs="+", default=CASES, choices=CASES)
    parser.add_argument("--short-side", nargs="+", type=int, default=[360, 96])
    parser.add_argument("--frames", nargs="+", type=int, default=[1000])
    parser.add_argument("--tracker", default="minvis")
    parser.add_argument("--rles", action="store_true", help=f"read the masks of tracks that score {SHOWN}")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="CSV; written after every row")
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(argparse.Namespace(**options.one))))
        return
    rows = read_rows(options.out)
    for short_side, case, frames in itertools.product(options.short_side, options.cases, options.frames):
        settings = vars(options) | {"short_side": short_side, "case": case, "frames": frames}
        one = argparse.Namespace(**settings)
        key = key_of(one)
        if any(all(row[name] == value for name, value in key.items()) for row in rows):
            print(f"{case}, short side {short_side}, {frames} frames: there already")
            continue
        rows.append({**key, **in_a_process(one), **card(options.device)})
        print("  ".join(f"{name} {rows[-1][name]}" for name in COLUMNS[2:16]), flush=True)
        if options.out:
            write_rows(options.out, COLUMNS, rows)


if __name__ == "__main__":
    main()
