"""A run directory, opened for looking at it: frames, truth, tracks and failures, nothing computed anew.

``RunView(run_dir).split("swap").video(7)`` reads what the run wrote (``config.yaml`` and
``rows/<row>/<split>/results.json``) and the data that it was run on. What counts as a failure, and which
videos are worst, is said by :mod:`vistk.evaluation` alone.

Numbers of tracks are made for the eye: a track is called after the annotated instance that it covers
first, so that in the pictures of all rows it has the colour of that instance, and keeps it. See
:func:`vistk.inspection.failures.numbers_of_tracks`.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from vistk.config import CONFIG_FILE, RunConfig, compose
from vistk.data.config import SyntheticConfig
from vistk.data.holdout import video_name
from vistk.evaluation.files import GroundTruth, Prediction, Results, Video, load_results
from vistk.evaluation.ground_truth import ground_truth_of
from vistk.evaluation.overlaps import VideoOverlaps, video_overlaps
from vistk.evaluation.parts import union
from vistk.inspection.failures import Failure, VideoScores, covering, failures, numbers_of_tracks
from vistk.inspection.models import Models, load_models
from vistk.inspection.moved_data import moved, require_written
from vistk.inspection.names import NOBODY, InspectionError, require_known
from vistk.schema import ConfigError
from vistk.splits import LOCAL, EvaluationSplit, open_data
from vistk.structures import RLE, VideoRecord


@dataclass(frozen=True)
class Track:
    """One annotated instance, or one track of a row's results."""

    id: int  # number in the video, from 1; that of a track says which instance it covers first
    label: str  # name of the category
    score: float | None  # 0..1; None = truth
    rles: tuple[RLE | None, ...]  # T masks


class RunView:
    """A run directory.

    Args:
        run_dir: what ``experiments/run.py`` wrote.
        words: say what has changed since, e.g. ``("data.root=DIR",)`` for data that were moved.

    Raises:
        FileNotFoundError: there is no run.
        InspectionError: it has no results yet.
        ConfigError: its ``config.yaml`` or a word cannot be used.
    """

    def __init__(self, run_dir: str | Path, words: Sequence[str] = ()) -> None:
        self.run_dir = Path(run_dir)
        file = self.run_dir / CONFIG_FILE
        if not file.is_file():
            raise FileNotFoundError(f"{self.run_dir}: no run there, expected {CONFIG_FILE} in it")
        self._results = {
            (path.parent.parent.name, path.parent.name): path
            for path in sorted(self.run_dir.glob("rows/*/*/results.json"))
        }
        if not self._results:
            raise InspectionError(f"{self.run_dir}: nothing was tracked, expected rows/*/*/results.json")
        self.words = tuple(words)
        self.config: RunConfig = compose(["--config", str(file), *words]).config
        self._splits: dict[str, SplitView] = {}

    @property
    def name(self) -> str:
        """What the run is called: its directory, as it was given."""
        return self.run_dir.as_posix()

    @cached_property
    def rows(self) -> tuple[str, ...]:
        """The trackers, in the order of the run's table."""
        order = [*self.config.evaluation.rows, self.config.choices["tracker"]]
        return _ordered({row for row, _ in self._results}, order)

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """The splits that were tracked, in the order of the configuration."""
        return _ordered({split for _, split in self._results}, [*self.config.data.eval_splits, LOCAL])

    def split(self, name: str) -> SplitView:
        """One split with its data; no image is opened yet.

        Raises:
            InspectionError: there is no such split, or its data are not where the run found them.
        """
        require_known("split", name, self.splits, self.name)
        if name not in self._splits:
            self._splits[name] = SplitView(self, name, self._open(name))
        return self._splits[name]

    def results_path(self, row: str, split: str) -> Path:
        """The results of a row on a split.

        Raises:
            InspectionError: there are none.
        """
        require_known("row", row, self.rows, self.name)
        there = [known for known in self.rows if (known, split) in self._results]
        require_known("row", row, there, f"{self.name} on {split}")
        return self._results[row, split]

    def _open(self, name: str) -> EvaluationSplit:
        data = self.config.data
        if name != LOCAL:
            data = replace(data, eval_splits=[name], local_split=None)
        config = replace(self.config, data=data, eval_only=True)
        try:
            with self.silence():
                if isinstance(config.data, SyntheticConfig):
                    require_written(config.data, config.train.split)
                return open_data(config, self.accelerator).evaluation[name]
        except (FileNotFoundError, ConfigError) as error:
            raise InspectionError(f"{self.run_dir}: {moved(error)}") from error

    @cached_property
    def accelerator(self) -> Accelerator:
        """The device that videos are traced on."""
        return Accelerator(cpu=not torch.cuda.is_available())

    @cached_property
    def models(self) -> Models:
        """The segmenter and the trackers of all rows, with the weights that the results come from.

        Raises:
            CheckpointError: the weights are not there, or are of another architecture.
        """
        categories = self.split(self.splits[0]).source.categories
        with self.silence():
            return load_models(self.config, self.run_dir, categories, self.accelerator)

    @staticmethod
    def silence() -> contextlib.redirect_stdout[io.StringIO]:
        """Around what tells the reader of a run how it goes: the run has said it."""
        return contextlib.redirect_stdout(io.StringIO())


