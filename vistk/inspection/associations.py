"""A tracker run again on one video of a run, with all that it decided by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from vistk.comparison import frame_readers, frame_targets, open_cache
from vistk.engine.finishing import FrameMasks, FrameSize, finish_masks
from vistk.engine.scores import VideoScores
from vistk.engine.shards import CacheError
from vistk.engine.windows import Window, segment_windows
from vistk.evaluation.clear import IOU_THRESHOLD
from vistk.evaluation.files import Prediction
from vistk.inspection.memory import MemoryContents, MemoryReader
from vistk.inspection.names import NOBODY, InspectionError, require_known
from vistk.inspection.run_view import VideoView
from vistk.ops.assignment import best_assignment
from vistk.ops.masks import frame_iou, iou_from_counts, tube_overlaps
from vistk.structures import RLE, FinishedMasks, FrameQueries, Masks, TrackedFrame, Tracklet
from vistk.trackers.association import class_scores
from vistk.trackers.base import Tracker

SAME_TUBE, SAME_SCORE = 0.95, 0.02
"""IoU of two tubes, and difference of their scores, that another device may make of one track."""


@dataclass(frozen=True)
class AssociationStep:
    """One frame on its way through a tracker: R tracks so far, Q queries, M tracks that were reported.

    Tracks have two numbers: the tracker's own, and the number of the row's :class:`Track` that they became,
    which is that of the pictures; ``NOBODY`` for those that are not among the results.
    """

    frame: int
    similarities: Mapping[str, np.ndarray]  # (R, Q) each; none in the first frame, or where there are none
    rows: np.ndarray  # (R,) int64, the tracker's numbers of the tracks in `similarities`
    row_numbers: np.ndarray  # (R,) int64, the same as they are in the results
    own_numbers: Mapping[int, int]  # of all tracks of the results, the tracker's; several may be one's
    track_ids: np.ndarray  # (M,) int64, the tracker's
    track_numbers: np.ndarray  # (M,) int64, as they are in the results
    query_index: np.ndarray  # (M,) int64, the query that a track took; -1 where the tracker made masks up
    vectors: Mapping[str, np.ndarray]  # (Q, C) each
    scores: np.ndarray  # (Q,) greatest class probability
    labels: np.ndarray  # (Q,) int64, the class of it, from 0
    masks: tuple[RLE | None, ...]  # Q
    truth_ids: np.ndarray  # (Q,) int64, the instance whose mask a query has; NOBODY for none
    memory: MemoryContents | None  # after the frame

    def chosen(self) -> dict[int, int]:
        """Query by track, in the tracker's numbers."""
        return dict(zip(self.track_ids.tolist(), self.query_index.tolist(), strict=True))


@dataclass
class _Frame:
    """What is known of a frame before the video has ended."""

    similarities: dict[str, np.ndarray]
    rows: np.ndarray
    tracked: TrackedFrame
    queries: FrameQueries
    masks: FinishedMasks
    size: FrameSize
    memory: MemoryContents | None


def trace(view: VideoView, row: str) -> list[AssociationStep]:
    """Segment a video again on the run's weights (or read the run's cache), and step a row's tracker.

    A tracker that rewrites the video at its end is said to have chosen what it said then.

    Raises:
        InspectionError: there is no such row, or the tracks are not those of the run's results: weights,
            data or code are others by now.
        CheckpointError: the weights of the run are not there.
    """
    run = view.split.run
    view.predictions(row)  # refuses unknown rows before anything is loaded
    models = run.models
    require_known("row", row, models.trackers, f"the trackers of {run.name}")
    tracker = models.trackers[row]
    state = tracker.start()
    frames = [_step(tracker, state, t, *given) for t, given in enumerate(_frames(view, row, tracker))]
    rewritten = tracker.finish(state)
    tracked = [frame.tracked for frame in frames] if rewritten is None else rewritten
    own_numbers = _own_numbers(view, row, *_tracklets(view, frames, tracked))
    number_of = {own: number for number, own in reversed(own_numbers.items())}
    return [
        AssociationStep(
            frame=t,
            similarities=frame.similarities,
            rows=frame.rows,
            row_numbers=_looked_up(number_of, frame.rows),
            own_numbers=own_numbers,
            track_ids=(ids := _array(said.track_ids)),
            track_numbers=_looked_up(number_of, ids),
            query_index=_array(said.query_index),
            vectors={name: _array(vector.float()) for name, vector in frame.queries.vectors.items()},
            scores=_array(class_scores(frame.queries.logits)),
            labels=_array(frame.queries.logits[..., :-1].argmax(-1)),
            masks=frame.masks.rles,
            truth_ids=_truth_ids(view, t, frame),
            memory=frame.memory,
        )
        for t, (frame, said) in enumerate(zip(frames, tracked, strict=True))
    ]


