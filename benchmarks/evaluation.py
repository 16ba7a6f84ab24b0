"""How long an evaluation takes and how much memory, beside the official algorithm for AP alone.

    python benchmarks/evaluation.py [--turns N] [--out FILE.csv]

Writes two cases into a temporary folder: 200 videos of 36 frames at 1280x720, each with 4 annotated instances
and 10 predictions, whose masks have about 850 runs; and one of the size of the validation split of
YouTube-VIS 2021 (421 videos). The official algorithm (``official_ap.py``) and ours take turns in one process
with one thread, reading the files included, and must agree to 1e-10. Memory is that of a process of its own
beyond what it needs before it reads anything. Prints Markdown; "--out" keeps the rows.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as coco_mask
from official_ap import official_ap

from vistk.evaluation.files import load_ground_truth, load_results
from vistk.evaluation.overlaps import video_overlaps
from vistk.evaluation.report import METRICS, evaluate
from vistk.evaluation.ytvis_ap import accumulate, match, summarize

HEIGHT, WIDTH, CATEGORIES, INSTANCES, PREDICTIONS = 720, 1280, 40, 4, 10
COLUMNS = (
    "videos",
    "frames",
    "what",
    "seconds",
    "seconds_median",
    "times_official",
    "peak_mb",
    "times_parsed",
)


def write_case(folder: Path, videos: int, frames: int, seed: int = 0) -> None:
    """A ground truth and a results file. Predictions copy the instances with errors of place, size and class.

    Half of the instances are in two parts, one above the other; all edges are rough by a few pixels.
    """
    rng = np.random.default_rng(seed)
    truth: dict[str, list] = {"videos": [], "annotations": []}
    truth["categories"] = [{"id": k + 1, "name": f"class {k}"} for k in range(CATEGORIES)]
    results = []
    for video in range(1, videos + 1):
        truth["videos"].append({"id": video, "height": HEIGHT, "width": WIDTH, "length": frames})
        classes = rng.integers(1, CATEGORIES + 1, 3)
        objects = []
        for _ in range(INSTANCES):
            shape = Shape(rng)
            first = int(rng.integers(0, frames // 2)) if rng.random() < 0.3 else 0
            masks = [None if t < first else shape.rle(rng, t) for t in range(frames)]
            category = int(rng.choice(classes))
            objects.append((shape, category))
            areas = [None if mask is None else int(coco_mask.area(mask)) for mask in masks]
            truth["annotations"].append(
                {
                    **{"id": len(truth["annotations"]) + 1, "video_id": video, "category_id": category},
                    **{"iscrowd": 0, "segmentations": masks, "areas": areas},
                }
            )
        for n in range(PREDICTIONS):
            shape, category = objects[n % INSTANCES]
            if n >= INSTANCES:
                category = int(rng.choice(classes) if rng.random() < 0.6 else rng.integers(1, CATEGORIES + 1))
            moved = shape.moved(rng)
            masks = [moved.rle(rng, t) for t in range(frames)]
            score = float(rng.random())
            results.append(
                {"video_id": video, "category_id": category, "score": score, "segmentations": masks}
            )
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "results.json").write_text(json.dumps(results))


class Shape:
    """An ellipse that moves over the frame; some have a gap across."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.place = rng.uniform((300, 250), (980, 470))
        self.half_width = rng.uniform(160, 240)
        self.half_height = rng.uniform(80, 200)
        self.speed = rng.uniform((-4, -3), (4, 3))
        self.gap = rng.random() < 0.5
        if self.gap:  # twice the edges in a column, so half the columns
            self.half_width /= 2

    def moved(self, rng: np.random.Generator) -> Shape:
        other = Shape.__new__(Shape)
        other.__dict__ |= self.__dict__
        other.place = self.place + rng.normal(0, 15, 2)
        other.half_width = self.half_width * rng.uniform(0.85, 1.15)
        return other

    def rle(self, rng: np.random.Generator, t: int) -> dict[str, Any]:
        x, y = self.place + self.speed * t
        columns = np.arange(max(1, int(x - self.half_width)), min(WIDTH - 1, int(x + self.half_width)))
        half = self.half_height * np.sqrt(np.maximum(0, 1 - ((columns - x) / (self.half_width + 1)) ** 2))
        rough = rng.integers(-6, 7, (4, len(columns)))
        top = np.clip((y - half).astype(int) + rough[0], 1, HEIGHT - 9)
        bottom = np.clip((y + half).astype(int) + rough[1], top + 8, HEIGHT - 1)
        edges = [top, bottom]
        if self.gap:
            middle = (top + bottom) // 2
            edges = [top, np.clip(middle - 12 + rough[2], top + 1, middle), middle + 2, bottom]
        ends = (columns * HEIGHT + np.stack(edges)).T.reshape(-1)
        runs = np.diff(ends, prepend=0, append=HEIGHT * WIDTH)
        size = [HEIGHT, WIDTH]
        rle = coco_mask.frPyObjects({"size": size, "counts": runs.tolist()}, HEIGHT, WIDTH)
        return {"size": size, "counts": rle["counts"].decode()}


def our_ap(folder: Path) -> float:
    return evaluate(folder / "truth.json", folder / "results.json", metrics=("ap",)).metrics["AP"]


def everything(folder: Path) -> object:
    return evaluate(folder / "truth.json", folder / "results.json", metrics=METRICS).metrics


def parsed(folder: Path) -> object:
    return [json.loads((folder / name).read_text()) for name in ("truth.json", "results.json")]