class SplitView:
    """The videos of one split, with the results of every row.

    Attributes:
        source: the data, as they are read.
        truth: what the evaluation knows; without instances where ground truth is hidden.
    """

    def __init__(self, run: RunView, name: str, split: EvaluationSplit) -> None:
        self.run, self.name, self.source = run, name, split.source
        self.evaluation = split
        known = split.truth or (union(split.parts) if split.parts else None)
        self.has_truth = known is not None
        self.truth: GroundTruth = known or ground_truth_of(split.source)
        self._results: dict[str, Results] = {}
        self._scores: dict[str, VideoScores] = {}
        self._videos: dict[int, VideoView] = {}

    @cached_property
    def video_ids(self) -> tuple[int, ...]:
        """In the order of the file."""
        return tuple(video.video_id for video in self.source.videos)

    @cached_property
    def rows(self) -> tuple[str, ...]:
        """The rows that were tracked here."""
        return tuple(row for row in self.run.rows if (row, self.name) in self.run._results)

    def video(self, video_id: int) -> VideoView:
        """One video.

        Raises:
            InspectionError: there is none of this id.
        """
        if video_id not in self._videos:
            place = {record.video_id: record for record in self.source.videos}
            if video_id not in place:
                near = min(place, key=lambda known: abs(known - video_id), default=None)
                raise InspectionError(
                    f"{self.run.name} on {self.name}: no video {video_id} among {len(place)}, "
                    f"nearest is {near}"
                )
            self._videos[video_id] = VideoView(self, place[video_id])
        return self._videos[video_id]

    def find(self, name: str) -> VideoView:
        """A video by its id or by its name, the folder of its frames; what is both is meant as an id.

        Raises:
            InspectionError: there is no such video.
        """
        named = {video_name(record): record.video_id for record in self.source.videos if len(record)}
        if name in map(str, self.video_ids):
            return self.video(int(name))
        if name in named:
            return self.video(named[name])
        if name.lstrip("-").isdecimal():
            return self.video(int(name))
        require_known("video", name, list(named), f"{self.run.name} on {self.name}")
        raise AssertionError(name)

    def results(self, row: str) -> Results:
        """What a row predicted, as the evaluation reads it."""
        if row not in self._results:
            path = self.run.results_path(row, self.name)
            self._results[row] = load_results(path, self.truth, all_pairs=self.has_truth)
        return self._results[row]

    def scores(self, row: str) -> VideoScores:
        """The numbers of every video of a row, each scored alone.

        Raises:
            InspectionError: the truth is hidden, or there is no such row.
        """
        if not self.has_truth:
            raise InspectionError(
                f"{self.run.name} on {self.name}: the ground truth is hidden, so no video is the worst"
            )
        if row not in self._scores:
            threshold = self.run.config.evaluation.track_score
            self._scores[row] = VideoScores.of(self.truth, self.results(row), threshold)
        return self._scores[row]

    def worst(self, row: str, metric: str = "AP") -> list[tuple[int, float]]:
        """Ids of the videos and their numbers, the worst first; without those where it is undefined.

        Args:
            metric: any that :func:`vistk.evaluation.report.evaluate` has of a whole file (``AP``, ``AP50``,
                ``HOTA``, ``AssA``, ``IDF1``, ..), or ``IDSW``; of the video scored alone, 0..1 (counts: a
                number).

        Raises:
            InspectionError: there is no such row or metric, or the truth is hidden.
        """
        scores = self.scores(row)
        require_known("metric", metric, scores.metrics, f"{self.run.name} on {self.name}")
        return scores.worst(metric)


