"""What another arithmetic in the pixel decoder does to masks, class scores, AP and time.

    python benchmarks/precision.py [WORDS] [--videos N] [--turns N] [--out FILE.csv]

Words are those of ``experiments/run.py``; without any, the packaged start weights on the synthetic splits.
``segmenter=r50 weights=FILE data=ytvis data.root=DIR`` measures a weights file. Every arithmetic of
``precision.pixel_decoder`` that runs on this machine is compared with ``float32``, on the same frames in one
process, taking turns; the others are named. Masks are compared at the size of the network's input, query by
query, where the query's class score in float32 is at least 0.1 and a mask is not empty. AP is that of
MinVIS over the whole split.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from rows import CARD, card, write_rows
from torch import Tensor

from vistk.comparison import frame_readers
from vistk.config import Composed, compose
from vistk.experiment import build_tracker, run
from vistk.models.precision import ARITHMETICS, PrecisionConfig, decode_pixels, require_usable
from vistk.models.segmenter import Segmenter
from vistk.schema import ConfigError
from vistk.splits import open_data
from vistk.start_weights import load_start_weights, start_weights
from vistk.structures import FrameOutput

REFERENCE = "float32"
SCORE = 0.1
SAID = ("tracker=minvis", "eval_only=true", "evaluation.rows=[minvis]")
COLUMNS = (
    *("arithmetic", "split", "frames", "masks", "iou_mean", "iou_p01", "iou_least"),
    *("score_diff_mean", "score_diff_max", "AP", "AP_diff", "pixel_decoder_ms"),
    *(*CARD, "words"),
)


@dataclass
class Differences:
    """What one arithmetic changed on one split, beside float32."""

    ious: list[Tensor]
    scores: list[Tensor]
    seconds: float = float("inf")  # of the pixel decoder, best frame

    def add(self, expected: FrameOutput, found: FrameOutput, size: tuple[int, int]) -> None:
        """Records a frame; both without leading dims."""
        score, other = (out.logits.float().softmax(-1)[:, :-1] for out in (expected, found))
        a, b = (at_size(out.mask_logits, size) for out in (expected, found))
        union = (a | b).flatten(1).sum(1)
        compared = (score.amax(1) >= SCORE) & (union > 0)
        self.ious.append(((a & b).flatten(1).sum(1) / union.clamp(min=1))[compared].cpu())
        self.scores.append((score - other).abs().flatten().cpu())

    def columns(self) -> dict[str, Any]:
        ious, scores = torch.cat(self.ious), torch.cat(self.scores)
        return {
            "frames": len(self.ious),
            "masks": len(ious),
            "iou_mean": f"{ious.mean():.5f}",
            "iou_p01": f"{ious.quantile(0.01):.5f}",
            "iou_least": f"{ious.min():.5f}",
            "score_diff_mean": f"{scores.mean():.2e}",
            "score_diff_max": f"{scores.max():.2e}",
            "pixel_decoder_ms": f"{1000 * self.seconds:.3f}",
        }


def at_size(mask_logits: Tensor, size: tuple[int, int]) -> Tensor:
    """``(Q, h, w)`` logits as ``(Q, H, W)`` bool masks."""
    return F.interpolate(mask_logits[None].float(), size=size, mode="bilinear", align_corners=False)[0] > 0


def usable(device: torch.device) -> list[str]:
    """Arithmetics that run on a device, the reference first; the others are printed with the reason."""
    names = []
    for name in sorted(ARITHMETICS, key=lambda name: name != REFERENCE):
        try:
            require_usable(PrecisionConfig(name), device)
            names.append(name)
        except ConfigError as error:
            print(f"{name} is left out: {error}")
    return names


def timed_decode(segmenter: Segmenter, features: dict[str, Tensor], config: PrecisionConfig) -> float:
    """Seconds of one pass through the pixel decoder."""
    on_gpu = next(iter(features.values())).is_cuda
    if on_gpu:
        torch.cuda.synchronize()
    start = time.perf_counter()
    decode_pixels(segmenter.pixel_decoder, features, config)
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - start


@torch.inference_mode()
def compare_frames(
    segmenter: Segmenter, frames: Iterator[Tensor], names: Sequence[str], turns: int, device: torch.device
) -> dict[str, Differences]:
    """Differences of every arithmetic over frames ``(3, H, W)``."""
    found = {name: Differences([], []) for name in names}
    for frame in frames:
        images = frame.to(device)
        outputs = {}
        for name in names:
            segmenter.precision = PrecisionConfig(name)
            outputs[name] = segmenter(images)
        expected = outputs[REFERENCE]
        # At the network's size the padding is part of the masks; it is the same for all.
        stride = segmenter.backbone.strides["res2"]
        h, w = expected.mask_logits.shape[-2:]
        features = {level: x[None] for level, x in expected.features.items()}
        for _ in range(turns):
            for name in names:
                seconds = timed_decode(segmenter, features, PrecisionConfig(name))
                found[name].seconds = min(found[name].seconds, seconds)
        for name in names:
            found[name].add(expected, outputs[name], (h * stride, w * stride))
    return found


def average_precision(words: Sequence[str], folder: str, name: str) -> dict[str, float]:
    """AP of MinVIS by split, from a whole evaluation."""
    said = [*words, f"precision.pixel_decoder={name}", f"run_dir={folder}/{name}"]
    with contextlib.redirect_stdout(io.StringIO()):
        path = run(compose(said))
    splits = json.loads(path.read_text())["rows"]["minvis"]
    return {split: numbers["AP"] for split, numbers in splits.items()}


def measure(composed: Composed, words: Sequence[str], videos: int, turns: int) -> list[dict[str, Any]]:
    """Rows of the table."""
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    device = accelerator.device
    config = composed.config
    names = usable(device)
    data = open_data(config, accelerator)
    segmenter = Segmenter(config.segmenter, len(data.categories))
    tracker = build_tracker(config.choices["tracker"], config.tracker, segmenter)
    path = start_weights(config, accelerator)
    load_start_weights(path, config, segmenter, tracker, data.categories, accelerator)
    segmenter.to(device).eval()
    with tempfile.TemporaryDirectory() as folder:
        precision = {name: average_precision(words, folder, name) for name in names}
    rows = []
    for split, content in data.evaluation.items():
        source = content.source
        frames = (
            read()
            for index in range(min(videos, len(source.videos)))
            for read in frame_readers(source, source.videos[index], config.data)
        )
        for name, differences in compare_frames(segmenter, frames, names, turns, device).items():
            scored = split in precision[name]
            rows.append(
                {
                    "arithmetic": name,
                    "split": split,
                    **differences.columns(),
                    "AP": f"{precision[name][split]:.4f}" if scored else "",
                    "AP_diff": f"{precision[name][split] - precision[REFERENCE][split]:+.4f}"
                    if scored
                    else "",
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="of experiments/run.py")
    parser.add_argument("--videos", type=int, default=4, help="of each split whose masks are compared")
    parser.add_argument("--turns", type=int, default=3, help="of timing, a frame")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "precision.csv")
    options = parser.parse_args()
    torch.set_num_threads(1)
    words = [*SAID, *options.words]
    told = card("cuda" if torch.cuda.is_available() else "cpu") | {"words": " ".join(options.words)}
    if not torch.cuda.is_available():
        told["device"] += ", 1 thread(s)"
    rows = measure(compose(words), words, options.videos, options.turns)
    print(write_rows(options.out, COLUMNS, [row | told for row in rows]))


if __name__ == "__main__":
    main()
