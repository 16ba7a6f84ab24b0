"""Time of inference, part by part, beside the form in which it was published; memory against length.

Both forms run the same weights in one process, taking turns, in float32: ``published_forms.py`` says what
the published form is, ``inference_cases.py`` which weights and frames are used. A part gets the same input in
both forms, and nothing is timed before their results agree (``inference_parts.py``). Our parts run
``--frames-per-pass`` frames at a time, on a CPU one, since that is faster there; the published form takes the
whole window. The whole is ``vistk.predict`` with its defaults, from pixels to scored RLEs.

    python benchmarks/inference.py --threads 2 --out benchmarks/results/inference.csv
    python benchmarks/inference.py --device cuda                        # 1 and 8 frames, timed by events
    python benchmarks/inference.py --memory --threads 2                 # resumes: see inference_memory.py

"decoder masks" of ours are the real decoder without attention and feed-forward layers, so they carry the
preparation of its keys, too. Masks of "post-processing" are as the weights make them, rougher than those of
real objects; "smooth masks" are the same ones blurred. Peaks of memory are those of one whole inference in a
process of its own, modules and weights included; ``model_mib`` is there before the first frame.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from inference_cases import NAMES, Frames, build
from inference_memory import (
    curve_point,
    measure_curve,
    peak_in_a_process,
    peak_mib,
    resident_mib,
)
from inference_parts import Part, gate, parts
from published_forms import PublishedForm
from rows import device_name, write_rows

import vistk
from vistk.structures import ScoringProtocol

RESULTS = Path(__file__).resolve().parent / "results"
COLUMNS = [
    "device",
    "torch",
    "threads",
    "segmenter",
    "size",
    "output",
    "frames",
    "frames_per_pass",
    "part",
    "published_s",
    "ours_s",
    "ratio",
    "goal",
    "published_min_s",
    "ours_min_s",
    "published_peak_mib",
    "ours_peak_mib",
    "model_mib",
]
SHOWN = ["frames", "frames_per_pass", "published_s", "ours_s", "ratio", "goal", "part"]


def seconds(function: Callable[[], Any], device: torch.device) -> float:
    """One call; on a GPU between two events."""
    if device.type == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        begin.record()
        function()
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end) / 1e3
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def timed(part: Part, turns: int, device: torch.device) -> tuple[list[float], list[float]]:
    """Seconds of both forms, which take turns, each first in every other one; the gate has warmed them up."""
    published: list[float] = []
    ours: list[float] = []
    pair = [(published, part.published), (ours, part.ours)]
    for _ in range(turns):
        for kept, function in pair:
            kept.append(seconds(function, device))
        pair.reverse()
    return published, ours


def measure(options: argparse.Namespace, count: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of all parts for a number of frames; or none, and what is wrong."""
    device = torch.device(options.device)
    segmenter, tracker = build(options.segmenter, device)
    published = PublishedForm(segmenter, tracker)
    frames = Frames(*options.size).video(count).to(device)
    per_pass = options.frames_per_pass or (1 if device.type == "cpu" else count)
    rows: list[dict[str, Any]] = []
    with torch.inference_mode():
        found = list(parts(published, segmenter, tracker, frames, options.output, options.keep, per_pass))
        wrong = [line for part in found for line in gate(part)]
        if wrong:
            return [], wrong
        for part in found:
            theirs, mine = ([s / count for s in form] for form in timed(part, options.turns, device))
            median = statistics.median(theirs), statistics.median(mine)
            rows.append(
                dict.fromkeys(COLUMNS, "")
                | {
                    "device": device_name(device),
                    "torch": torch.__version__,
                    "threads": torch.get_num_threads(),
                    "segmenter": options.segmenter,
                    "size": _by(options.size),
                    "output": _by(options.output),
                    "frames": count,
                    "frames_per_pass": "" if part.name == "whole" else per_pass,
                    "part": part.name,
                    "published_s": round(median[0], 5),
                    "ours_s": round(median[1], 5),
                    "ratio": round(median[0] / median[1], 2),
                    "goal": part.goal or "",
                    "published_min_s": round(min(theirs), 5),
                    "ours_min_s": round(min(mine), 5),
                }
            )
            print("  ".join(f"{rows[-1][c]!s:>{len(c) + 2}}" for c in SHOWN[:-1]), "", part.name, flush=True)
    return rows, []