def stages(folder: Path) -> dict[str, float]:
    """Seconds of each stage of ours. Reading results includes what takes the runs of all masks: checking
    both files', and counting what they share.
    """
    clock = [time.perf_counter()]
    truth = load_ground_truth(folder / "truth.json", runs_later=True)
    clock.append(time.perf_counter())
    results = load_results(folder / "results.json", truth)
    clock.append(time.perf_counter())
    for _ in video_overlaps(truth, results):
        pass
    clock.append(time.perf_counter())
    summarize(accumulate(match(truth, results)))
    clock.append(time.perf_counter())
    ground_truth, predictions, overlaps, ap = np.diff(clock)
    return {"truth": ground_truth, "results": predictions, "overlaps": overlaps, "matching": ap - overlaps}


def seconds(work: Callable[[], object]) -> float:
    gc.collect()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def status(name: str) -> float:
    """A number of this process in megabytes: ``VmRSS``, held now, or ``VmHWM``, the most it ever held."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (found,) = (line.split()[1] for line in lines if line.startswith(f"{name}:"))
    return int(found) / 1024


MEASURED: dict[str, Callable[[Path], object]] = {"parsed": parsed, "ap": our_ap, "everything": everything}


def own_memory(what: str, folder: Path) -> None:
    """In a process of its own: prints the megabytes held after the work and those at its peak."""
    before = status("VmRSS")
    kept = MEASURED[what](folder)
    found = {"held": status("VmRSS") - before, "peak": status("VmHWM") - before}
    print(json.dumps(found))
    del kept


def memory(what: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--memory", what, str(folder)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def row(name: str, values: Sequence[float], baseline: float) -> str:
    least = min(values)
    return f"| {name} | {least:.2f} | {statistics.median(values):.2f} | {baseline / least:.2f} |"


def measured_row(name: str, values: Sequence[float], baseline: float) -> dict[str, Any]:
    return {
        **{
            "what": name,
            "seconds": f"{min(values):.3f}",
            "seconds_median": f"{statistics.median(values):.3f}",
        },
        "times_official": f"{baseline / min(values):.2f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and memory of an evaluation.")
    parser.add_argument("--videos", type=int, default=200)
    parser.add_argument("--large", type=int, default=421, help="videos of the second case")
    parser.add_argument("--frames", type=int, default=36)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=Path, help="CSV; written in the end")
    parser.add_argument("--memory", nargs=2, metavar=("WHAT", "DIR"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        own_memory(arguments.memory[0], Path(arguments.memory[1]))
        return
    with tempfile.TemporaryDirectory() as root:
        rows = measure(Path(root), arguments)
    if arguments.out:
        from rows import CARD, card, write_rows  # imports PyTorch, and a child measures its own memory

        versions = {"python": platform.python_version(), "numpy": np.__version__}
        write_rows(
            arguments.out, (*COLUMNS, *versions, *CARD), [row | versions | card("cpu") for row in rows]
        )


def measure(folder: Path, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Prints as it goes; returns the rows."""
    write_case(folder, arguments.videos, arguments.frames)
    truth, results = folder / "truth.json", folder / "results.json"
    expected, _ = official_ap(truth, results)
    if abs(our_ap(folder) - expected) > 1e-10:
        raise SystemExit(f"AP is {our_ap(folder)}, officially {expected}")
    every_metric = f"ours, all metrics ({', '.join(METRICS)})"
    work: dict[str, Callable[[], object]] = {
        "official AP": lambda: official_ap(truth, results),
        "our AP": lambda: our_ap(folder),
        every_metric: lambda: everything(folder),
    }
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(arguments.turns):
        for name, do in work.items():
            times[name].append(seconds(do))
    official = min(times["official AP"])
    megabytes = [path.stat().st_size / 2**20 for path in (truth, results)]
    print(
        f"{arguments.videos} videos of {arguments.frames} frames, json of {megabytes[0]:.0f} and "
        f"{megabytes[1]:.0f} MB, AP {expected:.4f}. {platform.processor() or platform.machine()}, Python "
        f"{platform.python_version()}, numpy {np.__version__}, {arguments.turns} turns.\n"
    )
    print("| seconds | least | median | official / this |\n|---|---|---|---|")
    for name, values in times.items():
        print(row(name, values, official))
    rows = {name: measured_row(name, values, official) for name, values in times.items()}
    for title, found in (("official", official_ap(truth, results)[1]), ("ours", stages(folder))):
        print(f"\n{title}: " + ", ".join(f"{name} {value:.2f}" for name, value in found.items()))
    held = memory("parsed", folder)["held"]
    print(f"\nParsed files: {held:.0f} MB.")
    for what, name in (("ap", "our AP"), ("everything", every_metric)):
        peak = memory(what, folder)["peak"]
        rows[name] |= {"peak_mb": f"{peak:.0f}", "times_parsed": f"{peak / held:.2f}"}
        print(f"Peak of {what}: {peak:.0f} MB, {peak / held:.2f} times that.")
    write_case(folder, arguments.large, arguments.frames)
    large = seconds(lambda: everything(folder))
    print(f"\n{arguments.large} videos, all metrics: {large:.1f} s.")
    return [
        *({"videos": arguments.videos, "frames": arguments.frames, **found} for found in rows.values()),
        {
            "videos": arguments.large,
            "frames": arguments.frames,
            "what": every_metric,
            "seconds": f"{large:.3f}",
        },
    ]


if __name__ == "__main__":
    main()