def _frames(
    view: VideoView, row: str, tracker: Tracker[Any]
) -> Iterator[tuple[FrameQueries, Masks, FrameSize, MemoryReader]]:
    """Each frame as the run's tracker was given it."""
    split, record = view.split, view.record
    targets = frame_targets(split.source, record) if tracker.uses_targets else None
    reader = MemoryReader()
    for window in _windows(view, row, tracker):
        for t, (described, masks) in enumerate(zip(window.frames, window.masks, strict=True), window.start):
            queries = described[row]
            if targets is not None:
                queries = replace(queries, targets=targets[t])
            yield queries, masks, window.size, reader


def _windows(view: VideoView, row: str, tracker: Tracker[Any]) -> Iterator[Window]:
    """The video from the run's cache where it is there, else through the segmenter."""
    split, record = view.split, view.record
    run, source = split.run, split.source
    config, segmenter, device = run.config, run.models.segmenter, run.accelerator.device
    size = (record.height, record.width)

    def segment(describers: Mapping[str, Tracker[Any]]) -> Iterator[Window]:
        readers = frame_readers(source, record, config.data)
        return segment_windows(segmenter, describers, readers, size, config.evaluation.window, device)

    if config.choices["cache"] != "off":
        reading = replace(config, choices={**config.choices, "cache": "read"})
        with run.silence():
            try:
                cache = open_cache(reading, segmenter, {row: tracker}, source, split.name, run.accelerator)
                assert cache is not None
                return cache.windows(record, {row: tracker}, segment)
            except CacheError:  # emptied since, or of a tracker whose queries are not stored
                pass
    return segment({row: tracker})


@torch.inference_mode()
def _step(
    tracker: Tracker[Any],
    state: Any,
    t: int,
    queries: FrameQueries,
    masks: Masks,
    size: FrameSize,
    reader: MemoryReader,
) -> _Frame:
    """The similarities that a tracker goes by, then what it decides."""
    finished = masks.finished() if isinstance(masks, FrameMasks) else masks
    if not isinstance(finished, FinishedMasks):
        finished = FinishedMasks(finished.rles, finished.probability_sum, finished.area)
    queries = replace(queries, masks=finished)
    found = {name: _array(x.float()) for name, x in tracker.similarities(state, queries).items()}
    count = len(next(iter(found.values()))) if found else 0
    own = tracker.tracks(state) if found else None
    rows = np.arange(count) if own is None else _array(own)
    tracked = tracker.step(state, queries)
    return _Frame(found, rows, tracked, queries, finished, size, reader.read(t, state, tracked))


def _tracklets(
    view: VideoView, frames: list[_Frame], tracked: list[TrackedFrame]
) -> tuple[tuple[Tracklet, ...], float]:
    """What the run made of these answers, with the tracker's numbers; and the score below which there may be
    others that the run left out, as it keeps so many.
    """
    config = view.split.run.config.evaluation
    scores = VideoScores(len(frames))
    for t, (frame, said) in enumerate(zip(frames, tracked, strict=True)):
        own = None if said.mask_logits is None else finish_masks(said.mask_logits, frame.size)
        scores.add(t, said, own)
    kept = scores.tracks(config.keep_top)
    for t, frame in enumerate(frames):
        scores.take(t, kept, frame.masks)
    best = scores.best(config.keep_top)
    cut = best[-1][0] if len(best) == config.keep_top else 0.0
    return scores.tracklets(config.keep_top, config.rescore), cut


