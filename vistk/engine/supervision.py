"""To and from ``supervision.Detections``, the common type of detectors, annotators and box trackers.

:func:`to_supervision` hands tracks over; :func:`from_supervision` turns the detections of any detector into
what a tracker's ``step`` takes; :func:`link_detections` does so for a whole video and writes the track ids
back; :func:`prediction_from_supervision` makes detections with track ids a prediction to be evaluated.
What is lost on the way is said at each of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask

from vistk.engine.streamed_frame import StreamedFrame
from vistk.engine.tracker_answers import checked_frame, checked_video
from vistk.ops.masks import areas, decode, encode
from vistk.structures import RLE, FinishedMasks, FrameQueries, Tracklet, VideoPrediction
from vistk.trackers.base import Tracker
from vistk.trackers.motion import mask_boxes

LEAST = 1e-4  # probability: logits stay finite


class DetectionsError(ValueError):
    """Detections that cannot be used as they are; the message says what is missing."""


def _package() -> ModuleType:
    try:
        import supervision
    except ImportError as error:
        raise ImportError(
            f'to_supervision needs supervision ({error}): pip install -e ".[supervision]"'
        ) from error
    return supervision


def to_supervision(
    tracks: StreamedFrame | VideoPrediction, number: int | None = None, *, names: Sequence[str] = ()
) -> Any:
    """One frame's tracks as ``supervision.Detections``.

    ``xyxy`` are the edges of the mask's pixels (x2 and y2 are one past the last one), ``mask`` is
    ``(n, H, W)`` bool, ``tracker_id`` the track, ``class_id`` the contiguous class 0..K-1. ``confidence`` is
    the score of the track: so far for a streamed frame (``data["frame_score"]`` has that of the frame alone),
    over the whole video for a prediction (``data["category_id"]`` has the id of the data set). With
    ``names``, ``data["class_name"]`` has them.

    Left out are tracks without a pixel in this frame, the scores of other classes, and of a track that a
    prediction lists under several classes all but the best one.

    Args:
        tracks: a frame of a stream, or the prediction of a video.
        number: frame of the prediction, from 0; not given for a streamed frame.
        names: of the K classes.

    Raises:
        ImportError: supervision is not installed.
        DetectionsError: these are no tracks; a number is lacking or given in vain, or lies outside the video;
            a class has no name.
    """
    if not isinstance(tracks, StreamedFrame | VideoPrediction):
        raise DetectionsError(
            f"tracks is a {type(tracks).__name__}, expected a StreamedFrame or a VideoPrediction"
        )
    sv = _package()
    if isinstance(tracks, StreamedFrame):
        if number is not None:
            raise DetectionsError(f"number is {number}, but a streamed frame is one frame; expected none")
        rows = zip(
            tracks.rles,
            tracks.ids.tolist(),
            tracks.labels.tolist(),
            tracks.scores.tolist(),
            tracks.frame_scores.tolist(),
            strict=True,
        )
        return _detections(sv, tracks.size, list(rows), "frame_score", np.float64, names)
    length = len(tracks.tracklets[0].segmentations) if tracks.tracklets else None
    if number is None or number < 0 or (length is not None and number >= length):
        wanted = "0 or more" if length is None else f"0 to {length - 1}"
        raise DetectionsError(f"number is {number}, expected a frame of the video, {wanted}")
    best: dict[int, Tracklet] = {}
    for tracklet in sorted(tracks.tracklets, key=lambda tracklet: -tracklet.score):
        best.setdefault(tracklet.track_id, tracklet)
    ids = tracks.category_ids
    some = [
        (t.segmentations[number], t.track_id, t.label, t.score, ids[t.label] if ids else t.label + 1)
        for t in best.values()
    ]
    sizes = [rle["size"] for t in tracks.tracklets for rle in t.segmentations if rle is not None]
    size = (int(sizes[0][0]), int(sizes[0][1])) if sizes else (0, 0)
    return _detections(sv, size, some, "category_id", np.int64, names)


def _detections(
    sv: ModuleType,
    size: tuple[int, int],
    rows: Sequence[tuple[RLE | None, int, int, float, float]],
    extra: str,
    extra_type: type,
    names: Sequence[str],
) -> Any:
    """Rows of mask, track, label, score and one value more."""
    filled = areas([rle for rle, *_ in rows]) > 0
    rows = [row for row, kept in zip(rows, filled, strict=True) if kept]
    rles, ids, labels, scores, extras = zip(*rows, strict=True) if rows else ((), (), (), (), ())
    boxes = np.array([coco_mask.toBbox(rle) for rle in rles], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    data: dict[str, np.ndarray] = {extra: np.array(extras, dtype=extra_type)}
    if names:
        if max(labels, default=0) >= len(names):
            raise DetectionsError(f"names has {len(names)} entries, but there is a class {max(labels)}")
        data["class_name"] = np.array([names[label] for label in labels], dtype=str)
    return sv.Detections(
        xyxy=boxes,
        mask=np.stack([decode(rle) for rle in rles]) if rles else np.zeros((0, *size), dtype=bool),
        confidence=np.array(scores, dtype=np.float64),
        class_id=np.array(labels, dtype=np.int64),
        tracker_id=np.array(ids, dtype=np.int64),
        data=data,
    )


def from_supervision(
    detections: Any, size: tuple[int, int], num_classes: int, num_queries: int = 100
) -> FrameQueries:
    """The detections of one frame as queries that hand-made trackers can link.

    Query i is detection i; the others, up to ``num_queries``, are "no object" with an empty mask, since
    trackers with fixed slots want as many in every frame. The class of a detection gets its confidence, "no
    object" the rest; without confidence it is 1, without class 0. Boxes without masks become filled
    rectangles: the pixels whose centres they hold. ``vectors["box"]`` is what :class:`Kalman` looks at;
    query vectors and mask features there are none, so that trackers that look at appearance refuse them.

    Lost are the scores of other classes, fractions of pixels, boxes beside their masks, ``tracker_id``,
    ``data`` and ``metadata``. Confidence is kept within 0.0001 of 0 and 1.

    Args:
        size: height and width of the frame.
        num_classes: K.
        num_queries: Q, more than there are objects at any time.

    Raises:
        DetectionsError: more detections than queries, a class that is none of K, no classes at all, a mask of
            another size, or a confidence outside 0 to 1.
    """
    if num_classes < 1:
        raise DetectionsError(f"num_classes is {num_classes}, expected 1 or more")
    count = len(detections)
    if count > num_queries:
        raise DetectionsError(
            f"{count} detections in a frame, expected at most num_queries={num_queries}; keep those of "
            "higher confidence, or say more queries"
        )
    masks, labels, confidence = _masks(detections, size), _labels(detections), _confidence(detections)
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if len(wrong):
        raise DetectionsError(f"class_id is {wrong[0]}, expected 0 to {num_classes - 1}")
    probability = np.full((num_queries, num_classes + 1), LEAST)
    probability[:count, -1] = np.clip(1 - confidence, LEAST, 1 - LEAST)
    probability[count:, -1] = 1 - LEAST
    probability[np.arange(count), labels] = np.clip(confidence, LEAST, 1 - LEAST)
    rles: list[RLE | None] = list(encode(torch.from_numpy(masks)))
    area = torch.zeros(num_queries, dtype=torch.float64)
    area[:count] = torch.from_numpy(masks.sum((1, 2), dtype=np.float64))
    padded = [rle if pixels else None for rle, pixels in zip(rles, area.tolist(), strict=False)]
    boxes = torch.zeros(num_queries, 4)
    boxes[:count] = mask_boxes(torch.from_numpy(masks))
    return FrameQueries(
        torch.from_numpy(np.log(probability)).float(),
        {"box": boxes},
        masks=FinishedMasks((*padded, *[None] * (num_queries - count)), area.clone(), area),
    )


def link_detections(
    tracker: Tracker[Any],
    frames: Iterable[Any],
    size: tuple[int, int],
    num_queries: int = 100,
    num_classes: int = 1,
) -> list[Any]:
    """The detections of a video with the ``tracker_id`` that a hand-made tracker gives them.

    Args:
        tracker: one that looks at masks or boxes alone, such as mask-iou and kalman.
        frames: the detections of every frame; left as they are.
        size, num_queries, num_classes: see :func:`from_supervision`.

    Returns:
        Copies, all else unchanged.

    Raises:
        DetectionsError: see :func:`from_supervision`; names the frame.
        ValueError: the tracker looks at what detections do not have.
    """
    frames, state, answers = list(frames), tracker.start(), []
    with torch.inference_mode():
        for number, detections in enumerate(frames):
            try:
                queries = from_supervision(detections, size, num_classes, num_queries)
            except DetectionsError as error:
                raise DetectionsError(f"frame {number}: {error}") from error
            answer = tracker.step(state, queries)
            answers.append(checked_frame(tracker, answer, number, num_queries))
        answers = checked_video(tracker, tracker.finish(state), [num_queries] * len(frames)) or answers
    linked = []
    for detections, answer in zip(frames, answers, strict=True):
        ids = np.full(num_queries, -1, dtype=np.int64)
        shown = answer.query_index >= 0
        ids[answer.query_index[shown].numpy()] = answer.track_ids[shown].numpy()
        copy = detections[np.arange(len(detections))]
        copy.tracker_id = ids[: len(detections)]
        linked.append(copy)
    return linked


def prediction_from_supervision(
    frames: Sequence[Any], size: tuple[int, int], *, video_id: int = 1, category_ids: Sequence[int] = ()
) -> VideoPrediction:
    """The prediction of a video, for evaluation, from detections with ``tracker_id``.

    A track's class is the one with the greatest sum of confidence, its score the mean confidence of its
    detections; masks of boxes, missing confidence and class are as in :func:`from_supervision`.
    Detections with a ``tracker_id`` below 0, which is how trackers mark what they have not confirmed, are
    left out, and so are tracks without a pixel. Lost are the scores and classes of single frames, and
    ``data``.

    Args:
        frames: the detections of every frame, in order.
        size: height and width of the video.
        category_ids: data-set id of each class; empty = class + 1.

    Raises:
        DetectionsError: names the frame where there is no ``tracker_id``, where one comes twice, or what is
            wrong with masks, classes or confidence.
    """
    tracks: dict[int, dict[int, tuple[RLE | None, int, float]]] = {}
    for number, detections in enumerate(frames):
        try:
            found = zip(
                _track_ids(detections),
                encode(torch.from_numpy(_masks(detections, size))),
                _labels(detections).tolist(),
                _confidence(detections).tolist(),
                strict=True,
            )
        except DetectionsError as error:
            raise DetectionsError(f"frame {number}: {error}") from error
        for track, rle, label, confidence in found:
            if label < 0 or (category_ids and label >= len(category_ids)):
                most = f"to {len(category_ids) - 1}" if category_ids else "or more"
                raise DetectionsError(f"frame {number}: class_id is {label}, expected 0 {most}")
            if track < 0:
                continue
            if number in tracks.setdefault(track, {}):
                raise DetectionsError(f"frame {number}: tracker_id {track} comes twice, expected once")
            tracks[track][number] = (rle if areas([rle])[0] else None, label, confidence)
    tracklets = []
    for track, parts in tracks.items():
        sums: dict[int, float] = {}
        for _, label, confidence in parts.values():
            sums[label] = sums.get(label, 0.0) + confidence
        rles = tuple(parts[t][0] if t in parts else None for t in range(len(frames)))
        if any(rle is not None for rle in rles):
            label = max(sums, key=lambda label: (sums[label], -label))
            tracklets.append(Tracklet(track, label, sum(sums.values()) / len(parts), rles))
    tracklets.sort(key=lambda tracklet: -tracklet.score)
    return VideoPrediction(video_id, tuple(tracklets), tuple(category_ids))


def _masks(detections: Any, size: tuple[int, int]) -> np.ndarray:
    """``(n, H, W)`` bool, of boxes where there are no masks."""
    height, width = size
    if detections.mask is not None:
        masks = np.asarray(detections.mask).astype(bool)
        if len(detections) and masks.shape[1:] != (height, width):
            found = "x".join(map(str, masks.shape[1:]))
            raise DetectionsError(f"mask is of {found} pixels, the frame of {height}x{width} (height, width)")
        return masks.reshape(len(detections), height, width)
    x0, y0, x1, y1 = np.asarray(detections.xyxy, dtype=np.float64).reshape(-1, 4).T[..., None]
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    rows, columns = (y0 <= y) & (y < y1), (x0 <= x) & (x < x1)
    return rows[:, :, None] & columns[:, None, :]


def _labels(detections: Any) -> np.ndarray:
    if detections.class_id is None:
        return np.zeros(len(detections), dtype=np.int64)
    return _whole("class_id", detections.class_id)


def _confidence(detections: Any) -> np.ndarray:
    if detections.confidence is None:
        return np.ones(len(detections))
    confidence = np.asarray(detections.confidence, dtype=np.float64)
    wrong = confidence[~((confidence >= 0) & (confidence <= 1))]
    if len(wrong):
        raise DetectionsError(f"confidence is {wrong[0]:g}, expected 0 to 1")
    return confidence


def _track_ids(detections: Any) -> list[int]:
    if detections.tracker_id is None:
        if len(detections):
            raise DetectionsError(
                "the detections have no tracker_id, expected one for each; link_detections gives them"
            )
        return []
    ids: list[int] = _whole("tracker_id", detections.tracker_id).tolist()
    return ids


def _whole(name: str, given: Any) -> np.ndarray:
    """Whole numbers as int64, of any type that can say them."""
    values = np.asarray(given)
    if values.dtype.kind in "iu":
        return values.astype(np.int64)
    wrong = values
    if values.dtype.kind == "f":
        wrong = values[~np.isfinite(values) | (np.trunc(values) != values)]
    if len(wrong):
        raise DetectionsError(f"{name} is {wrong[0]}, expected whole numbers")
    return values.astype(np.int64)
