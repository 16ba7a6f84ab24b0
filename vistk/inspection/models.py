"""The segmenter and the trackers of a run, with the weights that its results come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from vistk.config import RunConfig
from vistk.experiment import WEIGHTS, build_rows, build_tracker
from vistk.models.segmenter import Segmenter
from vistk.start_weights import load_start_weights, start_weights
from vistk.trackers.base import Tracker


@dataclass(frozen=True)
class Models:
    """On the accelerator's device, in evaluation mode."""

    segmenter: Segmenter
    trackers: Mapping[str, Tracker[Any]]  # by row


def load_models(
    config: RunConfig, run_dir: Path, categories: Mapping[int, str], accelerator: Accelerator
) -> Models:
    """What a run tracked with: the weights that it trained, or those that it was given.

    Raises:
        CheckpointError: they are not there, or are of another architecture.
    """
    trained = run_dir / WEIGHTS
    if not config.eval_only:
        config = replace(config, weights=str(trained), eval_only=True)
    segmenter = Segmenter(
        replace(config.segmenter, backbone_pretrained=False), len(categories), config.precision
    )
    tracker = build_tracker(config.choices["tracker"], config.tracker, segmenter)
    start = start_weights(config, accelerator)
    load_start_weights(start, config, segmenter, tracker, categories, accelerator)
    rows = build_rows(config, segmenter, tracker, accelerator)
    for row in rows.values():
        if row.state_dict():
            row.load_state_dict(tracker.state_dict())
        row.to(accelerator.device).eval()
    segmenter.to(accelerator.device).eval()
    return Models(segmenter, rows)