def _own_numbers(view: VideoView, row: str, tracklets: tuple[Tracklet, ...], cut: float) -> dict[int, int]:
    """The tracker's number of each of the row's tracks, by its number, the best first.

    Results and what was tracked now are matched one to one, in each class. On another device the numbers
    may differ by a little, so whoever is next to a limit may be missing on either side.

    Raises:
        InspectionError: a track of either side is not among those of the other.
    """
    predictions, numbers = view.predictions(row), view.numbers(row)
    likeness = _likeness(view, tracklets, predictions)
    pairs = [
        (i, d)
        for i, d in zip(*(x.tolist() for x in best_assignment(torch.from_numpy(likeness))), strict=True)
        if likeness[i, d] > 0
    ]
    own_number = {d: tracklets[i].track_id for i, d in pairs}
    found = {i for i, _ in pairs}
    again = f"{view.split.run.name}: tracking video {view.video_id} of {view.split.name} again, {row}"
    limit = max(view.track_score, cut) + SAME_SCORE
    for d, prediction in enumerate(predictions):
        if prediction.score >= limit and d not in own_number:
            raise InspectionError(
                f"{again} does not make the track of score {prediction.score:.2f} that its results have; "
                "weights, data, code or results are others by now"
            )
    for i, tracklet in enumerate(tracklets):
        if tracklet.score >= limit and i not in found:
            raise InspectionError(
                f"{again} makes a track of score {tracklet.score:.2f} that its results do not have; "
                "weights, data, code or results are others by now"
            )
    return {numbers[d]: own_number[d] for d in sorted(own_number)}  # by falling score


def _likeness(
    view: VideoView, tracklets: Sequence[Tracklet], predictions: Sequence[Prediction]
) -> np.ndarray:
    """``(len(tracklets), len(predictions))``, 0 for pairs that are not one track."""
    if not tracklets or not predictions:
        return np.zeros((len(tracklets), len(predictions)))
    tubes, others = [t.segmentations for t in tracklets], [p.masks for p in predictions]
    shared, area, other_area = tube_overlaps(tubes, others, len(view))
    iou = iou_from_counts(shared.sum(0), area.sum(0), other_area.sum(0))
    # In a long tube a frame weighs little, but a track that leaves its object there is another one.
    there = (area[:, :, None] > 0) | (other_area[:, None] > 0)
    same_frames = (~there | (iou_from_counts(shared, area, other_area) >= IOU_THRESHOLD)).all(0)
    category_ids = np.array(view.split.source.category_ids)
    same_class = category_ids[[t.label for t in tracklets], None] == [p.category_id for p in predictions]
    difference = np.abs(np.subtract.outer([t.score for t in tracklets], [p.score for p in predictions]))
    same = same_class & same_frames & (iou >= SAME_TUBE) & (difference <= SAME_SCORE)
    return np.where(same, 1 + iou - difference, 0.0)


def _truth_ids(view: VideoView, t: int, frame: _Frame) -> np.ndarray:
    """``(Q,)``: the instance of each query, at most one query an instance.

    Pairs have a mask IoU of at least 0.5; of several queries with one object's mask, the better scored
    one is meant, so IoU counts times class score.
    """
    out = np.full(len(frame.masks), NOBODY, dtype=np.int64)
    shown: list[RLE | None] = [track.rles[t] for track in view.truth]
    if not len(out) or not shown:
        return out
    iou = frame_iou(frame.masks.rles, shown)
    value = np.where(iou >= IOU_THRESHOLD, iou, 0.0) * _array(class_scores(frame.queries.logits))[:, None]
    query, instance = (x.numpy() for x in best_assignment(torch.from_numpy(value)))
    good = value[query, instance] > 0
    out[query[good]] = np.array([view.truth[g].id for g in instance[good]], dtype=np.int64)
    return out


def _looked_up(number_of: Mapping[int, int], ids: np.ndarray) -> np.ndarray:
    return np.array([number_of.get(i, NOBODY) for i in ids.tolist()], dtype=np.int64)


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()
