"""Memory of inference: peaks of whole runs, and the curve against the length of a video.

Every number is that of a process of its own. Frames are made when they are read, so what grows with the
length is what inference keeps. ``benchmarks/inference.py --memory`` runs it; rows that its CSV has are not
run again. The RLEs of generated masks are longer than those of real objects (``rle_kib_per_mask``; about
1 KiB is usual), so the growth is an upper bound.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from inference_cases import Frames, build
from rows import device_name
from torch import Tensor

from vistk.engine.infer import track_video
from vistk.engine.video_tracker import EvalConfig

LENGTHS = {"small": (50, 200, 1000), "r50": (10, 50)}
"""Frames of the videos by segmenter, where the command line names none."""

KEY = ["device", "torch", "threads", "segmenter", "size", "output", "window", "keep", "frames"]
COLUMNS = [
    *KEY,
    "peak_mib",  # of the process
    "model_mib",  # of the process with the modules built, before the first frame
    "retained_kib_per_frame",  # slope of the resident memory over the last three quarters of the video
    "rle_kib_per_mask",  # mean size of a mask in the result
    "seconds_per_frame",
]

WriteRows = Callable[[Path, Sequence[str], Sequence[Mapping[str, Any]]], object]


def peak_mib(device: torch.device) -> float:
    """Greatest memory of this process so far: of the GPU on a GPU, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    # getrusage would count what the parent had when it forked.
    if (found := _status("VmHWM")) is not None:
        return found
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def resident_mib(device: torch.device) -> float:
    """The same now; the peak so far where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) / 2**20
    found = _status("VmRSS")
    return peak_mib(device) if found is None else found


def _status(key: str) -> float | None:
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else []:
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 2**10
    return None


def peak_in_a_process(options: argparse.Namespace, form: str, count: int) -> dict[str, Any]:
    """``peak_mib`` and ``model_mib`` of one inference in a fresh process."""
    return _child(options, count, "--peak", form)


def _child(options: argparse.Namespace, count: int, *words: str) -> dict[str, Any]:
    """The object that a run of the benchmark with the same settings prints last.

    Raises:
        RuntimeError: it failed; its own words are on the terminal.
    """
    command = [sys.executable, str(Path(__file__).with_name("inference.py"))]
    for name in ("segmenter", "keep", "threads", "device"):
        command += [f"--{name}", str(getattr(options, name))]
    for name in ("size", "output"):
        command += [f"--{name}", "x".join(map(str, getattr(options, name)))]
    if options.window:
        command += ["--window", str(options.window)]
    command += ["--frames", str(count), *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with status {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def measure_curve(options: argparse.Namespace, out: Path, write_rows: WriteRows) -> int:
    """Run every case that the CSV does not have; it is written after each one."""
    cases = LENGTHS if options.frames is None else {options.segmenter: options.frames}
    rows: list[dict[str, Any]] = read_rows(out)
    for segmenter, lengths in cases.items():
        for count in lengths:
            case = argparse.Namespace(**{**vars(options), "segmenter": segmenter})
            key = row_key(case, count)
            if any(all(row[c] == key[c] for c in KEY) for row in rows):
                print(f"{segmenter}, {count} frames: in {out} already")
                continue
            row = key | {c: str(x) for c, x in _child(case, count, "--length").items()}
            rows.append(row)
            write_rows(out, COLUMNS, rows)
            print("  ".join(f"{c} {row[c]}" for c in COLUMNS[3:]), flush=True)
    return 0


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of earlier runs; none without a file.

    Raises:
        ValueError: the file has other columns.
    """
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != COLUMNS:
            raise ValueError(f"{path}: has the columns {reader.fieldnames}, expected {COLUMNS}")
        return list(reader)


def row_key(options: argparse.Namespace, count: int) -> dict[str, str]:
    """What tells one row from another, as text."""
    values = [
        device_name(torch.device(options.device)),
        torch.__version__,
        options.threads,
        options.segmenter,
        "x".join(map(str, options.size)),
        "x".join(map(str, options.output)),
        options.window or "default",
        options.keep,
        count,
    ]
    return dict(zip(KEY, map(str, values), strict=True))


def curve_point(options: argparse.Namespace, count: int) -> dict[str, Any]:
    """Track one video of ``count`` frames in this process; the measured columns of its row."""
    device = torch.device(options.device)
    segmenter, tracker = build(options.segmenter, device)
    frames = Frames(*options.size)
    model = resident_mib(device)
    memory: list[float] = []  # when a frame is read for the first time
    begun = said = time.perf_counter()

    def read(t: int) -> Tensor:
        nonlocal said
        now = time.perf_counter()
        if t == len(memory):
            memory.append(resident_mib(device))
        if now - said > 10:
            said, rate = now, len(memory) / (now - begun)
            print(
                f"{options.segmenter}, {count} frames: {len(memory)} read, {rate:.2f} frames/s, "
                f"{(count - len(memory)) / rate:.0f} s left, {resident_mib(device):.0f} MiB",
                file=sys.stderr,
                flush=True,
            )
        return frames(t)

    tracked = track_video(
        segmenter,
        {"visage": tracker},
        [partial(read, t) for t in range(count)],
        options.output,
        EvalConfig(window=options.window, keep_top=options.keep),
        device,
    )["visage"]
    spent = time.perf_counter() - begun
    sizes = [
        len(rle["counts"])
        for tracklet in tracked.prediction.tracklets
        for rle in tracklet.segmentations
        if rle is not None
    ]
    return {
        "peak_mib": round(peak_mib(device)),
        "model_mib": round(model),
        "retained_kib_per_frame": growth(memory),
        "rle_kib_per_mask": round(float(np.mean(sizes)) / 2**10, 2) if sizes else "",
        "seconds_per_frame": round(spent / count, 4),
    }


def growth(memory: Sequence[float]) -> float | str:
    """KiB a frame by least squares from MiB at every frame; nothing from fewer than 20 frames.

    The first quarter is left out: what is made once and for all is made there.
    """
    if len(memory) < 20:
        return ""
    later = np.arange(len(memory) // 4, len(memory))
    return round(float(np.polyfit(later, np.array(memory)[later], 1)[0]) * 2**10, 1)