class VideoView:
    """One video: its frames, its truth, and what the rows made of it."""

    def __init__(self, split: SplitView, record: VideoRecord) -> None:
        self.split, self.record = split, record
        self._overlaps: dict[str, VideoOverlaps] = {}

    @property
    def video_id(self) -> int:
        return self.record.video_id

    @property
    def name(self) -> str:
        """The folder of its frames; its id where it has none."""
        return video_name(self.record) if len(self) else str(self.video_id)

    @property
    def title(self) -> str:
        """``video 7 (0043f083b5) of valid``."""
        named = "" if self.name == str(self.video_id) else f" ({self.name})"
        return f"video {self.video_id}{named} of {self.split.name}"

    def __len__(self) -> int:
        return len(self.record)

    def image(self, t: int) -> np.ndarray:
        """Frame ``t`` as ``(H, W, 3)`` uint8 RGB.

        Raises:
            InspectionError: it is not where the run found it.
            DataError: it cannot be decoded.
        """
        try:
            pixels = self.split.source.read_frame(self.record, t)
        except FileNotFoundError as error:
            raise InspectionError(f"{self.split.run.name}: {moved(error)}") from error
        return np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())

    @cached_property
    def annotated(self) -> Video:
        """What the evaluation knows of the video."""
        return next(video for video in self.split.truth.videos if video.id == self.video_id)

    @cached_property
    def truth(self) -> tuple[Track, ...]:
        """The annotated instances, numbered from 1 in the order of the file; none where they are hidden."""
        names = self.split.truth.categories
        return tuple(
            Track(number, names[instance.category_id], None, tuple(instance.masks))
            for number, instance in enumerate(self.annotated.instances, start=1)
        )

    def tracks(self, row: str, min_score: float | None = None) -> tuple[Track, ...]:
        """The predictions of a row by falling score.

        Args:
            min_score: smallest score; None: ``evaluation.track_score`` of the run (0.1), below which the
                evaluation takes a prediction for no track.
        """
        limit = self.track_score if min_score is None else min_score
        names = self.split.truth.categories
        found = zip(self.numbers(row), self.predictions(row), strict=True)
        return tuple(
            Track(number, names[one.category_id], one.score, tuple(one.masks))
            for number, one in found
            if one.score >= limit
        )

    def failures(self, row: str) -> tuple[Failure, ...]:
        """The identity events of a row's tracks, in order of their frames; none where the truth is hidden."""
        return failures(self.overlaps(row), self.video_id, self.track_score, self.numbers(row))

    def covering(self, row: str) -> np.ndarray:
        """``(T, G)`` int64: the number of the track that covers each instance in each frame, -1 for none."""
        return np.array([*self.numbers(row), NOBODY])[covering(self.overlaps(row), self.track_score)]

    @property
    def track_score(self) -> float:
        """Score below which a prediction is no track."""
        return self.split.run.config.evaluation.track_score

    def predictions(self, row: str) -> tuple[Prediction, ...]:
        """All predictions of a row by falling score, as the evaluation orders them."""
        return self.overlaps(row).predictions

    def numbers(self, row: str) -> tuple[int, ...]:
        """The numbers of :meth:`predictions`, which are ``Track.id`` of the tracks."""
        return numbers_of_tracks(self.overlaps(row), self.track_score)

    def overlaps(self, row: str) -> VideoOverlaps:
        """Pixels that the predictions of a row share with the instances of any category."""
        if row not in self._overlaps:
            truth = replace(self.split.truth, videos=(self.annotated,))
            results = self.split.results(row)
            own = replace(results, videos={self.video_id: results.videos.get(self.video_id, ())})
            (self._overlaps[row],) = video_overlaps(truth, own, all_pairs=True)
        return self._overlaps[row]


def _ordered(names: set[str], order: Sequence[str]) -> tuple[str, ...]:
    place = {name: i for i, name in reversed(list(enumerate(order)))}
    return tuple(sorted(names, key=lambda name: (place.get(name, len(order)), name)))
