"""What stands behind the numbers of one results file: videos, errors and identity events, one by one."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vistk import config as configuration
from vistk.data.holdout import video_name
from vistk.evaluation.bootstrap import resampled
from vistk.evaluation.breakdowns import ATTRIBUTES
from vistk.evaluation.clear import IOU_THRESHOLD
from vistk.evaluation.error_labels import ERRORS
from vistk.evaluation.errors import ErrorRecord
from vistk.evaluation.explained import BY_ORACLE, EVENTS
from vistk.evaluation.files import GroundTruth, Prediction, Results, load_results
from vistk.evaluation.keys import ALL, Key
from vistk.evaluation.parts import PARTS, split_results
from vistk.evaluation.scores import Scores, score
from vistk.inspection.run_view import RunView, SplitView, VideoView
from vistk.ops.masks import frame_iou
from vistk.runs import Cell
from vistk.structures import RLE, VideoRecord

MOST = 200
"""Errors of a kind that are listed one by one, best scores first; all are counted."""
BLOCK = 128  # videos whose numbers are resampled at a time: memory grows with the square otherwise
DIGITS = 6  # of the numbers of single videos: there are many, and they are shown in percent with one


@dataclass(frozen=True, eq=False)
class Scored:
    """A row of a run on a split that has a results file, and what it is scored against."""

    label: str  # the row of the table
    cell: Cell
    run: RunView
    split: str
    truth_key: str  # equal for equal truths
    truth: GroundTruth
    records: Mapping[int, VideoRecord]  # the data set's videos by id
    parts: Mapping[str, GroundTruth]  # of the split, by suffix
    suffix: str | None  # of the part that it is

    @property
    def score_threshold(self) -> float:
        """Below it predictions take no part in HOTA and events."""
        return self.run.config.evaluation.track_score

    def results(self) -> Results:
        """The results file, read at every call: all of them might not fit into memory."""
        path = self.run.results_path(self.cell.row, self.split)
        if self.suffix is None:
            return load_results(path, self.truth, all_pairs=True)
        return split_results(self.parts, path)[self.suffix]

    def score(self, results: Results, jobs: int = 1) -> Scores:
        """Everything that the evaluator can say about the results."""
        by = [name for name in ATTRIBUTES if name != "occlusion" or self.truth.has_occlusion]
        return score(
            self.truth,
            results,
            errors=True,
            gaps=True,
            by=by,
            score_threshold=self.score_threshold,
            jobs=jobs,
        )

    def video(self, position: int) -> VideoView:
        """A video, to look at it."""
        return self.run.split(self.split).video(self.truth.videos[position].id)


class Runs:
    """The runs of a report, and the data that they were scored on, read once where they are equal."""

    def __init__(self) -> None:
        self._runs: dict[Path, RunView] = {}
        self._splits: dict[str, SplitView] = {}

    def find(self, label: str, cell: Cell) -> Scored | str:
        """What a cell was scored on, or why it has no cases.

        Raises:
            InspectionError, DataError, OSError: the data cannot be read any more.
        """
        if cell.run_dir not in self._runs:
            self._runs[cell.run_dir] = RunView(cell.run_dir)
        run = self._runs[cell.run_dir]
        name, _, part = cell.split.partition(" (")
        if cell.split in run.splits:
            name, part = cell.split, ""
        data = configuration.to_dict(run.config)["data"] | {"eval_splits": [name]}
        key = json.dumps(data, sort_keys=True, default=str)
        if key not in self._splits:
            self._splits[key] = run.split(name)
        split = self._splits[key]
        suffix = next((suffix for suffix in split.evaluation.parts if part == f"{PARTS[suffix]})"), None)
        truth = split.truth if suffix is None else split.evaluation.parts[suffix]
        if not split.has_truth:
            return "ground truth is hidden, so it has no cases"
        if part and suffix is None:
            return "a mean over parts, which have the cases"
        records = {record.video_id: record for record in split.source.videos}
        return Scored(
            label, cell, run, name, f"{key}{suffix}", truth, records, split.evaluation.parts, suffix
        )


def ranked(results: Results, video_id: int) -> list[Prediction]:
    """By falling score, equal scores in the order of the file: the places that errors and events name."""
    return sorted(results.videos.get(video_id, ()), key=lambda p: -p.score)


def name_of(key: Key) -> str:
    """How a number of all classes is called on the page: ``AP``, ``size/small/AP``."""
    return key.metric if key.by == ALL else f"{key.by}/{key.group}/{key.metric}"


def truth_of(one: Scored, scores: Scores) -> dict[str, Any]:
    """The ``videos`` of a ground truth in the order of its positions, and for each of the ``groups`` of its
    instances the videos that have some, as pairs of position and number of instances.
    """
    videos = []
    for video in one.truth.videos:
        record = one.records[video.id]
        videos.append(
            {
                "id": video.id,
                "name": video_name(record) if len(record) else str(video.id),
                "frames": video.num_frames,
                "instances": len(video.instances),
            }
        )
    counts = scores.group_counts.instances  # (V, groups)
    groups = {
        f"{group.by}/{group.name}": [[v, int(own[v])] for v in np.flatnonzero(own).tolist()]
        for group, own in zip(scores.groups, counts.T, strict=True)
    }
    return {"videos": videos, "groups": groups}


def numbers_by_video(scores: Scores) -> dict[str, Any]:
    """Numbers of every video alone: ``values`` of whole videos and oracle gaps; ``groups``, of the videos of
    each group of :func:`truth_of`.

    A video alone is a resample in which it is drawn once, and no other is.
    """
    num_videos = len(scores.ground_truth.videos)
    blocks = [
        resampled(scores, np.eye(min(BLOCK, num_videos - first), num_videos, first))
        for first in range(0, num_videos, BLOCK)
    ]
    found = {key: np.concatenate([block[key] for block in blocks]) for key in (blocks[0] if blocks else {})}
    first = scores.tracking[0].score_threshold
    whole = [name for name, value in scores.metrics.items() if value is not None]
    values: dict[str, list[float | None]] = {}
    groups: dict[str, list[float | None]] = {}
    for key, samples in found.items():
        if key.category != ALL or key.score_threshold not in (None, first):
            continue
        if (key.by == ALL and key.metric in whole) or key.by == BY_ORACLE:
            values[name_of(key)] = [_short(value) for value in samples]
        elif key.by in ATTRIBUTES and key.metric != "instances":
            there = found[Key("instances", by=key.by, group=key.group)] > 0
            groups[name_of(key)] = [_short(value) for value in samples[there]]
    return {"values": values, "groups": groups}


def _short(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), DIGITS)


def failures_of(one: Scored, results: Results, scores: Scores) -> dict[str, Any]:
    """``events`` and ``errors``, each of one video and one frame.

    Events are ``[video, kind, frame, last frame, instance, track before, track after, other instance]``, of
    whose kinds :data:`vistk.evaluation.explained.EVENTS` is the order. Errors are by kind, at most
    :data:`MOST` of each: ``[video, frame, class, prediction, score, instance, IoU]``.
    """
    diagnosis, events = scores.explained.diagnosis, scores.explained.events
    assert diagnosis is not None
    assert events is not None
    position = {video.id: v for v, video in enumerate(one.truth.videos)}
    names = list(one.truth.categories.values())
    errors: dict[str, list[ErrorRecord]] = {kind: [] for kind in (*ERRORS, "false_negatives")}
    for record in diagnosis.records:
        errors[record.kind].append(record)
    for found in diagnosis.videos:
        video_id = one.truth.videos[found.video].id
        errors["false_negatives"] += [
            ErrorRecord(video_id, "", names[found.instance_categories[g]], None, None, g, 0.0)
            for g in np.flatnonzero(found.counted & ~found.labels[0].found).tolist()
        ]

    def entry(record: ErrorRecord) -> list[Any]:
        video = one.truth.videos[position[record.video]]
        instance = None if record.instance is None else video.instances[record.instance].masks
        track = None if record.prediction is None else ranked(results, video.id)[record.prediction].masks
        return [
            position[record.video],
            _goes_wrong(track, instance, apart=record.kind in ("spatial", "temporal")),
            record.category,
            record.prediction,
            record.score,
            record.instance,
            round(record.iou, 4),
        ]

    best = {kind: sorted(own, key=lambda r: -(r.score or 0.0))[:MOST] for kind, own in errors.items()}
    return {
        "events": [
            [
                event.video,
                EVENTS.index((event.change, event.cause)),
                event.frame,
                event.last_frame,
                event.instance,
                event.from_track,
                event.to_track,
                event.other,
            ]
            for video in events
            for event in video
        ],
        "errors": {kind: [entry(record) for record in own] for kind, own in best.items()},
    }


def _goes_wrong(
    track: Sequence[RLE | None] | None, instance: Sequence[RLE | None] | None, *, apart: bool
) -> int:
    """The frame to look at: the first with a mask of the track, or of the instance that nobody found; where
    the two should be together but come ``apart``, the first in which they do not match.
    """
    if apart and track is not None and instance is not None:
        for t, (own, other) in enumerate(zip(track, instance, strict=True)):
            there = own is not None or other is not None
            if there and frame_iou([own], [other])[0, 0] < IOU_THRESHOLD:
                return t
    shown = track if track is not None else instance
    return next((t for t, rle in enumerate(shown or ()) if rle is not None), 0)
