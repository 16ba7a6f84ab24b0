"""The log of a run: one json object a line, and what a logger and the progress bar show of it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm

from vistk.engine.loggers import RunLogger
from vistk.files import write_text


class JsonLines:
    """A log of one json object a line. Lines of steps after ``keep_below`` are dropped on resume.

    Attributes:
        found: the last step that was in the file before, dropped or not; 0 = none.
    """

    def __init__(self, path: Path, keep_below: int) -> None:
        kept = []
        self.found = 0
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError:  # the last line of a killed run
                    break
                self.found = max(self.found, row["step"])
                if row["step"] <= keep_below:
                    kept.append(line)
        write_text(path, "".join(line + "\n" for line in kept))
        self.path = path

    def write(self, row: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")


class TrainingLog:
    """Losses of a training, and how fast it is, in ``log.jsonl``; a logger shows the same numbers.

    Args:
        path: of the log; only the main process has it.
        start: the steps that a checkpoint holds.
        clips: in a step, of all processes together.
    """

    def __init__(
        self, path: Path, start: int, clips: int, accelerator: Accelerator, logger: RunLogger | None
    ) -> None:
        self._lines = JsonLines(path, keep_below=start) if accelerator.is_main_process else None
        self._accelerator, self._logger, self._clips = accelerator, logger, clips
        self._steps, self._seconds = 0, 0.0  # since the last line
        if logger is not None and self._lines is not None:
            logger.begin(start, told=self._lines.found)

    def count(self, seconds: float) -> None:
        """One more step, and what it took; samples and checkpoints are not part of it."""
        self._steps += 1
        self._seconds += seconds

    def write(
        self, step: int, losses: Mapping[str, Tensor], lr: float, norm: Tensor | float | None, bar: tqdm
    ) -> None:
        """A line, in all processes at once.

        Args:
            losses: of this process; the means over processes are written.
            norm: of the gradients, before they were clipped.
        """
        names = sorted(losses)
        values = self._accelerator.reduce(torch.stack([losses[name] for name in names]), "mean").tolist()
        rate = self._clips * self._steps / max(self._seconds, 1e-9)
        self._steps, self._seconds = 0, 0.0
        if self._lines is None:
            return
        mean = dict(zip(names, values, strict=True))
        about = {
            "lr": lr,
            # Infinity is no JSON; in float16 the first steps may overflow.
            "grad_norm": float(norm) if norm is not None and math.isfinite(norm) else None,
            "clips_per_second": rate,
            "memory_mib": _memory(self._accelerator.device),
        }
        self._lines.write({"step": step, "loss": sum(values), **mean, **about, "time": time.time()})
        if self._logger is not None:
            shown = {f"loss/{name}": value for name, value in {"total": sum(values), **mean}.items()}
            self._logger.log(shown | {f"train/{name}": value for name, value in about.items()}, step)
        kinds: dict[str, float] = {}
        for name, value in mean.items():
            kind = name.rstrip("0123456789").rstrip("_")
            kinds[kind] = kinds.get(kind, 0.0) + value
        shown_kinds = {kind: f"{value:.3f}" for kind, value in kinds.items()}
        bar.set_postfix(refresh=False, **{"loss": f"{sum(values):.3f}"} | shown_kinds)


def _memory(device: torch.device) -> float:
    """MiB: the most that tensors took on a GPU so far; else what the process takes now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return psutil.Process().memory_info().rss / 2**20
