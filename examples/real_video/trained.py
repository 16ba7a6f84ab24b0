"""The lanes of :mod:`lanes` on a network: the weights that a run of this toolkit trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from lanes import LaneError

from vistk.config import load
from vistk.engine.stream import Stream, push_together
from vistk.inspection.models import load_models
from vistk.structures import FrameTargets, ScoringProtocol, VideoPrediction
from vistk.viz.overlay import Shown


class TrainedLanes:
    """Streams of several trackers on one network.

    Args:
        names: trackers: that of the run, its ablations, and those without weights. Others are left out,
            and the run says why.
        weights: ``weights.safetensors`` of a run directory.
        track_score: tracks with a lower score so far are not shown.

    Raises:
        LaneError: no tracker is left.
        FileNotFoundError, vistk.config.ConfigError: there is no run around the weights.
    """

    def __init__(self, names: Sequence[str], weights: Path, track_score: float) -> None:
        config = load(weights.parent).config
        # A run may have been moved or renamed since; it was trained on one class.
        rows = [name for name in names if name != "oracle"]
        evaluation = dataclasses.replace(config.evaluation, rows=rows)
        config = dataclasses.replace(config, evaluation=evaluation)
        models = load_models(config, weights.parent, {1: "person"}, Accelerator())
        trackers = {name: models.trackers[name] for name in rows if name in models.trackers}
        if not trackers:
            raise LaneError(
                f"none of the trackers {', '.join(names)} runs on the weights of {weights.parent}"
            )
        protocol = ScoringProtocol(evaluation.keep_top, evaluation.rescore, (1,))
        self._streams = {
            name: Stream(
                models.segmenter,
                tracker,
                short_side=config.data.test_short_side,
                max_side=config.data.test_max_side,
                protocol=protocol,
            )
            for name, tracker in trackers.items()
        }
        self._track_score = track_score

    def pass_by(self, frame: np.ndarray) -> None:
        """A frame that is not tracked: a network learns nothing from it."""

    def push(self, frame: np.ndarray, targets: FrameTargets | None = None) -> dict[str, tuple[Shown, ...]]:
        """Segment and track the next ``(H, W, 3)`` uint8 frame: what every tracker says of it now."""
        streams = list(self._streams.values())
        shown = {}
        for name, tracked in zip(self._streams, push_together(streams, [frame] * len(streams)), strict=True):
            seen = tracked.above(self._track_score)
            shown[name] = tuple(map(Shown, seen.ids.tolist(), seen.rles))
        return shown

    @property
    def seconds(self) -> dict[str, float]:
        """Time in each tracker so far."""
        return {name: stream.seconds.associate for name, stream in self._streams.items()}

    def close(self) -> dict[str, VideoPrediction]:
        """The tracks of every tracker with their video scores."""
        return {name: stream.close() for name, stream in self._streams.items()}