def whole(options: argparse.Namespace, form: str, count: int) -> dict[str, int]:
    """Memory of one inference in one form, in this process: at the peak, and with the modules built."""
    device = torch.device(options.device)
    segmenter, tracker = build(options.segmenter, device)
    frames = Frames(*options.size).video(count).to(device)
    model = resident_mib(device)
    if form == "published":
        with torch.inference_mode():
            PublishedForm(segmenter, tracker).infer(frames, options.output, options.keep)
    else:
        protocol = ScoringProtocol(keep_top=options.keep)
        vistk.predict(segmenter, tracker, frames, options.output, protocol=protocol)
    return {"peak_mib": round(peak_mib(device)), "model_mib": round(model)}


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"{text!r} is no size, expected HEIGHTxWIDTH in pixels")
    return int(height), int(width)


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _positive(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no count, expected an integer from 1")
    return int(text)


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--segmenter", default="r50", choices=NAMES)
    parser.add_argument("--size", type=_size, help="of the frames; 360x640, with --memory 720x1280")
    parser.add_argument("--output", type=_size, default=(720, 1280), help="of the masks; 720x1280")
    parser.add_argument("--frames", type=_positive, nargs="+", help="of a video; 5, on a GPU 1 and 8")
    parser.add_argument("--keep", type=_positive, default=40, help="predictions kept; 40")
    parser.add_argument("--threads", type=_positive, default=2)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--frames-per-pass", type=_positive, help="of our parts; 1 on a CPU, else all")
    parser.add_argument("--turns", type=_positive, default=5)
    parser.add_argument("--no-peaks", action="store_true", help="leave out the two peaks of memory")
    parser.add_argument("--memory", action="store_true", help="memory against length, into --out")
    parser.add_argument("--out", type=Path, help="write the rows as CSV")
    parser.add_argument("--window", type=_positive, help="frames a pass, with --memory; as many as are fast")
    parser.add_argument("--length", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--peak", choices=("published", "ours"), help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    options.size = options.size or ((720, 1280) if options.memory else (360, 640))
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no NVIDIA GPU here; --device cpu measures the CPU")
    return options


def main(words: Sequence[str] | None = None) -> int:
    options = parse(words)
    torch.set_num_threads(options.threads)
    if options.length:
        print(json.dumps(curve_point(options, options.frames[0])))
        return 0
    if options.memory:
        out = options.out or RESULTS / "inference_memory.csv"
        return measure_curve(options, out, write_rows)
    counts = options.frames or ([5] if options.device == "cpu" else [1, 8])
    if options.peak:
        print(json.dumps(whole(options, options.peak, counts[0])))
        return 0
    table: list[dict[str, Any]] = []
    print("  ".join(f"{c:>{len(c) + 2}}" for c in SHOWN[:-1]), "", SHOWN[-1])
    for count in counts:
        rows, wrong = measure(options, count)
        if wrong:
            print(f"{count} frames: not timed, results are wrong:", *wrong, sep="\n  ")
            return 1
        if not options.no_peaks:
            for form in ("published", "ours"):
                found = peak_in_a_process(options, form, count)
                rows[-1] |= {f"{form}_peak_mib": found["peak_mib"], "model_mib": found["model_mib"]}
            print(f"peak of memory, MiB: {rows[-1]['published_peak_mib']} and {rows[-1]['ours_peak_mib']}")
        table += rows
    if options.out:
        write_rows(options.out, COLUMNS, table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
