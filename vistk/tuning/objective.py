"""What a trial is: association of queries that are there, and the one number that is wanted of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from accelerate import Accelerator

from vistk.comparison import frame_readers, open_cache
from vistk.config import RunConfig
from vistk.engine.describers import Describers
from vistk.engine.infer import track_video
from vistk.engine.progress import progress_bar
from vistk.engine.windows import Segment, Source, Window, segment_windows
from vistk.evaluation.ap_options import OFFICIAL, APOptions
from vistk.evaluation.files import GroundTruth, Results
from vistk.evaluation.parts import split_results
from vistk.evaluation.scores import Predicted, score
from vistk.experiment import build_tracker
from vistk.models.segmenter import Segmenter
from vistk.splits import EvaluationSplit
from vistk.structures import VideoRecord
from vistk.trackers.base import Tracker
from vistk.tuning.knobs import TuningError

METRICS = ("AP", "AssA", "HOTA", "IDF1")
HELD_BYTES = 2**31  # of queries that are read once for all trials; of more, files are read again for each

AP_ALONE = APOptions(
    area_ranges={"all": OFFICIAL.area_ranges["all"]}, max_detections=OFFICIAL.max_detections[-1:]
)
"""What AP takes of the official options: the number is the same."""


class Family:
    """Trackers that differ in association knobs alone: one class, one set of weights."""

    def __init__(self, name: str, config: Any, segmenter: Segmenter, tracker: Tracker[Any]) -> None:
        self.name, self.segmenter, self.tracker = name, segmenter, tracker
        self._config = config
        self._state = tracker.state_dict()

    def member(self, values: Mapping[str, Any]) -> Tracker[Any]:
        """The tracker with these values of its fields.

        Raises:
            ConfigError: they do not go together.
        """
        tracker = build_tracker(self.name, replace(self._config, **values), self.segmenter)
        tracker.load_state_dict(self._state)
        return tracker.to(self.segmenter.pixel_mean.device).eval()


class TrackedSplit:
    """A split whose queries are there, to be tracked again and again.

    What the cache lacks is segmented and stored when this is made.

    Args:
        config: its ``cache`` says where queries lie, ``choices["cache"]`` whether missing ones are made.
        name: of the split.
    """

    def __init__(
        self, config: RunConfig, family: Family, name: str, split: EvaluationSplit, accelerator: Accelerator
    ) -> None:
        self.name, self.split = name, split
        self._config, self._family, self._device = config, family, accelerator.device
        rows = {family.name: family.tracker}
        cache = open_cache(config, family.segmenter, rows, split.source, name, accelerator)
        assert cache is not None
        self._cache = cache
        if lacking := cache.lacking():
            for video in progress_bar(accelerator, lacking, desc=f"segment {name}", unit="video"):
                cache.windows(video, rows, self._segment(video))
        self._held: dict[int, tuple[Window, ...]] | None = {} if cache.num_bytes() <= HELD_BYTES else None

    def results(
        self, tracker: Tracker[Any], video_done: Callable[[], object] = lambda: None
    ) -> list[dict[str, Any]]:
        """Entries of a results file, as ``experiments/run.py`` writes them for this row."""
        entries: list[dict[str, Any]] = []
        source = self.split.source
        for video in source.videos:
            tracked = track_video(
                self._family.segmenter,
                {self._family.name: tracker},
                frame_readers(source, video, self._config.data),
                (video.height, video.width),
                self._config.evaluation,
                self._device,
                video.video_id,
                source.category_ids,
                source=self._source(video),
            )
            entries += tracked[self._family.name].prediction.to_ytvis()
            video_done()
        return entries

    def metric(self, results: Predicted, metric: str) -> float:
        """One of :data:`METRICS` of results, and nothing beside it; of parts that are scored apart, the mean.

        Raises:
            TuningError: it is undefined on this split.
        """
        values = [
            score(
                truth,
                own,
                ap=metric == "AP",
                tracking=metric != "AP",
                score_threshold=self._config.evaluation.track_score,
                options=AP_ALONE if metric == "AP" else OFFICIAL,
            ).metrics[metric]
            for truth, own in self.scored(results)
        ]
        defined = [value for value in values if value is not None]
        if len(defined) < len(values):
            raise TuningError(f"{metric} is undefined on {self.name}: it has no instance that counts")
        return math.fsum(defined) / len(defined)

    def scored(self, results: Predicted) -> Sequence[tuple[GroundTruth, Predicted | Results]]:
        """Truth and results of the split, or of each of its parts."""
        if self.split.parts:
            own = split_results(self.split.parts, results)
            return [(truth, own[suffix]) for suffix, truth in self.split.parts.items()]
        assert self.split.truth is not None
        return [(self.split.truth, results)]

    def _source(self, video: VideoRecord) -> Source:
        if self._held is None:
            return partial(self._cache.windows, video)
        if video.video_id not in self._held:
            rows = {self._family.name: self._family.tracker}
            self._held[video.video_id] = tuple(self._cache.windows(video, rows, self._segment(video)))
        held = self._held[video.video_id]
        return lambda describers, segment: iter(held)

    def _segment(self, video: VideoRecord) -> Segment:
        frames = frame_readers(self.split.source, video, self._config.data)
        size, window = (video.height, video.width), self._config.evaluation.window

        def segment(describers: Describers) -> Iterator[Window]:
            return segment_windows(self._family.segmenter, describers, frames, size, window, self._device)

        return segment
